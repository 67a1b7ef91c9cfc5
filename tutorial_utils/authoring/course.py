"""Run the lessons from top to bottom, each on a fresh kernel, and write them as HTML: what ``make course`` calls.

``python -m tutorial_utils.authoring.course [NOTEBOOK ...]`` writes the executed lessons and a front page to
build/course/. With ``--in-place`` the outputs go back into the notebooks instead: what an author runs after editing.

Two runs in one checkout don't disturb each other: the folders that lessons write to are a run's own
(`paths.cache_dir`), and each page is written beside the old one and takes its place when it is whole.
"""

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from tutorial_utils.authoring import budget, derive, notebook_form
from tutorial_utils.authoring.course_page import Lesson, count, duration, front_page
from tutorial_utils.authoring.lesson_page import IMAGES, SOLUTIONS, Edition, short_title
from tutorial_utils.base.errors import CourseError, LessonError
from tutorial_utils.base.lesson_names import part_of
from tutorial_utils.base.paths import ROOT, RUN_VARIABLE, cache_dir, replacing
from tutorial_utils.base.progress import PROGRESS_VARIABLE
from tutorial_utils.machine.capabilities import probe
from tutorial_utils.measure.recordings import ORIGIN_MIME_TYPE, Origin

OUTPUT = Path("build/course")
_STOPPED = 130  # exit status of what Ctrl+C ended


class StoppedError(KeyboardInterrupt):
    """Ctrl+C or SIGTERM ended a lesson; the text says where."""


def write_course(paths: Sequence[Path], folder: Path = OUTPUT) -> Path:
    """Execute lessons, write a page for each and the front page, whose path is returned.

    A page is replaced as soon as its lesson has run. A lesson that fails keeps the page of an earlier run, if there is
    one, and the front page says so. Pages of lessons that are no longer there are removed at the end.

    Raises:
        LessonError: A page can't be written; or lessons failed, after all others ran and what they said went to stderr.
    """
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    edition = Edition(paths)
    pages = edition.pages()
    lessons, failed = [], []
    for path in paths:
        try:
            notebook, seconds = execute(path)
        except LessonError as error:
            _tell(error)
            failed.append(path.stem)
            page = pages[path] if (folder / pages[path]).exists() else None
            lessons.append(Lesson(short_title(path), page, part=part_of(path) or "", failure=error.cause))
        else:
            lessons.append(_write_lesson(edition, notebook, seconds, path, folder))
    for path in edition.documents():
        _write(folder / pages[path], edition.document_html(path))
    documents = {pages[path]: name for path, name in edition.documents().items()}
    index = folder / "index.html"
    _write(index, front_page(lessons, probe().machine(), time.strftime("%Y-%m-%d"), documents))
    _remove_other_pages(folder, {"index.html", *pages.values()})
    if failed:
        raise LessonError(
            f"{len(failed)} of {count(len(paths), 'lesson')} failed: {', '.join(failed)}.",
            f"Their errors stand above. All other pages are written: {index}.",
        )
    return index


def _write_lesson(edition: Edition, notebook: NotebookNode, seconds: float, path: Path, folder: Path) -> Lesson:
    """Write the page of an executed lesson, its pictures, and the page of its solutions, as they were last executed."""
    pages, solutions = edition.pages(), edition.solutions(path)
    if solutions:
        _write(folder / pages[solutions], edition.html(notebook_form.read(solutions), solutions))
    for image in (path.parent / IMAGES).glob("*"):  # embedding them would close <details> in the text at a blank line
        with _writing(folder / IMAGES / image.name):
            (folder / IMAGES).mkdir(exist_ok=True)
            with replacing(folder / IMAGES / image.name) as temporary:
                shutil.copyfile(image, temporary)
    _write(folder / pages[path], edition.html(notebook, path))
    return Lesson(
        title=short_title(path),
        page=pages[path],
        minutes=budget.of_notebook(notebook, run_seconds=seconds).minutes,
        seconds=seconds,
        origins=origins(notebook),
        part=part_of(path) or "",
        goals=budget.goals(notebook),
        solutions=pages[solutions] if solutions else None,
    )


