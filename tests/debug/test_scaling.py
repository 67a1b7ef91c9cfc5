"""A scale moved between layers: nothing changes in FP32, and the method of lesson 04 finds each one in FP16."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
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


def small(nodes, *weights):
    """Return a model from x to y, [1, 2, 4, 4], with the weights that nodes name."""
    arrays = {"w": np.ones((2, 2, 1, 1)), "v": np.ones((2, 2, 1, 1)), "c": np.ones((1, 2, 1, 1))}
    initializers = [numpy_helper.from_array(arrays[name].astype(np.float32), name) for name in weights]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 4, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "small", values[:1], values[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def chain(*operators):
    """Return a convolution, the operators one after the other, and a convolution."""
    between = [helper.make_node(op, [f"t{i}"], [f"t{i + 1}"]) for i, op in enumerate(operators)]
    first, last = (
        helper.make_node("Conv", ["x", "w"], ["t0"]),
        helper.make_node("Conv", [f"t{len(operators)}", "v"], ["y"]),
    )
    return small([first, *between, last], "w", "v")


@pytest.mark.parametrize("operator", ["Relu", "Identity", "LeakyRelu"])
def test_homogeneous_operators_hand_the_scale_on(operator):
    assert scaling.movable(chain(operator)) == ["t0"]


@pytest.mark.parametrize("operator", ["Sigmoid", "HardSigmoid", "Tanh", "Exp"])
def test_others_stop_it(operator):
    assert scaling.movable(chain("Relu", operator)) == []


def test_a_residual_sum_stops_it():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["t"]),
        helper.make_node("Add", ["t", "x"], ["sum"]),
        helper.make_node("Conv", ["sum", "v"], ["y"]),
    ]
    assert scaling.movable(small(nodes, "w", "v")) == []


def test_a_weight_that_two_layers_share_is_not_changed():
    nodes = [helper.make_node("Conv", ["x", "w"], ["t"]), helper.make_node("Conv", ["t", "w"], ["y"])]
    assert scaling.movable(small(nodes, "w")) == []


def test_a_product_of_two_activations_has_no_weight_to_scale():
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["gate"]),
        helper.make_node("Mul", ["x", "gate"], ["t"]),
        helper.make_node("Conv", ["t", "w"], ["y"]),
    ]
    assert scaling.movable(small(nodes, "w")) == []


@pytest.mark.parametrize(("axis", "group", "moved"), [(1, 1, ["t"]), (1, 4, []), (2, 1, [])])
def test_part_of_a_concatenation_is_divided_by_input_channel(axis, group, moved):
    weight = numpy_helper.from_array(np.ones((4, 4 // group if axis == 1 else 2, 1, 1), np.float32), "u")
    model = small(
        [
            helper.make_node("Conv", ["x", "w"], ["t"]),
            helper.make_node("Concat", ["t", "x"], ["both"], axis=axis),
            helper.make_node("Conv", ["both", "u"], ["y"], group=group),
        ],
        "w",
    )
    model.graph.initializer.append(weight)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert scaling.movable(model) == moved
    if moved:
        changed = numpy_helper.to_array(scaling.move_scale(model, "t", 4).graph.initializer[1])
        np.testing.assert_array_equal(changed[0, :, 0, 0], [0.25, 0.25, 1, 1])


def test_part_of_a_concatenation_that_another_operator_reads_is_not_moved():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["t"]),
        helper.make_node("Concat", ["t", "x"], ["both"], axis=1),
        helper.make_node("Relu", ["both"], ["y"]),
    ]
    assert scaling.movable(small(nodes, "w")) == []


def test_an_output_of_the_network_is_not_moved():
    assert scaling.movable(small([helper.make_node("Conv", ["x", "w"], ["y"])], "w")) == []


@pytest.mark.parametrize("factor", [0, -2, 3, 1.5])
def test_refuses_factors_that_change_digits(model, factor):
    with pytest.raises(InputError, match="power of two"):
        scaling.move_scale(model, scaling.PLANTED[0], factor)


@pytest.mark.parametrize("tensor", [OUTPUT, "p2o.Concat.1", "absent"])
def test_refuses_tensors_that_cannot_be_moved(model, tensor):
    with pytest.raises(InputError, match=f"{tensor} can't be moved"):
        scaling.move_scale(model, tensor, 2)


def test_what_a_body_reads_is_not_moved():
    """An If may do anything with a tensor or a weight that it reads from outside, so that outputs would change."""

    def branch(name):
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 8])
        return helper.make_graph([helper.make_node("Relu", ["a"], [name])], name, [], [value])

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("MatMul", ["a", "v"], ["b"], "second"),
        helper.make_node("If", ["c"], ["i"], "if", then_branch=branch("t"), else_branch=branch("e")),
        helper.make_node("Add", ["b", "i"], ["y"], "add"),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 8])]
    weights = [numpy_helper.from_array(np.ones((8, 8), np.float32), name) for name in "wv"]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, weights), ir_version=8)
    assert scaling.movable(model) == []
    del nodes[2:3]
    nodes[-1] = helper.make_node("Relu", ["b"], ["y"], "relu")
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, weights), ir_version=8)
    assert scaling.movable(model) == ["a"]
