"""What a lesson asks of its reader: cells, words, lines and minutes, and how many cells call the libraries it teaches.

``python -m tutorial_utils.authoring.budget [NOTEBOOK ...]`` prints a row for each lesson, and marks with ``!`` what is
above `LIMITS`. A figure is a picture in an output or in the prose. A lesson's exercises are counted like all its cells,
except in what is said of the libraries; their minutes are those that their headings give: ``(easy, 10 minutes)``.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas
from bs4 import BeautifulSoup, Comment
from nbconvert.filters import markdown2html
from nbformat import NotebookNode

from tutorial_utils.authoring import derive, notebook_form
from tutorial_utils.authoring.library_calls import library_calls
from tutorial_utils.base.errors import LessonError

LIMITS = {"cells": 60, "words": 1500, "longest": 20, "minutes": 30}

WORDS_PER_MINUTE = 200
SECONDS_PER_LINE = 5
SECONDS_PER_FIGURE = 30

_RUN_TIME = re.compile(r"^The lesson took (\d+) s\.$", re.MULTILINE)  # what a lesson's last cell prints
_GOALS = "In this lesson you will"


@dataclass(frozen=True)
class Budget:
    """What one notebook asks of its reader."""

    cells: int  # without empty ones
    words: int  # of prose that is seen, without code
    lines: int  # of code, without empty ones
    longest: int  # lines of the longest code cell, as it is seen: with empty ones
    figures: int
    code_cells: int  # that are no exercises
    library_cells: int  # of these, how many call a library that the course teaches
    exercise_minutes: int
    run_seconds: float | None  # None where no run is known

    @property
    def library_share(self) -> float:
        """Return the share of the code cells that call a library, of those that are no exercises."""
        return self.library_cells / self.code_cells if self.code_cells else 0.0

    @property
    def minutes(self) -> float:
        """Return the minutes that a reader needs, as far as they are known."""
        seconds = SECONDS_PER_LINE * self.lines + SECONDS_PER_FIGURE * self.figures + (self.run_seconds or 0.0)
        return self.words / WORDS_PER_MINUTE + seconds / 60 + self.exercise_minutes

    def above(self) -> list[str]:
        """Return the names of `LIMITS` that the notebook is above."""
        return [name for name, limit in LIMITS.items() if getattr(self, name) > limit]


def of_notebook(notebook: NotebookNode, run_seconds: float | None = None) -> Budget:
    """Count what a notebook asks.

    Args:
        notebook: Executed, since figures are counted in its outputs.
        run_seconds: How long it ran just now. Without it, what its last cell printed when it was executed.
    """
    cells = [cell for cell in notebook.cells if cell.source.strip()]
    code = [cell for cell in cells if cell.cell_type == "code"]
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    exercises = exercise_cells(notebook)
    calls = zip(code, library_calls(cell.source for cell in code), strict=True)
    lesson_calls = [count for cell, count in calls if not any(cell is one for one in exercises)]
    return Budget(
        cells=len(cells),
        words=sum(map(words, prose)),
        lines=sum(bool(line.strip()) for cell in code for line in cell.source.splitlines()),
        longest=max((len(cell.source.strip().splitlines()) for cell in code), default=0),
        figures=sum(map(figures, cells)),
        code_cells=len(lesson_calls),
        library_cells=sum(count > 0 for count in lesson_calls),
        exercise_minutes=sum(derive.exercise_minutes(exercises).values()),
        run_seconds=recorded_seconds(notebook) if run_seconds is None else run_seconds,
    )


def goals(notebook: NotebookNode) -> tuple[str, ...]:
    """Return what a lesson says that its reader will do, as plain text: the list below "In this lesson you will"."""
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown" and _GOALS in cell.source]
    if not prose:
        return ()
    items = _html(prose[0].partition(_GOALS)[2]).find("ul")
    texts = [" ".join(item.get_text().split()) for item in items.find_all("li", recursive=False)] if items else []
    return tuple(text.rstrip(".,") for text in texts)


def exercise_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the cells from the heading ``## Exercises`` to before the next heading; a notebook may have none."""
    begin, end = derive.exercise_section(notebook) or (0, 0)
    return notebook.cells[begin:end]


def words(markdown: str) -> int:
    """Return how many words a reader sees: without code, comments, and what is hidden or folded in ``<details>``."""
    page = _html(markdown)
    for tag in page.select("code, pre"):
        tag.decompose()
    return sum(any(letter.isalnum() for letter in word) for word in page.get_text(" ").split())


def figures(cell: NotebookNode) -> int:
    """Return how many pictures a cell shows, in its outputs or in its prose."""
    if cell.cell_type == "markdown":
        return len(_html(cell.source).select("img, svg"))
    return sum(any(mime.startswith("image/") for mime in output.get("data", {})) for output in cell.get("outputs", []))


def recorded_seconds(notebook: NotebookNode) -> float | None:
    """Return how long a notebook took when it was executed, as its last cell printed; None where none did."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    found = [time for output in outputs for time in _RUN_TIME.findall(output.get("text", ""))]
    return float(found[-1]) if found else None


def _html(markdown: str) -> BeautifulSoup:
    """Return prose as HTML, without comments and what is folded in ``<details>``."""
    page = BeautifulSoup(markdown2html(markdown), "html.parser")
    for details in page.select("details"):
        summary = details.find("summary")
        details.replace_with(summary or "")
    for comment in page.find_all(string=lambda text: isinstance(text, Comment)):
        comment.extract()
    return page


def table(budgets: dict[str, Budget]) -> str:
    """Return the budgets of notebooks, by name, as a table of text."""

    def marked(budget: Budget, name: str) -> str:
        return f"{getattr(budget, name):,.0f} {'!' if name in budget.above() else ' '}"

    rows = [
        {
            "notebook": name,
            "cells": marked(one, "cells"),
            "words": marked(one, "words"),
            "longest": marked(one, "longest"),
            "library": f"{one.library_cells} of {one.code_cells}",
            "share": f"{one.library_share:.0%}",
            "lines": f"{one.lines:,}",
            "figures": str(one.figures),
            "exercises": f"{one.exercise_minutes} min",
            "run": "?" if one.run_seconds is None else f"{one.run_seconds:.0f} s",
            "minutes": marked(one, "minutes"),
        }
        for name, one in budgets.items()
    ]
    return pandas.DataFrame(rows).to_string(index=False)


def summary(budgets: dict[str, Budget]) -> str:
    """Return in some lines what the table can't say."""
    too_much = sum(bool(one.above()) for one in budgets.values())
    unknown = [name for name, one in budgets.items() if one.run_seconds is None]
    lines = [
        f"Above a limit (!): {too_much} of {len(budgets)}. Limits: {LIMITS['cells']} cells, {LIMITS['words']:,} words, "
        f"{LIMITS['longest']} lines in the longest code cell, {LIMITS['minutes']} minutes.",
        "library: code cells that call a library which the course teaches, of those that are no exercises.",
        f"minutes: words / {WORDS_PER_MINUTE}, {SECONDS_PER_LINE} s a line of code, {SECONDS_PER_FIGURE} s a figure, "
        "the exercises, the run.",
    ]
    if unknown:
        lines.append(f"No run time is known of: {', '.join(unknown)}.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what the notebooks that are named, or all lessons, ask of their readers; return the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="default: notebooks/*.ipynb")
    options = parser.parse_args(arguments)
    try:
        budgets = {
            path.stem: of_notebook(notebook_form.read(path)) for path in notebook_form.lessons(options.notebooks)
        }
    except LessonError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{table(budgets)}\n\n{summary(budgets)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
