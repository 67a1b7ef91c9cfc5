"""The front page of the executed course."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tutorial_utils.measure.recordings import Origin

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Lesson:
    """One executed lesson."""

    title: str  # its first heading, without "Lesson NN: "
    page: str | None  # file name of its HTML page, which lies beside the front page; None where there is none
    minutes: float = 0.0  # that a reader needs: see `budget`
    seconds: float = 0.0  # how long it ran
    origins: Sequence[Origin] = ()  # what ran live in it and what is a recording, in order
    part: str = ""  # "01a"; nothing for a notebook that is no part of the course
    goals: Sequence[str] = ()  # what a reader will be able to do
    solutions: str | None = None  # place of the page with its solutions
    failure: str = ""  # why it didn't run to its end: then the page is that of an earlier run


def front_page(
    lessons: Sequence[Lesson], machine: Mapping[str, Any], date: str, documents: Mapping[str, str] | None = None
) -> str:
    """Return the HTML of the front page, for lessons that ran on a machine (`Capabilities.machine`) at a date.

    It needs no other file and no network. `documents` are the names of other pages, by their file names.
    """
    origins = [origin for lesson in lessons for origin in lesson.origins]
    minutes, seconds = sum(lesson.minutes for lesson in lessons), sum(lesson.seconds for lesson in lessons)
    total = (
        f"{count(len(lessons), 'lesson')}, about {reading_time(minutes)} to read and do. "
        f"They ran in {duration(seconds)} on this machine: "
        f"{results(origins)}."
    )
    if failed := sum(bool(lesson.failure) for lesson in lessons):
        total += f" {count(failed, 'lesson')} failed."
    # Jinja comes with nbconvert, which makes the lessons' pages.
    folder = FileSystemLoader(_FOLDER)
    templates = Environment(loader=folder, autoescape=True, trim_blocks=True, undefined=StrictUndefined)
    templates.globals |= {"duration": duration, "reading_time": reading_time, "results": results}
    return templates.get_template("front_page.html.j2").render(
        lessons=lessons, total=total, date=date, machine=machine_line(machine), documents=documents or {}
    )


def results(origins: Sequence[Origin]) -> str:
    """Return how many results ran live and how many are recordings: "2 results live, 1 recording"."""
    recordings = sum(origin.origin == "recording" for origin in origins)
    return f"{count(len(origins) - recordings, 'result')} live, {count(recordings, 'recording')}"


def machine_line(machine: Mapping[str, Any]) -> str:
    """Return one line about a machine: its hardware, system and libraries."""
    libraries = (f"{name} {version}" for name, version in machine["libraries"].items())
    gpu = machine["gpu"] or "no NVIDIA GPU"
    parts = machine["cpu"], f"{machine['cores']} cores", gpu, machine["os"], f"Python {machine['python']}"
    return ", ".join([*parts, *libraries])


def duration(seconds: float) -> str:
    """Return seconds as a person says them: "42 s" or "3.5 min"."""
    return f"{seconds:.0f} s" if seconds < 59.5 else f"{seconds / 60:.1f} min"


def reading_time(minutes: float) -> str:
    """Return a reader's minutes as a person says them: "25 min" or "1 h 30 min"."""
    hours, rest = divmod(max(1, round(minutes)), 60)
    return " ".join(part for part, is_some in ((f"{hours} h", hours), (f"{rest} min", rest)) if is_some)


def count(number: int, noun: str) -> str:
    """Return a number with its noun in the right form: "1 lesson" or "3 lessons"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
