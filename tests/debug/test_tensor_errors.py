"""Comparing runs tensor by tensor: what is marked, how it is rounded, what the numbers say, and bad input."""

import ml_dtypes
import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import images

from tutorial_utils.base.errors import InputError, ModelFileError
from tutorial_utils.debug import tensor_errors
from tutorial_utils.lessons.lesson04 import text_detection
from tutorial_utils.model import half_precision, onnx_file


@pytest.fixture(scope="module")
def feeds():
    return {"x": images(2)}


def save(nodes, path, *, weight=1.0, size=(4,)):
    """Write a model from x to y whose nodes may read the weight w."""
    initializers = [numpy_helper.from_array(np.full(size, weight, np.float32), "w")]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph(nodes, "small", values[:1], values[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx_file.save(model, path)


# Running with every tensor marked


def test_every_tensor_comes_back_in_the_order_of_computation(fp32_model, feeds):
    found = tensor_errors.all_outputs(fp32_model, feeds)
    assert list(found) == ["conv0", "relu0", "conv1", "norm", "sum", "relu1", "pool", "flat", "y"]
    np.testing.assert_array_equal(found["relu0"], np.maximum(found["conv0"], 0))


def test_tensors_are_not_those_of_an_optimized_graph(fp32_model, feeds):
    found = tensor_errors.all_outputs(fp32_model, feeds)
    weights = {
        one.name: numpy_helper.to_array(one)[:, None, None] for one in onnx.load(fp32_model).graph.initializer[3:]
    }
    scaled = (found["conv1"] - weights["mean"]) / np.sqrt(weights["variance"] + 1e-5)
    np.testing.assert_allclose(found["norm"], scaled * weights["scale"] + weights["shift"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("stored_as", "dtype"), [("fp16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_tensors_and_weights_are_rounded_to_the_format(stored_as, dtype, fp32_model, feeds):
    found = tensor_errors.all_outputs(fp32_model, feeds, stored_as)
    for values in found.values():
        np.testing.assert_array_equal(values.astype(dtype).astype(np.float32), values)
    rounded = tensor_errors.with_rounding(onnx.load(fp32_model), stored_as)
    weight = numpy_helper.to_array(rounded.graph.initializer[0])
    np.testing.assert_array_equal(weight.astype(dtype).astype(np.float32), weight)


def test_fp16_model_is_computed_as_its_types_say(tmp_path):
    """300 times 300 doesn't fit FP16. ONNX Runtime alone never rounds it, and comes back to 300."""
    nodes = [helper.make_node("Mul", ["x", "w"], ["product"]), helper.make_node("Div", ["product", "w"], ["y"])]
    path = save(nodes, tmp_path / "fp32.onnx", weight=300)
    fp16 = half_precision.to_fp16(path, tmp_path / "fp16.onnx")
    feeds = {"x": np.full(4, 300, np.float32)}
    found = tensor_errors.all_outputs(fp16, feeds)
    assert np.isinf(found["product"]).all()
    assert np.isinf(found["y"]).all()
    np.testing.assert_array_equal(tensor_errors.all_outputs(path, feeds)["y"], feeds["x"])


def test_a_bf16_file_is_computed_as_its_weights_and_types_say(models, feeds):
    """ONNX Runtime's CPU has no convolutions in BF16. With each rounding written down it computes such a file."""
    found = tensor_errors.all_outputs(models["bf16"], feeds)["y"]
    exact = tensor_errors.all_outputs(models["fp32"], feeds)["y"]
    error = tensor_errors.compare({"y": exact}, {"y": found}).loc["y", "rel_l2"]
    assert 1e-4 < error < tensor_errors.tolerance("bf16", 10)


def test_node_kept_in_fp32_has_its_fp32_weights(models, feeds, tmp_path):
    mixed = half_precision.to_fp16(models["fp32"], tmp_path / "mixed.onnx", keep_fp32=["conv0"])
    expected = tensor_errors.all_outputs(models["fp32"], feeds)["conv0"]
    np.testing.assert_array_equal(tensor_errors.all_outputs(mixed, feeds)["conv0"], expected)
    assert (tensor_errors.all_outputs(models["fp16"], feeds)["conv0"] != expected).any()


def test_rounding_leaves_the_given_model_alone(fp32_model):
    model = onnx.load(fp32_model)
    before = model.SerializeToString()
    tensor_errors.with_rounding(model, "fp16")
    assert model.SerializeToString() == before


# Comparing


def test_numbers_of_a_comparison():
    table = tensor_errors.compare(
        {"a": np.array([3.0, 0.0, -4.0])}, {"a": np.array([3.0, 0.1, -5.0]), "cast": np.ones(1)}
    )
    row = table.loc["a"]
    assert row["max_abs"] == pytest.approx(1)
    assert row["max_rel"] == pytest.approx(0.25)  # that of 0 isn't defined
    assert row["rel_l2"] == pytest.approx(np.sqrt(1.01) / 5)
    assert row["cosine"] == pytest.approx(29 / (5 * np.sqrt(34.01)))
    assert row["psnr"] == pytest.approx(20 * np.log10(4 / np.sqrt(1.01 / 3)))
    assert (row["peak_ref"], row["peak"], row["inf"], row["nan"]) == (4, 5, 0, 0)
    assert list(table.index) == ["a"]


def test_equal_tensors_have_no_error():
    row = tensor_errors.compare({"a": np.arange(3.0)}, {"a": np.arange(3.0)}).loc["a"]
    assert (row["max_abs"], row["max_rel"], row["rel_l2"], row["psnr"]) == (0, 0, 0, np.inf)
    assert row["cosine"] == pytest.approx(1)


def test_psnr_is_that_of_polygraphy():
    from polygraphy.comparator import PsnrCompareFunc
    from polygraphy.comparator.struct import IterationResult
    from polygraphy.logger import G_LOGGER

    one = np.random.default_rng(0).uniform(0, 3, 100).astype(np.float32)
    other = one + np.float32(0.01)
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        result = PsnrCompareFunc()(IterationResult({"a": one}), IterationResult({"a": other}))["a"]
    assert tensor_errors.compare({"a": one}, {"a": other}).loc["a", "psnr"] == pytest.approx(result.psnr, rel=1e-5)


def test_two_empty_tensors_are_equal():
    empty = np.zeros((0, 4), np.float32)
    table = tensor_errors.compare({"boxes": empty}, {"boxes": empty})
    assert (table.loc["boxes", "max_abs"], table.loc["boxes", "rel_l2"]) == (0, 0)
    assert tensor_errors.first_bad(table, rel_l2=1e-9) is None


def test_what_became_zero_is_bad():
    table = tensor_errors.compare({"a": np.zeros(3), "b": np.full(3, 1e-9)}, {"a": np.zeros(3), "b": np.zeros(3)})
    assert tensor_errors.first_bad(table) == "b"


def test_inf_and_nan_are_counted_and_no_error_is_called_small():
    row = tensor_errors.compare({"a": np.ones(4)}, {"a": np.array([1, np.inf, np.nan, np.nan])}).loc["a"]
    assert (row["inf"], row["nan"]) == (1, 2)
    assert np.isinf(row[["max_abs", "max_rel", "rel_l2"]].astype(float)).all()


def test_first_bad_is_the_first_in_the_order_of_computation():
    good = {name: np.ones(4) for name in "abcd"}
    table = tensor_errors.compare(
        good, {**good, "b": np.full(4, 1.1), "c": np.full(4, np.inf), "d": np.full(4, np.nan)}
    )
    assert tensor_errors.first_bad(table) == "c"
    assert tensor_errors.first_bad(table, rel_l2=0.01) == "b"
    assert tensor_errors.first_bad(table, rel_l2=table["rel_l2"] * 0 + [1, 1, 1, 1]) == "c"
    assert tensor_errors.first_bad(table.loc[["a"]]) is None
    assert tensor_errors.first_bad(table.loc[["a", "d"]]) == "d", "NaN alone, and no tolerance"


# Where it comes from


def test_layers_behind_are_the_nearest_with_weights(fp32_model, feeds):
    values = {**feeds, **tensor_errors.all_outputs(fp32_model, feeds)}
    found = tensor_errors.layers_behind(onnx.load(fp32_model), "sum", values)
    assert set(found.index) == {"conv0", "norm"}
    conv0 = found.loc["conv0"]
    assert conv0["weight"] == "w0"
    assert conv0["output_peak"] == np.abs(values["conv0"]).max()
    assert conv0["gain"] == pytest.approx(np.abs(values["conv0"]).max() / np.abs(feeds["x"]).max())
    assert found["output_peak"].is_monotonic_decreasing


def test_layers_behind_that_read_zeros(fp32_model, feeds):
    zeros = {"x": np.zeros_like(feeds["x"])}
    found = tensor_errors.layers_behind(
        onnx.load(fp32_model), "sum", {**zeros, **tensor_errors.all_outputs(fp32_model, zeros)}
    )
    assert np.isnan(found.loc["conv0"]["gain"])


def test_a_bounded_operator_hides_what_is_before_it(tmp_path):
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["large"], "before the gate"),
        helper.make_node("Sigmoid", ["large"], ["gate"]),
        helper.make_node("Mul", ["x", "gate"], ["y"]),
    ]
    path = save(nodes, tmp_path / "gate.onnx", weight=1e6)
    feeds = {"x": np.ones(4, np.float32)}
    found = tensor_errors.layers_behind(onnx.load(path), "y", {**feeds, **tensor_errors.all_outputs(path, feeds)})
    assert list(found["op"]) == ["input"], "the gate's layer is not seen, the way round it is"


def test_a_scale_that_comes_from_the_input_is_traced_to_it(tmp_path):
    nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Mul", ["a", "a"], ["y"])]
    path = save(nodes, tmp_path / "square.onnx")
    feeds = {"x": np.full(4, 300, np.float32)}
    found = tensor_errors.layers_behind(onnx.load(path), "y", {**feeds, **tensor_errors.all_outputs(path, feeds)})
    assert (found.index[0], found["op"].iloc[0], found["output_peak"].iloc[0]) == ("x", "input", 300)


def test_an_embedding_is_a_layer_and_a_choice_among_activations_is_none(tmp_path):
    nodes = [
        helper.make_node("Gather", ["w", "ids"], ["embedded"], "look up"),
        helper.make_node("Gather", ["embedded", "ids"], ["chosen"], "choose"),
        helper.make_node("Add", ["chosen", "chosen"], ["y"]),
    ]
    weight = numpy_helper.from_array(np.full((4, 4), 1e5, np.float32), "w")
    inputs = [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, [3])]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [3, 4])]
    graph = helper.make_graph(nodes, "embedding", inputs, outputs, [weight])
    path = tmp_path / "embedding.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    feeds = {"ids": np.array([2, 1, 0])}
    found = tensor_errors.layers_behind(onnx.load(path), "y", {**feeds, **tensor_errors.all_outputs(path, feeds)})
    (row,) = found.itertuples()
    assert (row.Index, row.op, row.weight, row.output_peak) == ("look up", "Gather", "w", 1e5)
    assert np.isnan(row.gain), "ids are no magnitudes"


def test_a_condition_has_no_scale(tmp_path):
    text = "(float[4] x, bool[4] keep) => (float[4] y) { z = Neg(x) y = Where(keep, x, z) }"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    feeds = {"x": np.full(4, 3, np.float32), "keep": np.array([True] * 4)}
    values = tensor_errors.all_outputs(onnx_file.save(model, tmp_path / "where.onnx"), feeds)
    assert list(tensor_errors.layers_behind(model, "y", {**feeds, **values}).index) == ["x"]


def test_a_normalization_is_a_layer(tmp_path):
    """Its own factors make its output large, whatever the layer before it does."""
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["before"], "before"),
        helper.make_node("LayerNormalization", ["before", "w"], ["normal"], "norm"),
        helper.make_node("Add", ["normal", "normal"], ["y"]),
    ]
    path = save(nodes, tmp_path / "norm.onnx", weight=3e4)
    feeds = {"x": np.float32([1, 2, 3, 4])}
    found = tensor_errors.layers_behind(onnx.load(path), "y", {**feeds, **tensor_errors.all_outputs(path, feeds)})
    assert list(found.index) == ["norm"]


