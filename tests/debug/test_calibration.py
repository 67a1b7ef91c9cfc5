import numpy as np
import onnx
import pictures
import pytest
from onnx import numpy_helper
from small_models import images, options

from tutorial_utils import engine
from tutorial_utils.base.errors import PrecisionError
from tutorial_utils.debug.calibration import Calibrated, CalibrationTrial, activation_scales, weight_scales
from tutorial_utils.lessons.lesson01 import calibration as figures
from tutorial_utils.lessons.lesson01 import precision
from tutorial_utils.measure import quality
from tutorial_utils.model import onnx_file
from tutorial_utils.model.data import Dataset
from tutorial_utils.model.quantization import to_fp8
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner


def test_scales_of_activations_cover_the_calibration_images(models):
    scales = activation_scales(models["int8"])
    assert scales["x"] * 127 == pytest.approx(np.abs(images(32)).max(), rel=1e-5)


def test_weights_have_a_scale_for_each_channel(models):
    scales = weight_scales(models["int8"])
    assert any(one.size > 1 for one in scales.values())
    largest = {name: np.abs(weight).max() for name, weight in onnx_file.weights(models["fp32"]).items()}
    unfolded = scales.keys() & largest.keys()  # weights whose batch norm was folded have another name
    assert unfolded
    for name in unfolded:
        assert scales[name].max() * 127 == pytest.approx(largest[name], rel=1e-2)


@pytest.fixture(scope="module")
def fp8_model(models, tmp_path_factory):
    return to_fp8(models["fp32"], models["int8"], tmp_path_factory.mktemp("fp8") / "fp8.onnx")


def test_fp8_is_close_to_fp32(models, fp8_model):
    batch = images(16)
    with OnnxRuntimeRunner(models["fp32"]) as runner:
        expected = runner.infer({"x": batch})["y"]
    with OnnxRuntimeRunner(fp8_model, optimize=False) as runner:
        assert quality.sqnr_db(runner.infer({"x": batch})["y"], expected) > 15


def test_fp8_has_the_int8_files_ranges(models, fp8_model):
    int8, fp8 = activation_scales(models["int8"]), activation_scales(fp8_model)
    assert fp8 == pytest.approx({name: scale * 127 / 448 for name, scale in int8.items()})
    assert all(scale.size == 1 for scale in weight_scales(fp8_model).values())


def test_fp8_builds_for_a_gpu_that_has_it(fp8_model):
    report = engine.build(fp8_model, options(compute_capabilities=["8.9"]), use_cache=False).report
    assert "fp8" in report.kernel_dtypes


def test_fp8_needs_the_int8_variant_of_the_same_model(models, tmp_path):
    model = onnx.load(models["fp32"])
    for tensor in model.graph.initializer:
        tensor.name += "_other"
    for node in model.graph.node:
        weights = {tensor.name.removesuffix("_other") for tensor in model.graph.initializer}
        node.input[:] = [f"{name}_other" if name in weights else name for name in node.input]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(PrecisionError, match="not the INT8 variant"):
        to_fp8(tmp_path / "other.onnx", models["int8"], tmp_path / "fp8.onnx")
    assert not (tmp_path / "fp8.onnx").exists()


@pytest.fixture(scope="module")
def trial(fp32_model):
    batch = images(64, seed=2)
    with OnnxRuntimeRunner(fp32_model) as runner:
        labels = runner.infer({"x": batch})["y"].argmax(axis=1)
    return CalibrationTrial(fp32_model, Dataset("random", batch, labels, tuple("0123456789")))


def test_trial_judges_by_the_fp32_model(trial):
    assert trial.reference_accuracy == 1
    good = trial.run(images(32))
    assert good.sqnr_db > 20
    assert good.accuracy > 0.8


def test_trial_shows_wrong_images(trial):
    good, wrong = trial.run(images(32)), trial.run(127.5 * images(32))
    assert wrong.sqnr_db < good.sqnr_db - 10
    assert wrong.thresholds()["x"] == pytest.approx(127.5 * good.thresholds()["x"], rel=1e-4)


def test_trial_passes_method_and_granularity_on(trial):
    assert trial.run(images(32), "percentile").thresholds()["x"] < trial.run(images(32)).thresholds()["x"]
    assert trial.run(images(32), per_channel=False).sqnr_db != trial.run(images(32)).sqnr_db


def test_quality_figure_has_a_line_for_each_model():
    one = Calibrated(0.5, 12.3, {})
    picture = figures.draw_quality([("methods", {"a": one}), ("images", {"b": one})], (0.4, 0.6))
    assert picture.text == "a    12.3 dB  accuracy  50.0 %\nb    12.3 dB  accuracy  50.0 %"
    left, right = pictures.drawn(picture)
    assert pictures.widths(left) == pictures.numbers(picture.text, r"([\d.]+) dB")
    assert pictures.marks(right) == [(50, 0), (50, 1)]
    assert pictures.bars(right)[0][::2] == pytest.approx((40, 20))  # the band


@pytest.mark.parametrize("save", [precision.save_gemm, precision.save_convolution])
def test_tf32_models_compute_their_reference(save, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_GEMM_SIZE", 64)
    monkeypatch.setattr(precision, "_CONV", (2, 8, 6, 6))
    path, x, reference = save(tmp_path / "model.onnx")
    with OnnxRuntimeRunner(path) as runner:
        assert precision.rms_error(runner.infer({"x": x})["y"], reference) < 1e-5
    assert numpy_helper.to_array(onnx.load(path).graph.initializer[0]).dtype == np.float32


def test_rms_error_is_a_fraction_of_the_reference():
    assert precision.rms_error(np.array([1.01, -1.01]), np.array([1.0, -1.0])) == pytest.approx(0.01)
