import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import images, options

from tutorial_utils import engine
from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import CalibrationError, PrecisionError
from tutorial_utils.model import onnx_file, quantization
from tutorial_utils.model.converting import calibration_inputs


def run(path, batch):
    return onnx_session.new_session(path).run(None, {"x": batch})[0]


def producers(model):
    return {name: node for node in model.graph.node for name in node.output}


def weights(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_int8_is_close_to_fp32_and_is_not_fp32(models):
    batch = images(8, seed=2)
    exact, quantized = run(models["fp32"], batch), run(models["int8"], batch)
    error = np.abs(quantized - exact).max() / np.abs(exact).max()
    assert 1e-4 < error < 0.1


def test_int8_quantizes_the_inputs_of_convolutions_and_matrix_products_only(models):
    model = onnx.load(models["int8"])
    by_output = producers(model)
    dequantized = [name for name, node in by_output.items() if node.op_type == "DequantizeLinear"]
    consumers = [node for node in model.graph.node if set(node.input) & set(dequantized)]
    wide = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(wide) == 3
    for node in wide:
        assert [by_output[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
        assert not any(name in dequantized for name in node.input[2:]), "biases stay FP32"
    # The residual sum may read the tensor that feeds the second convolution, but no layer has a Q/DQ pair of its own.
    assert {node.op_type for node in consumers} <= {"Conv", "Gemm", "MatMul", "Add"}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert by_output.get(node.input[0], node).op_type not in ("Conv", "Gemm"), "Q/DQ after a layer"


def test_int8_has_the_form_that_tensorrt_accepts(models):
    model = onnx.load(models["int8"])
    values = weights(model)
    quantizers = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantizers
    for node in quantizers:
        zero_point = values[node.input[2]]
        assert zero_point.dtype == np.int8, "an INT32 DequantizeLinear is refused"
        assert not zero_point.any(), "a zero point other than 0 is refused"
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(("per_channel", "sizes"), [(True, {16, 10}), (False, {1})])
def test_int8_scales_of_weights(per_channel, sizes, fp32_model, tmp_path):
    path = quantization.to_int8(fp32_model, tmp_path / "int8.onnx", images(8), per_channel=per_channel)
    model = onnx.load(path)
    values = weights(model)
    stored = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in values]
    assert {values[node.input[1]].size for node in stored} == sizes
    assert len(stored) == 3


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_range_that_minmax_keeps_is_cut(method, fp32_model, models, tmp_path):
    path = quantization.to_int8(fp32_model, tmp_path / "int8.onnx", images(32), method=method)
    scale = weights(onnx.load(path))["relu0_scale"]
    assert scale < weights(onnx.load(models["int8"]))["relu0_scale"]


def test_calibration_prints_nothing(fp32_model, tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantization.to_int8(fp32_model, tmp_path / "int8.onnx", images(32), method="entropy")
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_int8_calibrates_with_all_images(fp32_model, tmp_path):
    """The widest image is in the last, incomplete batch: its range must count."""
    batch = images(10)
    batch[-1] *= 100
    path = quantization.to_int8(fp32_model, tmp_path / "int8.onnx", batch, batch_size=4)
    assert weights(onnx.load(path))["x_scale"] == pytest.approx(np.abs(batch).max() / 127, rel=0.02)


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_a_number_of_images_that_no_batch_divides(method, fp32_model, tmp_path):
    path = quantization.to_int8(fp32_model, tmp_path / "int8.onnx", images(7), method=method, batch_size=4)
    assert path.exists()


def test_a_static_batch_is_calibrated_in_its_own_size(fp32_model, tmp_path):
    model = onnx.load(fp32_model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    static = onnx_file.save(model, tmp_path / "static.onnx")
    assert quantization.to_int8(static, tmp_path / "int8.onnx", images(8)).exists()
    with pytest.raises(CalibrationError, match="batches of exactly 4, and 6 images"):
        quantization.to_int8(static, tmp_path / "int8.onnx", images(6))


def test_int8_of_fp16_is_refused(models, target):
    with pytest.raises(PrecisionError, match="converted to FP16 already"):
        quantization.to_int8(models["fp16"], target, images(2))


def test_int8_twice_is_refused(models, target):
    with pytest.raises(PrecisionError, match="is quantized already"):
        quantization.to_int8(models["int8"], target, images(2))


# --- any model -------------------------------------------------------------------------------------------------------


def rand(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def value(name, shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def node(operator, inputs, outputs, name=None, **attributes):
    return helper.make_node(operator, inputs.split(), outputs.split(), name or outputs, **attributes)


def body(operator, inputs, output):
    """Return a subgraph of one node."""
    return helper.make_graph([node(operator, inputs, output)], output, [], [value(output, None)])


W, X = rand(8, 8), rand(16, 8, seed=1)


ROWS = (value("x", ["n", 8]),)


def save(path, nodes, weights, inputs=ROWS, outputs=("y",), opset=17, ir_version=8, domains=()):
    """Write a model. Weights are arrays by name."""
    outputs = [one if isinstance(one, onnx.ValueInfoProto) else value(one, None) for one in outputs]
    tensors = [numpy_helper.from_array(np.asarray(one), name) for name, one in weights.items()]
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(one, 1) for one in domains)]
    graph = helper.make_graph(list(nodes), "g", list(inputs), outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version), path)
    return path


def relative_error(fp32_path, int8_path, feed):
    """Return the L2 norm of the difference over that of the FP32 model's first output."""
    exact, answer = (onnx_session.new_session(path).run(None, feed)[0] for path in (fp32_path, int8_path))
    return np.linalg.norm(answer - exact) / np.linalg.norm(exact)


ADD = node("Add", "b c", "y")
IMAGE = (value("x", ["n", 16, 9, 9]),)
KINDS = {
    # name: nodes, weights, inputs, calibration arrays
    "Gemm with alpha and beta": (
        [node("Gemm", "x w c", "y", alpha=2.0, beta=0.5)], {"w": W, "c": np.full(8, 3, np.float32)}, ROWS, X,
    ),
    "Gemm of two activations": ([node("Gemm", "x x", "y", transB=1)], {}, ROWS, X),
    "MatMul of two activations": ([node("Transpose", "x", "t"), node("MatMul", "x t", "y")], {}, ROWS, X),
    "MatMul, three dimensions": (
        [node("MatMul", "x w", "y")], {"w": rand(4, 8, 6)}, (value("x", ["n", 4, 5, 8]),), rand(6, 4, 5, 8),
    ),
    "MatMul, weight on the left": (
        [node("MatMul", "w x", "y")], {"w": rand(5, 6)}, (value("x", ["n", 6, 8]),), rand(9, 6, 8),
    ),
    "MatMul with a vector": ([node("MatMul", "x w", "y")], {"w": rand(8)}, ROWS, X),
    "depthwise": ([node("Conv", "x w", "y", group=16)], {"w": rand(16, 1, 3, 3)}, IMAGE, rand(4, 16, 9, 9)),
    "ConvTranspose": (
        [node("ConvTranspose", "x w", "y", strides=[2, 2])], {"w": rand(16, 8, 3, 3)}, IMAGE, rand(4, 16, 9, 9),
    ),
    "ConvTranspose in groups": (
        [node("ConvTranspose", "x w", "y", group=4)], {"w": rand(16, 8, 3, 3)}, IMAGE, rand(4, 16, 9, 9),
    ),
    "Conv, one dimension": (
        [node("Conv", "x w", "y")], {"w": rand(6, 8, 3)}, (value("x", ["n", 8, 20]),), rand(4, 8, 20),
    ),
    "weight of two nodes": (
        [node("MatMul", "x w", "a"), node("Relu", "a", "r"), node("MatMul", "r w", "y")], {"w": W}, ROWS, X,
    ),
    "weight along two axes": ([node("MatMul", "x w", "a"), node("Gemm", "a w", "y", transB=1)], {"w": W}, ROWS, X),
    "embedding's weight": (
        [node("Gather", "w x", "e"), node("Gemm", "e w", "y", transB=1)], {"w": rand(30, 8)},
        (value("x", ["n"], TensorProto.INT64),), np.arange(30),
    ),
    "zeros": (
        [node("MatMul", "x zeros", "a"), node("MatMul", "a w", "b"), node("MatMul", "x w", "c"), ADD],
        {"zeros": 0 * W, "w": W}, ROWS, X,
    ),
    "dead channel": ([node("MatMul", "x w", "y")], {"w": W * (np.arange(8) % 2).astype(np.float32)}, ROWS, X),
    "names that are taken": (
        [node("MatMul", "x w", "x_scale"), node("Relu", "x_scale", "r"), node("Mul", "r w_quantized", "y")],
        {"w": W, "w_quantized": rand(8)}, ROWS, X,
    ),
    "FP16 input": (
        [node("Cast", "x", "e", to=TensorProto.FLOAT), node("MatMul", "e w", "y")], {"w": W},
        (value("x", ["n", 8], TensorProto.FLOAT16),), X.astype(np.float16),
    ),
    "If with a constant condition": (
        [node("If", "yes", "y", then_branch=body("MatMul", "x w", "t"), else_branch=body("Relu", "x", "e"))],
        {"w": W, "yes": np.array(True)}, ROWS, X,
    ),
    "dimension of -1": ([node("MatMul", "x w", "y")], {"w": W}, (value("x", [-1, 8]),), X),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_int8_errs_by_rounding_only(kind, tmp_path):
    nodes, constants, inputs, given = KINDS[kind]
    path = save(tmp_path / "fp32.onnx", nodes, constants, inputs)
    int8 = quantization.to_int8(path, tmp_path / "int8.onnx", given)
    assert 1e-5 < relative_error(path, int8, {"x": given}) < 0.02
    found = quantization.coverage(int8)
    assert not found.left
    scales = [tensor for name, tensor in weights(onnx.load(int8)).items() if name.endswith("_scale")]
    assert scales
    assert all((scale > 0).all() and np.isfinite(scale).all() for scale in scales)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("ConvTranspose", {8}),
        ("ConvTranspose in groups", {1}),  # its output channels lie along two axes
        ("MatMul, three dimensions", {1}),  # ONNX Runtime's fused operator takes no others
        ("weight along two axes", {8}),
        ("depthwise", {16}),
    ],
)
def test_weights_have_a_scale_for_each_output_channel_where_a_backend_takes_them(kind, sizes, tmp_path):
    nodes, constants, inputs, given = KINDS[kind]
    int8 = quantization.to_int8(save(tmp_path / "fp32.onnx", nodes, constants, inputs), tmp_path / "int8.onnx", given)
    model = onnx.load(int8)
    values = weights(model)
    stored = [one for one in model.graph.node if one.op_type == "DequantizeLinear" and one.input[0] in values]
    assert {values[one.input[1]].size for one in stored} == sizes


@pytest.fixture(scope="module")
def assorted(tmp_path_factory):
    """A model with each form of Q/DQ that `to_int8` writes, in FP32 and INT8."""
    folder = tmp_path_factory.mktemp("assorted")
    nodes = [
        node("Conv", "x wide", "a"),
        node("Conv", "a depthwise", "b", group=32, pads=[1, 1, 1, 1]),
        node("ConvTranspose", "b up", "c"),
        node("Reshape", "c rows", "d"),
        node("MatMul", "d stack", "e"),
        node("Transpose", "e", "f", perm=[0, 1, 3, 2]),
        node("MatMul", "e f", "g"),
        node("ReduceMean", "g", "h", axes=[1, 3], keepdims=0),
        node("Gemm", "h w c0", "i", beta=0.5),
        node("Gemm", "i w", "y", transB=1),
    ]
    constants = {
        "wide": rand(32, 16, 3, 3), "depthwise": rand(32, 1, 3, 3), "up": rand(32, 16, 2, 2),
        "rows": np.array([0, 16, 8, 8]), "stack": rand(16, 8, 8), "w": W, "c0": rand(8),
    }  # fmt: skip
    inputs = (value("x", ["n", 16, 9, 9]),)
    path = save(folder / "fp32.onnx", nodes, constants, inputs, outputs=(value("y", ["n", 8]),))
    return path, quantization.to_int8(path, folder / "int8.onnx", rand(8, 16, 9, 9))


def test_every_form_is_built_by_tensorrt(assorted):
    profile = engine.Profile.batch("x", (16, 9, 9), opt=4, max=8)
    report = engine.build(assorted[1], options(profiles=[profile]), use_cache=False).report
    assert report.kernel_dtypes["int8"] >= 5


def test_fp8_has_one_scale_for_a_weight_or_one_for_each_channel(assorted, tmp_path):
    sizes = {}
    for per_channel in (False, True):
        path = quantization.to_fp8(*assorted, tmp_path / "fp8.onnx", per_channel=per_channel)
        constants = {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
        sizes[per_channel] = {
            constants[f"{name[:-10]}_scale"].size for name in constants if name.endswith("_quantized")
        }
    assert sizes[False] == {1}
    assert max(sizes[True]) > 1


def test_fp8_of_every_form(assorted, tmp_path):
    fp8 = quantization.to_fp8(*assorted, tmp_path / "fp8.onnx")
    assert str(quantization.coverage(fp8)) == "quantized: 2 Conv, 1 ConvTranspose, 2 Gemm, 2 MatMul"
    profile = engine.Profile.batch("x", (16, 9, 9), opt=4, max=8)
    given = options(profiles=[profile], compute_capabilities=["8.9"])
    assert "fp8" in engine.build(fp8, given, use_cache=False).report.kernel_dtypes


def two_products(path, **changes):
    """Write x -> a: MatMul, s: Add -> c: MatMul -> y, in which ONNX Runtime makes a and s one Gemm."""
    nodes = [node("MatMul", "x w", "t", "a"), node("Add", "t bias", "c", "s"), node("MatMul", "c w", "y", "c")]
    return save(path, nodes, {"w": W, "bias": rand(8)}, **changes)


def test_excluded_nodes_read_and_compute_fp32(tmp_path):
    nodes = [node("MatMul", "x w", "b"), node("MatMul", "x v", "c"), node("Mul", "b c", "y")]
    path = save(tmp_path / "fp32.onnx", nodes, {"w": W, "v": rand(8, 8, seed=2)})
    int8 = quantization.to_int8(path, tmp_path / "int8.onnx", X, exclude=["c"])
    by_name = {one.name: one for one in onnx.load(int8).graph.node}
    assert list(by_name["c"].input) == ["x", "v"]
    found = quantization.coverage(int8)
    assert sum(found.quantized.values()) == 1
    assert found.left == {"MatMul": {"named in exclude": 1}}


def test_weights_of_nan_are_refused(tmp_path, target):
    path = save(tmp_path / "fp32.onnx", [node("MatMul", "x w", "y")], {"w": np.full_like(W, np.nan)})
    with pytest.raises(PrecisionError, match="The weight w holds NaN"):
        quantization.to_int8(path, target, X)


def test_a_node_that_is_fused_is_excluded_by_its_name(tmp_path):
    path = two_products(tmp_path / "fp32.onnx")
    int8 = quantization.to_int8(path, tmp_path / "int8.onnx", X, exclude=["a"])
    assert str(quantization.coverage(int8)) == "quantized: 1 MatMul; not quantized: 1 Gemm (named in exclude)"
    with pytest.raises(PrecisionError, match="has no node t that could stay"):
        quantization.to_int8(path, tmp_path / "int8.onnx", X, exclude=["t"])


COMPARED = [node("ReduceMax", "x", "m", keepdims=0), node("Greater", "m zero", "yes")]
BRANCH = node("If", "yes", "b", then_branch=body("MatMul", "x w", "t"), else_branch=body("Relu", "x", "e"))


def test_what_is_left_out_is_warned_of_and_kept_in_the_file(tmp_path):
    nodes = [*COMPARED, BRANCH, node("MatMul", "x w", "c"), ADD]
    path = save(tmp_path / "fp32.onnx", nodes, {"w": W, "zero": np.float32(0)})
    with pytest.warns(UserWarning, match=r"fp32.onnx is not quantized throughout.*1 MatMul \(in a subgraph of If\)"):
        int8 = quantization.to_int8(path, tmp_path / "int8.onnx", X)
    assert quantization.coverage(int8).left == {"MatMul": {"in a subgraph of If": 1}}
    assert relative_error(path, int8, {"x": X}) < 0.02
    with pytest.raises(PrecisionError, match="doesn't say what is quantized"):
        quantization.coverage(path)


def test_an_activation_without_a_finite_range_stays(tmp_path):
    nodes = [
        node("Div", "x zero", "i"), node("MatMul", "i w", "b"), node("MatMul", "x w", "c"),
        node("Where", "no b c", "y"),
    ]  # fmt: skip
    path = save(tmp_path / "fp32.onnx", nodes, {"w": W, "zero": np.float32(0), "no": np.array(False)})
    with pytest.warns(UserWarning, match=r"quantized: 1 MatMul; not quantized: 1 MatMul \(no finite range was seen\)"):
        int8 = quantization.to_int8(path, tmp_path / "int8.onnx", X)
    assert relative_error(path, int8, {"x": X}) < 0.02


INTEGERS = {
    "rnn": W[None],
    "zero_axis": np.array([0]),
    "q": np.ones((8, 8), np.int8),
    "s": np.float32(0.1),
    "z": np.int8(0),
    "w": W,
    "zero": np.float32(0),
}
NOTHING = {
    "no product": ([node("Relu", "x", "y")], "it has no Conv, ConvTranspose, Gemm, MatMul"),
    "operators without a form": (
        [node("Unsqueeze", "x zero_axis", "t"), node("RNN", "t rnn rnn", "y", hidden_size=8)],
        r"1 RNN \(no Q/DQ form\)",
    ),
    "in a subgraph": ([*COMPARED, BRANCH, node("Relu", "b", "y")], r"1 MatMul \(in a subgraph of If\)"),
    "integers": (
        [node("Cast", "x", "i", to=TensorProto.INT32), node("MatMul", "i i", "k"),
         node("Cast", "k", "y", to=TensorProto.FLOAT)], r"1 MatMul \(its type is INT32\)",
    ),
    "weight in 8 bits": (
        [node("DequantizeLinear", "q s z", "d"), node("MatMul", "x d", "y")], "quantized already: .*DequantizeLinear",
    ),
    "dynamically quantized": (
        [node("DynamicQuantizeLinear", "x", "a b c"), node("MatMulInteger", "a q", "i"),
         node("Cast", "i", "y", to=TensorProto.FLOAT)], "quantized already: .*MatMulInteger",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTHING)
def test_a_model_in_which_nothing_can_be_quantized_is_refused(case, tmp_path, target):
    nodes, reason = NOTHING[case]
    inputs = (value("x", [8, 8]),)
    path = save(tmp_path / "fp32.onnx", nodes, INTEGERS, inputs)
    with pytest.raises(PrecisionError, match=reason):
        quantization.to_int8(path, target, X)


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13])
def test_an_older_opset_is_raised(opset, tmp_path):
    nodes = [node("Conv", "x w", "a"), node("Softmax", "a", "y", axis=1)]
    inputs = (*IMAGE, value("w", [4, 16, 3, 3]))  # as before IR version 4: weights are inputs
    path = save(tmp_path / "fp32.onnx", nodes, {"w": rand(4, 16, 3, 3)}, inputs, opset=opset, ir_version=3)
    int8 = quantization.to_int8(path, tmp_path / "int8.onnx", rand(4, 16, 9, 9))
    assert onnx.load(int8).opset_import[0].version == 13
    assert relative_error(path, int8, {"x": rand(4, 16, 9, 9)}) < 0.1


def test_letters_in_an_older_opset(tmp_path):
    encoder = node("LabelEncoder", "x", "ids", domain="ai.onnx.ml", keys_strings=["a", "b"], values_int64s=[0, 1])
    nodes = [
        encoder,
        node("Gather", "w ids", "e"),
        node("Transpose", "e", "t", perm=[0, 2, 1]),
        node("MatMul", "t v", "y"),
    ]
    inputs, outputs = (value("x", ["n", 3], TensorProto.STRING),), (value("y", ["n", 8, 5]),)
    path = save(tmp_path / "fp32.onnx", nodes, {"w": W, "v": rand(3, 5)}, inputs, outputs, opset=11)
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    onnx.save(model, path)
    letters = np.array([["a", "b", "a"]] * 4, object)
    int8 = quantization.to_int8(path, tmp_path / "int8.onnx", letters)
    assert relative_error(path, int8, {"x": letters}) < 0.02


def test_an_opset_that_cannot_be_raised(tmp_path, target):
    """Opset 9 took the choice of one mean for each element, instead of each channel, from BatchNormalization."""
    nodes = [node("BatchNormalization", "x a b c d", "n", spatial=0), node("MatMul", "n w", "y")]
    path = save(tmp_path / "fp32.onnx", nodes, {"w": W, **dict.fromkeys("abcd", np.ones(8, np.float32))}, opset=8)
    with pytest.raises(PrecisionError, match=r"can't raise opset 8 to it: .*spatial must have value 1"):
        quantization.to_int8(path, target, X)


def test_an_operator_of_onnx_runtimes_own(tmp_path):
    """onnx can't infer what type it gives."""
    nodes = [node("Gelu", "x", "a", domain="com.microsoft"), node("MatMul", "a w", "y")]
    outputs = (value("y", ["n", 8]),)
    path = save(tmp_path / "fp32.onnx", nodes, {"w": W}, outputs=outputs, domains=["com.microsoft"])
    int8 = quantization.to_int8(path, tmp_path / "int8.onnx", X)
    assert quantization.coverage(int8).quantized == {"MatMul": 1}
    assert relative_error(path, int8, {"x": X}) < 0.02


def test_external_data(tmp_path):
    path = two_products(tmp_path / "fp32.onnx")
    outside = tmp_path / "outside.onnx"
    onnx.save(onnx.load(path), outside, save_as_external_data=True, location="weights.data", size_threshold=0)
    assert relative_error(path, quantization.to_int8(outside, tmp_path / "int8.onnx", X), {"x": X}) < 0.02


def test_nodes_without_names_of_their_own(tmp_path):
    nodes = [node("MatMul", "x w", "a", "same"), node("MatMul", "a w", "b", "same"), node("MatMul", "b w", "y")]
    nodes[2].name = ""
    int8 = quantization.to_int8(save(tmp_path / "fp32.onnx", nodes, {"w": W}), tmp_path / "int8.onnx", X)
    assert quantization.coverage(int8).quantized == {"MatMul": 3}


def test_a_model_that_protobuf_cannot_hold(fp32_model, target, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST", 1000)
    with pytest.raises(PrecisionError, match="GB of weights, and calibration takes 2 GB"):
        quantization.to_int8(fp32_model, target, images(2))


def test_answers_far_from_fp32_are_warned_of(tmp_path):
    """One large value takes all levels of the range; the others become 0."""
    nodes = [node("MatMul", "x w", "t"), node("Sub", "t t0", "y")]
    given = np.eye(8, dtype=np.float32) * np.float32([1e6, *[1] * 7])
    constants = {"w": W, "t0": given @ W * np.float32([[1]] + [[0]] * 7)}
    path = save(tmp_path / "fp32.onnx", nodes, constants, (value("x", [8, 8]),))
    with pytest.warns(UserWarning, match=r"INT8 changes the answers of fp32.onnx by \d+%"):
        quantization.to_int8(path, tmp_path / "int8.onnx", given)


# --- calibration inputs ----------------------------------------------------------------------------------------------

IDS_AND_MASK = (value("ids", ["n", 6], TensorProto.INT64), value("mask", ["n", 6], TensorProto.BOOL))
STATE = (value("x", [3, 8]), value("state", [2, 3, 8]), value("rate", [], TensorProto.INT64))


def model_of(inputs):
    return helper.make_model(helper.make_graph([], "g", inputs, [], [numpy_helper.from_array(W, "w")]))


@pytest.mark.parametrize(
    ("inputs", "given", "shapes"),
    [
        (ROWS, X, [{"x": (8, 8)}] * 2),
        ((value("w", [8, 8]), *ROWS), X, [{"x": (8, 8)}] * 2),
        ((value("x", [-1, 8]),), X, [{"x": (8, 8)}] * 2),
        ((value("x", [4, 8]),), X, [{"x": (4, 8)}] * 4),
        (IDS_AND_MASK, {"mask": np.ones((6, 6), bool), "ids": np.ones((6, 6), int)}, [{"ids": (6, 6), "mask": (6, 6)}]),
        (
            STATE, {"x": rand(5, 3, 8), "state": rand(5, 2, 3, 8), "rate": np.ones(5, int)},
            [{"x": (3, 8), "state": (2, 3, 8), "rate": ()}] * 5,
        ),
        (
            STATE, {"x": rand(3, 8), "state": rand(2, 3, 8), "rate": np.array(1)},
            [{"x": (3, 8), "state": (2, 3, 8), "rate": ()}],
        ),
    ],
    ids=["one input", "weight among them", "-1", "static", "several", "steps in front", "one step"],
)  # fmt: skip
def test_feeds(inputs, given, shapes):
    feeds = calibration_inputs.feeds(model_of(inputs), given, batch_size=8)
    assert [{name: array.shape for name, array in feed.items()} for feed in feeds] == shapes
    assert all(isinstance(array, np.ndarray) for feed in feeds for array in feed.values())


@pytest.mark.parametrize(
    ("inputs", "given", "message"),
    [
        (IDS_AND_MASK, X, r"has 2 inputs \(ids, mask\), and one calibration array"),
        (
            [helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)],
            X,
            "The input x is a sequence",
        ),
        (IDS_AND_MASK, [X, X], r"has 2 inputs \(ids, mask\), and one calibration array"),
        (ROWS, {"z": X}, "are named z, and the model's inputs x"),
        (IDS_AND_MASK, {"ids": np.ones((6, 6), np.int32), "mask": np.ones((6, 6), bool)}, r"int32.*ids \(int64"),
        (STATE, {"x": rand(5, 3, 8), "state": rand(2, 3, 8), "rate": np.array(1)}, "same number of steps in front"),
        (STATE, {"x": rand(4, 8), "state": rand(2, 3, 8), "rate": np.array(1)}, "x takes batches of exactly 3, and 4"),
    ],
    ids=[
        "one array for two",
        "sequence",
        "a list",
        "wrong name",
        "wrong type",
        "steps in one",
        "wrong first dimension",
    ],
)
def test_arrays_that_do_not_fit(inputs, given, message):
    with pytest.raises(CalibrationError, match=message):
        calibration_inputs.feeds(model_of(inputs), given, batch_size=8)


def test_ids_outside_the_vocabulary(tmp_path, target, capfd):
    nodes = [node("Gather", "w ids", "e"), node("MatMul", "e w", "y")]
    path = save(tmp_path / "fp32.onnx", nodes, {"w": W}, (value("ids", ["n"], TensorProto.INT64),))
    with pytest.raises(CalibrationError, match=r"idx=8 must be within the inclusive range \[-8,7\]"):
        quantization.to_int8(path, target, np.array([0, 8]))
    assert capfd.readouterr().err == ""
