"""The cells of Paddle-TRT in the matrix: what it has no engine for, and a machine that it can't run on."""

import os

import pytest

from tutorial_utils.base.errors import BackendUnavailableError, PrecisionError

paddle = pytest.importorskip("paddle")
from tutorial_utils.measure.resnet50_matrix import paddle_tensorrt as cells_of_paddle  # noqa: E402 - they need Paddle
from tutorial_utils.measure.resnet50_matrix.cells import PRECISIONS, Cell  # noqa: E402
from tutorial_utils.runners import paddle_tensorrt  # noqa: E402

SHAPE = (64, 3, 32, 32)


def open_cell(precision):
    with cells_of_paddle.opened(Cell("paddle_tensorrt", precision, SHAPE), None):
        pass


@pytest.mark.parametrize("precision", sorted(PRECISIONS))
def test_a_paddle_without_tensorrt_leaves_the_cell_open(precision):
    if paddle.inference.get_trt_compile_version() != (0, 0, 0):
        pytest.skip("this Paddle has TensorRT")
    with pytest.raises(BackendUnavailableError, match="built without TensorRT"):
        open_cell(precision)
    assert cells_of_paddle.TF32_OVERRIDE not in os.environ


def test_fp32_asks_the_libraries_not_to_round_to_tf32(monkeypatch):
    """The variable is NVIDIA's; the engines of Paddle-TRT are made in processes that inherit it."""

    class NoFiles:
        def images(self, _):
            raise NotImplementedError

    monkeypatch.setattr(paddle_tensorrt, "require_tensorrt", lambda: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for precision, value in (("tf32", None), ("fp32", "0")):
        with (
            pytest.raises(NotImplementedError),
            cells_of_paddle.opened(Cell("paddle_tensorrt", precision, SHAPE), NoFiles()),
        ):
            pass
        assert os.environ.get("NVIDIA_TF32_OVERRIDE") == value


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_precisions_that_its_engines_do_not_have(precision, monkeypatch):
    monkeypatch.setattr(paddle_tensorrt, "require_tensorrt", lambda: None)
    with pytest.raises(PrecisionError, match=f"FP32, FP16 or INT8; it has no {precision.upper()}"):
        open_cell(precision)
