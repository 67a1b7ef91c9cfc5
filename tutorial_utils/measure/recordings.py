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
from typing import Any, Literal, get_args

from blake3 import blake3

from tutorial_utils.base import paths
from tutorial_utils.base.errors import RecordingError

FOLDER = paths.ROOT / "notebooks" / "recordings"
# `course` reads this from executed notebooks to tell on its index page what ran live.
ORIGIN_MIME_TYPE = "application/vnd.tutorial-origin+json"


Source = Literal["measured", "published"]
_NO_COURSE = "Recordings are files of the course, not of the package: clone it, and install it with `pip install -e .`."
_CHECKSUM = "blake3"  # the key of a file that holds the checksum of all others


@dataclass(frozen=True)
class Recording:
    """Numbers (``data``) with their stamp.

    It says what was measured (``title``), how (``method``: warm-up, calls, clock, copies), when (``date``: UTC, ISO
    8601), by this project ("measured") or by somebody else ("published"), and on what ``machine`` with what software.
    """

    title: str
    method: str
    date: str
    source: Source
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
    """Write a recording, with a checksum: `load` refuses it where a number in it was changed since.

    Raises:
        RecordingError: The file can't be written; one that was there is as before.
    """
    path, values = Path(path), asdict(recording)
    text = json.dumps({**values, _CHECKSUM: _checksum(values)}, indent=1, ensure_ascii=False)
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
        RecordingError: There is none; it is damaged or was altered; or it lacks its stamp.
    """
    path = Path(name) if Path(name).suffix == ".json" else FOLDER / f"{name}.json"
    try:
        if not path.exists():
            raise RecordingError(f"There is no recording {name}.", _shipped())
        if not path.is_file():
            raise ValueError(f"{path} is no ordinary file")
        values = json.loads(path.read_text(encoding="utf-8"))
        checksum = values.pop(_CHECKSUM, None)  # those that were written by hand, of what others published, have none
        intact = checksum in (None, _checksum(values))
        recording = Recording(**values)
        _check_types(recording)
    except OSError as error:
        raise RecordingError(f"A recording can't be read: {error.strerror}.", _shipped()) from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:  # not JSON, or of another form
        raise damaged(path) from error
    if not intact:
        raise RecordingError(
            f"The recording {path.name} was altered after it was made: its checksum is wrong.",
            "Restore it with git. Numbers that nobody measured are not used.",
        )
    if not (recording.date and recording.machine and recording.method):
        raise RecordingError(f"The recording {path.name} has an empty stamp.", "Numbers without a stamp are not used.")
    if recording.source not in get_args(Source):
        raise RecordingError(
            f"The recording {path.name} says that it is {recording.source!r}, and not {' or '.join(get_args(Source))}.",
            "Only numbers of real machines are used: make it again on a GPU.",
        )
    return recording


def folder_to_write() -> Path:
    """Return the folder of the course's recordings, for new ones; raise RecordingError where there is no course."""
    if not FOLDER.parent.is_dir():
        raise RecordingError(
            "The package is installed without the course, whose folder of recordings it would write to.", _NO_COURSE
        )
    return FOLDER


def _shipped() -> str:
    """Return where recordings come from, for those who look in vain."""
    if not FOLDER.parent.is_dir():
        return _NO_COURSE
    return f"Shipped with the course: {', '.join(sorted(file.stem for file in FOLDER.glob('*.json'))) or 'none'}."


def _check_types(recording: Recording) -> None:
    """Raise ValueError or TypeError where a stamp, or the frame of the numbers, holds other things than it should."""
    texts = recording.title, recording.method, recording.date, recording.source
    libraries = recording.machine.get("libraries", {})
    if not all(isinstance(text, str) for text in (*texts, *libraries, *libraries.values())):
        raise TypeError("text is missing")
    if not all(isinstance(value, (str, int, dict, type(None))) for value in recording.machine.values()):
        raise TypeError("a machine of another form")
    if recording.machine and not any(isinstance(recording.machine.get(part), str) for part in ("gpu", "cpu")):
        raise TypeError("a machine without a name")
    if not isinstance(recording.data, dict):
        raise TypeError("numbers of another form")
    if recording.date:
        datetime.fromisoformat(recording.date)


def _checksum(values: dict[str, Any]) -> str:
    return blake3(json.dumps(values, sort_keys=True).encode()).hexdigest()


def damaged(path: Path) -> RecordingError:
    """Return the error of a recording that can't be read."""
    return RecordingError(
        f"The recording {path.name} is damaged or lacks part of its stamp.",
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
