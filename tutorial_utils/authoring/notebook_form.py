"""The one form in which notebooks are committed: executed from top to bottom, and without traces of one machine.

``python -m tutorial_utils.authoring.notebook_form [--fix] [NOTEBOOK ...]`` names every place where a notebook departs
from it. What is layout (indentation, metadata, cell ids) ``--fix`` repairs; what is content takes an author.
"""

import argparse
import itertools
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import nbformat
from nbformat import NotebookNode

from tutorial_utils.base.errors import LessonError
from tutorial_utils.base.paths import replacing

NOTEBOOKS = Path("notebooks")  # seen from the root folder of the course
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = ("jupyter", "tags")  # folded cells, and what nbval reads; all else changes from save to save

ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
MACHINE_PATH = re.compile(
    r"(?<![\w.~-])/(?:home|root|Users|tmp|var|mnt|opt|srv|private|work|workspaces?|content)/[^\s'\"<>(),;:]+"
)
MEMORY_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")
TIME_OF_DAY = re.compile(r"\b[012]\d:[0-5]\d:[0-5]\d\b")  # as a log puts before its lines
_CODE_IN_TEXT = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)
_FILE_LINK = re.compile(r"""(?:\]\(|<img\s[^>]*?src=")([^)\s#:"]+)(?:#[^)]*)?[)"]""")
# A path in code that holds only where the kernel runs in the notebook's own folder: an editor may start it elsewhere.
_BESIDE = re.compile(r"""["']((?:\.\./|(?:images|recordings|solutions)/)[^"']*)["']""")
_FORMULA = re.compile(r"\$[^$\n]+\$")


def lessons(named: Sequence[Path]) -> Sequence[Path]:
    """Return the notebooks that are named, or all lessons; raise LessonError where there are none."""
    paths = named or sorted(NOTEBOOKS.glob("*.ipynb"))
    if not paths:
        cause = f"There are no notebooks in {NOTEBOOKS.resolve()}."
        raise LessonError(cause, "Run this in the root folder of the course.")
    return paths


def read(path: Path) -> NotebookNode:
    """Read a notebook as it is; `nbformat.read` would repair some of what is checked here.

    Raises:
        LessonError: The file is missing or isn't a notebook of format 4.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe would be waited for
            raise LessonError(f"{path} is a pipe or a device, and no notebook.", "Name the .ipynb file.")
        notebook = nbformat.v4.reads_json(path.read_text(encoding="utf-8"))
        nbformat.validate(canonical(notebook))
    except OSError as error:
        raise LessonError(f"{path} can't be read: {error.strerror}.", "Check the name.") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, nbformat.ValidationError) as error:
        raise LessonError(
            f"{path} isn't a Jupyter notebook of format 4.", "Restore it with git, or save it anew from JupyterLab."
        ) from error
    return notebook


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook in its canonical layout. If that is interrupted, the old file stays as it was."""
    with replacing(path) as unfinished:
        unfinished.write_text(_file_text(notebook), encoding="utf-8")


def canonical(notebook: NotebookNode) -> NotebookNode:
    """Return a copy in format 4.5 with the standard metadata and an id for every cell; sources and outputs are kept."""
    cells = [
        {**cell, "id": cell_id, "metadata": {key: cell.metadata[key] for key in CELL_METADATA if key in cell.metadata}}
        for cell, cell_id in zip(notebook.cells, _cell_ids(notebook), strict=True)
    ]
    return nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "metadata": METADATA, "cells": cells})


def violations(path: Path) -> list[str]:
    """Return one sentence for each place where a notebook file departs from the committed form."""
    notebook = read(path)
    found = [*_content_violations(notebook), *_text_violations(notebook, path.parent), *_layout_violations(notebook)]
    if not found and path.read_text(encoding="utf-8") != _file_text(notebook):
        found = ["isn't indented and ordered as nbformat writes it (--fix repairs it)"]
    return [f"{path}: {sentence}." for sentence in found]


def cell_name(notebook: NotebookNode, index: int) -> str:
    """Return how messages name a cell: its number, counted from 1 over all cells, and the first line of its source."""
    first_line = notebook.cells[index].source.strip().partition("\n")[0]
    return f"cell {index + 1} (`{first_line}`)"


def tags(cell: NotebookNode) -> list[str]:
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def _file_text(notebook: NotebookNode) -> str:
    return nbformat.writes(canonical(notebook)) + "\n"


