"""Figures of lesson 04: Polygraphy's tools in one picture, and what its commands said of engines on a GPU."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tutorial_utils import plotting

if TYPE_CHECKING:
    import pandas

# What kind of work it is, tool, what goes in, what comes out.
_TOOLS = (
    ("runs", "run", "model, engine or script; inputs", "outputs of each runtime; PASSED or FAILED"),
    ("builds", "convert", "ONNX model", "TensorRT engine, or ONNX in FP16"),
    ("looks", "inspect", "model, engine or saved data", "its layers, shapes, statistics"),
    ("looks", "check", "ONNX model", "what is wrong with it, node by node"),
    ("writes", "surgeon", "ONNX model", "a part of it, or a cleaned copy"),
    ("writes", "template", "model or options", "a Python script to complete"),
    ("searches", "debug", "failing model; command that checks it", "smallest model that still fails"),
    ("carries", "data", "saved inputs and outputs", "one file of inputs"),
)
_COLOURS = {
    "runs": plotting.BLUE, "builds": plotting.BLUE, "looks": plotting.GREEN, "writes": plotting.ORANGE,
    "searches": plotting.RED, "carries": plotting.GREY,
}  # fmt: skip


def toolbox() -> plotting.Picture:
    """Draw Polygraphy's tools, one to a line: what goes in and what comes out."""
    figure, axes = plotting.new_figure(3.9)
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(len(_TOOLS) - 0.4, -1)
    for position, heading in ((0.405, "goes in"), (0.635, "comes out")):
        align = "right" if position < 0.5 else "left"
        axes.text(position, -0.75, heading, ha=align, va="center", fontsize=10, color=plotting.GREY)
    arrow = {"arrowstyle": "-|>", "color": plotting.GREY, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0}
    for row, (kind, tool, goes_in, comes_out) in enumerate(_TOOLS):
        box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": _COLOURS[kind], "linewidth": 2}
        axes.text(0.52, row, f"{tool:^8}", ha="center", va="center", family="monospace", weight="bold", bbox=box)
        axes.text(0.405, row, goes_in, ha="right", va="center", fontsize=10.5)
        axes.text(0.635, row, comes_out, ha="left", va="center", fontsize=10.5)
        axes.annotate("", (0.465, row), (0.415, row), arrowprops=arrow)
        axes.annotate("", (0.625, row), (0.575, row), arrowprops=arrow)
        axes.text(0, row, kind, ha="left", va="center", fontsize=9, color=plotting.GREY, style="italic")
    width = max(len(goes_in) for _, _, goes_in, _ in _TOOLS)
    text = "\n".join(f"{tool:8}  {goes_in:{width}} -> {comes_out}" for _, tool, goes_in, comes_out in _TOOLS)
    alt = "Polygraphy's eight tools. " + " ".join(
        f"{tool}: {goes_in} in, {comes_out} out." for _, tool, goes_in, comes_out in _TOOLS
    )
    return plotting.Picture(figure, alt, text)


def recorded_commands(rows: Sequence[dict[str, Any]]) -> "pandas.DataFrame":
    """Return what Polygraphy said of the engines as a table for display.

    Args:
        rows: What `experiments.lesson04_polygraphy.measure` returns.
    """
    import pandas

    lines = [
        {
            "model": row["model"],
            "asked to": row["what"],
            "said": "PASSED" if row["passed"] else "FAILED",
            "tensors checked": row["checked"],
            "failed": row["failed"],
            "first not finite": row["first_not_finite"] or "",
            "largest error of the last one": f"{row['last_error'][1]:.1e}" if row["last_error"] else "",
        }
        for row in rows
    ]
    return pandas.DataFrame(lines).set_index(["model", "asked to"])
