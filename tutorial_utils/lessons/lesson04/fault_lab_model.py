"""The network of the fault laboratory: small, made on the spot from a seed, of the parts that real ones fail in.

It compares two photographs. Each goes through a block of its own, a third block sees both, and ten scores come out.
The weights are random: what the scores mean doesn't matter where two computations of them are compared.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils.model import export

INPUTS = ("before", "after")
JOINT = "joint"
OUTPUT = "scores"
IMAGE_SIZE = 64
EPSILON = 1e-12  # in the divisions: much less than FP16's smallest number, 6e-8

_CHANNELS = 16
_SCORES = 10


class _Graph:
    """An ONNX graph in the making: nodes are named as the tensor that they write."""

    def __init__(self, random: np.random.Generator):
        self.random = random
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [output], output, **attributes))
        return output

    def constant(self, name: str, values: np.ndarray | float) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def conv(self, source: str, output: str, channels_in: int, stride: int = 1) -> str:
        """Add a 3x3 convolution with weights that keep the spread of values, and biases."""
        shape = (_CHANNELS, channels_in, 3, 3)
        weight = self.constant(f"{output}.weight", self.random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:])))
        bias = self.constant(f"{output}.bias", self.random.standard_normal(_CHANNELS) / 10)
        return self.add("Conv", [source, weight, bias], output, pads=[1] * 4, strides=[stride] * 2)

    def block(self, name: str, source: str, channels_in: int) -> str:
        """Add two convolutions and a spatial attention: each pixel is weighted by its score over the mean score."""
        conv1 = self.conv(source, f"{name}.conv1", channels_in, stride=2)
        relu1 = self.add("Relu", [conv1], f"{name}.relu1")
        conv2 = self.conv(relu1, f"{name}.conv2", _CHANNELS)
        relu2 = self.add("Relu", [conv2], f"{name}.relu2")
        weight = self.constant(f"{name}.interest.weight", np.abs(self.random.standard_normal((1, _CHANNELS, 1, 1))))
        bias = self.constant(f"{name}.interest.bias", [0.1])
        interest = self.add("Conv", [relu2, weight, bias], f"{name}.interest")
        positive = self.add("Relu", [interest], f"{name}.positive")
        mean = self.add("GlobalAveragePool", [positive], f"{name}.mean")
        epsilon = self.constant(f"{name}.epsilon", EPSILON)
        safe = self.add("Add", [mean, epsilon], f"{name}.mean_eps")
        attention = self.add("Div", [positive, safe], f"{name}.attention")
        return self.add("Mul", [relu2, attention], f"{name}.attended")


def network(random: np.random.Generator, inputs: Sequence[str] = INPUTS) -> onnx.ModelProto:
    """Return the network in FP32.

    Args:
        random: Draws the weights.
        inputs: Names of the images that it takes: float32 ``[N, 3, 64, 64]`` in [-1, 1] each. With one image, the third
            block is left out.

    Returns:
        A model with the output ``scores``, float32 ``[N, 10]``.
    """
    graph = _Graph(random)
    features = [graph.block(name, name, 3) for name in inputs]
    if len(features) > 1:
        both = graph.add("Concat", features, f"{JOINT}.both", axis=1)
        features = [graph.block(JOINT, both, _CHANNELS * len(features))]
    pooled = graph.add("GlobalAveragePool", features, "pooled")
    flat = graph.add("Flatten", [pooled], "flat")
    readout = graph.random.standard_normal((_CHANNELS, _SCORES)) / np.sqrt(_CHANNELS)
    graph.add("MatMul", [flat, graph.constant(f"{OUTPUT}.weight", readout)], OUTPUT)
    shape = ["batch", 3, IMAGE_SIZE, IMAGE_SIZE]
    proto = helper.make_graph(
        graph.nodes,
        "fault_lab",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", _SCORES])],
        graph.weights,
    )
    opset = helper.make_opsetid("", export.OPSET)
    return helper.make_model(proto, opset_imports=[opset], ir_version=8)
