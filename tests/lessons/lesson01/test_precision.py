"""Precision in lesson 01: the models of the TF32 rows, and the figure of calibrations."""

import numpy as np
import onnx
import pictures
import pytest
from onnx import numpy_helper

from tutorial_utils.lessons.lesson01 import calibration as figures
from tutorial_utils.lessons.lesson01 import precision
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner


def test_quality_figure_has_a_line_for_each_model():
    one = figures.Calibrated(0.5, 12.3)
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
