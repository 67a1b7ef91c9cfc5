"""Run the lessons from top to bottom, each on a fresh kernel, and write them as HTML: what ``make course`` calls.

``python -m tutorial_utils.authoring.course [NOTEBOOK ...]`` writes the executed lessons and a front page to
build/course/. With ``--in-place`` the outputs go back into the notebooks instead: what an author runs after editing.
"""

import argparse
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from tutorial_utils.authoring import budget, notebook_form
from tutorial_utils.authoring.course_page import LESSON_TEMPLATE, Lesson, count, duration, front_page
from tutorial_utils.base.errors import LessonError
from tutorial_utils.base.paths import ROOT
from tutorial_utils.base.progress import PROGRESS_VARIABLE
from tutorial_utils.machine.capabilities import probe
from tutorial_utils.measure.recordings import ORIGIN_MIME_TYPE, Origin

SOLUTIONS, IMAGES = "solutions", "images"  # folders beside the lessons
GLOSSARY = "GLOSSARY.md"  # beside the lessons
OUTPUT = Path("build/course")


def write_course(paths: Sequence[Path], folder: Path = OUTPUT) -> Path:
    """Execute lessons, write a page for each and, when all of them ran, the front page, whose path is returned.

    Earlier pages in the folder are removed first, so that it never shows a course half old.

    Raises:
        LessonError: A lesson failed, or a file is no notebook.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old_page in folder.glob("*.html"):
        old_page.unlink()
    lessons = []
    for path in paths:
        notebook, seconds = execute(path)
        minutes = budget.of_notebook(notebook, run_seconds=seconds).minutes
        lesson = Lesson(title(notebook, path), f"{path.stem}.html", minutes, seconds, origins(notebook))
        (folder / lesson.page).write_text(_html(notebook, path, lesson.title), encoding="utf-8")
        _write_solution(path, folder)
        if (path.parent / IMAGES).exists():  # embedding them would close <details> in the text at a blank line
            shutil.copytree(path.parent / IMAGES, folder / IMAGES, dirs_exist_ok=True)
        lessons.append(lesson)
    glossary = _write_glossary({path.parent / GLOSSARY for path in paths}, folder)
    index = folder / "index.html"
    text = front_page(lessons, probe().machine(), time.strftime("%Y-%m-%d"), glossary)
    index.write_text(text, encoding="utf-8")
    return index


def _write_solution(lesson: Path, folder: Path) -> None:
    """Write the page of a lesson's solutions, as they were last executed: to run them is what `make test` does."""
    path = lesson.parent / SOLUTIONS / lesson.name
    if path.exists():
        solution = notebook_form.read(path)
        (folder / SOLUTIONS).mkdir(exist_ok=True)
        page = _html(solution, path, title(solution, path), to_front="../")
        (folder / SOLUTIONS / f"{lesson.stem}.html").write_text(page, encoding="utf-8")


def _write_glossary(paths: Iterable[Path], folder: Path) -> str | None:
    """Write the page of the glossary beside the lessons, and return its file name; None where there is none."""
    for path in filter(Path.exists, paths):
        glossary = new_notebook(cells=[new_markdown_cell(path.read_text(encoding="utf-8"))])
        page = f"{path.stem}.html"
        (folder / page).write_text(_html(glossary, path, title(glossary, path)), encoding="utf-8")
        return page
    return None


def execute(path: Path) -> tuple[NotebookNode, float]:
    """Execute a notebook on a fresh kernel in its own folder, say on stdout how far it is, and return it with seconds.

    Raises:
        LessonError: A cell raised, or the kernel died; it names the notebook and the cell.
    """
    notebook = notebook_form.canonical(notebook_form.read(path))
    progress = _Progress(path, notebook)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=None,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_execute=progress.cell_starts,
        skip_cells_with_tag=_skipped_tag(notebook),
        extra_arguments=["--log-level=ERROR"],  # the kernel's own start-up warnings are no news to a learner
    )
    try:
        client.execute(env=kernel_environment())
        progress.show(count(len(progress.code), "code cell"))
    except CellExecutionError as error:
        first_line = error.evalue.strip().partition("\n")[0]
        raise LessonError(
            f"{path} failed in {progress.current}: {error.ename}: {first_line}",
            "Open it with `make lab` and run it up to that cell.",
        ) from error
    except DeadKernelError as error:
        raise LessonError(
            f"The kernel of {path} died in {progress.current}: a native library crashed, or memory ran out.",
            "Look at the free memory, then run that cell's code as a script: it shows a crash's own message.",
        ) from error
    finally:
        progress.end_line()
    return notebook, progress.seconds()


