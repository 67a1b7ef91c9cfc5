"""A program in a process of its own that prints lines of JSON: what it answered, how it ended, and what was logged.

For libraries that end the process where they fail, and for programs that show a library's calls as others wrote them.
"""

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutorial_utils.base import child_process


@dataclass(frozen=True)
class Ended:
    """A program that has ended."""

    answers: list[dict[str, Any]]  # its lines of JSON on stdout
    status: int  # its exit status; negative: the number of the signal that ended it
    log: str  # all that it wrote to stderr
    printed: str  # the other lines on stdout, where `tensorrt.Logger` writes

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        return child_process.ending(self.status)


def run(script: Path, *arguments: object) -> Ended:
    """Run a Python program with this process's interpreter and modules, and wait for its end. Paddle logs everything.

    Args:
        script: The program.
        arguments: Its arguments, as `str` writes them.
    """
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        env=child_process.environment(GLOG_minloglevel="0"),
    )
    answers, printed = [], []
    for line in done.stdout.splitlines():
        answer = None
        with contextlib.suppress(ValueError):  # libraries print there, too
            answer = json.loads(line)
        if isinstance(answer, dict):
            answers.append(answer)
        else:
            printed.append(line)
    return Ended(answers, done.returncode, done.stderr, "\n".join(printed))
