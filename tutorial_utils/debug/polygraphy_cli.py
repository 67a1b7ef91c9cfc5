"""Polygraphy commands as one types them, run with this Python, and their output without what differs at every run."""

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tutorial_utils.base import child_process, flavour
from tutorial_utils.base.errors import BackendUnavailableError, InputError
from tutorial_utils.base.requirements import pip_install, requirement

# The console script `polygraphy` does the same, but it may belong to another Python than the one that runs the lesson.
_MAIN = "import sys; from polygraphy.tools import main; sys.argv[0] = 'polygraphy'; sys.exit(main())"

# What is left out of the output: (pattern, replacement).
_NOISE = (
    (r"\x1b\[[0-9;]*m", ""),  # colours
    (r"(?m)^\[W\] 'colored' module is not installed.*\n", ""),
    (r"(?m)^\[I\] RUNNING \| Command: .*\n", ""),
    (r"(PASSED|FAILED) +\| Runtime: [\d.]+s \| Command: .*", r"\1"),
    (r"(runner-N\d+)-\d\d/\d\d/\d\d-\d\d:\d\d:\d\d", r"\1"),  # a runner's name ends with the time of day
    (r" +\| Duration [\d.]+s", ""),
    (r"\b(in|Time:|Time =) *[\d.]+ *(ms|s|seconds)\b", r"\1 ..."),
    (r"[ \t]+(?=\n|$)", ""),
)


@dataclass(frozen=True)
class Result:
    """What a Polygraphy command printed, and how it ended."""

    command: str
    text: str  # stdout and stderr together, without colours, times and the paths of this machine
    returncode: int  # 0 if it succeeded; comparisons and validations that fail end with 1; -9 if its time ran out
    printed: str = ""  # the same with all that `text` leaves out

    def lines(self, *patterns: str) -> list[str]:
        """Return the lines of the output in which any of the regular expressions is found, all lines if none is given.

        Blanks are squeezed, and each line is given once.
        """
        found = (" ".join(line.split()) for line in self.text.splitlines() if line.strip())
        return list(dict.fromkeys(line for line in found if not patterns or any(re.search(p, line) for p in patterns)))

    def show(self, *patterns: str, width: int = 118) -> None:
        """Print the command, the `lines` in which a pattern is found, cut to the width, and how the command ended.

        Of a command that failed and printed no such line, the last line is printed: what it died of.
        """
        parts = textwrap.wrap(f"$ {self.command}", width, break_long_words=False, break_on_hyphens=False)
        print(" \\\n    ".join(parts))
        lines = self.lines(*patterns)
        for line in lines or (self.lines()[-1:] if self.returncode else []):
            print("  " + textwrap.shorten(line, width, placeholder=" ..."))
        print(f"  (return code {self.returncode})")


def run(command: str, folder: str | Path, timeout: float | None = None) -> Result:
    """Run a Polygraphy command. It never installs anything, and uses TensorRT-RTX where the course does.

    Args:
        command: As typed in a shell, such as ``"polygraphy run model.onnx --onnxrt"``. Assignments before it hold for
            this command alone, as in a shell; ``PYTHONPATH=folder`` is put before the rest of that path.
        folder: Where to run it, and where the files are that it names.
        timeout: Seconds after which it is ended, with the commands that it started. The result then says so.

    Raises:
        BackendUnavailableError: Polygraphy isn't installed.
        InputError: The command is another program's, or the folder is missing.
    """
    assigned = {}
    program, *arguments = shlex.split(command)
    while re.fullmatch(r"[A-Z_]+=.*", program) and arguments:
        name, _, value = program.partition("=")
        assigned[name] = value
        program, *arguments = arguments
    if program != "polygraphy":
        raise InputError(f"`{command}` is no command of Polygraphy.", "Begin it with `polygraphy`.")
    if not flavour.is_installed("polygraphy"):
        remedy = f"Run `{pip_install(requirement('polygraphy'))}`."
        raise BackendUnavailableError("Polygraphy is not installed.", remedy)
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}.", "Name the folder in which the command's files are.")
    with tempfile.TemporaryDirectory() as scratch:  # `surgeon` leaves copies of models where temporary files go
        own = Path(scratch) / "polygraphy"  # for `--check polygraphy ...`, which another Python's may answer
        own.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-c", _MAIN])} "$@"\n')
        own.chmod(0o755)
        process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, *arguments],
            cwd=folder,
            env={**_environment(assigned, scratch), "TMPDIR": scratch},
            stdin=subprocess.DEVNULL,  # `debug` would wait for an answer
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # a group of its own, with the commands that `debug` starts
        )
        try:
            printed, _ = process.communicate(timeout=timeout)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            printed = f"{process.communicate()[0]}\n[E] Ended after {timeout:g} seconds, before it was done\n"
    return Result(command, _clean(printed, folder), process.returncode, printed)


def run_all(commands: Sequence[str], folder: str | Path) -> list[Result]:
    """Run commands that don't need each other, two at once: most of their time is that of starting up."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda command: run(command, folder), commands))


def _environment(assigned: Mapping[str, str], programs: str = "") -> dict[str, str]:
    """Return the environment for Polygraphy and for the commands that it starts itself (`debug ... --check python`)."""
    variables = {
        "POLYGRAPHY_AUTOINSTALL_DEPS": "0",
        "POLYGRAPHY_USE_TENSORRT_RTX": "1" if flavour.installed_flavour() == "tensorrt_rtx" else "0",
        **assigned,
        "PATH": os.pathsep.join(
            filter(None, [programs, str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        ),
    }
    return child_process.environment(variables.pop("PYTHONPATH", ""), **variables)


def _clean(output: str, folder: Path) -> str:
    for path in (f"{folder.resolve()}/", f"{folder}/"):
        output = output.replace(path, "")
    for python in (sys.prefix, sys.base_prefix):  # in tracebacks
        output = re.sub(rf"{re.escape(python)}/lib/[^/]*/(site-packages/)?", "", output)
    for pattern, replacement in _NOISE:
        output = re.sub(pattern, replacement, output)
    return output.strip()
