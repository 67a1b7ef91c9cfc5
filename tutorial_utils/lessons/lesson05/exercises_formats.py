"""What exercise 05c.1 is checked with: engines that take images with channels last, and typical wrong answers."""

import functools
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils import engine
from tutorial_utils.base import paths
from tutorial_utils.inspection import engine_layers
from tutorial_utils.lessons.checking import DATA, Case, Mistake
from tutorial_utils.model import onnx_file

_CHANNELS, _IMAGE = 16, 4  # of the first convolution, and axes of an image


def engine_for_nhwc() -> list[Case]:
    """Return the cases of 05c.1, ``engine_for_nhwc(onnx_path, options)``: what takes images as they are stored."""
    options = engine.BuildOptions()

    def case(name: str, what: str, *mistakes: Mistake) -> Case:
        path = _file(name)
        return Case((path, options), _right(path), what, mistakes, judged=judged)

    return [
        case(
            "one image", "a model of one image",
            Mistake(_words({"x": "NCHW"}, 1),
                    "The engine still takes the image in NCHW, and reorders it. An input's `allowed_formats` is a mask "
                    "of bits: 1 shifted by the number of the format."),
        ),
        case(
            "two images", "a model of two images",
            Mistake(_words({"x": "NHWC", "z": "NCHW"}, 1),
                    "You stop at the first input. Each image has a format of its own."),
        ),
        case("image and numbers", "a model of an image and a row of numbers"),
    ]  # fmt: skip


def on_data(onnx_path: str, options: engine.BuildOptions) -> Case:
    """Return the case of the lesson's data."""
    return Case((onnx_path, options), _right(onnx_path), DATA, judged=judged)


def _right(onnx_path: str) -> str:
    inputs = onnx_file.inputs(onnx_file.load(onnx_path).graph)
    return _words({one.name: "NHWC" for one in inputs if len(one.type.tensor_type.shape.dim) == _IMAGE}, 0)


def _words(formats: Mapping[str, str], moves: int) -> str:
    named = ", ".join(f"{name} in {formats[name]}" for name in sorted(formats))
    return f"an engine that reads {named}, {moves} reformat{'s' * (moves != 1)} of inputs"


def judged(returned: object) -> str:
    """Say how an engine reads its images, and how many kernels only reorder an input."""
    if not isinstance(returned, engine.Engine):
        return f"{type(returned).__name__} instead of what engine.build returns"
    layers = returned.report.layers
    read = [edge for edge in engine_layers.edges(layers) if edge.source is None]
    moves = sum(engine_layers.kind(layers[edge.target]) == engine_layers.MOVE for edge in read)
    return _words({one.tensor.name: one.tensor.format for one in read if len(one.tensor.shape) == _IMAGE}, moves)


@functools.cache
def _file(name: str) -> str:
    """Write a small model; return its path."""
    images = ["x", "z"] if name == "two images" else ["x"]
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((rng.standard_normal((_CHANNELS, 3, 3, 3)) / 5).astype(np.float32), f"w_{image}")
        for image in images
    ]
    nodes = [helper.make_node("Conv", [one, f"w_{one}"], [f"c_{one}"], f"conv_{one}", pads=[1] * 4) for one in images]
    last = f"c_{images[-1]}"
    if len(images) > 1:
        nodes.append(helper.make_node("Add", ["c_x", "c_z"], ["both"], "sum"))
        last = "both"
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flat"),
    ]
    inputs = [helper.make_tensor_value_info(one, TensorProto.FLOAT, (1, 3, 32, 32)) for one in images]
    if name == "image and numbers":
        inputs.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, (1, _CHANNELS)))
        nodes.append(helper.make_node("Add", ["flat", "r"], ["y"], "more"))
    else:
        nodes.append(helper.make_node("Relu", ["flat"], ["y"], "relu"))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, _CHANNELS))]
    graph = helper.make_graph(nodes, "images", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return str(onnx_file.save(model, paths.cache_dir("lesson05") / f"exercise-{name.replace(' ', '-')}.onnx"))
