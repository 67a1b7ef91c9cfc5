import os
import subprocess

import pytest

from tutorial_utils.base import child_process, paths
from tutorial_utils.base.errors import InputError


def raise_input_error():
    raise InputError("Cause.", "Remedy.")


def test_result_comes_from_another_process():
    assert child_process.run(os.getpid) != os.getpid()


def test_arguments_travel():
    assert child_process.run(sorted, [2, 3, 1], reverse=True) == [3, 2, 1]


def test_error_is_raised_here():
    with pytest.raises(InputError, match="Cause"):
        child_process.run(raise_input_error)


def test_process_that_dies():
    with pytest.raises(subprocess.CalledProcessError):
        child_process.run(os.abort)


def test_environment_is_this_process(tmp_path, monkeypatch):
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path))
    assert child_process.run(paths.cache_dir) == tmp_path


def test_folders_that_come_first(monkeypatch):
    monkeypatch.setattr("sys.path", ["", "/last"])
    path = child_process.environment("/first", "", PYTHONPATH="/ignored")["PYTHONPATH"]
    assert path.split(os.pathsep) == ["/first", str(paths.ROOT), "/last"]


def print_below_python_and_die():
    os.write(2, os.environ["COURSE_TEST"].encode())
    os.abort()


def test_log_of_a_process_that_dies(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(subprocess.CalledProcessError):
        child_process.run_with_log(log, {"COURSE_TEST": "last words"}, print_below_python_and_die)
    assert log.read_text() == "last words"
    assert child_process.run_with_log(log, {}, os.getpid) != os.getpid()
    assert log.read_text() == ""


@pytest.mark.parametrize(
    ("status", "words"), [(0, "exit status 0"), (3, "exit status 3"), (-6, "SIGABRT"), (-40, "signal 40")]
)
def test_how_a_process_ended(status, words):
    assert child_process.ending(status) == words
