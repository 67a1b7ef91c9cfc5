"""A scale moved between layers: nothing changes in FP32, and the method of lesson 04 finds each one in FP16."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from small_models import images, residual_model

from tutorial_utils.base.errors import InputError
from tutorial_utils.debug import scaling, tensor_errors
from tutorial_utils.lessons.lesson04 import text_detection
from tutorial_utils.model import half_precision, onnx_file

OUTPUT = "sigmoid_0.tmp_0"


@pytest.fixture(scope="module")
def model_path():
    return text_detection.prepare()


@pytest.fixture(scope="module")
def model(model_path):
    return onnx.load(model_path)


@pytest.fixture(scope="module")
def feeds():
    return {"x": text_detection.preprocess(text_detection.page(), 96, 192)}


@pytest.fixture(scope="module")
def sound(model_path, feeds):
    return tensor_errors.all_outputs(model_path, feeds)


def producer(model, tensor):
    return next(node for node in model.graph.node if tensor in node.output)


def test_many_tensors_can_be_moved(model):
    names = scaling.movable(model)
    assert len(names) == len(set(names)) >= 50
    assert scaling.PLANTED[0] in names
    assert {producer(model, name).op_type for name in names} == {"Conv", "ConvTranspose", "Mul"}


def test_moving_changes_no_bit_of_fp32(model, feeds, sound, tmp_path):
    for tensor in scaling.movable(model)[::8]:
        moved = scaling.move_scale(model, tensor, 1024)
        tensors = tensor_errors.all_outputs(onnx_file.save(moved, tmp_path / "moved.onnx"), feeds)
        np.testing.assert_array_equal(tensors[OUTPUT], sound[OUTPUT], err_msg=tensor)
        np.testing.assert_array_equal(tensors[tensor], sound[tensor] * 1024, err_msg=tensor)


def test_weights_of_constant_nodes_are_moved_too(feeds):
    """The network as it is shipped, with each weight in a Constant node."""
    shipped = onnx.load(text_detection.shipped_path())
    assert not shipped.graph.initializer
    moved = scaling.move_scale(shipped, *scaling.PLANTED)
    assert [node.op_type for node in moved.graph.node] == [node.op_type for node in shipped.graph.node]
    before, after = (
        onnxruntime.InferenceSession(one.SerializeToString()).run(None, feeds)[0] for one in (shipped, moved)
    )
    assert np.array_equal(before, after)
    changed = [
        name
        for name, values in tensor_errors.constants(moved).items()
        if not np.array_equal(values, tensor_errors.constants(shipped)[name])
    ]
    assert len(changed) == 3, "of the layer, and of the two that read its output"


def test_batch_norm_takes_the_scale_back(tmp_path):
    """The prepared network has none. In the small model, a residual sum keeps all tensors but conv1 from moving."""
    model, feeds = residual_model(), {"x": images(2)}
    assert scaling.movable(model) == ["conv1"]
    before = tensor_errors.all_outputs(onnx_file.save(model, tmp_path / "before.onnx"), feeds)
    moved = onnx_file.save(scaling.move_scale(model, "conv1", 256), tmp_path / "after.onnx")
    after = tensor_errors.all_outputs(moved, feeds)
    np.testing.assert_array_equal(after["conv1"], 256 * before["conv1"])
    np.testing.assert_allclose(after["norm"], before["norm"], rtol=1e-5, atol=1e-6)


def test_given_model_is_left_alone(model):
    before = model.SerializeToString()
    scaling.move_scale(model, *scaling.PLANTED)
    assert model.SerializeToString() == before


# The lesson's own, one in the neck, one in the backbone whose layer is a learned scale, one within an attention block.
@pytest.mark.parametrize("tensor", [scaling.PLANTED[0], "conv2d_472.tmp_0", "p2o.Mul.11", "conv2d_483.tmp_0"])
def test_method_finds_the_planted_layer(tensor, model, feeds, sound, tmp_path):
    factor = 2.0 ** np.ceil(np.log2(70_000 / np.abs(sound[tensor]).max()))
    planted = onnx_file.save(scaling.move_scale(model, tensor, factor), tmp_path / "fp32.onnx")
    reference = tensor_errors.all_outputs(planted, feeds)
    in_fp16 = tensor_errors.all_outputs(half_precision.to_fp16(planted, tmp_path / "fp16.onnx"), feeds)
    assert np.isfinite(reference[OUTPUT]).all()
    first = tensor_errors.first_bad(tensor_errors.compare(reference, in_fp16))
    behind = tensor_errors.layers_behind(onnx.load(planted), first, {**feeds, **reference})
    assert behind.index[0] == producer(model, tensor).name


def test_first_bad_tensor_is_not_always_the_planted_one(model, feeds, tmp_path):
    planted = onnx_file.save(scaling.move_scale(model, *scaling.PLANTED), tmp_path / "fp32.onnx")
    page = {"x": text_detection.preprocess(text_detection.page(), 192, 384)}
    tables = tensor_errors.compare(
        tensor_errors.all_outputs(planted, page),
        tensor_errors.all_outputs(half_precision.to_fp16(planted, tmp_path / "fp16.onnx"), page),
    )
    assert tensor_errors.first_bad(tables) == "p2o.Add.271"
    assert producer(model, "p2o.Add.271").op_type == "Add"
    assert tables.loc[OUTPUT, "nan"] > 0


def parsed(nodes):
    """Return a model from x to y of some nodes in ONNX's text form, which read the weights w, v, u and g."""
    sizes = {"w": (2, 2), "v": (2, 2), "u": (4, 4), "g": (4, 1)}
    weights = {name: np.ones((*size, 1, 1), np.float32) for name, size in sizes.items()}
    signature = "small (float[1,2,4,4] x, bool c) => (float[a,b,h,w] y)"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {signature} {{ {nodes} }}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(one), name) for name, one in weights.items())
    return model


