"""A model that computes the same in FP32 and overflows in FP16: a power of two moved from one layer to the next.

A layer's weights are multiplied, and those of the layers that read its output are divided by the same power of two.
Multiplying by a power of two changes no digit of a floating-point number, so that FP32 outputs stay the same to the
bit, while the tensors between the layers grow: what badly scaled training does to a network, made on purpose.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import onnx

from tutorial_utils.base.errors import InputError
from tutorial_utils.model import onnx_file

# What lesson 04 plants, tensor and factor. Reading on spoils its search: look there first.
PLANTED = ("conv2d_491.tmp_0", 32.0)

# By which powers of the factor weights change; an array where they differ between input channels.
Powers = dict[str, int | np.ndarray]
# What an operator does that reads a larger tensor: the powers of its weights, and which channels of its output grow.
# None for both: it can neither hand the factor on nor take it back.
Passed = tuple[Powers, slice | None] | None
_WHOLE = slice(None)


def movable(model: onnx.ModelProto) -> list[str]:
    """Return the tensors whose scale can be moved, in the order in which they are computed.

    Each is produced by a layer with weights. From there every path leads, through operators that hand a positive factor
    on, to a layer whose weights can take it back.
    """
    facts = _facts(model)
    return [name for node in model.graph.node for name in node.output if _changes(model, facts, name)]


def move_scale(model: onnx.ModelProto, tensor: str, factor: float) -> onnx.ModelProto:
    """Return a copy of a model in which a tensor is larger by a power of two. Outputs and names are the same.

    Raises:
        InputError: The scale of the tensor can't be moved, or the factor is not a power of two.
    """
    if factor <= 0 or np.frexp(factor)[0] != 0.5:
        raise InputError(
            f"A factor of {factor} was given.", "Give a power of two: others change the digits of weights."
        )
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    changes = _changes(moved, _facts(moved), tensor)
    if not changes:
        raise InputError(
            f"The scale of the tensor {tensor} can't be moved to the layers after it.",
            "Choose one of those that scaling.movable returns.",
        )
    for name, weight in onnx_file.constants(moved.graph).items():
        if name in changes:
            values = onnx.numpy_helper.to_array(weight)
            scales = np.power(np.float32(factor), changes[name])
            weight.CopyFrom(onnx.numpy_helper.from_array((values * scales).astype(values.dtype), weight.name))
    return moved


class _Facts(NamedTuple):
    own: set[str]  # weights that one node alone reads: others would change more
    inside: set[str]  # what the bodies of If, Loop and Scan read: what they make of it, nobody says
    widths: dict[str, int]  # second dimensions of tensors, their channels, and of weights


def _facts(model: onnx.ModelProto) -> _Facts:
    graph = onnx_file.with_shapes(model).graph
    inside = {name for node in graph.node for name in onnx_file.captured(node)}
    uses = Counter(name for node in graph.node for name in node.input)
    weights = onnx_file.constants(graph)
    own = {name for name in weights if uses[name] == 1} - inside
    dims = {value.name: value.type.tensor_type.shape.dim for value in (*graph.input, *graph.value_info)}
    widths = {name: shape[1].dim_value for name, shape in dims.items() if len(shape) > 1}
    widths |= {name: weight.dims[1] for name, weight in weights.items() if len(weight.dims) > 1}
    return _Facts(own, inside, widths)


def _changes(model: onnx.ModelProto, facts: _Facts, tensor: str) -> Powers:
    """Return which weights change when a tensor is scaled; none where the scale can't be moved."""
    graph = model.graph
    producer = next((node for node in graph.node if tensor in node.output), None)
    changes: Powers = dict.fromkeys(_factors(producer, facts), 1) if producer else {}
    scaled = {tensor: _WHOLE}  # tensors that grow, with the channels that do
    for node in graph.node if changes else ():
        reads = [name for name in node.input if name in scaled]
        if not reads:
            continue
        parts_fit = node.op_type == "Conv" or all(scaled[name] == _WHOLE for name in reads)
        reader = _READERS.get(node.op_type) if parts_fit else None
        passed = reader(node, reads, scaled[reads[0]], facts) if reader else None
        if not passed:
            return {}
        changes.update(passed[0])
        if passed[1]:
            scaled[node.output[0]] = passed[1]
    ends_inside = not any(value.name in scaled for value in graph.output) and not facts.inside & scaled.keys()
    return changes if ends_inside and changes.keys() <= facts.own else {}


def _factors(producer: onnx.NodeProto, facts: _Facts) -> Iterable[str]:
    """Return the weights to which a layer's output is proportional."""
    if producer.op_type == "Mul":
        return facts.own & set(producer.input)
    return producer.input[1:3] if producer.op_type in (*_LAYERS, "BatchNormalization") else ()


def _layer(node: onnx.NodeProto, reads: list[str], part: slice, facts: _Facts) -> Passed:
    data, weight = node.input[:2]
    if reads != [data]:
        return None
    if part == _WHOLE:
        return {weight: -1}, None
    if facts.widths.get(weight) != facts.widths.get(data):  # a convolution by groups of channels
        return None
    powers = np.zeros((1, facts.widths[data], 1, 1), np.float32)
    powers[:, part] = -1
    return {weight: powers}, None


def _product(node: onnx.NodeProto, reads: list[str], part: slice, facts: _Facts) -> Passed:
    others = [name for name in node.input if name not in reads]
    if len(others) != 1:  # a square
        return None
    return ({others[0]: -1}, None) if others[0] in facts.own else ({}, _WHOLE)


def _concatenation(node: onnx.NodeProto, reads: list[str], part: slice, facts: _Facts) -> Passed:
    names, widths = list(node.input), facts.widths
    if node.attribute[0].i != 1 or len(reads) != 1 or not widths.keys() >= set(names):
        return None
    start = sum(widths[name] for name in names[: names.index(reads[0])])
    return {}, slice(start, start + widths[reads[0]])


_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# f(s * x) = s * f(x) for every s > 0, where only the first input grows.
_HOMOGENEOUS = (
    "AveragePool", "Flatten", "GlobalAveragePool", "Identity", "LeakyRelu", "MaxPool", "Relu", "Reshape", "Resize",
    "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
_READERS: dict[str, Callable[..., Passed]] = {
    # A bias grows along; an activation can't: it is none of the weights that may change.
    "Add": lambda node, reads, *_: ({name: 1 for name in node.input if name not in reads}, _WHOLE),
    "BatchNormalization": lambda node, *_: ({node.input[1]: -1, node.input[3]: 1}, None),
    "Concat": _concatenation,
    "Mul": _product,
    **dict.fromkeys(_LAYERS, _layer),
    **dict.fromkeys(_HOMOGENEOUS, lambda node, reads, *_: ({}, _WHOLE) if reads == [node.input[0]] else None),
}
