"""The cells of a notebook that are about a library stand alone: without `tutorial_utils`, and without the other cells.

A cell with the tag `library` is one that a reader may copy. `strangers` reads them and lists the names that they lack.
`run` runs all of them, in order, in a fresh Python process in which importing `tutorial_utils` fails. Files that they
read are made before, by the cells with the tag `library-files`, which may use the package, in a process of their own.
The second process starts in the folder where the first one ended.
"""

import builtins
import dis
import json
import os
import subprocess
import symtable
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from tutorial_utils.authoring.notebook_form import cell_name, tags
from tutorial_utils.base.paths import CACHE_VARIABLE, ROOT

TAG, FILES_TAG = "library", "library-files"

# What each process runs: cells as (name, file, whether it must raise), in one namespace, as a notebook does. Libraries
# read source by a code's file name. Processes of multiprocessing import the program again, and must not run the cells.
_PROGRAM = """
import json, os, sys, traceback

def run(cells, is_blocked, end):
    if is_blocked:
        sys.modules["tutorial_utils"] = None  # also where a cell adds the course's folder to sys.path
    namespace = {"__name__": "__main__"}
    for name, file, must_raise in cells:
        print(f"\\nRunning {name}", file=sys.stderr, flush=True)
        try:
            exec(compile(open(file, encoding="utf-8").read(), file, "exec"), namespace)
        except BaseException as error:
            if not must_raise:
                traceback.print_exc()
                sys.exit(f"{name} failed: {type(error).__name__}: {error}")
        else:
            if must_raise:
                sys.exit(f"{name} is tagged raises-exception, and nothing was raised")
    with open(end, "w", encoding="utf-8") as file:
        file.write(os.getcwd())

if __name__ == "__main__":
    run(*json.load(open(sys.argv[1], encoding="utf-8")))
"""
# The same for processes that a cell starts, such as `python -m tutorial_utils`: found before the installed package.
_BLOCKED = 'raise ImportError("tutorial_utils is not there: a cell with the tag library stands alone")'


class LibraryCellsError(AssertionError):
    """A cell failed; it names the cell, and ends with what the process printed."""


def tagged(notebook: NotebookNode, tag: str = TAG) -> dict[str, NotebookNode]:
    """Return the code cells that carry a tag, in order, by the name that messages give them."""
    found = {cell_name(notebook, i): cell for i, cell in enumerate(notebook.cells) if tag in tags(cell)}
    assert all(cell.cell_type == "code" for cell in found.values()), f"Only code cells may have the tag {tag}: {found}"
    return found


def strangers(notebook: NotebookNode) -> list[str]:
    """Return what library cells name, and no library cell before them defines: the package, or names of other cells.

    Functions may use what their own cell defines below them. A name that another cell assigns anew is that cell's.

    Raises:
        SyntaxError: A library cell isn't plain Python.
    """
    known, found = {*dir(builtins), "__name__"}, []
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        if TAG not in tags(cell):
            source = TransformerManager().transform_cell(cell.source)
            symbols = symtable.symtable(source, "cell", "exec").get_symbols()
            known -= {one.get_name() for one in symbols if one.is_assigned() and not one.is_imported()}
            continue
        code, lacking = compile(cell.source, "cell", "exec"), []
        for step in dis.get_instructions(code):
            if step.opname == "LOAD_NAME" and step.argval not in known:
                lacking.append(step.argval)
            elif step.opname == "STORE_NAME":
                known.add(step.argval)
        for inner in _inner(code):
            steps = list(dis.get_instructions(inner))
            own = {step.argval for step in steps if step.opname == "STORE_NAME"}  # of a class's body
            loaded = {step.argval for step in steps if step.opname in ("LOAD_NAME", "LOAD_GLOBAL")}
            lacking += sorted(loaded - known - own)
        if "tutorial_utils" in cell.source:  # imported, or called by a command
            lacking.append("tutorial_utils")
        found += [f"{cell_name(notebook, index)}: {name}" for name in lacking]
    return found


def _inner(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of functions, classes and comprehensions."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _inner(constant)


def run(
    notebook: NotebookNode, folder: Path, gpu: bool = False, seconds: float = 600, networks_cache: Path | None = None
) -> None:
    """Run a notebook's library cells in an empty folder; those with the tag `gpu`, too, only if `gpu` is true.

    Networks come from `networks_cache`, and are trained into it. Lessons write to folders of the cache, at times from
    another process at the same time: these cells have such folders to themselves.

    Raises:
        LibraryCellsError: A cell failed, or took longer than `seconds` together with the others.
    """
    start = folder / "files"
    start.mkdir()
    cache = folder / "cache"
    cache.mkdir()
    if networks_cache:
        for name in ("models", "onnx"):
            (networks_cache / name).mkdir(exist_ok=True)
            (cache / name).symlink_to(networks_cache / name)
    start = _process(tagged(notebook, FILES_TAG), folder, start, False, seconds)
    cells = {name: cell for name, cell in tagged(notebook).items() if gpu or "gpu" not in tags(cell)}
    _process(cells, folder, start, True, seconds)


def _process(cells: dict[str, NotebookNode], folder: Path, start: Path, is_blocked: bool, seconds: float) -> Path:
    """Run cells in one process that starts in a folder; return the folder where it ended."""
    kind = "library" if is_blocked else "files"
    program, content, end = (folder / f"{kind}.{ending}" for ending in ("py", "json", "end"))
    program.write_text(_PROGRAM, encoding="utf-8")
    listed = []
    for number, (name, cell) in enumerate(cells.items(), 1):
        source = folder / f"{kind}_cell_{number}.py"
        source.write_text(cell.source, encoding="utf-8")
        listed.append([name, str(source), "raises-exception" in tags(cell)])
    content.write_text(json.dumps([listed, is_blocked, str(end)]), encoding="utf-8")
    path = ROOT
    if is_blocked:
        path = folder / "blocked"
        (path / "tutorial_utils").mkdir(parents=True)
        (path / "tutorial_utils" / "__init__.py").write_text(_BLOCKED, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(path), "MPLBACKEND": "agg", CACHE_VARIABLE: str(folder / "cache")}
    command = [sys.executable, str(program), str(content)]
    try:
        ran = subprocess.run(
            command, cwd=start, env=environment, capture_output=True, text=True, errors="replace", timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise LibraryCellsError(f"The cells took longer than {seconds} s: {', '.join(cells)}") from error
    if ran.returncode:
        raise LibraryCellsError(f"exit status {ran.returncode}\n{ran.stdout[-1000:]}\n{ran.stderr[-3000:]}")
    return Path(end.read_text(encoding="utf-8"))