BRANCHES = (
    "<then_branch = a () => (float[1,2,4,4] d) { d = Relu(t) },"
    " else_branch = b () => (float[1,2,4,4] e) { e = Neg(t) }>"
)
BETWEEN = "t = Conv(x, w) r = {}(t) y = Conv(r, v)"
MOVABLE = {
    **{f"{op} hands it on": (BETWEEN.format(op), ["t"]) for op in ("Relu", "Identity", "LeakyRelu")},
    **{f"{op} stops it": (BETWEEN.format(op), []) for op in ("Sigmoid", "HardSigmoid", "Tanh", "Exp")},
    "a residual sum": ("t = Conv(x, w) s = Add(t, x) y = Conv(s, v)", []),
    "a weight that two layers share": ("t = Conv(x, w) y = Conv(t, w)", []),
    "a product of two activations": ("s = Sigmoid(x) t = Mul(x, s) y = Conv(t, w)", []),
    "an output of the network": ("y = Conv(x, w)", []),
    "part of a concatenation": ("t = Conv(x, w) p = Concat<axis = 1>(t, x) y = Conv(p, u)", ["t"]),
    "part that is read by groups": ("t = Conv(x, w) p = Concat<axis = 1>(t, x) y = Conv<group = 4>(p, g)", []),
    "part along another axis": ("t = Conv(x, w) p = Concat<axis = 2>(t, x) y = Conv(p, v)", []),
    "part that another operator reads": ("t = Conv(x, w) p = Concat<axis = 1>(t, x) r = Relu(p) y = Conv(r, u)", []),
    "what a body reads": (f"t = Conv(x, w) i = If(c) {BRANCHES} n = Conv(t, v) y = Add(n, i)", []),
}


@pytest.mark.parametrize(("nodes", "moved"), MOVABLE.values(), ids=MOVABLE)
def test_what_can_be_moved(nodes, moved):
    assert scaling.movable(parsed(nodes)) == moved


def test_part_of_a_concatenation_is_divided_by_input_channel():
    moved = scaling.move_scale(parsed(MOVABLE["part of a concatenation"][0]), "t", 4)
    weight = tensor_errors.constants(moved)["u"]
    np.testing.assert_array_equal(weight[0, :, 0, 0], [0.25, 0.25, 1, 1])


@pytest.mark.parametrize("factor", [0, -2, 3, 1.5])
def test_refuses_factors_that_change_digits(model, factor):
    with pytest.raises(InputError, match="power of two"):
        scaling.move_scale(model, scaling.PLANTED[0], factor)


@pytest.mark.parametrize("tensor", [OUTPUT, "p2o.Concat.1", "absent"])
def test_refuses_tensors_that_cannot_be_moved(model, tensor):
    with pytest.raises(InputError, match=f"{tensor} can't be moved"):
        scaling.move_scale(model, tensor, 2)
