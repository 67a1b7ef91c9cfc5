"""Lesson 05, what differs between engines: the same engine read twice, or one model built in several precisions."""

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tutorial_utils import plotting
from tutorial_utils.engine import BuildReport, EngineLayer, EngineTensor
from tutorial_utils.inspection import engine_layers
from tutorial_utils.inspection.drawings import KIND_STYLES, filled, legend
from tutorial_utils.inspection.engine_layers import KINDS

if TYPE_CHECKING:
    import pandas

_MIB = 2**20
_PLAIN = {"BatchNormalization": "BatchNorm", "GlobalAveragePool": "AveragePool"}

_SERIAL = re.compile(r"__mye\d+")


def renumbered(layers: Sequence[EngineLayer]) -> tuple[EngineLayer, ...]:
    """Return layers with TensorRT's serial numbers counted anew: ``__mye5088_myl0_3`` becomes ``__mye0_myl0_3``.

    The builder numbers what it makes, and the same engine has other numbers in the next build. Everything else that a
    layer says stays as it is.
    """
    numbers: dict[str, str] = {}

    def name(text: str) -> str:
        return _SERIAL.sub(lambda found: numbers.setdefault(found[0], f"__mye{len(numbers)}"), text)

    def tensors(side: tuple[EngineTensor, ...]) -> tuple[EngineTensor, ...]:
        return tuple(replace(tensor, name=name(tensor.name)) for tensor in side)

    return tuple(
        replace(layer, name=name(layer.name), inputs=tensors(layer.inputs), outputs=tensors(layer.outputs))
        for layer in layers
    )


def differences(first: Sequence[EngineLayer], second: Sequence[EngineLayer]) -> list[str]:
    """Return a line for each property of a layer that two reports of one engine say otherwise.

    TensorRT's serial numbers don't count (`renumbered`).
    """
    if len(first) != len(second):
        return [f"{len(first)} layers against {len(second)}"]
    return [
        f"layer {position}: {field} {getattr(one, field)} against {getattr(other, field)}"
        for position, (one, other) in enumerate(zip(renumbered(first), renumbered(second), strict=True))
        for field in ("name", "type", "inputs", "outputs", "onnx_nodes")
        if not _alike(getattr(one, field), getattr(other, field))
    ]


def _alike(one: Any, other: Any) -> bool:
    """Compare a property of two layers; of tensors, strides count where both sides have them."""
    if len(one) != len(other) or not all(isinstance(value, EngineTensor) for value in (*one, *other)):
        return one == other
    return all(
        first == (second if first.strides and second.strides else replace(second, strides=first.strides))
        for first, second in zip(one, other, strict=True)
    )


@dataclass(frozen=True)
class Group:
    """The kernels of several engines that compute the same ONNX nodes."""

    nodes: tuple[str, ...]  # as the first model has them; none for a kernel without any of them
    kernels: tuple[tuple[EngineLayer, ...], ...]  # those of each engine


def align_kernels(reports: Sequence[BuildReport]) -> tuple[Group, ...]:
    """Group the kernels of several engines of one model by their ONNX nodes, in the order of the first engine.

    Kernels that share a node belong together, also where one engine fuses nodes that another keeps apart. Nodes that
    the first model doesn't have, such as casts and Q/DQ, join nothing: kernels of such alone are the last group.
    """
    names = dict.fromkeys(node for kernel in reports[0].kernels for node in kernel.onnx_nodes)
    order = {node: place for place, node in enumerate(names)}
    together: dict[str, frozenset[str]] = {}  # for each node, all nodes whose kernels belong together
    for kernel in (kernel for report in reports for kernel in report.kernels):
        nodes = order.keys() & kernel.onnx_nodes
        joined = frozenset(nodes.union(*(together.get(node, ()) for node in nodes)))
        together.update(dict.fromkeys(joined, joined))
    shared = {together[node]: [[] for _ in reports] for node in order}
    alone: list[list[EngineLayer]] = [[] for _ in reports]
    for column, report in enumerate(reports):
        for kernel in report.kernels:
            node = next((node for node in kernel.onnx_nodes if node in order), None)
            if node is None:
                alone[column].append(kernel)
            else:
                shared[together[node]][column].append(kernel)
    groups = [
        Group(tuple(sorted(nodes, key=order.__getitem__)), tuple(map(tuple, sides))) for nodes, sides in shared.items()
    ]
    return (*groups, Group((), tuple(map(tuple, alone)))) if any(alone) else tuple(groups)


def side_by_side(groups: Sequence[Group], reports: Mapping[str, BuildReport]) -> "pandas.DataFrame":
    """Return the kernels of each engine as a table: rows of one group, as `align_kernels` found them, stand together.

    A kernel has the number of its layer in its engine, the operations in its name, and the type that it writes.
    """
    import pandas

    numbers = {id(layer): number for report in reports.values() for number, layer in enumerate(report.layers)}
    lines = []
    for group in groups:
        sides = (
            [f"{numbers[id(one)]} {readable(one)} → {one.outputs[0].dtype}" for one in side] for side in group.kernels
        )
        lines += [(_label(group), *kernels) for kernels in itertools.zip_longest(*sides, fillvalue="")]
    table = pandas.DataFrame(lines, columns=["ONNX nodes", *reports])
    return table.set_index(["ONNX nodes", table.groupby("ONNX nodes").cumcount().rename("") + 1])


def readable(kernel: EngineLayer) -> str:
    """Return a kernel's short name with its arithmetic of quantization as Q and DQ.

    TensorRT's generated kernels quantize by ``MulMinMaxRounCast`` and dequantize by ``CastMul``.
    """
    name = engine_layers.short_name(kernel)
    if engine_layers.operations(kernel):
        name = name.replace("MulMinMaxRounCast", "·Q·").replace("CastMul", "·DQ·").replace("··", "·").strip("·")
    return name


def _label(group: Group) -> str:
    """Name a group by its nodes: "Conv.5, BatchNorm.5, Add.2, Relu.4"."""
    heavy_first = sorted(group.nodes, key=lambda node: not node.startswith(("Conv", "MatMul", "Gemm")))
    split = (node.partition(".") for node in heavy_first)
    named = (f"{_PLAIN.get(operator, operator)}{dot}{number}" for operator, dot, number in split)
    return ", ".join(named) or "no node of the first model"


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
