"""A program in a process of its own that prints lines of JSON: what it answered, how it ended, and what was logged.

For libraries that end the process where they fail, and for programs that show a library's calls as others wrote them.
"""

import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutorial_utils.base import child_process

# What differs from run to run: colours, the times and process numbers of glog, and the times of TensorRT's logger.
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_STAMP = re.compile(r"^([IWEF])\d{4} [\d:.]+ +\d+ |^\[[\d/:-]+\] (?=\[TRT\])")


@dataclass(frozen=True)
class Ended:
    """A program that has ended."""

    answers: list[dict[str, Any]]  # its lines of JSON
    status: int  # its exit status; negative: the number of the signal that ended it
    log: list[str]  # its lines on stderr, then those on stdout that are no JSON; without times and process numbers

    @property
    def ending(self) -> str:
        """How it ended, in words: "exit status 1", "SIGABRT"."""
        return signal.Signals(-self.status).name if self.status < 0 else f"exit status {self.status}"


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
        try:
            answers.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            printed.append(line)
    return Ended(answers, done.returncode, [_plain(line, script) for line in [*done.stderr.splitlines(), *printed]])


def _plain(line: str, script: Path) -> str:
    return _STAMP.sub(lambda found: f"{found[1]} " if found[1] else "", _COLOUR.sub("", line)).replace(
        f"{script.parent}/", ""
    )
