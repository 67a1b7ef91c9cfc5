"""Whether FP32 is FP32: the models that are measured, and their error."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tutorial_utils.lessons.lesson01 import tf32
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner


@pytest.mark.parametrize("save", [tf32.save_gemm, tf32.save_convolution])
def test_tf32_models_compute_their_reference(save, tmp_path, monkeypatch):
    monkeypatch.setattr(tf32, "_GEMM_SIZE", 64)
    monkeypatch.setattr(tf32, "_CONV", (2, 8, 6, 6))
    path, x, reference = save(tmp_path / "model.onnx")
    with OnnxRuntimeRunner(path) as runner:
        assert tf32.rms_error(runner.infer({"x": x})["y"], reference) < 1e-5
    assert numpy_helper.to_array(onnx.load(path).graph.initializer[0]).dtype == np.float32


def test_rms_error_is_a_fraction_of_the_reference():
    assert tf32.rms_error(np.array([1.01, -1.01]), np.array([1.0, -1.0])) == pytest.approx(0.01)
