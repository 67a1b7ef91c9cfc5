"""Child processes that find the modules of this one: for what leaves traces, or may end the process that does it.

They are plain child processes. Those of `multiprocessing` would leave a helper behind, for which a Jupyter kernel waits
seconds when it is shut down.
"""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from tutorial_utils.base.paths import ROOT

P = ParamSpec("P")
T = TypeVar("T")


def environment(*first: str, **changes: str) -> dict[str, str]:
    """Return the environment of a Python that finds this package, and all else that this process finds.

    It looks into the folders ``first`` before those. ``changes`` are variables that differ from this process's.
    """
    path = os.pathsep.join(filter(None, [*first, str(ROOT), *sys.path]))
    return {**os.environ, **changes, "PYTHONPATH": path}


def ending(status: int) -> str:
    """Return how a process ended, in words, of its status in `subprocess`: "exit status 1", "SIGABRT"."""
    try:
        return signal.Signals(-status).name
    except ValueError:  # not ended by a signal, or by one without a name
        return f"exit status {status}" if status >= 0 else f"signal {-status}"


def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a fresh process and return its result, or raise what it raised. What it prints is dropped.

    The other process imports the function: it must be a module's, not a notebook's. Its arguments and result must be
    picklable.

    Raises:
        subprocess.CalledProcessError: The process died.
    """
    return _call((function, args, kwargs), {}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run_with_log(
    log: Path, changes: Mapping[str, str], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Do as `run`, with variables of the environment changed, and keep all that the process prints in a file.

    Libraries written in C++ print past Python, and read such variables when they are loaded. The file is complete up
    to where the process died, if it did.
    """
    with log.open("wb") as file:
        return _call((function, args, kwargs), changes, stdout=file, stderr=subprocess.STDOUT)


def _call(
    call: tuple[Callable[..., T], tuple[Any, ...], dict[str, Any]], changes: Mapping[str, str], **streams: Any
) -> T:
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        subprocess.run(
            [sys.executable, "-m", __name__, answer],
            input=pickle.dumps(call),
            check=True,
            env=environment(**changes),
            **streams,
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
