"""Hypothesis as the tests here use it: the same few examples at each run, and strategies that several tests share."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

settings.register_profile(
    "course",
    derandomize=True,
    database=None,
    deadline=None,  # the machine may be busy
    max_examples=40,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("course")

JUNK = (
    "", "{ Name: ", " }], ", "]", "[", ", Inputs: [", ", Outputs: [", "Metadata: ", "\n", "\r\n", "\x1e", "\0",
    "Name: ", ", LayerType: ", "Dimensions: [", ", TacticName: ", "9" * 5000, "-", "é", '"', "\\", "null", "NaN",
    "1e999", "[" * 2000,
)  # fmt: skip


@st.composite
def mutations(draw: st.DrawFn, text: str) -> str:
    """Return a text in which pieces are cut out, doubled, replaced by junk or moved, or which was cut short."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from((0, 1, 5, 60, 600))))
        piece = text[start:end]
        change = draw(st.sampled_from(("cut", "double", "replace", "move", "truncate", "remove all", "join lines")))
        if change == "cut":
            text = text[:start] + text[end:]
        elif change == "double":
            text = text[:end] + piece + text[end:]
        elif change == "replace":
            text = text[:start] + draw(st.sampled_from(JUNK)) + text[end:]
        elif change == "move":
            text = piece + text[:start] + text[end:]
        elif change == "truncate":
            text = text[:start]
        elif change == "remove all":
            text = text.replace(piece, "") if piece else text
        else:
            text = text.replace("\n", draw(st.sampled_from((" ", "", "\r\n"))))
    return text


# Values that JSON can hold, and those that only Python can.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
