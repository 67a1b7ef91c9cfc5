"""Rows of an experiment: each is measured in a process of its own and stamped by itself, and merged into a recording.

So a build that aborts costs only its row, a call of ten minutes adds rows to those that are there, and libraries that
don't live in one environment come together in one file. Its data::

    {"stacks": [stamp, ...], "rows": {name: {"stack": 0, "date": "...", "values": {...}} or {..., "reason": "..."}}}
"""

import fnmatch
import re
import subprocess
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tutorial_utils.base import child_process, paths
from tutorial_utils.base.errors import BackendUnavailableError, CourseError, InputError, RecordingError, first_line
from tutorial_utils.measure import recordings
from tutorial_utils.measure.recordings import Recording

# What Python raises where code is wrong. From a line of this package it is a fault of ours, or of a C function that the
# line calls: those have no lines of their own, and TensorRT raises AttributeError for a flag that this version lacks.
# CalledProcessError: the row's process ended in a Python error outside of the row, as for values that can't be pickled.
PERHAPS_OURS = (AttributeError, LookupError, NameError, TypeError, subprocess.CalledProcessError)

_NOTE = "In the row's process:\n"

MeasureRow = Callable[[Mapping[str, Path]], dict[str, Any]]  # of one row: takes models by stem, returns values for JSON


@dataclass(frozen=True)
class RecordedRow:
    """One row of a recording.

    Attributes:
        values: What was measured, or None where this library has no such thing or failed.
        reason: Why there are no values: the library's own words where it has any.
        date: When it was measured or tried: UTC, ISO 8601.
        machine: The stamp of its stack, as a `Recording`'s machine.
    """

    name: str
    values: dict[str, Any] | None
    reason: str
    date: str
    machine: dict[str, Any]


def read(data: Mapping[str, Any]) -> list[RecordedRow]:
    """Return the rows in the data of a recording."""
    return [
        RecordedRow(name, row.get("values"), row.get("reason", ""), row["date"], data["stacks"][row["stack"]])
        for name, row in data["rows"].items()
    ]


def choose(known: Iterable[str], patterns: Sequence[str], experiment: str) -> list[str]:
    """Return the names that match one of some patterns with ``*`` and ``?``, in their own order.

    Raises:
        InputError: A pattern matches no row.
    """
    known = list(known)
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            raise InputError(
                f"No row of {experiment} matches {pattern!r}.",
                f"Its {len(known)} rows are named as {', '.join(known[:2])} and {known[-1]}; * and ? stand for others.",
            )
    return [name for name in known if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def measured_elsewhere(measure: MeasureRow, models: Mapping[str, Path]) -> dict[str, Any]:
    """Measure one row in a process of its own: return ``{"values": ...}``, or ``{"reason": why there are none}``.

    Args:
        measure: A module's function, or a partial of one: the other process imports it.

    Raises:
        BackendUnavailableError: What the row needs isn't installed here, so nothing is known about it.
        AttributeError, LookupError, NameError, TypeError, CalledProcessError: The row's own code may be wrong, so
            nothing is known either. A note of the error is the traceback of the other process.
    """
    try:
        return child_process.run(_attempt, measure, dict(models))
    except subprocess.CalledProcessError as error:
        printed = error.stderr.decode(errors="replace")
        if error.returncode > 0 and re.search("^Traceback ", printed, re.MULTILINE):
            vars(error)["__notes__"] = [_NOTE + printed]
            raise
        said = printed.strip().splitlines()
        ending = child_process.ending(error.returncode)
        return {"reason": f"The process ended with {ending}: {said[-1] if said else 'no message'}."}


def _attempt(measure: MeasureRow, models: Mapping[str, Path]) -> dict[str, Any]:
    try:
        return {"values": measure(models)}
    except BackendUnavailableError:
        raise
    except CourseError as error:
        return {"reason": error.cause}
    except Exception as error:  # libraries raise whatever they like, and not all of it can be handed to a process
        *_, innermost = traceback.walk_tb(error.__traceback__)
        line_of = Path(innermost[0].f_code.co_filename)
        if isinstance(error, PERHAPS_OURS) and paths.ROOT / "tutorial_utils" in line_of.parents:
            told = "".join(traceback.format_exception(error))
            vars(error)["__notes__"] = [_NOTE + told]  # as `add_note`, which Python 3.10 lacks
            raise
        return {"reason": f"{type(error).__name__}: {first_line(error)}."}


def load(path: Path, title: str) -> Recording | None:
    """Read a recording to add rows to; None where there is none yet.

    Raises:
        RecordingError: The file is damaged, or holds another experiment.
    """
    if not path.exists():
        return None
    remedy = "Restore it, or name another file to add to."
    try:
        recording = recordings.load(path)
    except RecordingError as error:
        raise RecordingError(error.cause, remedy) from error
    data = recording.data
    if recording.title != title or not isinstance(data, dict) or not {"stacks", "rows"} <= data.keys():
        raise RecordingError(f"{path.name} holds no rows of this experiment, but {recording.title!r}.", remedy)
    try:
        for row in read(data):
            row.machine["libraries"].items()
        if any(row["stack"] < 0 for row in data["rows"].values()):
            raise IndexError
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise RecordingError(recordings.damaged(path).cause, remedy) from error
    return recording


def require_same_gpu(recording: Recording, machine: Mapping[str, Any]) -> None:
    """Raise RecordingError where a recording is of another GPU: times of two cards don't belong in one table."""
    theirs = recording.machine.get("gpu")
    if theirs != machine["gpu"]:
        raise RecordingError(
            f"The recording is of {theirs}, and this GPU is {machine['gpu']}.", "Add these rows to a file of their own."
        )


def merged(recording: Recording, name: str, row: Mapping[str, Any], machine: dict[str, Any], date: str) -> Recording:
    """Return a recording with one more row, which replaces that of its name; but never values by a reason."""
    before = {one.name: one for one in read(recording.data)}
    if name in before and before[name].values is not None and "values" not in row:
        return recording
    new = RecordedRow(name, row.get("values"), row.get("reason", ""), date, machine)
    all_rows = [*({**before, name: new}).values()]
    stacks: list[dict[str, Any]] = []
    for one in all_rows:
        if one.machine not in stacks:
            stacks.append(one.machine)
    data = {
        "stacks": stacks,
        "rows": {
            one.name: {
                "stack": stacks.index(one.machine),
                "date": one.date,
                **({"reason": one.reason} if one.values is None else {"values": one.values}),
            }
            for one in all_rows
        },
    }
    return replace(recording, data=data, machine=_in_common(stacks), date=max(one.date for one in all_rows))


def _in_common(stacks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one stamp for all stacks: what they share, and every version of each library."""
    shared = {key: value for key, value in stacks[0].items() if all(one.get(key) == value for one in stacks)}
    libraries: dict[str, dict[str, None]] = {}
    for stack in stacks:
        for name, version in stack["libraries"].items():
            if version:  # a folder that an uninstalled library left behind has none
                libraries.setdefault(name, {})[version] = None
    return {**shared, "libraries": {name: " and ".join(versions) for name, versions in libraries.items()}}