def test_unknown_tensor_is_refused(fp32_model):
    with pytest.raises(InputError, match="no tensor absent"):
        tensor_errors.layers_behind(onnx.load(fp32_model), "absent", {})


# Tolerance


@pytest.mark.parametrize(("name", "dtype"), [("fp32", np.float32), ("fp16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_machine_epsilon_is_that_of_the_type(name, dtype):
    assert tensor_errors.machine_epsilon(name) == float(ml_dtypes.finfo(dtype).eps)


def test_depth_counts_the_operations_on_the_longest_way(fp32_model):
    depths = tensor_errors.depths(onnx.load(fp32_model))
    assert (depths["conv0"], depths["norm"], depths["sum"], depths["y"]) == (1, 4, 5, 9)


@pytest.mark.parametrize("stored_as", ["fp16", "bf16"])
def test_tolerance_lets_rounding_pass_and_nothing_ten_times_as_large(stored_as):
    path = text_detection.prepare()
    depth = tensor_errors.depths(onnx.load(path))
    feeds = {"x": text_detection.preprocess(text_detection.page(), 96, 192)}
    table = tensor_errors.compare(
        tensor_errors.all_outputs(path, feeds), tensor_errors.all_outputs(path, feeds, stored_as)
    )
    allowed = table.index.map(lambda name: tensor_errors.tolerance(stored_as, depth[name]))
    share = table["rel_l2"] / allowed
    assert share.max() < 1
    assert share.max() > 0.1
    assert tensor_errors.first_bad(table, rel_l2=allowed) is None


def test_a_node_alone_has_its_own_error_only(fp32_model, feeds, tmp_path):
    """The first convolution's weights are 1 % too large: it alone is wrong, along the network what follows it, too."""
    model = onnx_file.load(fp32_model)
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    half = half_precision.to_fp16(onnx_file.save(model, tmp_path / "m.onnx"), tmp_path / "fp16.onnx")
    exact = tensor_errors.all_outputs(fp32_model, feeds)
    alone = tensor_errors.each_node(half, {**feeds, **exact})
    assert list(alone) == list(exact)
    error = tensor_errors.compare(exact, alone)["rel_l2"]
    assert error["conv0"] == pytest.approx(0.01, rel=0.1)
    assert error.drop("conv0").max() < 2 * tensor_errors.machine_epsilon("fp16")
    along = tensor_errors.compare(exact, tensor_errors.all_outputs(half, feeds))["rel_l2"]
    assert along["relu0"] > 0.005


def test_tolerances_are_three_times_the_largest_trusted_error():
    tables = [pd.DataFrame({"rel_l2": errors}, index=["a", "b"]) for errors in ([1e-3, 0.0], [2e-3, 1e-9])]
    allowed = tensor_errors.tolerances(tables)
    assert allowed["a"] == pytest.approx(6e-3)
    assert allowed["b"] == pytest.approx(3 * 2.0**-10 / 4), "one rounding is allowed to every tensor"
    assert tensor_errors.tolerances(tables, "bf16")["b"] == pytest.approx(3 * 2.0**-7 / 4)


def test_tolerance_finds_a_weight_that_is_slightly_wrong(tmp_path):
    path = text_detection.prepare()
    model = onnx.load(path)
    depth = tensor_errors.depths(model)
    node = next(node for node in model.graph.node if "conv2d_491.tmp_0" in node.output)
    weight = next(one for one in model.graph.initializer if one.name == node.input[1])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.05), weight.name))
    wrong = onnx_file.save(model, tmp_path / "wrong.onnx")
    feeds = {"x": text_detection.preprocess(text_detection.page(), 96, 192)}
    table = tensor_errors.compare(
        tensor_errors.all_outputs(path, feeds), tensor_errors.all_outputs(wrong, feeds, "fp16")
    )
    allowed = table.index.map(lambda name: tensor_errors.tolerance("fp16", depth[name]))
    assert tensor_errors.first_bad(table, rel_l2=allowed) == "conv2d_491.tmp_0"


# Bad input


def test_damaged_models(damaged_models, feeds):
    for path in damaged_models.values():
        with pytest.raises(ModelFileError, match="Remedy: "):
            tensor_errors.all_outputs(path, feeds)


def test_size_that_strides_do_not_divide():
    feeds = {"x": np.zeros((1, 3, 40, 64), np.float32)}
    with pytest.raises(InputError, match=r"can't run the model on x \[1, 3, 40, 64\]: .*Remedy: Give sizes") as caught:
        tensor_errors.all_outputs(text_detection.prepare(), feeds)
    assert str(caught.value).count("Remedy:") == 1
