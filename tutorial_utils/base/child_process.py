"""Child processes that find the modules of this one: for what leaves traces, or may end the process that does it.

They are plain child processes. Those of `multiprocessing` would leave a helper behind, for which a Jupyter kernel waits
seconds when it is shut down.
"""

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from tutorial_utils.base.paths import ROOT

P = ParamSpec("P")
T = TypeVar("T")


def environment(*first: str, **changes: str) -> dict[str, str]:
    """Return the environment of a Python that finds this package, and all else that this process finds.

    It looks into the folders ``first`` before those. ``changes`` are variables that differ from this process's.
    """
    path = os.pathsep.join(filter(None, [*first, str(ROOT), *sys.path]))
    return {**os.environ, **changes, "PYTHONPATH": path}


def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a fresh process and return its result, or raise what it raised. What it prints is dropped.

    The other process imports the function: it must be a module's, not a notebook's. Its arguments and result must be
    picklable.

    Raises:
        subprocess.CalledProcessError: The process died.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        subprocess.run(
            [sys.executable, "-m", __name__, answer],
            input=pickle.dumps((function, args, kwargs)),
            capture_output=True,
            check=True,
            env=environment(),
        )
        result, error = pickle.loads(answer.read_bytes())
    if error is not None:
        raise error
    return result


if __name__ == "__main__":  # the other process: it reads the call, and writes what came of it to a file
    called, positional, named = pickle.load(sys.stdin.buffer)
    try:
        outcome = (called(*positional, **named), None)
    except Exception as raised:  # it is raised again where the function was called
        outcome = (None, raised)
    Path(sys.argv[1]).write_bytes(pickle.dumps(outcome))
