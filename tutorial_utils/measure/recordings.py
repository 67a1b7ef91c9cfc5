"""Stamped measurements from other machines, and the label that says whether a result is live or recorded.

A recording is a JSON file: the numbers, and the stamp without which they would be worth nothing - machine, software,
method and date. Learners without a GPU see these numbers where a lesson needs one, always with their stamp.
"""

import html
import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from tutorial_utils.base import paths
from tutorial_utils.base.errors import RecordingError

FOLDER = paths.ROOT / "notebooks" / "recordings"
# `course` reads this from executed notebooks to tell on its index page what ran live.
ORIGIN_MIME_TYPE = "application/vnd.tutorial-origin+json"


@dataclass(frozen=True)
class Recording:
    """Numbers (``data``) with their stamp.

    It says what was measured (``title``), how (``method``: warm-up, calls, clock, copies), when (``date``: UTC, ISO
    8601), by this project ("measured") or by somebody else ("published"), and on what ``machine`` with what software.
    """

    title: str
    method: str
    date: str
    source: Literal["measured", "published"]
    machine: dict[str, Any]
    data: dict[str, Any]

    @property
    def stamp(self) -> str:
        """The stamp in one line."""
        where = self.machine.get("gpu") or self.machine.get("cpu")
        libraries = self.machine.get("libraries", {})
        versions = ", ".join(f"{name} {version}" for name, version in libraries.items())
        return f"{self.source} on {where} on {self.date[:10]}{f' with {versions}' if versions else ''}"


def new(title: str, method: str, machine: dict[str, Any], data: dict[str, Any]) -> Recording:
    """Make a recording of what was measured just now."""
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Recording(title, method, date, "measured", machine, data)


def save(recording: Recording, path: str | Path) -> Path:
    """Write a recording.

    Raises:
        RecordingError: The file can't be written; one that was there is as before.
    """
    path = Path(path)
    text = json.dumps(asdict(recording), indent=1, ensure_ascii=False)
    # One line for each list of numbers: thousands of times would otherwise take thousands of lines.
    text = re.sub(r"\[[\s\d.,e+-]+\]", lambda numbers: " ".join(numbers[0].split()), text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with paths.replacing(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise RecordingError(
            f"The recording {path} can't be written: {error.strerror or error}.",
            "Free some space, or give yourself write access, and record again.",
        ) from error
    return path


def load(name: str | Path) -> Recording:
    """Read a recording.

    Args:
        name: Name of a recording that ships with the course, such as "deployment", or the path of a file.

    Raises:
        RecordingError: There is none, it can't be read, or it lacks its stamp.
    """
    path = Path(name) if Path(name).suffix == ".json" else FOLDER / f"{name}.json"
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise damaged(path)
        recording = Recording(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        shipped = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json"))) or "none"
        raise RecordingError(f"There is no recording {name}.", f"Shipped with the course: {shipped}.") from None
    except OSError as error:
        raise RecordingError(f"A recording can't be read: {error.strerror}.", "Check its name.") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged(path) from error
    if wrong := _wrong_in_stamp(recording):
        raise damaged(path, wrong)
    if not (recording.date and recording.machine and recording.method):
        raise RecordingError(f"The recording {path.name} has an empty stamp.", "Numbers without a stamp are not used.")
    return recording


def _wrong_in_stamp(recording: Recording) -> str:
    """Return which field can't be what a `Recording` says of it: "" where each can, or is empty."""
    machine = recording.machine
    libraries = machine.get("libraries", {}) if isinstance(machine, dict) else {}
    names = [machine.get(part) for part in ("gpu", "cpu")] if isinstance(machine, dict) else []
    rights = {
        "title": isinstance(recording.title, str),
        "method": isinstance(recording.method, str),
        "date": isinstance(recording.date, str) and (not recording.date or _is_date(recording.date)),
        "source": recording.source in ("measured", "published"),
        "machine": isinstance(machine, dict)
        and isinstance(libraries, dict)
        and all(one is None or isinstance(one, str) for one in names)
        and (not machine or any(names)),
        "data": isinstance(recording.data, dict),
    }
    wrong = [field for field, is_right in rights.items() if not is_right]
    return f"its {wrong[0]} is {getattr(recording, wrong[0])!r:.80}" if wrong else ""


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def damaged(path: Path, wrong: str = "") -> RecordingError:
    """Return the error of a recording that can't be read, with what is wrong in it where that is known."""
    return RecordingError(
        f"The recording {path.name} is damaged or lacks part of its stamp{wrong and f': {wrong}'}.",
        f"Restore it with git, or make it again on a GPU: `python -m tutorial_utils record {path.stem} --replace`.",
    )


@dataclass(frozen=True)
class Origin:
    """Where a result comes from. As the last value of a cell, it shows itself as a line and marks the notebook."""

    origin: Literal["live", "recording"]
    what: str
    machine: str = "this machine"
    reason: str = ""

    def __str__(self) -> str:
        if self.origin == "live":
            return f"LIVE: {self.what}, {self.machine}."
        return f"RECORDING: {self.what}, {self.machine}. Why not live: {self.reason}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        colour = "#1a7f37" if self.origin == "live" else "#9a6700"
        label, _, text = str(self).partition(": ")
        return {
            "text/plain": str(self),
            "text/html": (
                f'<p style="border-left: 4px solid {colour}; padding: 2px 10px"><b>{label}</b> {html.escape(text)}</p>'
            ),
            ORIGIN_MIME_TYPE: asdict(self),
        }


def live(what: str) -> Origin:
    """Say that a result was made just now, on this machine."""
    return Origin("live", what)


def recorded(what: str, recording: Recording, reason: str) -> Origin:
    """Say that a result is a recording, of what machine, and why it is not made live."""
    return Origin("recording", what, recording.stamp, reason)
