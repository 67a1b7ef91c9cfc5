"""A model that computes the same in FP32 and overflows in FP16: a power of two moved from one layer to the next.

A layer's weights are multiplied, and those of the layers that read its output are divided by the same power of two.
Multiplying by a power of two changes no digit of a floating-point number, so that FP32 outputs stay the same to the
bit, while the tensors between the layers grow: what badly scaled training does to a network, made on purpose.
"""

from collections import Counter

import numpy as np
import onnx

from tutorial_utils.base.errors import InputError

# What lesson 04 plants, tensor and factor. Reading on spoils its search: look there first.
PLANTED = ("conv2d_491.tmp_0", 32.0)

# Layers whose output is proportional to their weights: inputs 1 and, where there is one, 2.
_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"}
# f(s * x) = s * f(x) for every s > 0, and only the first input is scaled.
_HOMOGENEOUS = {
    "AveragePool", "Flatten", "GlobalAveragePool", "Identity", "LeakyRelu", "MaxPool", "Relu", "Reshape", "Resize",
    "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip


def movable(model: onnx.ModelProto) -> list[str]:
    """Return the tensors whose scale can be moved, in the order in which they are computed.

    Each is produced by a layer with weights. From there every path leads, through operators that hand a positive factor
    on, to a layer whose weights can take it back.

    Args:
        model: The model. Its shapes are inferred for the channels of concatenated tensors.
    """
    channels = _channels(model)
    return [name for node in model.graph.node for name in node.output if _changes(model, channels, name)]


def move_scale(model: onnx.ModelProto, tensor: str, factor: float) -> onnx.ModelProto:
    """Return a model in which one tensor is larger by a factor, and the outputs are the same.

    Args:
        model: The model; it is not changed.
        tensor: One of `movable`.
        factor: A power of two.

    Returns:
        The changed model. No name in it differs.

    Raises:
        InputError: The scale of the tensor can't be moved, or the factor is not a power of two.
    """
    if factor <= 0 or np.frexp(factor)[0] != 0.5:
        raise InputError(
            f"A factor of {factor} was given.", "Give a power of two: others change the digits of weights."
        )
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    changes = _changes(moved, _channels(moved), tensor)
    if not changes:
        raise InputError(
            f"The scale of the tensor {tensor} can't be moved to the layers after it.",
            "Choose one of those that overflow.movable returns.",
        )
    for weight in moved.graph.initializer:
        if weight.name in changes:
            values = onnx.numpy_helper.to_array(weight)
            scales = np.power(np.float32(factor), changes[weight.name])
            weight.CopyFrom(onnx.numpy_helper.from_array((values * scales).astype(values.dtype), weight.name))
    return moved


def _channels(model: onnx.ModelProto) -> dict[str, int]:
    """Return the channels of every tensor whose second dimension is known."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    dims = {value.name: value.type.tensor_type.shape.dim for value in (*graph.input, *graph.value_info)}
    return {name: shape[1].dim_value for name, shape in dims.items() if len(shape) > 1}


def _changes(model: onnx.ModelProto, channels: dict[str, int], tensor: str) -> dict[str, int | np.ndarray]:
    """Return which weights change when a tensor is scaled: by the factor to the power of 1, 0 or -1.

    The power is an array where it differs between input channels. Nothing is returned where the scale can't be moved.
    """
    graph = model.graph
    uses = Counter(name for node in graph.node for name in node.input)
    own = {weight.name for weight in graph.initializer if uses[weight.name] == 1}  # shared ones would change more
    inputs = {weight.name: weight.dims[1] for weight in graph.initializer if len(weight.dims) > 1}
    producer = next((node for node in graph.node if tensor in node.output), None)
    if producer is None or tensor in {value.name for value in graph.output}:
        return {}
    factors = producer.input[1:3] if producer.op_type in _LAYERS else own & set(producer.input)
    if not factors or producer.op_type not in _LAYERS | {"Mul"}:
        return {}
    changes = dict.fromkeys(factors, 1)
    scaled = {tensor: slice(None)}  # tensors that grow, with the channels that do
    for node in graph.node:
        reads = [name for name in node.input if name in scaled]
        if not reads:
            continue
        others = [name for name in node.input if name and name not in scaled]
        first = scaled.get(node.input[0])
        partly = any(scaled[name] != slice(None) for name in reads)  # a part of a concatenation: only Conv divides it
        if partly:
            whole = node.op_type == "Conv" and inputs.get(node.input[1]) == channels.get(node.input[0])
            if not first or not whole:  # not a convolution, or one by groups of channels
                return {}
            changes[node.input[1]] = _inverse(channels[node.input[0]], first)
        elif node.op_type == "BatchNormalization":
            changes.update({node.input[1]: -1, node.input[3]: 1})
        elif node.op_type in _LAYERS and first and len(reads) == 1:
            changes[node.input[1]] = -1
        elif node.op_type == "Mul" and len(reads) == 1 and others[0] in own:
            changes[others[0]] = -1
        elif (
            node.op_type == "Concat" and node.attribute[0].i == 1 and len(reads) == 1 and channels.keys() >= set(others)
        ):
            start = sum(channels[name] for name in node.input[: list(node.input).index(reads[0])])
            scaled[node.output[0]] = slice(start, start + channels[reads[0]])
        elif (node.op_type in _HOMOGENEOUS and first) or (node.op_type == "Mul" and len(reads) == 1):
            scaled[node.output[0]] = slice(None)
        elif node.op_type == "Add":
            changes.update(dict.fromkeys(others, 1))  # a bias grows along; an activation can't, see below
            scaled[node.output[0]] = slice(None)
        else:
            return {}
    ends_inside = not any(value.name in scaled for value in graph.output)
    return changes if ends_inside and changes.keys() <= own else {}


def _inverse(channels: int, scaled: slice) -> np.ndarray:
    """Return the powers for the weights of a convolution of which only some input channels grow."""
    powers = np.zeros((1, channels, 1, 1), np.float32)
    powers[:, scaled] = -1
    return powers
