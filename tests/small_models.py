"""Small models and inputs that several test modules use."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tutorial_utils.engine import BuildOptions, Profile


def residual_model(seed: int = 0) -> onnx.ModelProto:
    """Return a classifier with the parts of the course's model: convolutions, batch norm, residual sum, matrix product.

    Its input is x, float32 of shape [batch, 3, 32, 32], its output y, float32 of shape [batch, 10].
    """
    rng = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(values.astype(np.float32), name)

    def statistic(name: str, low: float, high: float) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.uniform(low, high, 16).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["conv0"], "conv0", pads=[1] * 4),
        helper.make_node("Relu", ["conv0"], ["relu0"], "relu0"),
        helper.make_node("Conv", ["relu0", "w1"], ["conv1"], "conv1", pads=[1] * 4),
        helper.make_node("BatchNormalization", ["conv1", "scale", "shift", "mean", "variance"], ["norm"], "norm"),
        helper.make_node("Add", ["norm", "relu0"], ["sum"], "sum"),
        helper.make_node("Relu", ["sum"], ["relu1"], "relu1"),
        helper.make_node("GlobalAveragePool", ["relu1"], ["pool"], "pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "w2"], ["y"], "fc"),
    ]
    weights = [weight("w0", 16, 3, 3, 3), weight("w1", 16, 16, 3, 3), weight("w2", 16, 10)]
    statistics = [
        statistic("scale", 0.5, 1.5), statistic("shift", -1, 1), statistic("mean", -1, 1),
        statistic("variance", 0.5, 1.5),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, 32, 32])]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 10])]
    graph = helper.make_graph(nodes, "residual", inputs, outputs, weights + statistics)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def images(count: int, seed: int = 1) -> np.ndarray:
    """Return random images, float32, shape [count, 3, 32, 32]."""
    return np.random.default_rng(seed).standard_normal((count, 3, 32, 32)).astype(np.float32)


def options(**changes) -> BuildOptions:
    """Return build options for the residual model: batches from 1 to 16."""
    profile = Profile.batch("x", (3, 32, 32), opt=8, max=16)
    return BuildOptions(**{"profiles": [profile], **changes})


def save_paddle(net, shape, prefix: Path) -> tuple[Path, Path]:
    """Save a Paddle layer as a static model with one input, x; return its program and its weights."""
    import paddle

    net.eval()
    paddle.jit.save(net, str(prefix), input_spec=[paddle.static.InputSpec(shape, "float32", name="x")])
    return prefix.with_suffix(".json"), prefix.with_suffix(".pdiparams")


def answers(network, inputs):
    """What a Paddle network answers in evaluation mode, in which it is left: float32 [N, C]."""
    import paddle

    network.eval()
    with paddle.no_grad():
        return network(paddle.to_tensor(inputs)).numpy()
