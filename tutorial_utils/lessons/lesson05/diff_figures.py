"""Lesson 05, engine diff: what several engines of one model are made of, and their kernels side by side."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tutorial_utils import plotting
from tutorial_utils.engine import BuildReport, EngineLayer
from tutorial_utils.inspection import engine_layers
from tutorial_utils.inspection.drawings import KIND_STYLES, bare, clipped, filled, kind_legend, legend
from tutorial_utils.inspection.engine_layers import CONTROL, KINDS
from tutorial_utils.lessons.lesson05.diff import Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MIB = 2**20
_ACTIVATIONS, _WEIGHTS = (plotting.GREY, ""), ("#b9c2cb", "---")  # colour and hatch


def summary(reports: Mapping[str, BuildReport]) -> plotting.Picture:
    """Draw the kernels of each engine by kind, and the memory for activations and weights."""
    figure, (left, right) = plotting.new_figure(1.0 + 0.42 * len(reports), nrows=1, ncols=2)
    lines = []
    for row, (name, report) in enumerate(reports.items()):
        counts = Counter(map(engine_layers.kind, report.kernels))
        start = 0
        for kind in KINDS:
            filled(left, start, row - 0.4, counts[kind], 0.8, KIND_STYLES[kind])
            start += counts[kind]
        left.text(start, row, f" {start}", va="center", fontsize=9)
        for top, size, style in (
            (row - 0.37, report.activation_bytes / _MIB, _ACTIVATIONS),
            (row + 0.01, report.weights_bytes / _MIB, _WEIGHTS),
        ):
            filled(right, 0, top, size, 0.36, style)
            right.text(size, top + 0.18, f" {size:.2f}", va="center", fontsize=8)
        kinds = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
        lines.append(
            f"{name}: {len(report.kernels)} kernels ({kinds}); activations {report.activation_bytes / _MIB:.2f} MiB, "
            f"weights {report.weights_bytes / _MIB:.2f} MiB, plan {report.plan_bytes / _MIB:.2f} MiB"
        )
    for axes in (left, right):
        axes.autoscale_view()
        axes.locator_params(axis="x", integer=True)
        axes.set_yticks(range(len(reports)), reports if axes is left else [""] * len(reports))
        axes.set_ylim(len(reports) - 0.4, -0.6)
        axes.set_xlim(0, axes.get_xlim()[1] * 1.12)
    left.set_xlabel("kernels")
    right.set_xlabel("MiB on the GPU")
    present = {engine_layers.kind(kernel) for report in reports.values() for kernel in report.kernels}
    styles = {kind: KIND_STYLES[kind] for kind in KINDS if kind in present and kind != CONTROL}
    legend(figure, styles | {"right: activations": _ACTIVATIONS, "right: weights": _WEIGHTS})
    return plotting.Picture(figure, f"Engines of one model. {'. '.join(lines)}.", "\n".join(lines))


def readable(kernel: EngineLayer) -> str:
    """Return a kernel's short name with its arithmetic of quantization as Q and DQ.

    TensorRT's generated kernels quantize by ``MulMinMaxRounCast`` and dequantize by ``CastMul``.
    """
    name = engine_layers.short_name(kernel)
    if engine_layers.operations(kernel):
        name = name.replace("MulMinMaxRounCast", "·Q·").replace("CastMul", "·DQ·").replace("··", "·").strip("·")
    return name


def side_by_side(groups: Sequence[Group], names: Sequence[str]) -> plotting.Picture:
    """Draw a row for each group that `diff.align_kernels` found, with the kernels of each engine, by their names."""
    heights = [max(len(side) for side in group.kernels) for group in groups]
    figure, axes = plotting.new_figure(0.75 + 0.175 * sum(heights) + 0.06 * len(groups))
    width = 1 / len(names)
    bare(axes, (-0.28, 1.0), (-sum(heights) - 0.35 * len(groups), 1.1))
    for column, name in enumerate(names):
        axes.text(column * width, 0.5, name, fontsize=9, weight="bold", va="center")
    axes.text(-0.28, 0.5, "ONNX nodes", fontsize=9, weight="bold", va="center")
    top, lines = 0.0, []
    for group, height in zip(groups, heights, strict=True):
        axes.axhline(top - 0.02, color="#d5dade", linewidth=0.7)
        axes.text(-0.28, top - 0.6, clipped(_node_label(group), 31), fontsize=7, va="center")
        for column, side in enumerate(group.kernels):
            for row, kernel in enumerate(side):
                _draw_kernel(axes, column * width, top - 0.6 - row, kernel, room=int(94 * width))
        sides = " | ".join(
            f"{name}: {', '.join(f'{readable(one)} writes {one.outputs[0].dtype}' for one in side) or 'nothing'}"
            for name, side in zip(names, group.kernels, strict=True)
        )
        lines.append(f"{', '.join(group.nodes) or 'no shared node'}\n  {sides}\n  differs: {', '.join(group.changes)}")
        top -= height + 0.35
    kind_legend(figure, (kernel for group in groups for side in group.kernels for kernel in side))
    totals = [sum(len(group.kernels[column]) for group in groups) for column in range(len(names))]
    counts = ", ".join(f"{name} {total}" for name, total in zip(names, totals, strict=True))
    alt = f"Kernels side by side in {len(groups)} groups of ONNX nodes. Kernels by engine: {counts}."
    return plotting.Picture(figure, alt, "\n".join(lines))


def _node_label(group: Group) -> str:
    """Name a group by its first node of each operator: "Conv.5, Add.2, Relu.4"; batch norms go without saying."""
    if not group.nodes:
        return "no shared node"
    operators: dict[str, str] = {}
    for node in group.nodes:
        operators.setdefault(node.partition(".")[0], node)
    return ", ".join(node for operator, node in operators.items() if operator != "BatchNormalization")


def _draw_kernel(axes: "Axes", left: float, middle: float, kernel: EngineLayer, room: int) -> None:
    filled(axes, left, middle - 0.36, 0.016, 0.72, KIND_STYLES[engine_layers.kind(kernel)])
    dtype = kernel.outputs[0].dtype if kernel.outputs else ""
    label = f"{clipped(readable(kernel), room - len(dtype) - 2)} → {dtype}"
    axes.text(left + 0.022, middle, label, fontsize=7, va="center")
