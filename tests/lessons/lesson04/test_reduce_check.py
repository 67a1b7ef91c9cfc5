import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from polygraphy.json import save_json

from tutorial_utils.debug import polygraphy_cli, scaling, tensor_errors
from tutorial_utils.lessons.lesson04 import reduce_check

SHAPE = [1, 4, 8, 8]


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


CULPRITS = ("conv0", "conv2")


REDUCE = (
    'polygraphy debug reduce model.onnx -o reduced.onnx --load-inputs feeds.json --fail-regex "Inf or NaN" --check '
    "python -m tutorial_utils.lessons.lesson04.reduce_check polygraphy_debug.onnx tensors.npz"
)


def plant(culprit, folder):
    """Write the network with a culprit, what it is fed with and all its tensors, and return these."""
    feeds = {"x": np.random.default_rng(1).normal(0, 30, SHAPE).astype(np.float32)}
    onnx.save(scaling.move_scale(network(), culprit, 4096.0), folder / "model.onnx")
    tensors = {**feeds, **tensor_errors.all_outputs(folder / "model.onnx", feeds)}
    np.savez(folder / "tensors.npz", **tensors)
    save_json([feeds], str(folder / "feeds.json"))
    return tensors


@pytest.fixture(scope="module")
def reductions(tmp_path_factory):
    """For each culprit the folder, all tensors, and how its reduction ended, which takes seconds: both run at once."""
    folders = [tmp_path_factory.mktemp(culprit) for culprit in CULPRITS]
    tensors = list(map(plant, CULPRITS, folders))
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(functools.partial(polygraphy_cli.run, REDUCE), folders)
        return dict(zip(CULPRITS, zip(folders, tensors, results, strict=True), strict=True))


@pytest.mark.parametrize("culprit", CULPRITS)
def test_reduce_finds_the_culprit_wherever_it_is_planted(culprit, reductions):
    folder, tensors, result = reductions[culprit]
    onnx.save(network(), folder / "sound.onnx")
    assert reduce_check.not_finite(folder / "sound.onnx", folder / "tensors.npz") == []
    assert result.returncode == 0, result.text
    assert len(onnx.load(folder / "reduced.onnx").graph.node) <= 2  # reduce never tries the first node alone
    assert reduce_check.not_finite(folder / "reduced.onnx", folder / "tensors.npz")[0] == culprit
    suspects = tensor_errors.layers_behind(onnx.load(folder / "model.onnx"), culprit, tensors)
    assert suspects.index[0] == f"Conv.{culprit[-1]}"
