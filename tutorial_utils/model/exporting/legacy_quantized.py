"""The Q/DQ pairs of a quantized Paddle program, placed where TensorRT wants them.

Paddle writes a pair at each tensor of which it has seen a range. It marks all but those at the inputs of convolutions
and matrix products as observed only, and paddle2onnx drops the mark: TensorRT would round at each of them. Weights of
linear layers get a single scale from paddle2onnx, where Paddle has one for each output channel.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tutorial_utils.model import onnx_file

QUANTIZED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_LEVELS = 127


def place_pairs(model: onnx.ModelProto) -> None:
    """Keep the pairs at inputs of convolutions and matrix products, store their weights as INT8, drop the others.

    Args:
        model: As paddle2onnx's backend "rknn" writes it: zero points are 0, and weights are FP32 values on the INT8
            grid with Q and DQ behind them. It is changed.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    constants = {name: numpy_helper.to_array(tensor) for name, tensor in onnx_file.constants(graph).items()}
    stored = {}  # weights whose pair has become an INT8 tensor and its DQ
    new_nodes = []
    for node in graph.node:
        for i, name in enumerate(node.input):
            dequantize = producers.get(name)
            if dequantize is None or dequantize.op_type != "DequantizeLinear":
                continue
            quantize = producers[dequantize.input[0]]
            source, scale = quantize.input[:2]
            if node.op_type not in QUANTIZED or i > 1:
                node.input[i] = source
            elif source in constants:
                if name not in stored:
                    stored[name] = _store(graph, source, constants[source], constants[scale], node)
                    new_nodes.append(stored[name])
                node.input[i] = stored[name].output[0]
    nodes = [*new_nodes, *graph.node]
    for operator in ("DequantizeLinear", "QuantizeLinear"):  # what nothing reads any more, from the end of a pair
        read = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
        nodes = [node for node in nodes if node.op_type != operator or node.output[0] in read]
    onnx_file.replace_nodes(graph, nodes)


def _store(
    graph: onnx.GraphProto, name: str, values: np.ndarray, scale: np.ndarray, reader: onnx.NodeProto
) -> onnx.NodeProto:
    """Store weights as INT8, and return the DQ that gives them back. Its scales are those of the output channels."""
    axis = {"Conv": 0, "ConvTranspose": 1}.get(reader.op_type, values.ndim - 1)
    along = tuple(size if i == axis else 1 for i, size in enumerate(values.shape))
    if scale.size == 1:  # Paddle took the largest value of each channel for a scale: it is on the grid, so still there
        others = tuple(i for i in range(values.ndim) if i != axis)
        own = np.abs(values).max(axis=others) / np.float32(_LEVELS)
        own[own == 0] = 1
        scale = own if _error(values, own.reshape(along)) < _error(values, scale) else np.full_like(own, scale)
    integers = np.clip(np.rint(values / scale.reshape(along)), -128, 127).astype(np.int8)
    zeros = np.zeros(scale.shape, np.int8)
    parts = {f"{name}.int8": integers, f"{name}.scale": scale.astype(np.float32), f"{name}.zero_point": zeros}
    graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in parts.items())
    return helper.make_node("DequantizeLinear", list(parts), [f"{name}.dequantized"], axis=axis)


def _error(values: np.ndarray, scale: np.ndarray) -> float:
    return float(np.abs(np.rint(values / scale) * scale - values).max())
