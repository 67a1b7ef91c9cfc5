"""Every tensor of any file: constants, bodies of If, odd names, FP16 inputs, foreign operators; what is not rounded."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import images

from tutorial_utils.base.errors import InputError
from tutorial_utils.debug import rounding, tensor_errors
from tutorial_utils.model import half_precision, onnx_file

FLOAT, FLOAT16, BOOL, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BOOL, TensorProto.INT64
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 8)).astype(np.float32)
W = RNG.standard_normal((8, 8)).astype(np.float32)


def save(path, nodes, inputs, outputs, weights=None, opset=17):
    """Write a model. Inputs and outputs are (name, type, shape)."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def node(op, reads, writes, name="", **attributes):
    return helper.make_node(op, reads, writes, name, **attributes)


def test_constants_are_left_out(tmp_path):
    two = numpy_helper.from_array(np.float32([2]), "k")
    nodes = [node("Constant", [], ["k"], value=two), node("Mul", ["x", "k"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [("x", FLOAT, [2, 8])], [("y", FLOAT, [2, 8])])
    found = tensor_errors.all_outputs(path, {"x": X})
    assert list(found) == ["y"]
    np.testing.assert_array_equal(found["y"], 2 * X)


@pytest.mark.parametrize("names", [("a[0]", "b*"), ("$a$", "b?"), ("a/b:0", "c d")], ids=str)
def test_any_name_of_a_tensor_and_no_or_equal_names_of_nodes(names, tmp_path):
    one, two = names
    nodes = [node("Relu", ["x"], [one], "n"), node("Neg", [one], [two], "n"), node("Abs", [two], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [("x", FLOAT, [2, 8])], [("y", FLOAT, [2, 8])])
    assert list(tensor_errors.all_outputs(path, {"x": X}, "fp16")) == [one, two, "y"]


def test_parameters_are_not_rounded(tmp_path):
    scales = np.float32([1, 1, 4 / 3, 4 / 3])
    nodes = [node("Resize", ["x", "", "s"], ["y"], mode="nearest")]
    shapes = [("x", FLOAT, [1, 1, "h", "w"])], [("y", FLOAT, [1, 1, "H", "W"])]
    path = save(tmp_path / "m.onnx", nodes, *shapes, {"s": scales})
    feeds = {"x": np.ones((1, 1, 300, 300), np.float32)}
    assert tensor_errors.all_outputs(path, feeds, "fp16")["y"].shape == (1, 1, 400, 400)


def body(name, weight="w"):
    value = helper.make_tensor_value_info(name, FLOAT16, [2, 8])
    return helper.make_graph([node("MatMul", ["a", weight], [name], name)], name, [], [value])


def branches(path):
    """An If in FP16 whose bodies read a tensor and a weight from outside, as a converter writes it."""
    nodes = [
        node("Cast", ["x"], ["half"], to=FLOAT16),
        node("Relu", ["half"], ["a"]),
        node("If", ["c"], ["i"], then_branch=body("t"), else_branch=body("e")),
        node("Add", ["i", "a"], ["sum"]),
        node("Cast", ["sum"], ["y"], to=FLOAT),
    ]
    inputs = [("x", FLOAT, [2, 8]), ("c", BOOL, [])]
    return save(path, nodes, inputs, [("y", FLOAT, [2, 8])], {"w": W.astype(np.float16)})


def test_bodies_of_a_half_precision_model_run(tmp_path):
    path = branches(tmp_path / "m.onnx")
    found = tensor_errors.all_outputs(path, {"x": X, "c": np.array(True)})
    a = np.maximum(X, 0).astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(found["i"], a @ W, atol=0.02)
    np.testing.assert_array_equal(found["i"].astype(np.float16).astype(np.float32), found["i"])
    np.testing.assert_allclose(found["y"], a @ W + a, atol=0.02)


def test_what_bodies_read_is_known(tmp_path):
    model = onnx.load(branches(tmp_path / "m.onnx"))
    assert [onnx_file.captured(one) for one in model.graph.node if one.op_type == "If"] == [{"a", "w"}]
    assert tensor_errors.depths(model)["i"] == 3, "the way to it leads through the body"


def test_half_precision_inputs_and_outputs(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["y"])]
    shapes = [("x", FLOAT16, [2, 8])], [("y", FLOAT16, [2, 8])]
    path = save(tmp_path / "m.onnx", nodes, *shapes, {"w": W.astype(np.float16)})
    found = tensor_errors.all_outputs(path, {"x": X.astype(np.float16)})
    assert found["y"].dtype == np.float32
    np.testing.assert_array_equal(found["y"].astype(np.float16).astype(np.float32), found["y"])


def test_several_inputs_of_any_type_and_foreign_operators(tmp_path):
    nodes = [
        node("Gather", ["table", "ids"], ["rows"]),
        node("Gelu", ["rows"], ["gelu"], domain="com.microsoft"),
        node("Where", ["keep", "gelu", "zero"], ["y"]),
        node("ArgMax", ["y"], ["best"], axis=-1),
    ]
    inputs = [("ids", INT64, [2]), ("keep", BOOL, [2, 8])]
    outputs = [("y", FLOAT, [2, 8]), ("best", INT64, [2, 1])]
    path = save(tmp_path / "m.onnx", nodes, inputs, outputs, {"table": W, "zero": np.float32(0)})
    found = tensor_errors.all_outputs(path, {"ids": np.array([1, 7]), "keep": X > 0}, "fp16")
    assert found["best"].dtype == np.int64
    for name in ("rows", "gelu", "y"):
        np.testing.assert_array_equal(found[name].astype(np.float16).astype(np.float32), found[name])


def test_sequences_are_left_out(tmp_path):
    nodes = [
        node("SplitToSequence", ["x"], ["parts"], axis=0),
        node("ConcatFromSequence", ["parts"], ["y"], axis=0),
    ]
    path = save(tmp_path / "m.onnx", nodes, [("x", FLOAT, [2, 8])], [("y", FLOAT, [2, 8])])
    assert list(tensor_errors.all_outputs(path, {"x": X}, "fp16")) == ["y"]


def test_an_index_out_of_range_is_told_from_a_size_that_does_not_fit(tmp_path):
    nodes = [node("Gather", ["table", "ids"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [("ids", INT64, [1])], [("y", FLOAT, [1, 8])], {"table": W})
    with pytest.raises(InputError, match=r"out of data bounds.*Remedy: Give ids below the number of rows"):
        tensor_errors.all_outputs(path, {"ids": np.array([8])})


def test_nodes_cut_apart_err_by_themselves(tmp_path):
    """300 times 300 overflows. The node after it is right, if it is given what it should have been given."""
    nodes = [node("Mul", ["x", "w"], ["large"]), node("Div", ["large", "w"], ["y"])]
    path = save(
        tmp_path / "m.onnx", nodes, [("x", FLOAT, [4])], [("y", FLOAT, [4])], {"w": np.full(4, 300, np.float32)}
    )
    cut = rounding.with_given_inputs(rounding.with_rounding(onnx.load(path), "fp16"), {"x": 1, "large": 1})
    exact = {"x": np.full(4, 300, np.float32), "large": np.full(4, 90000, np.float32)}
    feeds = {"x": exact["x"]} | {f"{name}/given": values for name, values in exact.items()}
    found = tensor_errors.run(cut, feeds, "m.onnx", ["large", "y"])
    assert np.isinf(found["large"]).all()
    np.testing.assert_array_equal(found["y"], exact["x"])


def test_a_mixed_precision_file_goes_back_into_the_comparison(fp32_model, tmp_path):
    """Tensors of kept nodes, the model's output among them, have the names that they had."""
    mixed = half_precision.to_fp16(fp32_model, tmp_path / "mixed.onnx", keep_fp32=["conv1", "norm", "fc"])
    feeds = {"x": images(1)}
    table = tensor_errors.compare(tensor_errors.all_outputs(fp32_model, feeds), tensor_errors.all_outputs(mixed, feeds))
    assert table["rel_l2"].max() < 5e-3


def test_nothing_is_printed(fp32_model, capfd):
    tensor_errors.all_outputs(fp32_model, {"x": images(1)}, "fp16")
    assert capfd.readouterr() == ("", "")


def test_bf16_of_an_older_opset(tmp_path):
    """Cast takes BF16 from opset 13 on."""
    text = "(float[2] x) => (float[2] y) { y = Clip <min = -4.0, max = 4.0> (x) }"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 6, opset_import: ["": 10]> g {text}'), tmp_path / "m.onnx")
    found = tensor_errors.all_outputs(tmp_path / "m.onnx", {"x": np.array([1.001, 9], np.float32)}, "bf16")
    assert found["y"].tolist() == [1, 4]


def test_the_depth_of_a_body_counts(tmp_path):
    text = (
        "(float[2] x) => (float[2] y) { n = Constant <value = int64 {2}> ()"
        " y = Loop (n, , x) <body = a (int64 i, bool m, float[2] b) => (bool k, float[2] d)"
        " { k = Identity (m) c = Relu (b) d = Relu (c) }> }"
    )
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    assert tensor_errors.depths(model)["y"] == 4, "the constant, the Loop, and two of its body"
