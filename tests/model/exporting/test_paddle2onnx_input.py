"""What paddle2onnx gets wrong of Paddle 3.3, and that the copy of the program which it is given puts it right."""

import subprocess
import sys

import onnx
import pytest
from onnx import numpy_helper

from tutorial_utils.model import export

pytest.importorskip("paddle2onnx")


def alone(*paths):
    """Let paddle2onnx export a network by itself, and return the exit status."""
    script = "import sys, paddle2onnx; paddle2onnx.export(*sys.argv[1:], opset_version=17, optimize_tool='None')"
    return subprocess.run([sys.executable, "-c", script, *paths], capture_output=True).returncode


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A network as paddle2onnx alone exports it, and as the package does."""
    from model.zoo import Entry, F, Input, nn

    from tutorial_utils.model.quiet_paddle import paddle

    folder = tmp_path_factory.mktemp("rewritten")

    def function(group, layer, x):
        return layer(F.gelu(F.hardtanh(F.leaky_relu(group(x), 0.2), -0.5, 0.5), approximate=True))

    entry = Entry(lambda: [nn.GroupNorm(2, 4), nn.LayerNorm([6, 8])], function, {"x": Input((None, 4, 6, 8))})
    spec = paddle.static.InputSpec([None, 4, 6, 8], "float32", "x")
    paddle.jit.save(entry.build(), str(folder / "net"), input_spec=[spec])
    files = [folder / "net.json", folder / "net.pdiparams"]
    assert alone(*files, folder / "raw.onnx") == 0
    return {"alone": onnx.load(folder / "raw.onnx"), "ours": onnx.load(export.to_onnx(*files, folder / "net.onnx"))}


def epsilon(model):
    return next(
        attribute.f for attribute in node(model, "InstanceNormalization").attribute if attribute.name == "epsilon"
    )


def slope(model):
    return next(attribute.f for attribute in node(model, "LeakyRelu").attribute if attribute.name == "alpha")


def bounds(model):
    return [float(weights(model)[name]) for name in node(model, "Clip").input[1:]]


def is_exact_gelu(model):
    return any(one.op_type == "Erf" for one in model.graph.node)


def scale_rank(model):
    return weights(model)[node(model, "LayerNormalization").input[1]].ndim


def node(model, kind):
    return next(one for one in model.graph.node if one.op_type == kind)


def weights(model):
    constants = {one.output[0]: one.attribute[0].t for one in model.graph.node if one.op_type == "Constant"}
    constants |= {tensor.name: tensor for tensor in model.graph.initializer}
    return {name: numpy_helper.to_array(tensor) for name, tensor in constants.items()}


RIGHT = {
    epsilon: pytest.approx(1e-5),
    slope: pytest.approx(0.2),
    bounds: [-0.5, 0.5],
    is_exact_gelu: False,
    scale_rank: 2,
}


@pytest.mark.parametrize("read", RIGHT, ids=lambda read: read.__name__)
def test_rewriting_is_needed_and_helps(read, models):
    assert read(models["alone"]) != RIGHT[read], "paddle2onnx is right by itself now: drop this from paddle2onnx_input"
    assert read(models["ours"]) == RIGHT[read]


@pytest.mark.parametrize("name", ["over_all_axes", "number_over_tensor", "softplus_beta"])
def test_paddle2onnx_alone_stops_at_what_is_rewritten(name, tmp_path):
    """`tests/model/test_zoo.py` shows that it is exported."""
    from model import zoo

    saved = zoo.save(name, tmp_path)
    assert alone(saved.program, saved.weights, tmp_path / "raw.onnx") != 0, "drop this from paddle2onnx_input"
