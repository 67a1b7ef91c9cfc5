"""Calls of the package's functions fit them, by mypy; and Python's own library has what is called, in each version.

Experiments and cells for a GPU are checked with the rest: what doesn't run here would break unseen.
Types of arguments are not compared: what `**options` holds, for one, is more than mypy can tell.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).parents[1]
NOTEBOOKS = [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "notebooks" / "solutions").glob("*.ipynb")]
OLDEST, NEWEST = "3.10", "3.12"

# Mistakes, and what must be said of them.
PROBES = {
    "polygraphy_cli.run_all([], 'folder', at_once=4)": 'Unexpected keyword argument "at_once" for "run_all"',
    "polygraphy_cli.run_all()": 'Missing positional arguments "commands", "folder" in call to "run_all"',
    "polygraphy_cli.run_all([], 'folder', 1, 2, 3, 4, 5)": 'Too many arguments for "run_all"',
    "polygraphy_cli.no_such_function": 'Module has no attribute "no_such_function"',
    "experiment.find('lesson04_polygraphy').no_such_name": '"Experiment[Any]" has no attribute "no_such_name"',
    "experiment.find('lesson04_polygraphy').make_models()": "Too few arguments",
    "experiment.Experiment(no_such_field=1)": 'Unexpected keyword argument "no_such_field" for "Experiment"',
}
START = "from tutorial_utils.debug import polygraphy_cli\nfrom tutorial_utils.measure import experiment\n"


class Finding(NamedTuple):
    """One error that mypy reports."""

    file: str
    line: int
    message: str
    kind: str


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """A folder with each notebook as a module, `notebook_NAME.py` or `solution_NAME.py`, and `probe.py`."""
    folder = tmp_path_factory.mktemp("modules")
    for path in NOTEBOOKS:
        cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        kind = "solution" if path.parent.name == "solutions" else "notebook"
        text = "\n".join(map(TransformerManager().transform_cell, cells))
        (folder / f"{kind}_{path.stem}.py").write_text(text)
    (folder / "probe.py").write_text(START + "\n".join(PROBES))
    return folder


@pytest.fixture(scope="module")
def findings(modules):
    """By version of Python, what mypy finds in the package, the benchmarks, the notebooks and the probes."""

    def check(python):
        command = [sys.executable, "-m", "mypy", "--config-file=", "--cache-dir", os.devnull, "--no-error-summary"]
        command += ["--python-version", python, "--follow-imports", "skip", "--ignore-missing-imports"]
        command += ["--check-untyped-defs", "tutorial_utils", "benchmarks", *map(str, modules.glob("*.py"))]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.stderr == ""
        rows = re.findall(r"^(.+?):(\d+): error: (.*)  \[([\w-]+)\]$", done.stdout, re.MULTILINE)
        return [Finding(file, int(line), *rest) for file, line, *rest in rows]

    return {python: check(python) for python in (OLDEST, NEWEST)}


def test_python_has_what_is_called_in_its_oldest_version(findings):
    """mypy knows Python's own library by version."""
    kinds = ("call-overload", "call-arg", "attr-defined")
    found, newest = ({one for one in findings[python] if one.kind in kinds} for python in (OLDEST, NEWEST))
    assert found - newest == set()


def test_calls_of_the_package_fit(findings):
    wrong = [one for one in findings[NEWEST] if one.kind in ("call-arg", "attr-defined")]
    assert [one for one in wrong if one.file.startswith(("tutorial_utils", "benchmarks"))] == []


def test_calls_of_the_notebooks_fit(findings):
    """Of a name that another cell gives to something else, mypy knows the first use: its attributes are left out."""
    notebooks = [one for one in findings[NEWEST] if Path(one.file).name.startswith(("notebook_", "solution_"))]
    wrong = [one for one in notebooks if one.kind == "call-arg" or one.message.startswith("Module has no attribute")]
    lines = [((ROOT / one.file).read_text().splitlines()[one.line - 1], one) for one in wrong]
    assert lines == []


@pytest.mark.parametrize("probe", PROBES)
def test_a_wrong_call_is_found(probe, findings):
    line = START.count("\n") + list(PROBES).index(probe) + 1
    (found,) = [one for one in findings[NEWEST] if (Path(one.file).name, one.line) == ("probe.py", line)]
    assert PROBES[probe] in found.message
    assert found.kind in ("call-arg", "attr-defined")
