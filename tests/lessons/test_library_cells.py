"""Cells with the tag `library` stand alone, without `tutorial_utils`: those of each lesson, and small ones that fail.

Of every lesson they are read: each name that they use is one of theirs. `make test-library` also runs them, which shows
that no file or object that they use was made or changed by another cell. It takes minutes: some build networks of full
size.
"""

from pathlib import Path

import pytest
from lessons.library_cells import FILES_TAG, TAG, LibraryCellsError, run, strangers, tagged
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tutorial_utils.authoring import notebook_form
from tutorial_utils.machine.capabilities import probe

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
TAGGED = [path for path in sorted(NOTEBOOKS.rglob("[0-9]*.ipynb")) if tagged(notebook_form.read(path))]


@pytest.mark.parametrize("path", TAGGED, ids=lambda path: path.stem)
def test_library_cells_of_a_notebook_name_nothing_of_others(path):
    assert strangers(notebook_form.read(path)) == []


@pytest.mark.library
@pytest.mark.parametrize("path", TAGGED, ids=lambda path: path.stem)
def test_library_cells_of_a_notebook_stand_alone(path, tmp_path, notebooks_cache):
    gpu = probe().tensorrt_run.available
    run(notebook_form.read(path), tmp_path, gpu, networks_cache=notebooks_cache)


# --- the runner itself -----------------------------------------------------------------------------------------------


def cell(source, *tags):
    return new_code_cell(source, metadata={"tags": list(tags)})


def notebook(*last):
    """A lesson whose library cells stand alone, and after them the given cells."""
    return new_notebook(
        cells=[
            new_markdown_cell("# A lesson"),
            cell("from tutorial_utils.base import paths\nhidden = 3"),
            cell(
                "import os\nfrom tutorial_utils.base import paths\n\nos.makedirs('made', exist_ok=True)\n"
                "os.chdir('made')\nassert paths.ROOT\nopen('number.txt', 'w').write('42')",
                FILES_TAG,
            ),
            cell("import math\n\nnumber = int(open('number.txt').read())", TAG),
            cell("unrelated = hidden"),
            cell("def root():\n    return math.sqrt(number)\n\n\nassert round(root()) == 6", TAG),
            *last,
        ]
    )


def failure(folder, *last):
    with pytest.raises(LibraryCellsError) as caught:
        run(notebook(*last), folder, seconds=60)
    return str(caught.value)


def test_cells_that_stand_alone_pass(tmp_path):
    run(
        notebook(
            cell("assert root() > 6\nopen('made by a cell', 'w').close()", TAG),
            cell("import inspect\n\nassert 'sqrt' in inspect.getsource(root)", TAG),
            cell("from multiprocessing import get_context\n\nget_context('spawn').Pool(1).map(abs, [1])", TAG),
            cell("raise ValueError('shown')", TAG, "raises-exception"),
            cell("1 / 0", TAG, "gpu"),
        ),
        tmp_path,
    )
    assert (tmp_path / "files" / "made" / "made by a cell").exists()


@pytest.mark.parametrize(
    "source",
    [
        "from tutorial_utils import engine",
        "import importlib\n\nimportlib.import_module('tutorial_utils.engine')",
        f"import sys\n\nsys.path.insert(0, {str(NOTEBOOKS.parent)!r})\nimport tutorial_utils",
        "import subprocess, sys\n\nsubprocess.run([sys.executable, '-c', 'import tutorial_utils'], check=True)",
        "import subprocess, sys\n\nsubprocess.run([sys.executable, '-m', 'tutorial_utils', 'doctor'], check=True)",
    ],
    ids=["import", "import_module", "path", "process", "command"],
)
def test_use_of_the_package_fails(tmp_path, source):
    assert [one for one in strangers(notebook(cell(source, TAG))) if one.endswith(": tutorial_utils")]
    message = failure(tmp_path, cell(source, TAG))
    assert "tutorial_utils" in message
    assert f"cell 7 (`{source.partition(chr(10))[0]}`) failed" in message


def test_name_from_an_untagged_cell_fails(tmp_path):
    message = failure(tmp_path, cell("# uses it\nprint(hidden)", TAG))
    assert "cell 7 (`# uses it`) failed: NameError: name 'hidden' is not defined" in message
    assert "print(hidden)" in message  # the line, in the traceback


@pytest.mark.parametrize(
    ("last", "name"),
    [
        ([cell("print(hidden)", TAG)], "hidden"),
        ([cell("def shown():\n    return [hidden for _ in 'ab']", TAG)], "hidden"),
        ([cell("class Shown:\n    one = 1\n    two = one + hidden", TAG)], "hidden"),
        ([cell("shown = lambda: hidden", TAG)], "hidden"),
        ([cell("hidden = hidden + 1", TAG)], "hidden"),
        ([cell("print(os.getcwd())", TAG)], "os"),  # imported for the files alone
        ([cell("number = 43"), cell("print(number)", TAG)], "number"),
        ([cell("for number in (1, 2):\n    %time pass"), cell("print(number)", TAG)], "number"),
    ],
)
def test_a_name_of_another_cell_is_found_by_reading(last, name):
    (found,) = strangers(notebook(*last))
    assert found.startswith(f"cell {6 + len(last)} (")
    assert found.endswith(f": {name}")


def test_names_of_their_own_are_no_strangers():
    source = "def even(n):\n    return not n or odd(n - 1)\n\n\ndef odd(n):\n    return n and even(n - 1)"
    last = [cell(source, TAG), cell("import math"), cell("assert even(math.floor(root()))", TAG)]
    assert strangers(notebook(*last)) == []


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (cell("%matplotlib inline", TAG), "SyntaxError"),
        (cell("open('other.txt')", TAG), "FileNotFoundError"),
        (cell("'fine'", TAG, "raises-exception"), "nothing was raised"),
        (cell("import sys\n\nsys.exit(0)", TAG), "SystemExit"),
        (cell("import os\n\nos._exit(3)", TAG), "exit status 3"),
        (cell("1 / 0", FILES_TAG), "ZeroDivisionError"),
    ],
)
def test_other_failures_are_told(tmp_path, last, words):
    message = failure(tmp_path, last)
    assert words in message
    assert "Running cell 7" in message


def test_gpu_cells_run_where_there_is_one(tmp_path):
    with pytest.raises(LibraryCellsError, match="ZeroDivisionError"):
        run(notebook(cell("1 / 0", TAG, "gpu")), tmp_path, gpu=True)


def test_cells_that_never_end_are_stopped(tmp_path):
    with pytest.raises(LibraryCellsError, match=r"longer than 2 s: .*while True"):
        run(new_notebook(cells=[cell("while True: pass", TAG)]), tmp_path, seconds=2)
