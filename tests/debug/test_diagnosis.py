"""`python -m tutorial_utils debug`: planted faults are found and mended, healthy models left alone; bad input."""

import json
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import residual_model

from benchmarks import debug_trial
from tutorial_utils.__main__ import main
from tutorial_utils.base.errors import InputError
from tutorial_utils.debug import diagnosis, diagnosis_page, tensor_errors
from tutorial_utils.model import onnx_file

CASES = [
    ("CNN", "overflow", 1), ("LSTM", "underflow", 2), ("transformer", "cancellation", 3), ("CNN", "layernorm", 4),
    ("transformer", "softmax", 5), ("CNN", "quantization range", 973814), ("LSTM", "quantization range", 6),
    ("CNN", "overflow in a branch", 7),
]  # fmt: skip


@pytest.mark.parametrize(("network", "kind", "seed"), CASES, ids=[kind for _, kind, _ in CASES])
def test_planted_fault_is_found_and_mended(network, kind, seed, tmp_path):
    row = debug_trial.run(network, kind, seed, tmp_path)
    assert row.is_right, row
    assert row.found.faults[0].kind == kind.removesuffix(" in a branch")
    if row.found.precision == "int8":
        return
    feeds = feeds_of(row, tmp_path)
    exact = tensor_errors.all_outputs(tmp_path / f"{network}-{seed}.onnx", feeds)["y"]
    mended = tensor_errors.all_outputs(tmp_path / "mended.onnx", feeds)["y"]
    assert np.linalg.norm(mended - exact) < 0.02 * np.linalg.norm(exact), "the file that was written is the one proven"


def feeds_of(row, tmp_path):
    model = onnx.load(tmp_path / f"{row.network}-{row.seed}.onnx")
    rng, feeds = np.random.default_rng(0), {}
    for value in model.graph.input:
        shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        is_float = value.type.tensor_type.elem_type == TensorProto.FLOAT
        feeds[value.name] = rng.standard_normal(shape).astype(np.float32) if is_float else np.ones(shape, np.int64)
    return feeds


@pytest.mark.parametrize("network", debug_trial.NETWORKS)
def test_healthy_model_is_left_alone(network, tmp_path):
    row = debug_trial.run(network, None, 11, tmp_path)
    assert (row.found.verdict, row.found.faults, row.found.kept, row.found.written) == ("healthy", (), {}, None)
    assert not (tmp_path / "mended.onnx").exists()


def test_a_bf16_file_is_judged_by_what_it_stores(tmp_path):
    row = debug_trial.run("CNN", "cancellation", 3, tmp_path, "bf16")
    assert row.is_right, row


# --- models of a few nodes --------------------------------------------------------------------------------------------

W = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
FLOATS = {"w": W, "offset": np.float32(9000), "up": np.float32(2**13), "down": np.float32(2**-13)}
LOWEST = float(np.finfo(np.float32).min)