def kernel_environment() -> dict[str, str]:
    """Return the environment of a headless kernel: a learner's, but without progress bars, and with this package."""
    python_path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": python_path, PROGRESS_VARIABLE: "0"}


def title(notebook: NotebookNode, path: Path) -> str:
    """Return the first heading of a notebook, or its file name where it has none."""
    markdown = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    headings = (line[2:].strip() for source in markdown for line in source.splitlines() if line.startswith("# "))
    return next(headings, path.stem)


def origins(notebook: NotebookNode) -> list[Origin]:
    """Return what an executed notebook says about its results: live, or a recording. Each is listed once."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    shown = (output.data[ORIGIN_MIME_TYPE] for output in outputs if ORIGIN_MIME_TYPE in output.get("data", {}))
    return list(dict.fromkeys(Origin(**fields) for fields in shown))


def _skipped_tag(notebook: NotebookNode) -> str:
    needs_gpu = any("gpu" in notebook_form.tags(cell) for cell in notebook.cells)
    return "gpu" if needs_gpu and not probe().tensorrt_run.available else "skip-execution"


def _html(notebook: NotebookNode, path: Path, title: str, to_front: str = "") -> str:
    """Return the page of a file that lies at a path; `to_front` is the way from the page to the front page's folder."""
    exporter = HTMLExporter(template_name="lab", raw_template=LESSON_TEMPLATE)
    resources = {"metadata": {"name": title}, "to_front": to_front, "glossary": None}
    if path.name != GLOSSARY and (path.parent / to_front / GLOSSARY).exists():
        resources["glossary"] = f"{to_front}{Path(GLOSSARY).stem}.html"
    body, _ = exporter.from_notebook_node(notebook, resources=resources)
    return _linked(body, path.parent)


_LINK = re.compile(r'(<a href=")([^":?#]+)\.(ipynb|md)((?:#[^"]*)?")')


def _linked(page: str, folder: Path) -> str:
    """Return a page whose links to notebooks, and to the glossary, lead to their pages: both lie in the same order."""

    def to_page(link: re.Match) -> str:
        target = folder / f"{unquote(link[2])}.{link[3]}"
        has_page = target.exists() and (link[3] == "ipynb" or target.name == GLOSSARY)
        return f"{link[1]}{link[2]}.html{link[4]}" if has_page else link[0]

    return _LINK.sub(to_page, page)


class _Progress:
    """Says which cell of a lesson runs: in one line of a terminal, or in plain lines where stdout is a file."""

    def __init__(self, path: Path, notebook: NotebookNode):
        self.lesson, self.notebook, self.started = path.stem, notebook, time.monotonic()
        self.code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.source.strip()]
        self.current = "its first cell"

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def cell_starts(self, cell: NotebookNode, cell_index: int) -> None:
        self.current = notebook_form.cell_name(self.notebook, cell_index)
        self.show(f"cell {self.code.index(cell_index) + 1} of {len(self.code)}")

    def show(self, text: str) -> None:
        before, end = ("\r\x1b[2K", "") if sys.stdout.isatty() else ("", "\n")
        print(f"{before}{self.lesson}: {text}, {duration(self.seconds())}", end=end, flush=True)

    def end_line(self) -> None:
        if sys.stdout.isatty():
            print()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the notebooks that are named, or all lessons; return the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description="Run the lessons headless.")
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="default: notebooks/*.ipynb")
    parser.add_argument("--in-place", action="store_true", help="write the outputs into the notebooks, and no HTML")
    options = parser.parse_args(arguments)
    try:
        paths = options.notebooks or sorted(budget.NOTEBOOKS.glob("*.ipynb"))
        if not paths:
            cause = f"There are no notebooks in {budget.NOTEBOOKS.resolve()}."
            raise LessonError(cause, "Run this in the root folder of the course.")
        if options.in_place:
            for path in options.notebooks or [*paths, *sorted((budget.NOTEBOOKS / SOLUTIONS).glob("*.ipynb"))]:
                notebook, _ = execute(path)
                notebook_form.write(notebook, path)
        else:
            print(f"The course: {write_course(paths).resolve()}")
    except LessonError as error:
        if isinstance(error.__cause__, CellExecutionError):
            print(error.__cause__, file=sys.stderr)
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
