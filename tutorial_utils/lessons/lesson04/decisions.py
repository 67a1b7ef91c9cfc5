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
    notebook: str  # which teaches it
    section: str  # the heading there


START = "The engine's output is not what it should be"
# Cheap questions come before dear ones, and those about the comparison before those about the model.
DECISIONS = (
    Decision(
        "Is an error beyond three times a trusted model's, or an answer lost?",
        "no",
        "Nothing but the tolerance",
        "tensor_errors.tolerances; count answers",
        "04b_judge_and_mend",
        "1. A tolerance that catches 1 %",
    ),
    Decision(
        "Did both runs get the same bytes? Values, mean, strides.",
        "no",
        "The feed: layout, normalization, order",
        "np.ascontiguousarray; --load-inputs",
        "04c_fault_lab",
        "3. A new export",
    ),
    Decision(
        "Is the FP32 file right in ONNX Runtime?",
        "no",
        "The export",
        "polygraphy check lint; compare every tensor",
        "04c_fault_lab",
        "3. A new export",
    ),
    Decision(
        "Is this precision's file as wrong on a CPU, with its roundings?",
        "no",
        "The engine, or how it is called",
        "strong typing, TF32, debug tensors",
        "04a_find_the_layer",
        "6. Looking changes the engine",
    ),
    Decision(
        "Is a tensor all 0 that isn't in FP32?",
        "yes",
        "Underflow",
        "scale up by a power of two; nodes in FP32",
        "04b_judge_and_mend",
        "3. Remedies in the file",
    ),
    Decision(
        "Is the first Inf a mask that softmax takes well?",
        "yes",
        "A harmless Inf: look for the next one",
        "a mask of -10,000 instead of -3.4e38",
        "04a_find_the_layer",
        "4. The transformer",
    ),
    Decision(
        "Is the first bad tensor Inf, and not written by a division?",
        "yes",
        "Overflow, by this layer or one before it",
        "nodes in FP32, scale back, BF16; clip last",
        "04b_judge_and_mend",
        "3. Remedies in the file",
    ),
    Decision(
        "Is it not finite, although its inputs are?",
        "yes",
        "A division by 0, a root, a logarithm",
        "an epsilon that FP16 holds; nodes in FP32",
        "04b_judge_and_mend",
        "3. Remedies in the file",
    ),
    Decision(
        "Is the file quantized?",
        "yes",
        "Scales that cut values, or few levels",
        "calibrate on real inputs; QAT (04b, 4)",
        "01b_precision",
        "5. Calibrated on the wrong data",
    ),
    Decision(
        "Is one node alone beyond its tolerance?",
        "yes",
        "Its weights, or it needs more digits",
        "compare with FP32's weights; node in FP32",
        "04b_judge_and_mend",
        "1. A tolerance that catches 1 %",
    ),
)
LAST = Decision(
    "The error grows from node to node.",
    "",
    "The format is too coarse for this network",
    "FP16 for BF16; the sensitive part in FP32",
    "04b_judge_and_mend",
    "3. Remedies in the file",
)

_TOP, _STEP = 0.55, 1.04  # where the questions begin and from one to the next: inches, as all lengths here
_QUESTION_WIDTH, _LEAF_WIDTH, _HEIGHT = 3.85, 4.4, 0.82
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
    axes.text(0, 0.2, START, fontsize=14, fontweight="bold", va="center")
    for index, row in enumerate(rows):
        y = _TOP + _STEP * index + _HEIGHT / 2
        _box(axes, 0, y, _QUESTION_WIDTH, plotting.BLUE, "#eaf2f8")
        axes.text(middle, y, "\n".join(wrap(row.question, 36)), ha="center", va="center", fontsize=12)
        _box(axes, _LEAF_X, y, _LEAF_WIDTH, plotting.GREEN, "#eaf6f1")
        left = _LEAF_X + 0.12
        axes.text(left, y - 0.25, row.verdict, va="center", fontsize=12, fontweight="bold")
        axes.text(left, y + 0.01, row.remedy, va="center", fontsize=11.5)
        axes.text(left, y + 0.26, _place(row), va="center", fontsize=11, color=plotting.GREY)
        _arrow(axes, (_QUESTION_WIDTH, y), (_LEAF_X, y))
        axes.text((_QUESTION_WIDTH + _LEAF_X) / 2, y - 0.15, row.leaves, ha="center", va="center", fontsize=12)
        if row is not LAST:
            _arrow(axes, (middle, y + _HEIGHT / 2), (middle, y + _STEP - _HEIGHT / 2))
            other_answer = "yes" if row.leaves == "no" else "no"
            axes.text(middle + 0.12, y + _STEP / 2, other_answer, va="center", fontsize=12)
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
        lines += [f"{number}. {row.question}", f"   {answer}{row.verdict} -> {row.remedy} ({_place(row)})"]
    return "\n".join(lines)


def _place(row: Decision) -> str:
    return f"lesson {row.notebook.partition('_')[0]}, section {row.section.partition('.')[0]}"


def _box(axes, x: float, y: float, width: float, edge: str, face: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.08"
    box = FancyBboxPatch((x, y - _HEIGHT / 2), width, _HEIGHT, style, edgecolor=edge, facecolor=face, clip_on=False)
    axes.add_patch(box)


def _arrow(axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": plotting.GREY, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=style)
