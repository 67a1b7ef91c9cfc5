"""How much memory each lesson needs: what README says and the doctor compares this machine with.

``python -m tutorial_utils.authoring.memory [NOTEBOOK ...]`` runs lessons as `course` does, each with an empty cache,
and prints a row for each: the most memory that its kernel and the processes below it held at one time.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil  # which comes with ipykernel

from tutorial_utils.authoring import course, notebook_form
from tutorial_utils.base.errors import LessonError
from tutorial_utils.base.paths import CACHE_VARIABLE

SECONDS = 0.2  # between two looks
PROC = Path("/proc")


class PeakOfChildren(threading.Thread):
    """Watches the processes below this one while its block runs; ``bytes`` is the most that they held together.

    Of memory that several processes share, such as the code of a library, each counts its part (PSS in proc(5)).
    What one process held between two looks counts too, by its own high-water mark (VmHWM).
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.bytes = 0
        self.at = 0.0  # seconds after the start
        self._ended = threading.Event()

    def __enter__(self) -> "PeakOfChildren":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Look until the block ends."""
        started = time.monotonic()
        while not self._ended.wait(SECONDS):
            processes = [child.pid for child in psutil.Process().children(recursive=True)]
            together = sum(_kilobytes(process, "smaps_rollup", "Pss") for process in processes)
            alone = max((_kilobytes(process, "status", "VmHWM") for process in processes), default=0)
            if (most := 1024 * max(together, alone)) > self.bytes:
                self.bytes, self.at = most, time.monotonic() - started


def _kilobytes(process: int, file: str, key: str) -> int:
    """Return a figure of a process, or 0 where it has ended by now."""
    try:
        lines = (PROC / str(process) / file).read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)


def measure(paths: Sequence[Path]) -> Iterator[tuple[str, PeakOfChildren]]:
    """Run lessons one after the other, and yield for each its name and what it held.

    Raises:
        LessonError: A lesson failed.
    """
    for path in paths:
        with tempfile.TemporaryDirectory(prefix="memory-") as cache, PeakOfChildren() as peak:
            os.environ[CACHE_VARIABLE] = cache
            course.execute(path)
        yield path.stem, peak


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what the notebooks that are named, or all lessons, need; return the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="default: notebooks/*.ipynb")
    options = parser.parse_args(arguments)
    try:
        for name, peak in measure(notebook_form.lessons(options.notebooks)):
            print(f"{name}: {peak.bytes / 2**30:.2f} GiB, reached after {peak.at:.0f} s", flush=True)
    except LessonError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
