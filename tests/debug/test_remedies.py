import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_models import images

from tutorial_utils.base.errors import InputError
from tutorial_utils.debug import remedies, scaling, tensor_errors
from tutorial_utils.model import half_precision, onnx_file

FEEDS = {"x": images(2)}
FACTOR = 2.0**15  # conv0 reaches about 5 in the residual model


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory):
    """A chain of two convolutions whose tensor between them overflows FP16: the model and its file."""
    weights = [np.random.default_rng(i).standard_normal((8, 3 + 5 * i, 3, 3), np.float32) / 8 for i in range(2)]
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w0"], ["a"], "conv0"),
        onnx.helper.make_node("Relu", ["a"], ["b"], "relu0"),
        onnx.helper.make_node("Conv", ["b", "w1"], ["c"], "conv1"),
        onnx.helper.make_node("Relu", ["c"], ["y"], "relu1"),
    ]
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "chain",
        [info("x", onnx.TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [info("y", onnx.TensorProto.FLOAT, ["batch", 8, 28, 28])],
        [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)],
    )
    sound = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    model = scaling.move_scale(sound, "a", FACTOR)
    path = onnx_file.save(model, tmp_path_factory.mktemp("overflowing") / "fp32.onnx")
    return model, path, tensor_errors.all_outputs(path, FEEDS)


def in_fp16(path, target, **options):
    return tensor_errors.all_outputs(half_precision.to_fp16(path, target, **options), FEEDS)["y"]


def test_the_tensors_that_are_too_large_are_found(overflowing):
    _, _, values = overflowing
    found = remedies.too_large(values)
    assert list(found) == ["a", "b"]
    assert found["b"] == pytest.approx(values["b"].max())
    assert list(remedies.too_large({"n": np.array([np.nan]), "i": np.array([np.inf]), "z": np.zeros(0)})) == ["n", "i"]


def test_nodes_that_touch_a_tensor_read_or_write_it(overflowing):
    model, _, _ = overflowing
    assert remedies.touching(model, ["a"]) == ["conv0", "relu0"]
    assert remedies.touching(model, ["b", "a"]) == ["conv0", "relu0", "conv1"]


def test_mixed_precision_repairs_and_writers_alone_do_not(overflowing, tmp_path):
    model, path, values = overflowing
    assert not np.isfinite(in_fp16(path, tmp_path / "fp16.onnx")).all()
    kept = remedies.touching(model, remedies.too_large(values))
    mixed = in_fp16(path, tmp_path / "mixed.onnx", keep_fp32=kept)
    np.testing.assert_allclose(mixed, values["y"], atol=2e-3 * values["y"].max())
    writers = in_fp16(path, tmp_path / "writers.onnx", keep_fp32=["conv0", "relu0"])
    assert not np.isfinite(writers).all()


def test_clipped_values_are_finite_and_wrong(overflowing, tmp_path):
    model, path, values = overflowing
    clipped_path = onnx_file.save(remedies.clip(model, ["a", "b"]), tmp_path / "clip.onnx")
    clipped = tensor_errors.all_outputs(clipped_path, FEEDS)
    np.testing.assert_array_equal(clipped["a/clipped"], np.clip(values["a"], -65504, 65504))
    half = in_fp16(clipped_path, tmp_path / "fp16.onnx")
    assert np.isfinite(half).all()
    assert np.abs(half - values["y"]).max() > 0.05 * values["y"].max()
    assert model == onnx.load(path), "the model that was given is as it was"


@pytest.mark.parametrize("tensor", ["w0", "x"])
def test_only_tensors_between_nodes_can_be_clipped(overflowing, tensor):
    with pytest.raises(InputError, match=f"{tensor} can't be clipped"):
        remedies.clip(overflowing[0], [tensor])


@pytest.mark.parametrize(
    ("peak", "scale"), [(65504.0, 0.125), (8188.0, 1.0), (8189.0, 0.5), (3.0, 1.0), (1e6, 2.0**-7)]
)
def test_scale_leaves_the_headroom(peak, scale):
    assert remedies.scale_for_headroom(peak) == scale
    assert 8 * peak * scale <= 65504


def test_scaled_back_it_is_as_good_as_ever(overflowing, tmp_path):
    model, _, values = overflowing
    scale = remedies.scale_for_headroom(max(remedies.too_large(values).values()))
    path = onnx_file.save(scaling.move_scale(model, "a", scale), tmp_path / "back.onnx")
    np.testing.assert_array_equal(tensor_errors.all_outputs(path, FEEDS)["y"], values["y"])
    half = in_fp16(path, tmp_path / "fp16.onnx")
    np.testing.assert_allclose(half, values["y"], atol=2e-3 * values["y"].max())


# What became of it, by a metric of the task


def same_sign(found, expected):
    return float(np.mean(np.sign(found) == np.sign(expected)))


def test_outcome_is_judged_by_any_metric(overflowing, tmp_path):
    _, path, values = overflowing
    right = remedies.judge(path, FEEDS, values["y"], same_sign)
    assert right == remedies.Outcome(1.0, 0.0, 1.0)
    half = half_precision.to_fp16(path, tmp_path / "fp16.onnx")
    wrong = remedies.judge(half, FEEDS, values["y"], lambda found, expected: float(np.isnan(found).sum()))
    assert wrong.finite == 0
    assert wrong.rel_l2 == np.inf
    assert wrong.task > 0


def test_finite_is_counted_by_input():
    expected = np.ones((4, 3), np.float32)
    found = expected.copy()
    found[1, 2] = np.nan
    assert remedies.judge_output(found, expected, same_sign).finite == 0.75


def test_outputs_that_do_not_fit_are_refused(overflowing):
    _, path, values = overflowing
    with pytest.raises(InputError, match=r"The output has the shape \[2, 8, 28, 28\], and \[1, 8, 28, 28\]"):
        remedies.judge(path, FEEDS, values["y"][:1], same_sign)
