"""Lesson 01: the same network with every tensor an output, which breaks its fusions."""

from pathlib import Path

import onnx

from tutorial_utils.model import onnx_file


def mark_all_outputs(onnx_path: str | Path, target_path: str | Path) -> Path:
    """Write a copy of a model in which every tensor between two nodes is an output of the network.

    It is what Polygraphy's ``--trt-outputs mark all`` does to a TensorRT network. ``target_path`` is returned.
    """
    model = onnx_file.load(onnx_path)
    values = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    marked = {value.name for value in model.graph.output}
    written = [name for node in model.graph.node for name in node.output]
    model.graph.output.extend(values[name] for name in written if name in values and name not in marked)
    return onnx_file.save(model, target_path)
