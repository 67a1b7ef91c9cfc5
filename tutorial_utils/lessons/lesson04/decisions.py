"""Lesson 04: the decision chart for "my engine's output is wrong"."""

from dataclasses import dataclass
from textwrap import wrap

from tutorial_utils import plotting


@dataclass(frozen=True)
class Decision:
    """A question on the way down, and the answer that leaves the way."""

    question: str
    leaves: str  # the answer at which the search ends here; with the other answer, the next question follows
    verdict: str  # what is wrong then
    remedy: str  # the command or change that shows or mends it
    section: str  # where the lesson does it


START = "The engine's output is not what it should be"
# Cheap questions come before dear ones, and those about the comparison before those about the model.
DECISIONS = (
    Decision(
        "Is the difference more than the data type and the depth of the network explain?",
        "no",
        "Nothing is wrong but the tolerance",
        "a tolerance from the data type, and the task's own metric",
        "section 4",
    ),
    Decision(
        "Did both runs get the same bytes? Compare values, planes, mean, strides.",
        "no",
        "The feed: layout, normalization, memory order",
        "np.ascontiguousarray; --save-inputs, --load-inputs",
        "sections 3 and 7",
    ),
    Decision(
        "Is the FP32 file right in ONNX Runtime?",
        "no",
        "The export",
        "polygraphy check lint, inspect model, surgeon sanitize",
        "section 6",
    ),
    Decision(
        "Is the file of this precision just as wrong in ONNX Runtime, unoptimized and with its roundings?",
        "no",
        "The engine: builder, library, or how it is called",
        "polygraphy run --trt --onnxrt, debug reduce; report it",
        "section 6",
    ),
    Decision(
        "All tensors marked: is the first bad one infinite (and written by no division)?",
        "yes",
        "Overflow, by this layer or one before it",
        "tensor_errors.layers_behind; FP32, a clip, a moved scale",
        "sections 3 and 5",
    ),
    Decision(
        "Is the first bad one not finite, although its inputs are?",
        "yes",
        "A division by zero, a root or a logarithm",
        "an epsilon that the type can hold, or the node in FP32",
        "section 7",
    ),
    Decision(
        "Is the file quantized?",
        "yes",
        "The scales: they cut values off, or are too coarse",
        "calibration on real inputs, quantization-aware training",
        "section 5",
    ),
    Decision(
        "Does the error jump at one layer?",
        "yes",
        "A layer that needs more digits",
        "that layer in FP32: mixed precision",
        "section 5",
    ),
)
LAST = Decision(
    "It grows from layer to layer.",
    "",
    "The data type is too coarse for this network",
    "FP32 for the sensitive part, or smaller ranges by training",
    "section 5",
)

_TOP, _STEP = 0.5, 1.02  # where the questions begin and from one to the next: inches, as all lengths here
_QUESTION_WIDTH, _LEAF_WIDTH, _HEIGHT = 3.85, 4.25, 0.74
_LEAF_X = plotting.WIDTH_INCHES - _LEAF_WIDTH


def chart() -> plotting.Picture:
    """Draw the chart: questions in a column, and beside each what is wrong if the way ends there."""
    rows = [*DECISIONS, LAST]
    height = _TOP + _STEP * len(rows)
    figure, axes = plotting.new_figure(height)
    axes.set_xlim(0, plotting.WIDTH_INCHES)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    middle = _QUESTION_WIDTH / 2
    axes.text(0, 0.2, START, fontsize=12, fontweight="bold", va="center")
    for index, row in enumerate(rows):
        y = _TOP + _STEP * index + _HEIGHT / 2
        _box(axes, 0, y, _QUESTION_WIDTH, plotting.BLUE, "#eaf2f8")
        axes.text(middle, y, "\n".join(wrap(row.question, 46)), ha="center", va="center", fontsize=10)
        _box(axes, _LEAF_X, y, _LEAF_WIDTH, plotting.GREEN, "#eaf6f1")
        left = _LEAF_X + 0.12
        axes.text(left, y - 0.22, row.verdict, va="center", fontsize=10, fontweight="bold")
        axes.text(left, y + 0.01, row.remedy, va="center", fontsize=9)
        axes.text(left, y + 0.23, row.section, va="center", fontsize=9, color=plotting.GREY)
        _arrow(axes, (_QUESTION_WIDTH, y), (_LEAF_X, y))
        axes.text((_QUESTION_WIDTH + _LEAF_X) / 2, y - 0.13, row.leaves, ha="center", va="center", fontsize=10)
        if row is not LAST:
            _arrow(axes, (middle, y + _HEIGHT / 2), (middle, y + _STEP - _HEIGHT / 2))
            other_answer = "yes" if row.leaves == "no" else "no"
            axes.text(middle + 0.12, y + _STEP / 2, other_answer, va="center", fontsize=10)
    alt = (
        f"A decision chart: {len(DECISIONS)} questions in a column, from the comparison over the feed and the file to "
        "the tensors. Beside each stands what is wrong if the way ends there, with a remedy and the lesson's section. "
        "The same stands as text beside the picture."
    )
    return plotting.Picture(figure, alt, text())


def text() -> str:
    """Return the chart as text: a numbered question, what ends the search, and where it leads."""
    lines = [START]
    for number, row in enumerate((*DECISIONS, LAST), 1):
        answer = f"{row.leaves}: " if row.leaves else ""
        lines += [f"{number}. {row.question}", f"   {answer}{row.verdict} -> {row.remedy} ({row.section})"]
    return "\n".join(lines)


def _box(axes, x: float, y: float, width: float, edge: str, face: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.08"
    box = FancyBboxPatch((x, y - _HEIGHT / 2), width, _HEIGHT, style, edgecolor=edge, facecolor=face, clip_on=False)
    axes.add_patch(box)


def _arrow(axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": plotting.GREY, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=style)