def _cell_ids(notebook: NotebookNode) -> list[str]:
    """Keep the first use of each id; a cell without one, or with another cell's, gets the next free ``cell-N``."""
    given = [cell.get("id") for cell in notebook.cells]
    free = (name for number in itertools.count(1) if (name := f"cell-{number}") not in given)
    return [own if own and own not in given[:index] else next(free) for index, own in enumerate(given)]


def _layout_violations(notebook: NotebookNode) -> Iterator[str]:
    if notebook.nbformat_minor != 5:
        yield f"has notebook format 4.{notebook.nbformat_minor} instead of 4.5 (--fix repairs it)"
    if notebook.metadata != METADATA:
        yield "has metadata other than the standard kernel python3 (--fix repairs it)"
    wanted_cells = canonical(notebook).cells
    for index, (cell, wanted) in enumerate(zip(notebook.cells, wanted_cells, strict=True)):
        if cell.get("id") != wanted.id:
            yield f"{cell_name(notebook, index)} has no id of its own (--fix repairs it)"
        if cell.metadata != wanted.metadata:
            extra = ", ".join(sorted(set(cell.metadata) - set(wanted.metadata)))
            yield f"{cell_name(notebook, index)} has metadata that isn't kept: {extra} (--fix repairs it)"


def _content_violations(notebook: NotebookNode) -> Iterator[str]:
    code = {i: cell for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.source.strip()}
    expected = 0
    for index, cell in code.items():
        if "gpu" in tags(cell) and cell.execution_count is None:
            continue  # skipped where the notebook was executed
        expected += 1
        if cell.execution_count != expected:
            count = cell.execution_count or "none"
            yield f"{cell_name(notebook, index)} has execution count {count}, not {expected}: execute all, in order"
            break  # every later count is off as well
    for index, cell in code.items():
        for path in _BESIDE.findall(cell.source):
            yield f"{cell_name(notebook, index)} takes {path} for a file beside the notebook: begin with paths.ROOT"
        for output in cell.outputs:
            for fault in _output_faults(output, may_raise="raises-exception" in tags(cell)):
                yield f"{cell_name(notebook, index)} {fault}"


def _text_violations(notebook: NotebookNode, folder: Path) -> Iterator[str]:
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            text = _CODE_IN_TEXT.sub("", cell.source)
            for target in _FILE_LINK.findall(text):
                if not (folder / unquote(target)).exists():
                    yield f"{cell_name(notebook, index)} links to {target}, and there is no such file"
            for formula in _FORMULA.findall(text):
                yield f"{cell_name(notebook, index)} has the formula {formula}, which the HTML pages don't set"


def _output_faults(output: NotebookNode, may_raise: bool) -> Iterator[str]:
    if output.output_type == "error" and not may_raise:
        yield f"ends with {output.ename}, and has no tag raises-exception"
    if output.get("name") == "stderr":
        yield f"prints to stderr: {output.text.strip().partition(chr(10))[0]}"
    text = _text(output)
    for path in sorted(set(MACHINE_PATH.findall(text))):
        yield f"shows a path of one machine: {path}"
    for address in sorted(set(MEMORY_ADDRESS.findall(text))):
        yield f"shows a memory address, which changes from run to run: {address}"
    for time in sorted(set(TIME_OF_DAY.findall(text))):
        yield f"shows a time of day, which changes from run to run: {time}"


def _text(output: NotebookNode) -> str:
    """Return everything in an output that a reader sees as text; pictures, which are base64, are left out."""
    if output.output_type == "stream":
        return output.text
    if output.output_type == "error":
        return ANSI_COLOUR.sub("", "\n".join([output.evalue, *output.traceback]))
    readable = {mime: data for mime, data in output.data.items() if mime not in ("image/png", "image/jpeg")}
    return "\n".join(data if isinstance(data, str) else json.dumps(data) for data in readable.values())


def main(arguments: list[str] | None = None) -> int:
    """Check the notebooks that are named, or all below notebooks/; return the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="default: all below notebooks/")
    parser.add_argument("--fix", action="store_true", help="repair indentation, metadata and cell ids")
    options = parser.parse_args(arguments)
    paths = options.notebooks or sorted(
        path for path in NOTEBOOKS.rglob("*.ipynb") if path.parent.name != ".ipynb_checkpoints"
    )
    found = []
    for path in paths:
        try:
            if options.fix:
                write(read(path), path)
            found += violations(path)
        except LessonError as error:
            found.append(str(error))
    print("\n".join([*found, f"Notebooks checked: {len(paths)}. Departures from the committed form: {len(found)}."]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
