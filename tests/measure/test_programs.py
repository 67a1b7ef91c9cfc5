"""Programs that answer in lines of JSON: answers, endings and logs, of programs that fail and die as well."""

import pytest

from tutorial_utils.measure import programs

PROGRAM = """
import json, os, sys
print(json.dumps({"first": 1}), flush=True)
print("--- not JSON", flush=True)
print("[1, 2]", flush=True)
sys.stderr.write("a warning, level " + os.environ["GLOG_minloglevel"])
sys.stderr.flush()
if sys.argv[1] == "die":
    os.abort()
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def test_answers_and_log(script):
    ended = programs.run(script, 3)
    assert (ended.status, ended.ending) == (3, "exit status 3")
    assert ended.answers == [{"first": 1}]
    assert ended.log == "a warning, level 0"
    assert ended.printed == "--- not JSON\n[1, 2]"


def test_a_program_that_dies_keeps_its_answers(script):
    ended = programs.run(script, "die")
    assert ended.ending == "SIGABRT"
    assert ended.answers == [{"first": 1}]
    assert ended.log.startswith("a warning")


def test_programs_find_the_package(tmp_path):
    path = tmp_path / "program.py"
    path.write_text("import json, tutorial_utils\nprint(json.dumps({'file': tutorial_utils.__file__}))")
    import tutorial_utils

    assert programs.run(path).answers == [{"file": tutorial_utils.__file__}]
