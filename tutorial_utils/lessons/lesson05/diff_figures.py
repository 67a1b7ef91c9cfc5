"""Lesson 05, engine diff: what several engines of one model are made of, and their kernels side by side."""

import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence

from tutorial_utils import plotting
from tutorial_utils.engine import BuildReport, EngineLayer
from tutorial_utils.inspection import engine_layers
from tutorial_utils.inspection.drawings import KIND_STYLES, bare, filled, kind_legend, legend
from tutorial_utils.inspection.engine_layers import KINDS
from tutorial_utils.lessons.lesson05.diff import Group

_MIB = 2**20


def summary(reports: Mapping[str, BuildReport]) -> plotting.Picture:
    """Draw the kernels of each engine by kind, its memory for activations, and that for weights."""
    figure, panels = plotting.new_figure(1.1 + 0.42 * len(reports), nrows=1, ncols=3, width_ratios=[2, 1, 1])
    left, middle, right = panels
    lines = []
    for row, (name, report) in enumerate(reports.items()):
        counts = Counter(map(engine_layers.kind, report.kernels))
        start = 0
        for kind in KINDS:
            filled(left, start, row - 0.35, counts[kind], 0.7, KIND_STYLES[kind])
            start += counts[kind]
        left.text(start, row, f" {start}", va="center", fontsize=9)
        for axes, size in ((middle, report.activation_bytes / _MIB), (right, report.weights_bytes / _MIB)):
            filled(axes, 0, row - 0.35, size, 0.7, (plotting.GREY, ""))
            axes.text(size, row, f" {size:.2f}", va="center", fontsize=9)
        kinds = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
        lines.append(
            f"{name}: {len(report.kernels)} kernels ({kinds}); activations {report.activation_bytes / _MIB:.2f} MiB, "
            f"weights {report.weights_bytes / _MIB:.2f} MiB, plan {report.plan_bytes / _MIB:.2f} MiB"
        )
    most = max(len(report.kernels) for report in reports.values())
    for axes, label in zip(panels, ("kernels", "MiB of activations", "MiB of weights"), strict=True):
        axes.autoscale_view()
        axes.set_yticks(range(len(reports)), reports if axes is left else [""] * len(reports))
        axes.set_ylim(len(reports) - 0.5, -0.5)
        axes.set_xlim(0, axes.get_xlim()[1] * (1.1 if axes is left else 1.35))
        axes.set_xlabel(label)
        axes.locator_params(axis="x", nbins=4)
    left.set_xticks(range(0, most + 1, next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if most <= 8 * step)))
    present = {engine_layers.kind(kernel) for report in reports.values() for kernel in report.kernels}
    legend(figure, {kind: KIND_STYLES[kind] for kind in KINDS if kind in present})
    return plotting.Picture(figure, f"Engines of one model. {'. '.join(lines)}.", "\n".join(lines))


def readable(kernel: EngineLayer) -> str:
    """Return a kernel's short name with its arithmetic of quantization as Q and DQ.

    TensorRT's generated kernels quantize by ``MulMinMaxRounCast`` and dequantize by ``CastMul``.
    """
    name = engine_layers.short_name(kernel)
    if engine_layers.operations(kernel):
        name = name.replace("MulMinMaxRounCast", "·Q·").replace("CastMul", "·DQ·").replace("··", "·").strip("·")
    return name


_NODES = 0.3  # of the width, for the column of ONNX nodes
_LINE = 0.165  # inches
_PLAIN = {"BatchNormalization": "BatchNorm", "GlobalAveragePool": "AveragePool"}


def side_by_side(groups: Sequence[Group], reports: Mapping[str, BuildReport]) -> plotting.Picture:
    """Draw a row for each group that `diff.align_kernels` found, with the kernels of each engine.

    A kernel has the number of its layer in its engine, the operations in its name, and the type that it writes.
    """
    names = list(reports)
    numbers = {name: {id(layer): i for i, layer in enumerate(report.layers)} for name, report in reports.items()}
    width = (1 - _NODES) / len(names)
    rows = []
    for group in groups:
        sides = [
            [_wrapped(kernel, numbers[name][id(kernel)], int(118 * width)) for kernel in side]
            for name, side in zip(names, group.kernels, strict=True)
        ]
        nodes = textwrap.wrap(_node_label(group), int(118 * _NODES))
        rows.append((nodes, sides, max(len(nodes), *(sum(map(len, side)) for side in sides))))
    lines = 1.6 + sum(height + 0.5 for *_, height in rows)
    figure, axes = plotting.new_figure(0.5 + _LINE * lines)
    bare(axes, (0, 1), (-lines, 0))
    for column, name in enumerate(["ONNX nodes", *names]):
        left = 0 if not column else _NODES + (column - 1) * width
        axes.text(left, -0.5, name, fontsize=9, weight="bold", va="center")
    top = -1.3
    for group, (nodes, sides, height) in zip(groups, rows, strict=True):
        axes.axhline(top, color="#d5dade", linewidth=0.7)
        axes.text(0, top - 0.25, plotting.literal("\n".join(nodes)), fontsize=8, va="top")
        for column, (side, kernels) in enumerate(zip(sides, group.kernels, strict=True)):
            line, left = top - 0.25, _NODES + column * width
            for texts, kernel in zip(side, kernels, strict=True):
                filled(axes, left, line - 0.78, 0.014, 0.66, KIND_STYLES[engine_layers.kind(kernel)])
                axes.text(left + 0.019, line, plotting.literal("\n".join(texts)), fontsize=8, va="top")
                line -= len(texts)
        top -= height + 0.5
    kind_legend(figure, (kernel for group in groups for side in group.kernels for kernel in side))
    totals = [sum(len(group.kernels[column]) for group in groups) for column in range(len(names))]
    counts = ", ".join(f"{name} {total}" for name, total in zip(names, totals, strict=True))
    alt = f"Kernels side by side in {len(groups)} groups of ONNX nodes. Kernels by engine: {counts}."
    return plotting.Picture(figure, alt, "\n".join(_group_text(group, names) for group in groups))


def _group_text(group: Group, names: Sequence[str]) -> str:
    sides = " | ".join(
        f"{name}: {', '.join(f'{readable(one)} writes {one.outputs[0].dtype}' for one in side) or 'nothing'}"
        for name, side in zip(names, group.kernels, strict=True)
    )
    return f"{', '.join(group.nodes) or 'no node of the first model'}\n  {sides}\n  differs: {', '.join(group.changes)}"


def _wrapped(kernel: EngineLayer, number: int, room: int) -> list[str]:
    """Return a kernel's number, name and type in lines that have room for so many characters."""
    dtype = kernel.outputs[0].dtype if kernel.outputs else "nothing"
    words = readable(kernel)
    if engine_layers.operations(kernel):
        words = re.sub(r"(?<=[a-z])(?=[A-Z])|·", " ", words)
    return textwrap.wrap(f"{number} {words} → {dtype}", room, subsequent_indent="   ")


def _node_label(group: Group) -> str:
    """Name a group by its nodes: "Conv.5, BatchNorm.5, Add.2, Relu.4"."""
    if not group.nodes:
        return "no node of the first model"
    heavy_first = sorted(group.nodes, key=lambda node: not node.startswith(("Conv", "MatMul", "Gemm")))
    split = (node.partition(".") for node in heavy_first)
    return ", ".join(f"{_PLAIN.get(operator, operator)}{dot}{number}" for operator, dot, number in split)
