import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from polygraphy.json import save_json

from tutorial_utils.debug import polygraphy_cli, scaling, tensor_errors
from tutorial_utils.lessons.lesson04 import reduce_check

SHAPE = [1, 4, 8, 8]


@pytest.fixture
def network():
    """Five convolutions with ReLU between them; the output of the second also goes round the third and fourth."""
    numbers = np.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    for i in range(5):
        weights.append(numpy_helper.from_array(numbers.normal(0, 0.4, (4, 4, 3, 3)).astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("Conv", [name, f"w{i}"], [f"conv{i}"], f"Conv.{i}", pads=[1, 1, 1, 1]))
        name = f"conv{i}"
        if i == 3:
            nodes.append(helper.make_node("Add", [name, "relu1"], ["sum"], "Add.3"))
            name = "sum"
        if i < 4:
            nodes.append(helper.make_node("Relu", [name], [f"relu{i}"], f"Relu.{i}"))
            name = f"relu{i}"
    info = [helper.make_tensor_value_info(value, TensorProto.FLOAT, SHAPE) for value in ("x", name)]
    graph = helper.make_graph(nodes, "branched", info[:1], info[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("culprit", ["conv0", "conv2"])
def test_reduce_finds_the_culprit_wherever_it_is_planted(network, culprit, tmp_path):
    feeds = {"x": np.random.default_rng(1).normal(0, 30, SHAPE).astype(np.float32)}
    onnx.save(scaling.move_scale(network, culprit, 4096.0), tmp_path / "model.onnx")
    onnx.save(network, tmp_path / "sound.onnx")
    tensors = {**feeds, **tensor_errors.all_outputs(tmp_path / "model.onnx", feeds)}
    np.savez(tmp_path / "tensors.npz", **tensors)
    save_json([feeds], str(tmp_path / "feeds.json"))
    assert reduce_check.not_finite(tmp_path / "sound.onnx", tmp_path / "tensors.npz") == []
    result = polygraphy_cli.run(
        'polygraphy debug reduce model.onnx -o reduced.onnx --load-inputs feeds.json --fail-regex "Inf or NaN" --check '
        "python -m tutorial_utils.lessons.lesson04.reduce_check polygraphy_debug.onnx tensors.npz",
        tmp_path,
    )
    assert result.returncode == 0, result.text
    assert len(onnx.load(tmp_path / "reduced.onnx").graph.node) <= 2  # reduce never tries the first node alone
    assert reduce_check.not_finite(tmp_path / "reduced.onnx", tmp_path / "tensors.npz")[0] == culprit
    suspects = tensor_errors.layers_behind(onnx.load(tmp_path / "model.onnx"), culprit, tensors)
    assert suspects.index[0] == f"Conv.{culprit[-1]}"
