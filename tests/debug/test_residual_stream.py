"""A scaled residual stream: FP32 stays the same, FP16 overflows as in T5, and a few nodes in FP32 mend it."""

import numpy as np
import onnx
import pytest
from onnx import helper

from tutorial_utils.base.errors import InputError
from tutorial_utils.debug import remedies, residual_stream, tensor_errors
from tutorial_utils.model import classifier, data, export, half_precision, onnx_file, transformer
from tutorial_utils.model.number_formats import FP16


@pytest.fixture(scope="module")
def feeds():
    return {"ids": data.load("digit_sentences", "test").inputs[:20]}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """A transformer with random weights."""
    folder = tmp_path_factory.mktemp("healthy")
    saved = classifier.save(classifier.build("transformer"), folder / "model", **transformer.INPUT)
    return export.to_onnx(saved.model_path, saved.params_path, folder / "healthy.onnx")


@pytest.fixture(scope="module")
def values(healthy, feeds):
    return tensor_errors.all_outputs(healthy, feeds)


@pytest.fixture(scope="module")
def grown(healthy, values, tmp_path_factory):
    """The same with the last sum of its residual stream beyond FP16's range."""
    model = onnx.load(healthy)
    last = [node for node in model.graph.node if node.op_type == "LayerNormalization"][-1].input[0]
    factor = 2.0 ** np.ceil(np.log2(1.5 * FP16.largest / np.abs(values[last]).max()))
    return onnx_file.save(residual_stream.scale(model, factor), tmp_path_factory.mktemp("grown") / "grown.onnx")


def test_outputs_in_fp32_are_the_same(grown, values, feeds):
    found = tensor_errors.all_outputs(grown, feeds)
    (output,) = (value.name for value in onnx.load(grown).graph.output)
    assert np.array_equal(found[output], values[output])


def test_fp16_breaks_the_grown_one_alone(healthy, grown, values, feeds):
    rounded = tensor_errors.all_outputs(healthy, feeds, stored_as="fp16")
    assert tensor_errors.compare(values, rounded)["rel_l2"].max() < 0.01
    exact = tensor_errors.all_outputs(grown, feeds)
    table = tensor_errors.compare(exact, tensor_errors.all_outputs(grown, feeds, stored_as="fp16"))
    assert tensor_errors.first_bad(table) == next(iter(remedies.too_large(exact)))
    assert table["nan"].iloc[-1] > 0


def test_bf16_has_the_range(grown, values, feeds):
    found = tensor_errors.all_outputs(grown, feeds, stored_as="bf16")
    (output,) = (value.name for value in onnx.load(grown).graph.output)
    assert np.linalg.norm(found[output] - values[output]) < 0.05 * np.linalg.norm(values[output])


def test_scaled_back_it_is_the_same_file(healthy):
    model = onnx.load(healthy)
    assert residual_stream.scale(residual_stream.scale(model, 2.0**12), 2.0**-12) == model


def test_the_nodes_that_touch_the_overflow_mend_it(grown, values, feeds, tmp_path):
    model = onnx.load(grown)
    kept = remedies.touching(model, remedies.too_large(tensor_errors.all_outputs(grown, feeds)))
    mended = half_precision.to_fp16(grown, tmp_path / "mended.onnx", keep_fp32=kept)
    found = tensor_errors.all_outputs(mended, feeds)
    (output,) = (value.name for value in model.graph.output)
    assert np.linalg.norm(found[output] - values[output]) < 0.01 * np.linalg.norm(values[output])
    operators = {node.op_type for node in model.graph.node if node.name in kept}
    assert operators <= {"Add", "Identity", "LayerNormalization", "MatMul"}


def test_only_a_power_of_two_changes_no_digit(healthy):
    with pytest.raises(InputError, match="factor of 3"):
        residual_stream.scale(onnx.load(healthy), 3)


def model_of(*nodes, weights=("w",)) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4, 4])]
    outputs = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4, 4])]
    initializers = [onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), name) for name in weights]
    named = [helper.make_node(op, read, [written], f"write {written}") for op, read, written in nodes]
    return helper.make_model(helper.make_graph(named, "g", inputs, outputs, initializers))


def test_the_default_epsilon_is_scaled_too():
    model = model_of(("MatMul", ["x", "w"], "a"), ("LayerNormalization", ["a", "s"], "y"), weights=("w", "s"))
    scaled = residual_stream.scale(model, 4).graph
    assert helper.get_node_attr_value(scaled.node[1], "epsilon") == pytest.approx(16e-5)
    assert np.array_equal(onnx.numpy_helper.to_array(scaled.initializer[0]), 4 * np.eye(4))


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([("Relu", ["x"], "y")], "there is no LayerNormalization"),
        ([("LayerNormalization", ["x", "s"], "y")], "x"),  # an input can't be multiplied
        ([("MatMul", ["x", "w"], "a"), ("LayerNormalization", ["a", "s"], "b"), ("Add", ["a", "b"], "y")], "write y"),
        ([("MatMul", ["x", "w"], "y"), ("LayerNormalization", ["y", "s"], "b")], "y"),  # an output would grow
        ([("Relu", ["x"], "a"), ("LayerNormalization", ["a", "s"], "y")], "write a"),
        (  # post-norm
            [("MatMul", ["x", "w"], "a"), ("LayerNormalization", ["a", "s"], "b"), ("MatMul", ["b", "v"], "c"),
             ("Add", ["b", "c"], "d"), ("LayerNormalization", ["d", "s"], "y")],
            "write b",
        ),
        (  # the head shares the weights of the embedding
            [("MatMul", ["x", "w"], "a"), ("LayerNormalization", ["a", "s"], "b"), ("MatMul", ["b", "w"], "y")],
            "write y",
        ),
    ],
)  # fmt: skip
def test_what_else_reads_the_stream_is_named(nodes, reason):
    with pytest.raises(InputError, match=f"can't be scaled: {reason}"):
        residual_stream.scale(model_of(*nodes, weights=("w", "v", "s")), 2)
