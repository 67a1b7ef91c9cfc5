"""ONNX models of a few nodes, with inputs of any declared shape and type."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, UINT8, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8, TensorProto.STRING


def of_nodes(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple],
    outputs: Sequence[str] = ("y",),
    weights: Mapping[str, np.ndarray] | None = None,
    opset: int = 17,
    output_type: int = FLOAT,
) -> onnx.ModelProto:
    """Return a model; inputs by name with their data type and dimensions, outputs of a shape that is not declared."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *declared) for name, declared in inputs.items()],
        [helper.make_tensor_value_info(name, output_type, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def save_nodes(path: Path, nodes: Sequence[onnx.NodeProto], inputs: Mapping[str, tuple], *rest, **named) -> Path:
    """Write the model that `of_nodes` returns."""
    onnx.save(of_nodes(nodes, inputs, *rest, **named), path)
    return path


def resize_to_sizes(path: Path) -> Path:
    """Write a Resize of x, float32 of shape [1, 3, h, w], to the sizes in another input."""
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], "resize", mode="linear")
    return save_nodes(path, [node], {"x": (FLOAT, [1, 3, "h", "w"]), "sizes": (INT64, [4])})


def sequence_of_two(path: Path) -> Path:
    """Write a model whose output is a sequence of its input, twice."""
    save_nodes(path, [helper.make_node("SequenceConstruct", ["x", "x"], ["y"], "pair")], {"x": (FLOAT, [2, 8])})
    model = onnx.load(path)
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", FLOAT, [2, 8]))
    onnx.save(model, path)
    return path
