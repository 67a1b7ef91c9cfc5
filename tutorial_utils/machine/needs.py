"""What each part of a lesson needs of the machine, as the lessons' rooms say it: the doctor finds them by name."""

from dataclasses import dataclass

from tutorial_utils.base.lesson_names import import_room


@dataclass(frozen=True)
class Needs:
    """What a part of a lesson uses, as names of fields of `Capabilities`."""

    live: tuple[str, ...]  # it can't run without these
    recorded: tuple[str, ...] = ()  # what needs these is shown from a recording, or left out with the reason


def needs_of(part: str) -> Needs | None:
    """Return what a part needs: ``NEEDS[part]`` of its lesson's room; None where that isn't said."""
    room = import_room(part)
    return room.NEEDS.get(part) if room else None
