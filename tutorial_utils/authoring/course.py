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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from tutorial_utils.authoring import budget, lesson_page, notebook_form
from tutorial_utils.authoring.course_page import Lesson, count, duration, front_page
from tutorial_utils.authoring.lesson_page import GLOSSARY, SOLUTIONS
from tutorial_utils.base.errors import CourseError, LessonError
from tutorial_utils.base.lesson_names import part_of
from tutorial_utils.base.paths import ROOT, RUN_VARIABLE, cache_dir, replacing
from tutorial_utils.base.progress import PROGRESS_VARIABLE
from tutorial_utils.machine.capabilities import probe
from tutorial_utils.measure.recordings import ORIGIN_MIME_TYPE, Origin

IMAGES = "images"  # a folder beside the lessons
OUTPUT = Path("build/course")
GUIDES = {  # what the front page says of them
    GLOSSARY: "Glossary: the words of the lessons in English and Chinese.",
    "TROUBLESHOOTING.md": "Troubleshooting: errors by their literal text, with causes and remedies.",
    "STACKS.md": "Stacks: what to install for which GPU, and what was run on what.",
}
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
    names = {path: _title(path) for path in paths}
    guides = _guides(paths)
    pages = {GUIDES[path.name]: f"{path.stem}.html" for path in guides}
    lessons, failed = [], []
    for path in paths:
        try:
            notebook, seconds = execute(path)
        except LessonError as error:
            _tell(error)
            failed.append(path.stem)
            page = f"{path.stem}.html" if (folder / f"{path.stem}.html").exists() else None
            lessons.append(Lesson(names[path], page, part=part_of(path) or "", failure=error.cause))
            continue
        lessons.append(_write_lesson(notebook, seconds, path, folder, _ways(path, names, guides)))
    for path in guides:
        page = lesson_page.of_guide(path, paths[0].parent, path.stem.title(), {"All lessons": "index.html"})
        _write(folder / f"{path.stem}.html", page)
    index = folder / "index.html"
    _write(index, front_page(lessons, probe().machine(), time.strftime("%Y-%m-%d"), pages))
    _remove_other_pages(folder, {path.stem for path in [*paths, *guides, index]})
    if failed:
        raise LessonError(
            f"{len(failed)} of {count(len(paths), 'lesson')} failed: {', '.join(failed)}.",
            f"Their errors stand above. All other pages are written: {index}.",
        )
    return index


def _write_lesson(notebook: NotebookNode, seconds: float, path: Path, folder: Path, ways: Mapping[str, str]) -> Lesson:
    """Write the page of an executed lesson, and that of its solutions, as they were last executed."""
    lesson = Lesson(
        title=_short(title(notebook, path)),
        page=f"{path.stem}.html",
        minutes=budget.of_notebook(notebook, run_seconds=seconds).minutes,
        seconds=seconds,
        origins=origins(notebook),
        part=part_of(path) or "",
        goals=budget.goals(notebook),
    )
    if (path.parent / IMAGES).exists():  # embedding them would close <details> in the text at a blank line
        (folder / IMAGES).mkdir(exist_ok=True)
        for image in (path.parent / IMAGES).iterdir():
            with _writing(folder / IMAGES / image.name), replacing(folder / IMAGES / image.name) as temporary:
                shutil.copyfile(image, temporary)
    solution_path = path.parent / SOLUTIONS / path.name
    if solution_path.exists():
        solution = notebook_form.read(solution_path)
        back = {"All lessons": "index.html", "The lesson": lesson.page}
        (folder / SOLUTIONS).mkdir(exist_ok=True)
        name = title(solution, solution_path)
        page = lesson_page.of_notebook(solution, solution_path, path.parent, name, back)
        lesson = replace(lesson, solutions=f"{SOLUTIONS}/{path.stem}.html")
        _write(folder / lesson.solutions, page)
        ways = {**ways, "Solutions": lesson.solutions}
    page = lesson_page.of_notebook(notebook, path, path.parent, title(notebook, path), ways)
    _write(folder / lesson.page, page)
    return lesson


def _ways(path: Path, names: Mapping[Path, str], guides: Sequence[Path]) -> dict[str, str]:
    """Return what the head of a lesson's page leads to: names, and pages."""
    paths = [*names]
    at = paths.index(path)
    ways = {"All lessons": "index.html"}
    for what, neighbours in (("Previous", paths[:at][-1:]), ("Next", paths[at + 1 :][:1])):
        ways |= {f"{what}: {part_of(one) or ''} {names[one]}": f"{one.stem}.html" for one in neighbours}
    return ways | {path.stem.title(): f"{path.stem}.html" for path in guides if path.name != "STACKS.md"}


def _guides(paths: Sequence[Path]) -> list[Path]:
    """Return the guides that have pages, beside the lessons and beside their folder."""
    folders = dict.fromkeys(folder for path in paths for folder in (path.parent, path.parent / ".."))
    files = [folder / name for name in GUIDES for folder in folders]
    return [file for file in files if paths and lesson_page.page_of(file, Path(os.path.normpath(paths[0].parent)))]


def _title(path: Path) -> str:
    """Return the short title of a lesson's file; its name where it can't be read, as `execute` will say."""
    try:
        return _short(title(notebook_form.read(path), path))
    except LessonError:
        return path.stem


def _short(text: str) -> str:
    """Leave "Lesson 04: " out of a title: the number stands before it."""
    before, colon, rest = text.partition(": ")
    return rest[:1].upper() + rest[1:] if colon and before.startswith("Lesson ") else text


def _write(path: Path, text: str) -> None:
    with _writing(path), replacing(path) as temporary:
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


def _remove_other_pages(folder: Path, stems: set[str]) -> None:
    for page in [*folder.glob("*.html"), *(folder / SOLUTIONS).glob("*.html")]:
        if page.stem not in stems:
            page.unlink(missing_ok=True)  # another run may remove it, too


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
        with own_folders():
            if options.in_place:
                for path in options.notebooks or [*paths, *sorted((budget.NOTEBOOKS / SOLUTIONS).glob("*.ipynb"))]:
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
