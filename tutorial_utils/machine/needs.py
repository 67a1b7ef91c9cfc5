"""What each part of a lesson needs of the machine, as the lessons' rooms say it: the doctor finds them by name."""

from dataclasses import dataclass

from tutorial_utils.base.lesson_names import import_room


@dataclass(frozen=True)
class Needs:
    """What a part of a lesson uses, as names of fields of `Capabilities`.

    Attributes:
        live: It can't run without these.
        recorded: Where one of these is missing, that part is shown from a recording, or left out with the reason.
    """

    live: tuple[str, ...]
    recorded: tuple[str, ...] = ()


def needs_of(part: str) -> Needs | None:
    """Return what a part needs: ``NEEDS[part]`` of its lesson's room; None where that isn't said."""
    room = import_room(part)
    return room.NEEDS.get(part) if room else None