def _write(path: Path, text: str) -> None:
    with _writing(path):
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LessonError(
            f"{path} can't be written: {error.strerror or error}.",
            "Free some space, or give yourself write access. An older file is as it was.",
        ) from error


def _remove_other_pages(folder: Path, pages: Container[str]) -> None:
    for file in [*folder.glob("*.html"), *(folder / SOLUTIONS).glob("*.html")]:
        if file.relative_to(folder).as_posix() not in pages:
            file.unlink(missing_ok=True)  # another run may remove it, too


def execute(path: Path) -> tuple[NotebookNode, float]:
    """Execute a notebook on a fresh kernel in its own folder, say on stdout how far it is, and return it with seconds.

    Raises:
        LessonError: A cell raised, or the kernel died; it names the notebook and the cell.
        StoppedError: Ctrl+C or SIGTERM came.
    """
    notebook = notebook_form.canonical(notebook_form.read(path))
    progress = _Progress(path, notebook)
    client = _Client(
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
    except BaseException as error:
        if client.signalled or isinstance(error, KeyboardInterrupt):
            raise StoppedError(f"Stopped in {path}, {progress.current}.") from None
        if isinstance(error, CellExecutionError):
            first_line = error.evalue.strip().partition("\n")[0]
            raise LessonError(
                f"{path} failed in {progress.current}: {error.ename}: {first_line}",
                "Open it with `make lab` and run it up to that cell.",
            ) from error
        if isinstance(error, DeadKernelError):
            raise LessonError(
                f"The kernel of {path} died in {progress.current}: a native library crashed, or memory ran out.",
                "Look at the free memory, then run that cell's code as a script: it shows a crash's own message.",
            ) from error
        raise
    finally:
        progress.end_line()
    return notebook, progress.seconds()


class _Client(NotebookClient):
    """A client that ends its kernel once. On a signal, nbclient ends it twice, and raises three errors about that."""

    @property
    def signalled(self) -> bool:
        """Whether a signal came while the notebook ran: nbclient's handler leaves this behind."""
        return hasattr(self, "_async_cleanup_kernel_future")

    async def _async_cleanup_kernel(self) -> None:
        if self.km is None:
            return
        if self.signalled:  # who presses Ctrl+C doesn't want to wait for a long call
            self.shutdown_kernel = "immediate"
        await super()._async_cleanup_kernel()


def kernel_environment() -> dict[str, str]:
    """Return the environment of a headless kernel: a learner's, but without progress bars, and with this package."""
    python_path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": python_path, PROGRESS_VARIABLE: "0"}


@contextlib.contextmanager
def own_folders() -> Iterator[None]:
    """Let the lessons of this run write to folders of its own in the cache, which are removed when it ends.

    What a run left that was killed is removed first: nobody holds its lock.
    """
    runs = cache_dir("runs")
    for left in runs.glob("*.lock"):
        with contextlib.suppress(Timeout, OSError), FileLock(left, timeout=0):
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
            left.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=runs, ignore_cleanup_errors=True) as folder, FileLock(f"{folder}.lock"):
        os.environ[RUN_VARIABLE] = Path(folder).name
        try:
            yield
        finally:
            del os.environ[RUN_VARIABLE]
            Path(f"{folder}.lock").unlink(missing_ok=True)


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
        paths = notebook_form.lessons(options.notebooks)
        with own_folders():
            if options.in_place:
                for path in options.notebooks or [*paths, *sorted(derive.SOLUTIONS.glob("*.ipynb"))]:
                    notebook, _ = execute(path)
                    with _writing(path):
                        notebook_form.write(notebook, path)
            else:
                print(f"The course: {write_course(paths).resolve()}")
    except CourseError as error:
        _tell(error)
        return 1
    except KeyboardInterrupt as error:
        print(f"{error or 'Stopped.'} What was written before is whole.", file=sys.stderr)
        return _STOPPED
    return 0


def _tell(error: CourseError) -> None:
    if isinstance(error.__cause__, CellExecutionError):
        print(error.__cause__, file=sys.stderr)
    print(error, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
