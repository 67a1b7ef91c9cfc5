"""The progress bar of training and engine builds: seen by a person who waits, absent from recorded outputs."""

import os
import sys
from collections.abc import Iterable
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
