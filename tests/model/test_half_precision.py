"""FP16 and BF16 of graphs that others write: casts, masks, subgraphs, names, sizes. What is written runs and agrees."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from small_models import images

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import PrecisionError
from tutorial_utils.model import half_precision, onnx_file

RANDOM = np.random.default_rng(0)
W = RANDOM.standard_normal((8, 8)).astype(np.float32)
X = RANDOM.standard_normal((2, 8)).astype(np.float32)
LOWEST = np.finfo(np.float32).min


def save(path, text, opset=17, ir_version=8, **weights):
    """Write a model from ONNX's text form, which lacks header and weights."""
    imports = f'"": {opset}, "com.microsoft": 1, "ai.onnx.ml": 3'
    model = onnx.parser.parse_model(f"<ir_version: {ir_version}, opset_import: [{imports}]> g {text}")
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items())
    onnx.save(model, path)
    return path


def graph(path):
    return onnx.load(path).graph


def run(path, **feeds):
    return onnx_session.new_session(path, optimize=False).run(None, feeds)


def types(path):
    """Return the element types of all tensors, as ONNX infers them from what is written."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    values = [one for part in onnx_file.graphs(inferred.graph) for one in (*part.input, *part.value_info, *part.output)]
    return {value.name: value.type.tensor_type.elem_type for value in values}


PLAIN = "(float[N,8] x) => (float[N,8] y) { y = MatMul (x, w) }"
BRANCH = "(float[2,8] {name}) {{ {name} = {op} (a) }}"
GRAPHS = {
    # text, weights, feeds
    "a cast to FLOAT": (
        "(uint8[N,8] x) => (float[N,8] y) { f = Cast <to = 1> (x) y = MatMul (f, w) }", {"w": W},
        {"x": np.arange(16, dtype=np.uint8).reshape(2, 8)},
    ),
    "an output that is read inside": (
        "(float[2,8] x) => (float[2,8] u, float[2,8] y) { u = MatMul (x, w) y = Relu (u) }", {"w": W}, {"x": X},
    ),
    "a constant of a bare number": (
        "(float[2,8] x) => (float[2,8] y) { k = Constant <value_float = 2.0> () y = Mul (x, k) }", {}, {"x": X},
    ),
    "a constant of numbers in a row, beside integers": (
        "(float[2,8] x) => (float[4,4] y) { k = Constant <value_floats = [2.0]> () a = Mul (x, k)"
        " s = Constant <value_ints = [4, 4]> () y = Reshape (a, s) }", {}, {"x": X},
    ),
    "branches that read an outer tensor": (
        "(float[2,8] x, bool c) => (float[2,8] y) { a = Relu (x) y = If (c) <then_branch = t () => (float[2,8] t)"
        " { t = Neg (a) }, else_branch = e () => (float[2,8] e) { e = MatMul (a, w) }> }", {"w": W},
        {"x": X, "c": np.array(False)},
    ),
    "a loop that carries a tensor": (
        "(float[2,8] x, int64 n, bool c) => (float[2,8] y) { y = Loop (n, c, x)"
        " <body = b (int64 i, bool go, float[2,8] v) => (bool on, float[2,8] next)"
        " { on = Identity (go) p = MatMul (v, w) next = Tanh (p) }> }", {"w": W},
        {"x": X, "n": np.array(3), "c": np.array(True)},
    ),
    "branches that use a name for tensors of two types": (
        "(float[2,8] x, bool c) => (float[2,8] y) { y = If (c) <then_branch = t () => (float[2,8] t)"
        " { same = Neg (x) t = Relu (same) }, else_branch = e () => (float[2,8] e)"
        " { same = Cast <to = 7> (x) e = Cast <to = 1> (same) }> }", {}, {"x": X, "c": np.array(True)},
    ),
    "an operator inside of a branch that has no FP16": (
        "(float[2,8] x, bool c) => (float[2,8] y) { a = Relu (x) y = If (c) <then_branch = t () => (float[2,8] t)"
        " { u = CumSum (a, axis) t = Relu (u) }, else_branch = e () => (float[2,8] e) { e = Neg (a) }> }",
        {"axis": np.int64(1)}, {"x": X, "c": np.array(True)},
    ),
    "a recurrent network": (
        "(float[2,1,8] x) => (float[2,1,1,4] y) { y = LSTM <hidden_size = 4> (x, wi, wr) }",
        {"wi": RANDOM.standard_normal((1, 16, 8)).astype(np.float32),
         "wr": RANDOM.standard_normal((1, 16, 4)).astype(np.float32)}, {"x": X[:, None]},
    ),
    "scales of a Resize": (
        '(float[1,1,3,3] x) => (float[1,1,H,V] y) { y = Resize <mode = "nearest"> (x, , scales) }',
        {"scales": np.float32([1, 1, 4 / 3, 4 / 3])}, {"x": X.ravel()[:9].reshape(1, 1, 3, 3)},
    ),
    "an output that is an input": (
        "(float[2,8] x) => (float[2,8] y, float[2,8] x) { y = Relu (x) }", {}, {"x": X},
    ),
    "an output that is a weight": (
        "(float[2,8] x) => (float[2,8] y, float[8,8] w) { y = MatMul (x, w) }", {"w": W}, {"x": X},
    ),
    "a weight for nodes of both types": (
        "(float[2,8] x) => (float[2,8] y, float[8,8] v) { y = MatMul (x, w) v = CumSum (w, axis) }",
        {"w": W, "axis": np.int64(0)}, {"x": X},
    ),
    "FP16 inputs and outputs": (
        "(float16[2,8] x) => (float16[2,8] y) { a = Cast <to = 1> (x) b = MatMul (a, w) y = Cast <to = 10> (b) }",
        {"w": W}, {"x": X.astype(np.float16)},
    ),
    "an operator of ONNX Runtime's own": (
        "(float[2,8] x) => (float[2,8] y) { a = com.microsoft.Gelu (x) y = MatMul (a, w) }", {"w": W}, {"x": X},
    ),
    "random numbers": (
        "(float[2,8] x) => (float[2,8] y) { r = RandomUniformLike (x) z = Mul (r, zero) a = Add (x, z) y = Relu (a) }",
        {"zero": np.float32(0)}, {"x": X},
    ),
    "names that the casts would have": (
        "(float[2,8] x) => (float[2,8] y) { a = Relu (x) x_cast_to_node_of_a = Neg (x)"
        " y = Add (a, x_cast_to_node_of_a) }", {}, {"x": X},
    ),
    "a sequence": (
        "(float[2,8] x) => (float[2,8] y) { s = SequenceConstruct (x, x) a = ConcatFromSequence <axis = 1> (s)"
        " y = MatMul (a, k) }", {"k": np.concatenate([W, W])}, {"x": X},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GRAPHS)
def test_fp16_runs_and_agrees(case, tmp_path):
    text, weights, feeds = GRAPHS[case]
    source = save(tmp_path / "fp32.onnx", text, **weights)
    half = half_precision.to_fp16(source, tmp_path / "fp16.onnx")
    names = [output.name for output in graph(source).output]
    for name, exact, found in zip(names, run(source, **feeds), run(half, **feeds), strict=True):
        assert found.dtype == exact.dtype
        np.testing.assert_allclose(found, exact, rtol=4e-3, atol=4e-3, err_msg=name)
    assert TensorProto.FLOAT16 in types(half).values()


@pytest.mark.parametrize("case", GRAPHS)
def test_bf16_is_valid_and_keeps_inputs_and_outputs(case, tmp_path):
    text, weights, _ = GRAPHS[case]
    source = save(tmp_path / "fp32.onnx", text, **weights)
    half = half_precision.to_bf16(source, tmp_path / "bf16.onnx")
    before, after = types(source), types(half)
    names = [value.name for value in (*graph(source).input, *graph(source).output)]
    assert [after[name] for name in names] == [before[name] for name in names]
    assert TensorProto.BFLOAT16 in after.values()


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 22])
def test_opsets(opset, tmp_path):
    text = "(float[1,3,8,8] x) => (float[1,4,6,6] y) { c = Conv (x, w) y = Clip <max = 6.0, min = 0.0> (c) }"
    if opset >= 11:
        text = "(float[1,3,8,8] x) => (float[1,4,6,6] y) { c = Conv (x, w) y = Clip (c, low, high) }"
    bounds = {"low": np.float32(0), "high": np.float32(6)} if opset >= 11 else {}
    source = save(
        tmp_path / "fp32.onnx", text, opset, w=RANDOM.standard_normal((4, 3, 3, 3)).astype(np.float32), **bounds
    )
    x = RANDOM.standard_normal((1, 3, 8, 8)).astype(np.float32)
    half = half_precision.to_fp16(source, tmp_path / "fp16.onnx")
    np.testing.assert_allclose(run(half, x=x)[0], run(source, x=x)[0], rtol=1e-2, atol=2e-2)
    assert {one.data_type for one in graph(half).initializer} == {TensorProto.FLOAT16}
    half_precision.to_bf16(source, tmp_path / "bf16.onnx")


MASKS = {
    "where": ("(float[2,8] x, bool[8] c) => (float[2,8] y) { m = Where (c, x, k) y = Softmax (m) }", -np.inf, -np.inf),
    "lowest": ("(float[2,8] x, bool[8] c) => (float[2,8] y) { m = Where (c, x, k) y = Softmax (m) }", LOWEST, -65504),
    "clip": ("(float[2,8] x, bool[8] c) => (float[2,8] y) { y = Clip (x, , k) }", -LOWEST, 65504),
    "sum": (
        "(float[2,8] x, bool[8] c) => (float[2,8] y) { f = Cast <to = 1> (c) g = Sub (f, one) h = Mul (g, k)"
        " a = Add (x, h) y = Softmax (a) }", 1e9, 65504,
    ),
}  # fmt: skip


@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_or_bound_beyond_fp16_is_cut_and_means_the_same(mask, tmp_path):
    text, value, cut = MASKS[mask]
    source = save(tmp_path / "fp32.onnx", text, k=np.float32(value), one=np.float32(1))
    half = half_precision.to_fp16(source, tmp_path / "fp16.onnx")
    (found,) = [one for one in graph(half).initializer if one.name == "k"]
    assert numpy_helper.to_array(found) == np.float16(cut)
    feeds = {"x": X, "c": np.array([True] * 5 + [False] * 3)}
    np.testing.assert_allclose(run(half, **feeds)[0], run(source, **feeds)[0], rtol=1e-2, atol=1e-3)


def test_a_bound_beyond_bf16_stays_finite(tmp_path):
    source = save(tmp_path / "fp32.onnx", "(float[2,8] x) => (float[2,8] y) { y = Max (x, k) }", k=LOWEST)
    half = half_precision.to_bf16(source, tmp_path / "bf16.onnx")
    assert np.isfinite(onnx_file.array_of(graph(half).initializer[0]))


def test_weights_beyond_fp16_are_refused_at_once_and_the_remedy_works(tmp_path):
    text = """(float[2,8] x) => (float[2,8] y) {
        a = MatMul (x, w) k = Constant <value_float = -1000000.0> () b = Mul (a, k) y = Add (b, edge) }"""
    source = save(tmp_path / "fp32.onnx", text, w=W * 1e6, edge=np.float32(65504))
    with pytest.raises(PrecisionError, match=r"w \(and 1 more\) reaches") as caught:
        half_precision.to_fp16(source, tmp_path / "fp16.onnx")
    kept = ["node_of_a", "node_of_b"]
    assert f"keep_fp32={kept}" in caught.value.remedy
    written = graph(half_precision.to_fp16(source, tmp_path / "fp16.onnx", keep_fp32=kept))
    types_of = {one.name: one.data_type for one in written.initializer}
    assert (types_of["w"], types_of["edge"]) == (TensorProto.FLOAT, TensorProto.FLOAT16)


def test_what_divides_does_not_become_0(tmp_path):
    text = "(float[2,8] x) => (float[2,8] y) { a = Add (x, k) y = Div (x, a) }"
    source = save(tmp_path / "fp32.onnx", text, k=np.float32(1e-12))
    half = half_precision.to_fp16(source, tmp_path / "fp16.onnx")
    assert np.isfinite(run(half, x=np.zeros((2, 8), np.float32))[0]).all()


def test_a_small_weight_is_rounded_to_the_nearest(tmp_path):
    source = save(tmp_path / "fp32.onnx", PLAIN, w=np.full((8, 8), 5e-8, np.float32))
    (weight,) = graph(half_precision.to_fp16(source, tmp_path / "fp16.onnx")).initializer
    assert (numpy_helper.to_array(weight) == np.float16(5e-8)).all()


@pytest.mark.parametrize("name", ["", "same"])
def test_nodes_without_a_name_of_their_own_can_be_kept(name, tmp_path):
    source = save(tmp_path / "fp32.onnx", "(float[2,8] x) => (float[2,8] y) { a = Relu (x) b = Exp (a) y = Neg (b) }")
    model = onnx.load(source)
    for node in model.graph.node:
        node.name = name
    onnx.save(model, source)
    names = ["node_of_a", "node_of_b", "node_of_y"] if not name else ["same", "same_2", "same_3"]
    half = half_precision.to_fp16(source, tmp_path / "fp16.onnx", keep_fp32=names[1:2])
    written = {node.name: node for node in graph(half).node}
    assert set(names) <= set(written)
    assert types(half)[written[names[1]].output[0]] == TensorProto.FLOAT
    assert types(half)[written[names[0]].output[0]] == TensorProto.FLOAT16


def test_neighbours_that_stay_in_fp32_hand_each_other_fp32(fp32_model, tmp_path):
    """Casts to FP16 and back between them would let a large value overflow."""
    kept = ["conv0", "relu0", "conv1", "fc"]  # relu0 has two readers, fc writes the output
    half = half_precision.to_fp16(fp32_model, tmp_path / "mixed.onnx", keep_fp32=kept)
    nodes = {node.name: node for node in graph(half).node}
    writers = {name: node for node in graph(half).node for name in node.output}
    assert nodes["relu0"].input[0] == nodes["conv0"].output[0]
    assert nodes["conv1"].input[0] == nodes["relu0"].output[0]
    assert nodes["conv0"].input[0] == "x"
    assert writers[nodes["sum"].input[1]].op_type == "Cast", "sum is in FP16"
    assert nodes["fc"].output[0] == "y" or writers["y"].input[0] == nodes["fc"].output[0]
    stored = {one.name: one.data_type for one in graph(half).initializer}
    assert (stored["w1"], stored["scale"]) == (TensorProto.FLOAT, TensorProto.FLOAT16)
    batch = images(8, seed=2)
    np.testing.assert_allclose(run(half, x=batch)[0], run(fp32_model, x=batch)[0], rtol=0.05, atol=0.01)


def test_nodes_of_a_subgraph_can_be_kept(tmp_path):
    text, weights, feeds = GRAPHS["branches that read an outer tensor"]
    source = save(tmp_path / "fp32.onnx", text, **weights)
    half = half_precision.to_fp16(source, tmp_path / "fp16.onnx", keep_fp32=["node_of_e"])
    np.testing.assert_allclose(run(half, **feeds)[0], run(source, **feeds)[0], rtol=1e-2, atol=1e-2)
    assert graph(half).initializer[0].data_type == TensorProto.FLOAT


def test_sizes_and_positions_are_computed_in_fp32(tmp_path):
    """FP16 has no 4,097: the output would be shorter, and the last positions would be one."""
    text = """(float[1,n] x) => (float[1,m] y, float[k] z) {
        s = Shape (x) f = Cast <to = 1> (s) g = Mul (f, scale) i = Cast <to = 7> (g) y = Expand (one, i)
        p = Gather (s, index) q = Range (zero, p, step) r = Cast <to = 1> (q) z = Mul (r, step_f) }"""
    source = save(
        tmp_path / "fp32.onnx", text, scale=np.float32([1, 1]), one=np.ones((1, 1), np.float32), index=np.int64(1),
        zero=np.int64(0), step=np.int64(1), step_f=np.float32(1),
    )  # fmt: skip
    half = half_precision.to_fp16(source, tmp_path / "fp16.onnx")
    y, z = run(half, x=np.zeros((1, 4097), np.float32))
    assert y.shape == (1, 4097)
    assert z[-1] == 4096 == len(z) - 1
    found = types(half)  # ONNX Runtime computes in FP32 all the same, where casts meet
    assert {found[name] for name in "fgr"} == {TensorProto.FLOAT}


def test_scales_and_region_of_a_resize_stay_fp32(tmp_path):
    mode = 'mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize"'
    text = f"(float[1,1,8,8] x) => (float[1,1,H,V] y) {{ y = Resize <{mode}> (x, roi, scales) }}"
    region = np.float32([0, 0, 0.1, 0.1, 1, 1, 0.9, 0.9])
    source = save(tmp_path / "fp32.onnx", text, roi=region, scales=np.float32([1, 1, 4 / 3, 4 / 3]))
    half = half_precision.to_fp16(source, tmp_path / "fp16.onnx")
    assert {one.data_type for one in graph(half).initializer} == {TensorProto.FLOAT}
    x = RANDOM.standard_normal((1, 1, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(half, x=x)[0], run(source, x=x)[0], rtol=1e-2, atol=1e-2)


def test_weights_that_are_inputs_too(tmp_path):
    """IR version 3 lists every weight among the inputs."""
    text = "(float[8,8] w, float[2,8] x) => (float[2,8] y) { y = MatMul (x, w) }"
    source = save(tmp_path / "fp32.onnx", text, 9, 3, w=W)
    half = half_precision.to_fp16(source, tmp_path / "fp16.onnx")
    assert [value.name for value in graph(half).input] == ["x"]
    np.testing.assert_allclose(run(half, x=X)[0], run(source, x=X)[0], rtol=1e-2, atol=1e-2)


def test_functions_are_written_out(tmp_path):
    text = (
        '<ir_version: 8, opset_import: ["": 17, "own": 1]> g (float[2,8] x) => (float[2,8] y) { y = own.twice (x) }'
        ' <domain: "own", opset_import: ["": 17]> twice (a) => (b) { b = Add (a, a) }'
    )
    onnx.save(onnx.parser.parse_model(text), tmp_path / "fp32.onnx")
    half = half_precision.to_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")
    assert "Add" in {node.op_type for node in graph(half).node}
    np.testing.assert_allclose(run(half, x=X)[0], 2 * X, rtol=1e-3)


@pytest.mark.parametrize(("operator", "sizes"), [("MatMul (x, w)", [2, 8]), ("ReduceMax <keepdims = 0> (x)", [])])
def test_a_wrong_rank_of_an_output_is_put_right(operator, sizes, tmp_path):
    """ONNX Runtime warns of it; the checker would refuse what is written."""
    source = save(tmp_path / "fp32.onnx", f"(float[2,8] x) => (float[2,8,1] y) {{ y = {operator} }}", w=W)
    (output,) = graph(half_precision.to_fp16(source, tmp_path / "fp16.onnx")).output
    assert [one.dim_value for one in output.type.tensor_type.shape.dim] == sizes


@pytest.mark.parametrize("convert", [half_precision.to_fp16, half_precision.to_bf16])
def test_a_model_that_is_not_valid_is_told_from_a_result_that_is_not(convert, tmp_path):
    text = "(float[1,2] x) => (float[N] y) { a = Squeeze (x) b = Squeeze (s) y = Concat <axis = 0> (a, b) }"
    source = save(tmp_path / "fp32.onnx", text, s=np.ones((1, 1), np.float32))
    with pytest.raises(PrecisionError, match=r"fp32.onnx is not valid ONNX itself: .*Concat.*check_model"):
        convert(source, tmp_path / "half.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["fp32.onnx"]


def test_a_few_tensors_in_fp16_are_no_hindrance(tmp_path):
    text = """(float[2,8] x) => (float[2,8] y) {
        a = Cast <to = 10> (x) b = Mul (a, k) c = Cast <to = 1> (b) y = MatMul (c, w) }"""
    source = save(tmp_path / "fp32.onnx", text, w=W, k=np.float16(2))
    half = half_precision.to_fp16(source, tmp_path / "fp16.onnx")
    np.testing.assert_allclose(run(half, x=X)[0], run(source, x=X)[0], rtol=1e-2, atol=2e-2)
    with pytest.raises(PrecisionError, match="converted to FP16 already"):
        half_precision.to_fp16(half, tmp_path / "again.onnx")


def fail(*_):
    raise AssertionError


def test_a_library_that_gives_no_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(half_precision.Narrowing, "apply", fail)
    with pytest.raises(PrecisionError, match="16 bits: AssertionError"):
        half_precision.to_fp16(save(tmp_path / "fp32.onnx", PLAIN, w=W), tmp_path / "half.onnx")


def test_an_opset_beyond_that_of_bf16_stays(tmp_path):
    path = save(tmp_path / "fp32.onnx", "(float[2,8] x) => (float[2,8] y) { y = Relu (x) }", 23)
    assert onnx.load(half_precision.to_bf16(path, tmp_path / "bf16.onnx")).opset_import[0].version == 23


def test_a_conversion_that_a_library_refuses(tmp_path):
    text = "(float[2,8] x) => (float[2,8] y) { a = com.microsoft.Odd (x) y = Relu (a) }"
    with pytest.raises(PrecisionError, match=r"Odd.* is not a registered function/op") as caught:
        half_precision.to_fp16(save(tmp_path / "fp32.onnx", text), tmp_path / "half.onnx")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["fp32.onnx"]
