"""What differs between two engines: the same engine read twice, or one model built in two precisions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tutorial_utils.engine import BuildReport, EngineLayer, EngineTensor, memory_format
from tutorial_utils.inspection import engine_layers

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

    @property
    def changes(self) -> tuple[str, ...]:
        """What is not the same in all engines, in this order: "kernels" (number), "fusion", "data types", "formats"."""
        views = {
            "kernels": len,
            "fusion": lambda side: sorted(map(engine_layers.operations, side)),
            "data types": lambda side: {dtype for layer in side for dtype in layer.dtypes},
            "formats": _orders,
        }
        first, *others = self.kernels
        return tuple(what for what, view in views.items() if any(view(side) != view(first) for side in others))


def _orders(side: Sequence[EngineLayer]) -> set[str]:
    """Return the orders in which some layers hold their tensors: "NCHW" is "row major", and a vector has no order."""
    formats = {tensor.format for layer in side for tensor in layer.inputs + layer.outputs}
    return {memory_format.ROWS if one in memory_format.ROW_MAJOR else one for one in formats - {memory_format.VECTOR}}


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
