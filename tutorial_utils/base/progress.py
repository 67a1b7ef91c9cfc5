"""What a person sees who waits: progress bars of training and engine builds, and lines of commands that take long."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

PROGRESS_VARIABLE = "TUTORIAL_UTILS_PROGRESS"


def bar(iterable: Iterable[Any] | None = None, *, description: str, total: int | None = None, unit: str = "it") -> tqdm:
    """Return a tqdm bar that shows itself in a terminal and in a live notebook, and leaves nothing behind.

    It is silent where output goes to a file, and where `$TUTORIAL_UTILS_PROGRESS` is "0": headless runs of notebooks
    set that, since their outputs are committed. In a notebook it goes to stdout: JupyterLab keeps an empty red bar for
    a stderr on which everything was wiped out again.
    """
    in_notebook = type(sys.stdout).__module__ == "ipykernel.iostream"
    silent = os.environ.get(PROGRESS_VARIABLE) == "0" or not (in_notebook or sys.stderr.isatty())
    file = sys.stdout if in_notebook else sys.stderr
    return tqdm(iterable, desc=description, total=total, unit=unit, leave=False, disable=silent, file=file)


@contextlib.contextmanager
def still_working(what: str, first: float = 10.0, every: float = 30.0) -> Iterator[None]:
    """Say on stderr, from time to time, that a command still works: some calls of libraries take minutes.

    Args:
        what: Who works at what: "TensorRT builds".
        first: Seconds until the first line.
        every: Seconds between two lines.
    """
    ended, started = threading.Event(), time.monotonic()

    def say() -> None:
        pause = first
        while not ended.wait(pause):
            print(f"{what}, for {time.monotonic() - started:.0f} s so far.", file=sys.stderr, flush=True)
            pause = every

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
