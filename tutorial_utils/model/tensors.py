"""Lesson 01, precision and calibration: the values of a network's tensors, and the scales of a quantized one."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import InputError
from tutorial_utils.model import onnx_file


def weights(onnx_path: str | Path) -> dict[str, np.ndarray]:
    """Return the float32 weights of a model by name.

    Raises:
        ModelFileError: The model is missing or damaged.
    """
    graph = onnx_file.load(onnx_path).graph
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }


def activations(onnx_path: str | Path, images: np.ndarray, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Run a model once and return the tensors inside it, by making them outputs.

    Args:
        onnx_path: An FP32 model with one input.
        images: float32 ``[N, ...]`` as the model's input.
        names: The tensors wanted; every node's outputs unless given. The model's input is allowed too.

    Returns:
        One array for each tensor, by name.

    Raises:
        InputError: The model has no tensor of such a name.
        ModelFileError: The model is missing or damaged.
    """
    model = onnx_file.load(onnx_path)
    inside = [name for node in model.graph.node for name in node.output if name]
    input_name = model.graph.input[0].name
    wanted = list(inside if names is None else names)
    unknown = [name for name in wanted if name not in inside and name != input_name]
    if unknown:
        raise InputError(f"The model has no tensor {unknown[0]}.", "Take the names from the nodes of the model.")
    outputs = [name for name in wanted if name != input_name]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    session = onnx_session.new_session(model.SerializeToString())
    arrays = dict(zip(outputs, session.run(outputs, {input_name: images}), strict=True))
    return {name: images if name == input_name else arrays[name] for name in wanted}


def activation_scales(onnx_path: str | Path) -> dict[str, float]:
    """Return the scale of each quantized activation, by the name of the tensor that goes into QuantizeLinear.

    Raises:
        ModelFileError: The model is missing or damaged.
    """
    graph = onnx_file.load(onnx_path).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    return {
        node.input[0]: float(numpy_helper.to_array(constants[node.input[1]]))
        for node in graph.node
        if node.op_type == "QuantizeLinear"
    }


def weight_scales(onnx_path: str | Path) -> dict[str, np.ndarray]:
    """Return the scales of each quantized weight: one number, or one for each output channel.

    Raises:
        ModelFileError: The model is missing or damaged.
    """
    graph = onnx_file.load(onnx_path).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    return {
        node.input[0].removesuffix("_quantized"): numpy_helper.to_array(constants[node.input[1]])
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
