"""Each trap of nbval as a small notebook, which the conftest.py of the root must give the right outcome."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]

CHECK = "# NBVAL_CHECK_OUTPUT\n"
PRINT_WARNING_AND_TABLE = """
import sys
from IPython.display import display
print("new warning", file=sys.stderr)
display({"text/plain": "7", "text/html": "<b>new</b>"}, raw=True)
"""
SHOW_ORIGIN = """
from tutorial_utils.measure import recordings
recordings.live("latency")
"""
# The kernel starts in the notebook's folder. Two notebooks leave there which process ran them, and with which cache.
LEAVE_CACHE = """
import os
from pathlib import Path
Path(os.environ["PYTEST_XDIST_WORKER"] + ".cache").write_text(os.environ["TUTORIAL_UTILS_CACHE"])
"""


def cell(source, *outputs, count=1, tags=()):
    return new_code_cell(source, outputs=list(outputs), execution_count=count, metadata={"tags": list(tags)})


def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def shown(data):
    return new_output("display_data", data=data)


OLD_TABLE = {"text/plain": "7", "text/html": "<b>old</b>"}
OLD_ORIGIN = {"text/plain": "RECORDING: latency", "application/vnd.tutorial-origin+json": {"origin": "recording"}}
NOTEBOOKS = {
    "passes": [
        cell(CHECK + "import os\n_ = os.system('echo native')", printed("native\n")),
        cell(CHECK + "1 + 1;"),
        cell(CHECK + PRINT_WARNING_AND_TABLE, printed("old warning", name="stderr"), shown(OLD_TABLE)),
        cell(CHECK + SHOW_ORIGIN, shown(OLD_ORIGIN)),
        cell("import tutorial_utils"),
        cell("import os\nassert os.environ['TUTORIAL_UTILS_PROGRESS'] == '0'"),
        cell("1 / 0", tags=["raises-exception"]),
        cell(LEAVE_CACHE),
    ],
    "stale_output": [cell(CHECK + "print(1)", printed("2\n"))],
    "unrecorded_output": [cell(CHECK + "print(1)", count=None)],
    "nothing_raised": [cell("pass", tags=["raises-exception"])],
    "dead_kernel": [cell("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")],
    "first_cell_fails": [cell("1 / 0"), cell("pass")],
    "needs_gpu": [cell("raise RuntimeError", tags=["gpu"]), cell("pass"), cell(LEAVE_CACHE)],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="module")
def outcomes(folder):
    """Run pytest over all notebooks, in two processes as `make test` does; return the outcome of each cell."""
    for name, cells in NOTEBOOKS.items():
        nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    report = folder / "report.xml"
    options = ["-p", "conftest", "--color=no", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=20"]
    options += ["-n", "2", "--dist", "loadfile", f"--junitxml={report}"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", folder / "pytest.ini", *options, folder],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # the same on a machine with a GPU
        capture_output=True,
        text=True,
    )
    print(run.stdout, run.stderr)
    outcomes = {name: [] for name in NOTEBOOKS}
    for case in ElementTree.parse(report).iter("testcase"):
        notebook = case.get("classname").rpartition("/")[2].removesuffix(".ipynb")
        unusual = case.find("failure") if case.find("failure") is not None else case.find("skipped")
        if unusual is None:
            outcomes[notebook].append("passed")
        else:
            outcomes[notebook].append(f"{unusual.tag}: {unusual.get('message')} {unusual.text}")
    return outcomes


PASSING_CELLS = {
    0: "native output is captured, as in Jupyter",
    1: "a trailing semicolon hides the result",
    2: "stderr and HTML are not compared",
    3: "whether a result is live or recorded is not compared",
    4: "the package is importable from any folder",
    5: "progress bars are off",
    6: "an expected exception passes",
}


@pytest.mark.parametrize("number", PASSING_CELLS, ids=PASSING_CELLS.values())
def test_cell_passes(outcomes, number):
    assert outcomes["passes"][number] == "passed"


@pytest.mark.parametrize(
    ("notebook", "message"),
    [
        ("stale_output", "Cell outputs differ"),
        ("unrecorded_output", "none is recorded"),
        ("nothing_raised", "nothing was raised"),
        ("dead_kernel", "The kernel died"),
        ("first_cell_fails", "ZeroDivisionError"),
    ],
)
def test_cell_fails(outcomes, notebook, message):
    outcome = outcomes[notebook][0]
    assert outcome.startswith("failure")
    assert message in outcome


def test_cells_after_a_failed_one_are_skipped(outcomes):
    assert outcomes["first_cell_fails"][1].startswith("skipped: Cell 0 of this notebook failed")


def test_all_kernels_have_one_cache_which_is_not_the_users(outcomes, folder):
    left = {path.stem: path.read_text() for path in folder.glob("*.cache")}
    assert sorted(left) == ["gw0", "gw1"]
    assert left["gw0"] == left["gw1"] != os.environ["TUTORIAL_UTILS_CACHE"]


def test_gpu_cell_is_skipped_without_a_gpu_and_the_rest_runs(outcomes):
    assert outcomes["needs_gpu"][0].startswith("skipped")
    assert outcomes["needs_gpu"][1] == "passed"
