"""Builds of what ordinary exporters write: inputs that are shapes, names of dimensions, sizes of 0, no shape at all."""

import numpy as np
import onnx
import pytest
from node_models import FLOAT, INT64, UINT8, resize_to_sizes, save_nodes, sequence_of_two
from onnx import helper

from tutorial_utils.base.errors import CourseError, ModelFileError, ProfileError, UnsupportedOperatorError
from tutorial_utils.engine import BuildOptions, Profile, build

pytest.importorskip("tensorrt_rtx")

IMAGES = {"x": ((1, 3, 8, 8), (1, 3, 16, 16), (1, 3, 32, 32))}
SIZES = IMAGES["x"]
RELU = helper.make_node("Relu", ["x"], ["y"], "relu")


def layers(path, *profiles):
    return build(path, BuildOptions(profiles), use_cache=False, progress=False).report.layers


# --- values of inputs that TensorRT reads as shapes -------------------------------------------------------------------


def test_values_of_an_input_that_is_a_shape(tmp_path):
    path = resize_to_sizes(tmp_path / "m.onnx")
    names = {
        node for layer in layers(path, Profile.of(**IMAGES).with_values({"sizes": SIZES})) for node in layer.onnx_nodes
    }
    assert names == {"resize"}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, r"needs the values of inputs that it reads as shapes \(4 of sizes\), and a profile gives none"),
        ({"sizes": ((1, 3, 8),) * 3}, r"\(4 of sizes\), and a profile gives 3 of sizes"),
        ({"sizes": SIZES, "x": SIZES}, r"\(4 of sizes\), and a profile gives 4 of sizes, 4 of x"),
    ],
)
def test_values_that_are_missing_or_too_many(values, says, tmp_path):
    with pytest.raises(ProfileError, match=says):
        layers(resize_to_sizes(tmp_path / "m.onnx"), Profile.of(**IMAGES).with_values(values))


