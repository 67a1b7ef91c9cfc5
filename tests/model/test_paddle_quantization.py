"""Offline INT8 of a Paddle program. Paddle 3 quantizes too: the calls are those of Paddle 2.6."""

import numpy as np
import pytest
from small_models import images

from tutorial_utils.base.errors import CalibrationError, ModelFileError

pytest.importorskip("paddle")
from tutorial_utils.measure import quality
from tutorial_utils.model import paddle_program, paddle_quantization
from tutorial_utils.runners import legacy_program, paddle_tensorrt
from tutorial_utils.runners.paddle import PaddleRunner


@pytest.fixture(scope="module")
def program():
    return legacy_program.untrained("quick")


def test_quantized_program_computes_nearly_the_same(program, tmp_path):
    saved = paddle_quantization.quantize(program.model_path, program.params_path, images(64), tmp_path / "int8")
    names = paddle_program.operators(saved.model_path)
    assert "quantize_linear" in names
    assert "batch_norm" not in names
    assert paddle_tensorrt.is_quantized(saved.model_path)
    assert not paddle_tensorrt.is_quantized(program.model_path)
    outputs = []
    for one in (program, saved):
        with PaddleRunner(one.model_path, one.params_path, onednn=False) as runner:
            outputs += runner.infer({"x": images(8, seed=2)}).values()
    assert 0 < quality.relative_error(outputs[1], outputs[0]) < 0.1
    assert saved.params_path.stat().st_size < 0.5 * program.params_path.stat().st_size


@pytest.mark.parametrize("bad", [images(31), images(33), np.full((32, 3, 32, 32), np.nan, np.float32)])
def test_images_that_can_not_calibrate(bad, program, tmp_path):
    with pytest.raises(CalibrationError, match="can't calibrate"):
        paddle_quantization.quantize(program.model_path, program.params_path, bad, tmp_path / "int8")
    assert list(tmp_path.iterdir()) == []


def test_a_program_in_the_new_form(tmp_path):
    with pytest.raises(ModelFileError, match=r"net\.json is no \.pdmodel.*FLAGS_enable_pir_api=0"):
        paddle_quantization.quantize("net.json", "net.pdiparams", images(32), tmp_path / "int8")