def diagnosed(folder, text, precision="fp16", inputs=None, **weights):
    """Diagnose a graph in ONNX's text form, of which a name before an operator is the node's."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    for node in onnx_file.graphs(model.graph):
        for one in node.node:
            one.name = one.name or f"make {one.output[0]}"
    values = {name: np.asarray(one) for name, one in {**FLOATS, **weights}.items()}
    model.graph.initializer.extend(numpy_helper.from_array(one, name) for name, one in values.items())
    onnx.save(model, folder / "m.onnx")
    if inputs:
        np.savez(folder / "inputs.npz", **inputs)
    return diagnosis.diagnose(
        folder / "m.onnx", precision, folder / "inputs.npz" if inputs else None, 0, folder / "mended.onnx"
    )


def attention(folder, lowest, scale=1.0):
    """Diagnose an attention with a mask of its own, added to logits; the last key is masked."""
    rng = np.random.default_rng(0)
    weights = {name: (rng.standard_normal((16, 16)) / 4).astype(np.float32) for name in "qkvo"}
    mask = np.zeros((1, 1, 8), np.float32)
    mask[..., -1] = lowest
    text = (
        "(float[1,8,16] x) => (float[1,8,16] y) { qx = MatMul(x, q) kx = MatMul(x, k) vx = MatMul(x, v)"
        " qs = Mul(qx, scale) ks = Mul(kx, scale) kt = Transpose<perm = [0, 2, 1]>(ks) products = MatMul(qs, kt)"
        " logits = Mul(products, back) masked = Add(logits, mask) shares = Softmax<axis = 2>(masked)"
        " mixed = MatMul(shares, vx) y = MatMul(mixed, o) }"
    )
    return diagnosed(folder, text, mask=mask, scale=np.float32(scale), back=np.float32(1 / scale**2), **weights)


@pytest.mark.parametrize("lowest", [-np.inf, LOWEST, -1e9, -1e4])
def test_a_mask_is_no_fault(lowest, tmp_path):
    found = attention(tmp_path, lowest)
    assert (found.verdict, found.faults) == ("healthy", ())


def test_an_overflow_behind_a_mask_is_found_and_the_mask_is_not_blamed(tmp_path):
    found = attention(tmp_path, LOWEST, scale=200.0)
    assert found.verdict == "mended"
    assert [(fault.kind, fault.tensor) for fault in found.faults] == [("overflow", "products")]
    assert list(found.kept) == ["make products", "make logits"]


def test_of_tensors_as_large_as_each_other_the_first_is_told(tmp_path):
    text = "(float[8] x) => (float[8] y) { first = Mul(x, large) a = Relu(first) b = Relu(a) y = Relu(b) }"
    found = diagnosed(tmp_path, text, inputs={"x": np.full(8, 5, np.float32)}, large=np.float32(1e4))
    (note,) = [one for one in found.notes if "may pass" in one]
    assert note.startswith("first reaches 50,000")
    assert "and so may 3 more" in note


@pytest.mark.parametrize(("scale", "said"), [(16.0, True), (4.0, False)])
def test_a_tensor_that_other_inputs_may_bring_to_overflow_is_told(scale, said, tmp_path):
    weights = {"large": np.full((8, 8), scale, np.float32), "back": np.full((8, 8), 1e-3, np.float32)}
    text = "(float[1,8] x) => (float[1,8] y) { a = MatMul(x, large) y = MatMul(a, back) }"
    found = diagnosed(tmp_path, text, inputs={"x": np.full((1, 8), 400, np.float32)}, **weights)
    assert found.verdict == "healthy"
    assert any("a reaches 51,200 with these inputs" in note for note in found.notes) == said


NORM = {"one": np.ones(8, np.float32), "zero": np.zeros(8, np.float32)}


@pytest.mark.parametrize(("scale", "is_fault"), [(1000, True), (10, False)])
def test_a_layer_norm_whose_squares_overflow_inside_is_a_fault(scale, is_fault, tmp_path):
    text = "(float[2,8] x) => (float[2,8] y) { a = Mul(x, scale) y = LayerNormalization(a, one, zero) }"
    found = diagnosed(tmp_path, text, scale=np.float32(scale), **NORM)
    faults = [(fault.kind, fault.node, fault.measured) for fault in found.faults]
    assert faults == [("layernorm", "make y", False)] * is_fault
    assert (found.verdict, list(found.kept)) == (("mended", ["make y"]) if is_fault else ("healthy", []))


def test_many_normalizations_at_risk_are_told_and_not_kept(tmp_path):
    """A residual stream that is large everywhere: by default ONNX adds the squares up in FP32."""
    layers = " ".join(f"n{i} = LayerNormalization(s{i}, one, zero) s{i + 1} = Add(s{i}, n{i})" for i in range(4))
    text = f"(float[2,8] x) => (float[2,8] y) {{ s0 = Mul(x, scale) {layers} y = Identity(s4) }}"
    found = diagnosed(tmp_path, text, scale=np.float32(1000), **NORM)
    assert (found.verdict, found.kept) == ("healthy", {})
    assert "make n0, make n1, make n2, make n3" in found.notes[0]


# --- faults that the outputs, or a body, hide -------------------------------------------------------------------------

BODY = "u1 = Mul({0}, up) u2 = Mul(u1, up) d1 = Mul(u2, down) {1} = Mul(d1, down)"
BODIES = {
    "If": "(float[4,8] x) => (float[4,8] y) { s = ReduceMax<keepdims=0>(x) c = Less(s, offset) y = If(c)"
    f"<then_branch = a () => (float[4,8] t) {{ {BODY.format('x', 't')} }},"
    " else_branch = b () => (float[4,8] e) { e = Relu(x) }> }",
    "Loop": "(float[4,8] x) => (float[4,8] y) { n = Constant<value = int64 {2}>() v = Loop(n, , x)"
    "<body = a (int64 i, bool more, float[4,8] before) => (bool still, float[4,8] after)"
    f" {{ still = Identity(more) {BODY.format('before', 'after')} }}> y = Identity(v) }}",
}


@pytest.mark.parametrize("op", BODIES)
def test_an_overflow_inside_a_body(op, tmp_path):
    found = diagnosed(tmp_path, BODIES[op])
    assert [(fault.kind, fault.op) for fault in found.faults] == [("overflow", op)]
    assert (found.verdict, set(found.kept)) == ("mended", {"make u2", "make d1"})


@pytest.mark.parametrize("offset", [9000, 1])
def test_small_scores_beside_large_boxes(offset, tmp_path):
    text = (
        "(float[4,8] x) => (float[8,12] y) { p = MatMul(x, w) q = Sigmoid(p) boxes = Mul(q, up)"
        " a = Add(p, offset) b = Sub(a, offset) scores = Sigmoid(b) k = Slice(boxes, zero, four)"
        " all = Concat<axis = 0>(boxes, scores, k) y = Transpose(all) }"
    )
    found = diagnosed(tmp_path, text, offset=np.float32(offset), zero=np.array([0]), four=np.array([4]))
    assert {out.name: out.part_of for out in found.outputs} == {"y": None, "boxes": "y", "scores": "y", "k": "y"}
    assert "part of an output   scores, in y: error " in diagnosis_page.as_text(found)
    assert found.verdict == ("healthy" if offset == 1 else "mended")
    assert set(found.kept) == (set() if offset == 1 else {"make a", "make b"})


def test_a_fault_that_stands_out_is_no_rounding_that_adds_up(tmp_path):
    """The error of the output is below twice what is allowed, and keeping the softmax alone changes nothing."""
    text = (
        "(float[4,8] x) => (float[4,8] y) { a = Add(x, offset) m = Add(a, mask) p = Softmax<axis = 1>(m)"
        " q = Mul(p, part) y = Add(q, x) }"
    )
    weights = {"mask": np.zeros(8, np.float32), "part": np.float32(0.5)}
    found = diagnosed(tmp_path, text, "bf16", **weights)
    assert 1 < found.outputs[0].error / found.outputs[0].allowed < 2
    assert (found.verdict, [fault.kind for fault in found.faults]) == ("mended", ["softmax"])
    assert set(found.kept) == {"make a", "make m", "make p"}
    assert "\nof these            make a: not at fault, but needed for right outputs\n" in diagnosis_page.as_text(found)


def test_a_mask_before_the_overflow_is_not_named(tmp_path):
    text = (
        "(float[4,8] x) => (float[4,8] y) { m = Add(x, mask) l = Add(m, large) e = Exp(l)"
        " s = ReduceSum<keepdims = 1>(e, last) p = Div(e, s) y = MatMul(p, w) }"
    )
    mask = np.where(np.arange(8) == 7, np.finfo(np.float32).min, 0).astype(np.float32)
    found = diagnosed(tmp_path, text, mask=mask, large=np.float32(13), last=np.array([-1]))
    assert [(fault.kind, fault.tensor) for fault in found.faults] == [("softmax", "e")]
    assert set(found.kept) == {"make e", "make s", "make p"}


def test_int8_where_a_product_and_a_sum_become_one_node(tmp_path):
    """The node in the INT8 file has another name than the product in the model; two are all that is quantized."""
    outlier = np.zeros((4, 8), np.float32)
    outlier[2, 3] = 3000
    text = (
        "(float[4,8] x) => (float[4,8] y) { o = Add(x, outlier) p = MatMul(o, w) b = Add(p, bias)"
        " c = Clip(b, low, high) q = MatMul(c, w) y = Add(q, bias) }"
    )
    weights = {"outlier": outlier, "low": np.float32(-3), "high": np.float32(3), "bias": W[0]}
    found = diagnosed(tmp_path, text, "int8", **weights)
    assert (found.verdict, set(found.kept)) == ("mended", {"make p"})


def test_a_model_without_a_float_tensor_of_its_own(tmp_path):
    found = diagnosed(tmp_path, "(float[4,8] x) => (int64[4] y) { y = ArgMax<axis = 1, keepdims = 0>(x) }")
    assert (found.verdict, found.curve) == ("healthy", ())


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory):
    """A model with an overflow, in a folder of its own."""
    folder = tmp_path_factory.mktemp("overflowing")
    model, _ = debug_trial.generate("CNN", "overflow", 1)
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def debug(capsys, *arguments):
    status = main(["debug", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_text_and_page(overflowing, capsys, tmp_path):
    page = tmp_path / "page.html"
    status, out, err = debug(capsys, overflowing, "--seed", 4, "--html", page)
    assert (status, err) == (0, "")
    assert "net.onnx in FP16 has 1 fault; with 2 of " in out
    assert "not at fault" not in out
    assert "x 1x3x32x32, drawn at random (seed 4); real inputs are better" in out
    assert re.search(r"^fault 1 +overflow: .* reaches [\d,.e+]+, and FP16 ends at 65,504\.$", out, re.MULTILINE)
    assert re.search(r"^output y +error infinite, \S+e-04 when mended; allowed ", out, re.MULTILINE)
    assert out.splitlines()[-1] == f"Written: {page}"
    assert overflowing.with_name("net-fp16-mended.onnx").exists()
    text = page.read_text()
    assert 'src="data:image/png;base64,' in text
    assert not re.search(r"(src|href)=.?https?:", text)


def test_json_and_output(overflowing, capsys, tmp_path):
    status, out, _ = debug(capsys, overflowing, "--json", "--output", tmp_path / "out.onnx")
    found = json.loads(out)
    assert status == 0
    assert found["verdict"] == "mended"
    assert found["faults"][0]["error"] == "infinite"
    assert set(found["kept"]) == set(found["faults"][0]["nodes"])


def test_a_healthy_model_leaves_no_file_unless_one_is_asked_for(capsys, tmp_path):
    onnx.save(residual_model(), tmp_path / "net.onnx")
    assert debug(capsys, tmp_path / "net.onnx")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert debug(capsys, tmp_path / "net.onnx", "--output", tmp_path / "half.onnx")[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"net.onnx", "half.onnx"}


# --- bad input --------------------------------------------------------------------------------------------------------


def ids_model(path, rows=10):
    nodes = [
        helper.make_node("Cast", ["ids"], ["as long"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "as long"], ["y"]),
    ]
    table = numpy_helper.from_array(np.ones((rows, 4), np.float32), "table")
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT32, [1, "n"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "n", 4])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [table])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_ids_outside_the_vocabulary_and_drawn_ids_inside(tmp_path):
    path = ids_model(tmp_path / "net.onnx")
    np.savez(tmp_path / "in.npz", ids=np.array([[3, 10]], np.int32))
    with pytest.raises(InputError, match="holds the index 10, but the table that it indexes has 10 rows"):
        diagnosis.diagnose(path, "fp16", tmp_path / "in.npz", 0, tmp_path / "out.onnx")
    assert diagnosis.diagnose(path, "fp16", None, 0, tmp_path / "out.onnx").verdict == "healthy"


def test_a_newer_ir_version_is_no_matter(tmp_path, capsys):
    """It says how the file is laid out, which onnx has read; operators are told by the opset."""
    model = residual_model()
    model.ir_version = 99
    onnx.save(model, tmp_path / "net.onnx")
    status, _, err = debug(capsys, tmp_path / "net.onnx")
    assert (status, err) == (0, "")


# --- any model --------------------------------------------------------------------------------------------------------


def scaled(path, *, names=("", ""), kind=TensorProto.FLOAT, body=False):
    """Write a model that multiplies by a million and divides by it."""
    million = numpy_helper.from_array(np.float32(1e6), "million")
    last = helper.make_node("Div", ["large", "million"], ["small"], names[1])
    if body:
        value = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
        branch = helper.make_graph([helper.make_node("Div", ["large", "million"], ["inner"])], "b", [], [value])
        last = helper.make_node("If", ["yes"], ["small"], names[1], then_branch=branch, else_branch=branch)
    nodes = [
        helper.make_node("Constant", [], ["million"], value=million),
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "million"], ["large"], names[0]),
        last,
        helper.make_node("Cast", ["small"], ["y"], to=kind),
    ]
    values = [helper.make_tensor_value_info(name, kind, ["batch", 8]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    "form",
    [{}, {"names": ("same", "same")}, {"names": ("a[0]", "$b$")}, {"kind": TensorProto.FLOAT16}, {"body": True}],
    ids=["constants, no names", "equal names", "odd names", "FP16 inputs and outputs", "a body reads it"],
)
def test_any_form_of_a_model(form, tmp_path):
    path = scaled(tmp_path / "net.onnx", **form)
    found = diagnosis.diagnose(path, "fp16", None, 0, tmp_path / "mended.onnx")
    assert (found.verdict, found.faults[0].tensor) == ("mended", "large")
    assert 1 <= len(found.kept) <= 3, "the product, and the quotient or both branches of the If"
    in_bf16 = diagnosis.diagnose(path, "bf16", None, 0, tmp_path / "other.onnx")
    assert (in_bf16.verdict, in_bf16.faults) == ("healthy", ())
    assert "No CPU computes in BF16" in in_bf16.notes[0]
