"""How lessons are named: a lesson has one notebook or several parts, 01a, 01b, ..., and one room in the package."""

import importlib
import re
from pathlib import Path
from types import ModuleType

PART = r"\d\d[a-z]?"  # "00", "01a": what notebooks, solutions, exercises and needs are known by
_NOTEBOOK = re.compile(rf"({PART})_\w+\.ipynb")


def part_of(notebook: Path) -> str | None:
    """Return the part that a notebook is: "01a" of ``01a_fusion_and_kernels.ipynb``; None for another file."""
    found = _NOTEBOOK.fullmatch(notebook.name)
    return found[1] if found else None


def import_room(part: str, module: str = "") -> ModuleType | None:
    """Import the room of a part's lesson, or a module in it such as "exercises"; None where there is none.

    The parts of a lesson share its room: "01a" has that of "01".
    """
    if not re.fullmatch(PART, part):
        return None
    name = ".".join(filter(None, (f"tutorial_utils.lessons.lesson{part[:2]}", module)))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if f"{name}.".startswith(f"{error.name}."):  # the room or the module in it, and nothing that it imports itself
            return None
        raise
