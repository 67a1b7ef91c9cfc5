"""Run the lessons from top to bottom, each on a fresh kernel, and write them as HTML: what ``make course`` calls.

``python -m tutorial_utils.authoring.course [NOTEBOOK ...]`` writes the executed lessons and a front page to
build/course/. With ``--in-place`` the outputs go back into the notebooks instead: what an author runs after editing.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from tutorial_utils.authoring import budget, notebook_form
from tutorial_utils.authoring.course_page import Lesson, count, duration, front_page
from tutorial_utils.authoring.lesson_page import IMAGES, SOLUTIONS, Edition, numbered_title
from tutorial_utils.base.errors import LessonError
from tutorial_utils.base.onnx_session import TELEMETRY_VARIABLE
from tutorial_utils.base.paths import ROOT
from tutorial_utils.base.progress import PROGRESS_VARIABLE
from tutorial_utils.machine.capabilities import probe
from tutorial_utils.measure.recordings import ORIGIN_MIME_TYPE, Origin

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
    edition = Edition(paths)
    pages = {path: folder / page for path, page in edition.pages().items()}
    lessons = []
    for path in paths:
        notebook, seconds = execute(path)
        _write(pages[path], edition.html(notebook, path))
        solutions = edition.solutions(path)
        if solutions:  # as they were last executed: to run them is what `make test` does
            _write(pages[solutions], edition.html(notebook_form.read(solutions), solutions))
        if (path.parent / IMAGES).exists():  # embedding them would close <details> in the text at a blank line
            shutil.copytree(path.parent / IMAGES, folder / IMAGES, dirs_exist_ok=True)
        lessons.append(_lesson(edition, path, notebook, seconds))
    for document in edition.documents():
        _write(pages[document], edition.document_html(document))
    documents = [(edition.pages()[path], name) for path, name in edition.documents().items()]
    index = folder / "index.html"
    _write(index, front_page(lessons, probe().machine(), time.strftime("%Y-%m-%d"), documents))
    return index


def _lesson(edition: Edition, path: Path, notebook: NotebookNode, seconds: float) -> Lesson:
    """Return what the front page says about an executed lesson."""
    pages, solutions = edition.pages(), edition.solutions(path)
    return Lesson(
        title=numbered_title(notebook, path),
        page=pages[path],
        minutes=budget.of_notebook(notebook, run_seconds=seconds).minutes,
        seconds=seconds,
        origins=origins(notebook),
        solutions=pages[solutions] if solutions else None,
    )


def _write(page: Path, text: str) -> None:
    page.parent.mkdir(exist_ok=True)
    page.write_text(text, encoding="utf-8")


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
    """Return the environment of a headless kernel: a learner's, but without progress bars, and with this package.

    ONNX Runtime sends no usage data from it, also where a lesson imports it before any module of this package.
    """
    python_path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {TELEMETRY_VARIABLE: "1", **os.environ, "PYTHONPATH": python_path, PROGRESS_VARIABLE: "0"}


def origins(notebook: NotebookNode) -> list[Origin]:
    """Return what an executed notebook says about its results: live, or a recording. Each is listed once."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    shown = (output.data[ORIGIN_MIME_TYPE] for output in outputs if ORIGIN_MIME_TYPE in output.get("data", {}))
    return list(dict.fromkeys(Origin(**fields) for fields in shown))


def _skipped_tag(notebook: NotebookNode) -> str:
    needs_gpu = any("gpu" in notebook_form.tags(cell) for cell in notebook.cells)
    return "gpu" if needs_gpu and not probe().tensorrt_run.available else "skip-execution"


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