def test_a_static_model_may_need_values_too(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"], "reshape")]
    path = save_nodes(tmp_path / "m.onnx", nodes, {"x": (FLOAT, [2, 6]), "s": (INT64, [2])})
    with pytest.raises(ProfileError, match="2 of s"):
        layers(path)
    assert layers(path, Profile(()).with_values({"s": ((2, -1), (3, -1), (4, -1))}))


def test_values_belong_to_the_key_of_the_cache(tmp_path):
    path = resize_to_sizes(tmp_path / "m.onnx")
    profiles = [Profile.of(**IMAGES).with_values({"sizes": ((1, 3, 8, 8), best, (1, 3, 32, 32))}) for best in SIZES[:2]]
    from_cache = [
        build(path, BuildOptions(profile), cache_folder=tmp_path / "c", progress=False).from_cache
        for profile in (*profiles, profiles[0])
    ]
    assert from_cache == [False, False, True]


# --- names and sizes of dimensions ------------------------------------------------------------------------------------


def test_one_name_for_several_sizes(tmp_path):
    path = save_nodes(tmp_path / "m.onnx", [RELU], {"x": (FLOAT, [-1, 3, "?", "?"])})
    assert layers(path, Profile.of(x=((1, 3, 48, 192),) * 3))


def test_one_name_for_the_batches_of_several_inputs(tmp_path):
    """What an exporter writes that calls every first dimension `batch`; the weights lie in another file."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product"), helper.make_node("Relu", ["z"], ["v"], "relu")]
    inputs = {"x": (FLOAT, ["batch", 8]), "z": (FLOAT, ["batch", 4])}
    path = save_nodes(tmp_path / "m.onnx", nodes, inputs, ("y", "v"), {"w": np.ones((8, 8), np.float32)})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert layers(path, Profile.of(x=((1, 8), (2, 8), (4, 8)), z=((3, 4), (6, 4), (9, 4))))


def test_sizes_of_zero(tmp_path):
    nodes = [helper.make_node("Concat", ["past", "x"], ["y"], "concat", axis=0)]
    cache = save_nodes(tmp_path / "cache.onnx", nodes, {"past": (FLOAT, ["n", 8]), "x": (FLOAT, [1, 8])})
    assert layers(cache, Profile.of(past=((0, 8), (16, 8), (32, 8))))
    fixed = save_nodes(tmp_path / "fixed.onnx", nodes, {"past": (FLOAT, [0, 8]), "x": (FLOAT, [1, 8])})
    assert layers(fixed)
    with pytest.raises(ProfileError, match=r"doesn't fit the input past of shape \(0, 8\)"):
        layers(fixed, Profile.of(past=((1, 8),) * 3))


def test_an_input_without_a_shape_gets_that_of_its_profile(tmp_path):
    nodes = [helper.make_node("Transpose", ["x"], ["y"], "transpose", perm=[1, 0])]
    path = save_nodes(tmp_path / "m.onnx", nodes, {"x": (FLOAT, None)})
    with pytest.raises(ProfileError, match=r"doesn't say how many dimensions its input x has.*from_mapping\(\{'x':"):
        layers(path)
    shapes = [layer.inputs[0].shape for layer in layers(path, Profile.of(x=((1, 3), (2, 3), (4, 3)))) if layer.inputs]
    assert shapes == [(-1, 3)]


# --- what TensorRT can't convert --------------------------------------------------------------------------------------


def unsigned_sum(path):
    return save_nodes(path, [helper.make_node("Add", ["x", "x"], ["y"], "sum")], {"x": (UINT8, [4])}, output_type=UINT8)


def cast_to_fp8(path):
    node, fp8 = (
        helper.make_node("Cast", ["x"], ["y"], "cast", to=onnx.TensorProto.FLOAT8E5M2),
        onnx.TensorProto.FLOAT8E5M2,
    )
    return save_nodes(path, [node], {"x": (FLOAT, [4])}, opset=19, output_type=fp8)


def dynamic_axes(path):
    node = helper.make_node("Squeeze", ["x", "axes"], ["y"], "squeeze")
    return save_nodes(path, [node], {"x": (FLOAT, [1, 4]), "axes": (INT64, [1])})


def newer_than_the_checker(path):
    path = unsigned_sum(path)
    model = onnx.load(path)
    model.ir_version = onnx.IR_VERSION + 1
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (unsigned_sum, r"can't convert Add in m\.onnx: .*But type is UInt8"),
        (cast_to_fp8, r"can't convert Cast in m\.onnx: Unsupported data type for the Cast operator\. "),
        (dynamic_axes, r"can't convert Squeeze in m\.onnx: .*squeeze axis is not a constant"),
        (sequence_of_two, r"can't convert SequenceConstruct in m\.onnx\. "),
        (newer_than_the_checker, r"can't convert Add in m\.onnx"),
    ],
)
def test_a_valid_file_is_not_called_damaged(make, says, tmp_path):
    with pytest.raises(UnsupportedOperatorError, match=says) as caught:
        layers(make(tmp_path / "m.onnx"))
    assert "cudaError" not in str(caught.value), "every machine without a GPU has that one"


def test_an_invalid_file_is(tmp_path):
    path = save_nodes(tmp_path / "m.onnx", [helper.make_node("Relu", ["ghost"], ["y"], "relu")], {"x": (FLOAT, [4])})
    model = onnx.load(path)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", FLOAT, [4]))
    onnx.save(model, path)
    with pytest.raises(ModelFileError, match=r"onnx says: .*'ghost' of node: name: relu .*is not output of any"):
        layers(path)


def test_an_old_opset_is_named(tmp_path):
    """And raising it, as the message says, helps."""
    nodes = [helper.make_node("Add", ["x", "b"], ["y"], "sum", broadcast=1)]
    weights = {"b": np.ones(3, np.float32)}
    path = save_nodes(tmp_path / "m.onnx", nodes, {"x": (FLOAT, [2, 3])}, weights=weights, opset=6)
    with pytest.raises(UnsupportedOperatorError, match=r"which is of opset 6: .*Remedy: Raise the opset"):
        layers(path)
    onnx.save(onnx.version_converter.convert_version(onnx.load(path), 13), path)
    assert layers(path)


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_model_with_a_long_name_is_cached(tmp_path):
    path = save_nodes(tmp_path / f"{'模' * 60}{'n' * 60}.onnx", [RELU], {"x": (FLOAT, [4])})
    for from_cache in (False, True):
        assert build(path, cache_folder=tmp_path / "cache", progress=False).from_cache is from_cache


def test_a_full_stop_of_a_library_ends_the_sentence():
    assert str(CourseError("It says: no.. Why?. See ../x...", "Wait.")).startswith(
        "It says: no. Why? See ../x... Remedy: Wait."
    )
