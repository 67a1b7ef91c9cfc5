"""Write the exercise cells of a lesson from its solution notebook, so that the two can't drift apart.

``python -m tutorial_utils.authoring.derive [--check] [SOLUTIONS ...]`` replaces what stands in a lesson between the
heading ``## Exercises`` and the next one by the cells below the same heading of its solution notebook. In a cell with
the tag ``solution``, the lines from ``# solution`` on become ``raise NotImplementedError``. With ``--check`` nothing is
written, and a lesson that differs is named.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tutorial_utils.authoring import notebook_form
from tutorial_utils.base.errors import LessonError
from tutorial_utils.base.lesson_names import PART

SOLUTIONS = Path("notebooks/solutions")
HEADING = "## Exercises"
MARKER = "# solution"
TAG = "solution"
_MARKER_LINE = re.compile(rf"^( *){re.escape(MARKER)}$", re.MULTILINE)
_TASK = re.compile(rf"^### Exercise ({PART}\.\d) \((?:easy|medium|hard), (\d+) minutes?\): \S")
_CHECK = re.compile(rf"""^check\(["']({PART}\.\d)["']""", re.MULTILINE)


def lesson_of(solutions: Path) -> Path:
    """Return the lesson that a solution notebook belongs to: the file of the same name, one folder up."""
    return solutions.parent.parent / solutions.name


def derived_cells(solutions: Path) -> list[NotebookNode]:
    """Return the exercise cells of a lesson, not executed, from its solution notebook.

    Raises:
        LessonError: The solution notebook lacks the section, or an exercise in it lacks one of its parts.
    """
    notebook = notebook_form.read(solutions)
    begin, end = _section(notebook, solutions)
    cells = notebook.cells[begin:end]
    _check_parts(cells, solutions)
    return [_derived(cell, solutions) for cell in cells]


def updated(lesson: Path, solutions: Path) -> NotebookNode | None:
    """Return a lesson with the exercise cells of its solution notebook; None where it has them already.

    Cells that are there keep their outputs.
    """
    notebook = notebook_form.read(lesson)
    begin, end = _section(notebook, lesson)
    present, wanted = notebook.cells[begin:end], derived_cells(solutions)
    if list(map(_content, present)) == list(map(_content, wanted)):
        return None
    known = {_content(cell): cell for cell in present}
    notebook.cells[begin:end] = [known.get(_content(cell), cell) for cell in wanted]
    return notebook_form.canonical(notebook)


def exercise_minutes(cells: Sequence[NotebookNode]) -> dict[str, int]:
    """Return the ids of the exercises in a section, in order, each with the minutes of its heading."""
    tasks = [found for cell in cells if cell.cell_type == "markdown" and (found := _TASK.match(cell.source))]
    return {found[1]: int(found[2]) for found in tasks}


def exercise_section(notebook: NotebookNode) -> tuple[int, int] | None:
    """Return where the exercise cells begin and end: from the cell with the heading to before the next heading.

    None where there isn't exactly one such heading.
    """
    headings = _headings(notebook)
    begins = [index for index, heading in headings if heading == HEADING]
    if len(begins) != 1:
        return None
    later = (index for index, _ in headings if index > begins[0])
    return begins[0], next(later, len(notebook.cells))


def _headings(notebook: NotebookNode) -> list[tuple[int, str]]:
    return [
        (index, cell.source.partition("\n")[0].strip())
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "markdown" and cell.source.startswith("## ")
    ]


def _section(notebook: NotebookNode, path: Path) -> tuple[int, int]:
    section = exercise_section(notebook)
    if section is None:
        count = sum(heading == HEADING for _, heading in _headings(notebook))
        raise LessonError(
            f"{path} has {count} cells that begin with the heading `{HEADING}`.",
            "Give it exactly one; the exercises go there.",
        )
    return section


def _check_parts(cells: Sequence[NotebookNode], path: Path) -> None:
    """Each exercise is a task with a level and a hint, a solution, and a check."""
    tasks = list(exercise_minutes(cells))
    checks = [name for cell in cells if cell.cell_type == "code" for name in _CHECK.findall(cell.source)]
    hints = sum("<details>" in cell.source for cell in cells if cell.cell_type == "markdown")
    solved = sum(TAG in notebook_form.tags(cell) for cell in cells)
    if not tasks or tasks != checks or not len(tasks) == hints == solved:
        raise LessonError(
            f"{path} has the tasks {', '.join(tasks) or 'none'}, the checks {', '.join(checks) or 'none'}, "
            f"{hints} hints and {solved} cells tagged {TAG}.",
            "Give each exercise a heading `### Exercise 01.1 (easy, 10 minutes): ...` with its hint in <details> in "
            "the same cell, one tagged cell, and one check.",
        )


def _derived(cell: NotebookNode, solutions: Path) -> NotebookNode:
    kept_tags = [tag for tag in notebook_form.tags(cell) if tag != TAG]
    if cell.cell_type == "markdown":
        source = cell.source.replace("](../", "](")  # links to files: the lesson lies one folder up
        if _TASK.match(source):
            source += f"\n\nWhen you are done, compare with the [solution](solutions/{solutions.name})."
        new = nbformat.v4.new_markdown_cell(source)
    else:
        new = nbformat.v4.new_code_cell(_stub(cell, solutions))
    del new["id"]  # the lesson has ids of its own: `canonical` gives one that is free
    new.metadata = {"tags": kept_tags} if kept_tags else {}
    return new


def _stub(cell: NotebookNode, path: Path) -> str:
    """Return the source of a code cell without its solution, if it has one."""
    markers = list(_MARKER_LINE.finditer(cell.source))
    if len(markers) != (TAG in notebook_form.tags(cell)):
        raise LessonError(
            f"A code cell of {path} has {len(markers)} lines `{MARKER}`: {cell.source.partition(chr(10))[0]}",
            f"Give a cell with the tag {TAG} exactly one such line, where the solution begins, and others none.",
        )
    if not markers:
        return cell.source
    kept = cell.source[: markers[0].start()].rstrip()  # without the empty line that comes before an inner function
    return f"{kept}\n{markers[0][1]}raise NotImplementedError"


def _content(cell: NotebookNode) -> tuple[str, str, tuple[str, ...]]:
    return cell.cell_type, cell.source, tuple(notebook_form.tags(cell))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or check, the exercises of the lessons whose solutions are named, or of all; return the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__.partition("\n")[0])
    parser.add_argument("solutions", nargs="*", type=Path, metavar="SOLUTIONS", help=f"default: {SOLUTIONS}/*.ipynb")
    parser.add_argument("--check", action="store_true", help="write nothing, and name the lessons that differ")
    options = parser.parse_args(arguments)
    drifted = 0
    for solutions in options.solutions or sorted(SOLUTIONS.glob("*.ipynb")):
        lesson = lesson_of(solutions)
        try:
            changed = updated(lesson, solutions)
            if changed is None:
                continue
            drifted += 1
            if options.check:
                print(f"{lesson}: its exercises differ from {solutions}.")
            else:
                notebook_form.write(changed, lesson)
                print(f"{lesson}: exercises written anew. Execute it now, with `make notebooks`.")
        except LessonError as error:
            print(error, file=sys.stderr)
            return 1
    return 1 if drifted and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
