"""What the layers of a built engine are: their kind, the tensors between them, and where each ONNX node went."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from tutorial_utils.engine import EngineLayer, EngineTensor, computed_types, memory_format
from tutorial_utils.engine.computed_types import ATTENTION, CONVOLUTION, OPAQUE, PRODUCT
from tutorial_utils.engine.computed_types import generated_operations as operations
from tutorial_utils.inspection.dataflow import VIEWS

POINTWISE = "pointwise/reduction"
POOLING = "pooling"
MOVE = "reformat/cast/copy"
CONTROL = "signal/wait/shapes"
HEAVY = (CONVOLUTION, PRODUCT, ATTENTION, OPAQUE)  # what most of the arithmetic is in
KINDS = (*HEAVY, POINTWISE, POOLING, MOVE, CONTROL)
SAME_BYTES = "copy, same bytes"

_MOVE_OPERATIONS = {
    "Cast": "casts", "Conc": "joins", "Move": "copies", "Repl": "repeats", "Resh": "reshapes", "Slic": "cuts out",
    "Tran": "transposes",
}  # fmt: skip
_NOTHING = "NoOp"  # of TensorRT 10: what another layer wrote, under another name
_MOVE_TYPES = ("reformat", "cast", "copy", "shuffle", "noop")


def short_name(layer: EngineLayer) -> str:
    """Return the name of a layer without what TensorRT puts around it: "CorrMulAddRelu", or "Conv.7"."""
    return re.sub(r"_myl\d+_\d+$", "", layer.name).removeprefix("__myl_")


def kind(layer: EngineLayer) -> str:
    """Return which of `KINDS` a layer is, from its type and, for generated kernels, from its name.

    A kernel that also computes counts as what it computes: MOVE is one that only moves or converts data.
    """
    words, layer_type = set(operations(layer)), layer.type.lower()
    if not layer.is_kernel:
        return CONTROL
    if what := computed_types.operation(layer):
        return what
    if layer.weights and "MulSum" in "".join(operations(layer)):  # a product with weights, written out: of one image
        return PRODUCT
    if "pool" in layer_type:
        return POOLING
    if (words and words <= _MOVE_OPERATIONS.keys()) or layer_type in _MOVE_TYPES:
        return MOVE
    return POINTWISE


def kind_word(layer: EngineLayer) -> str:
    """Return the kind of a layer in a word or two; of those that move data, which of "reformat", "cast" and "copy"."""
    what = kind(layer)
    if what != MOVE:
        return what.partition("/")[0]
    if not (layer.inputs and layer.outputs) or copies_only(layer):
        return "copy"
    source, target = layer.inputs[0], layer.outputs[0]
    if memory_format.UNKNOWN in (source.format, target.format):  # as TensorRT 10 says it, nothing tells
        return "cast" if source.dtype != target.dtype else "reformat" if layer.type.lower() == "reformat" else "copy"
    return "reformat" if source.format != target.format else "cast" if source.dtype != target.dtype else "copy"


def copies_only(layer: EngineLayer) -> bool:
    """Say whether a layer only gives a tensor another shape, and each element has the same place in what it writes.

    The strides on both sides say so. False also where they aren't known.
    """
    if kind(layer) != MOVE or not set(operations(layer)) <= {"Resh", "Move"} or len(layer.inputs) != 1:
        return False
    source, target = layer.inputs[0], layer.outputs[0]
    known = source.strides and target.strides and source.dtype == target.dtype
    return bool(known) and memory_format.same_bytes(source.shape, source.strides, target.shape, target.strides)


def conversion(layer: EngineLayer) -> str:
    """Say what a layer changes between its first input and first output, or else what its name says that it does."""
    does = ", ".join(dict.fromkeys(_MOVE_OPERATIONS[one] for one in operations(layer) if one in _MOVE_OPERATIONS))
    if layer.type == _NOTHING:
        return "nothing: TensorRT's NoOp"
    if not (layer.inputs and layer.outputs):
        return does or "nothing to convert"
    if copies_only(layer):
        return SAME_BYTES
    source, target = layer.inputs[0], layer.outputs[0]
    pairs = (source.dtype, target.dtype), (source.format, target.format)
    changes = [f"{before} to {after}" for before, after in pairs if before != after]
    if (
        len(source.shape) == len(target.shape) > 3
        and 0 < source.shape[1] < target.shape[1]
        and "Conc" in operations(layer)
    ):
        changes.append(f"{source.shape[1]} channels padded to {target.shape[1]}")
    return ", ".join(changes) or does or "same type and format"


def describe(tensor: EngineTensor) -> str:
    """Return a tensor as "fp16 NHWC 1x64x56x56"."""
    return f"{tensor.dtype} {tensor.format} {'x'.join(map(str, tensor.shape))}"


def strides_text(tensor: EngineTensor) -> str:
    """Return a tensor's strides as "strides 200704, 1, 3584, 64", or "" where they aren't known."""
    return f"strides {', '.join(map(str, tensor.strides))}" if tensor.strides else ""


@dataclass(frozen=True)
class Edge:
    """A tensor on its way from one layer to another, both by their position in the engine.

    The source is None for an input of the engine. The tensor is as the target reads it: the same bytes may have had
    another shape where they were written.
    """

    source: int | None
    target: int
    tensor: EngineTensor


def edges(layers: Sequence[EngineLayer]) -> tuple[Edge, ...]:
    """Return the tensors between layers, in the order in which they are read."""
    writer: dict[str, int] = {}
    found = []
    for position, layer in enumerate(layers):
        found += [Edge(writer.get(tensor.name), position, tensor) for tensor in layer.inputs]
        writer.update({tensor.name: position for tensor in layer.outputs})
    return tuple(found)


# Why no layer names a node.
FOLDED = "computed while building, from weights and shapes"
VIEW = "changes no bytes"
UNUSED = "no output depends on it"
UNNAMED = "not named"


@dataclass(frozen=True)
class NodeHome:
    """Where an ONNX node went."""

    node: str  # name of the node; for one without a name, the one that TensorRT gives it
    operator: str  # its ONNX operator
    layers: tuple[int, ...]  # positions of the engine's layers that name it; several where its work is split
    reason: str = ""  # why no layer names it: FOLDED, VIEW, UNUSED or UNNAMED; empty otherwise
    # For UNNAMED, the layer of the last named node on the way to this one, where there is any: an inference from the
    # ONNX graph, not TensorRT's word.
    layer_before: int | None = None

    @property
    def explanation(self) -> str:
        """The reason, with the layer before it where that is known."""
        known = self.layer_before is not None
        return f"{self.reason}; the node before it is in layer {self.layer_before}" if known else self.reason


def node_homes(graph: onnx.GraphProto, layers: Sequence[EngineLayer]) -> tuple[NodeHome, ...]:
    """Find for each node of an ONNX graph the layers that it was fused into, by what its engine says about itself."""
    named: dict[str, list[int]] = {}
    for position, layer in enumerate(layers):
        for node in layer.onnx_nodes:
            named.setdefault(node, []).append(position)
    known = {weight.name for weight in graph.initializer}  # tensors whose values don't depend on the engine's inputs
    used = _used(graph)
    behind: dict[str, int] = {}  # for each tensor, the layer of the last named node on its way
    found = []
    for node in graph.node:
        name = node.name or f"node_of_{node.output[0]}"
        positions = tuple(named.get(name, ()))
        before = max((behind[one] for one in node.input if one in behind), default=None)
        last = positions[-1] if positions else before
        if last is not None:
            behind.update(dict.fromkeys(node.output, last))
        reason = UNNAMED
        if node.op_type in ("Constant", "Shape", "Size") or all(not one or one in known for one in node.input):
            known.update(node.output)
            reason = FOLDED
        elif not used.intersection(node.output):
            reason = UNUSED
        elif node.op_type in VIEWS:
            reason = VIEW
        why = () if positions else (reason, before if reason == UNNAMED else None)
        found.append(NodeHome(name, node.op_type, positions, *why))
    return tuple(found)


def unnamed(homes: Sequence[NodeHome]) -> dict[str, list[str]]:
    """Return the nodes that no layer names, by the explanation."""
    found: dict[str, list[str]] = {}
    for home in homes:
        if not home.layers:
            found.setdefault(home.explanation, []).append(home.node)
    return found


def nodes_in(layer: EngineLayer) -> str:
    """Name a layer by the ONNX nodes inside it, or by its type where it holds none."""
    return " + ".join(layer.onnx_nodes) or f"a {layer.type} kernel of no ONNX node"


def _used(graph: onnx.GraphProto) -> set[str]:
    """Return the names of all tensors that an output of the graph depends on."""
    used = {value.name for value in graph.output}
    for node in reversed(graph.node):
        if used.intersection(node.output):
            used.update(node.input)
    return used
