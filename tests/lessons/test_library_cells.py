"""Cells with the tag `library` run without `tutorial_utils`: those of every lesson, and small ones that must fail."""

from pathlib import Path

import pytest
from lessons.library_cells import FILES_TAG, TAG, LibraryCellsError, run, tagged
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tutorial_utils.authoring import notebook_form
from tutorial_utils.machine.capabilities import probe

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
TAGGED = [path for path in sorted(NOTEBOOKS.rglob("[0-9]*.ipynb")) if tagged(notebook_form.read(path))]


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
    message = failure(tmp_path, cell(source, TAG))
    assert "tutorial_utils" in message
    assert f"cell 7 (`{source.partition(chr(10))[0]}`) failed" in message


def test_name_from_an_untagged_cell_fails(tmp_path):
    message = failure(tmp_path, cell("# uses it\nprint(hidden)", TAG))
    assert "cell 7 (`# uses it`) failed: NameError: name 'hidden' is not defined" in message
    assert "print(hidden)" in message  # the line, in the traceback


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


def test_the_notebook_gets_what_its_library_cells_trained(tmp_path):
    kept, folder = tmp_path / "kept", tmp_path / "run"
    kept.mkdir()
    folder.mkdir()
    start = cell("import os\nfrom tutorial_utils.base import paths\n\nos.chdir(paths.cache_dir('lesson01'))", FILES_TAG)
    train = cell("for name in ('net.pdparams', 'other'):\n    open(name, 'w').write('trained')", TAG)
    run(new_notebook(cells=[start, train]), folder, networks_cache=kept)
    assert [path.read_text() for path in kept.glob("lesson01/*")] == ["trained"]


def test_cells_that_never_end_are_stopped(tmp_path):
    with pytest.raises(LibraryCellsError, match=r"longer than 2 s: .*while True"):
        run(new_notebook(cells=[cell("while True: pass", TAG)]), tmp_path, seconds=2)
