"""Text of others, such as names in a model, as it may be shown in a terminal."""

import re

# C0 and C1 controls, which move the cursor or set the window's title; marks that turn the direction of writing; and
# halves of characters, as names of files have that are no UTF-8: they can't be printed.
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text with control characters, but for the end of a line, written as in JSON: ``\\u001b``."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
