"""Calibrators without TensorRT: images, and the file of the table. A calibration needs a GPU: see test_data_centre."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import images, residual_model

from tutorial_utils.base.errors import CalibrationError, ModelFileError, PrecisionError

pytest.importorskip("tensorrt_rtx")
from tutorial_utils.engine import calibrators  # imports TensorRT
from tutorial_utils.engine.calibrators import EntropyCalibrator, MinMaxCalibrator

TABLE = b"TRT-100600-EntropyCalibration2\nx: 3c010a14\nconv0: 3d0f1e2c\n"


@pytest.fixture
def tensorrt_10(monkeypatch):
    """Let TensorRT-RTX pass for a TensorRT that calibrates: nothing of it is called."""
    monkeypatch.setattr(calibrators.trt, "IInt8Calibrator", object, raising=False)
    monkeypatch.setattr(calibrators.trt, "__version__", "10.6.0.post1")


@pytest.fixture
def calibrated(fp32_model, tmp_path, tensorrt_10):
    """The file of a table, as a calibration with 8 images leaves it."""
    path = tmp_path / "model.table"
    EntropyCalibrator(fp32_model, {"x": images(8)}, 4, cache_file=path).write_calibration_cache(TABLE)
    return path


@pytest.mark.parametrize("kind", [EntropyCalibrator, MinMaxCalibrator])
def test_tensorrt_rtx_does_not_calibrate(kind, fp32_model):
    with pytest.raises(PrecisionError, match="has no calibrators: it knows strongly typed networks only"):
        kind(fp32_model, {"x": images(8)}, 4)


# --- images -----------------------------------------------------------------------------------------------------------


def with_nan(count):
    array = images(count)
    array[1, 0, 3, 3], array[2, 1, 0, 0] = np.nan, np.inf
    return array


BAD = {
    "shape": ({"x": images(8)[:, :2]}, r"float32, shape \(8, 2, 32, 32\)\) don't fit the input x .*\[any, 3, 32, 32\]"),
    "rank": ({"x": images(8)[0]}, "don't fit the input x"),
    "dtype": ({"x": images(8).astype(np.float64)}, r"\(float64, .*don't fit the input x \(float32"),
    "NaN": ({"x": with_nan(8)}, "2 of 8 calibration images for x hold NaN or infinity"),
    "too few": ({"x": images(3)}, "3 calibration images don't fill one batch of 4"),
    "none": ({"x": images(0)}, "0 calibration images don't fill one batch of 4"),
    "name": ({"y": images(8)}, "arrays are named y, and the model's inputs x"),
    "no arrays": ({}, "arrays are named nothing"),
}


@pytest.mark.usefixtures("tensorrt_10")
@pytest.mark.parametrize("case", BAD)
def test_images_that_do_not_fit(case, fp32_model):
    arrays, says = BAD[case]
    with pytest.raises(CalibrationError, match=says):
        EntropyCalibrator(fp32_model, arrays, 4)


@pytest.mark.usefixtures("tensorrt_10")
def test_images_that_do_not_fill_a_last_batch_are_left_out_with_a_warning(fp32_model):
    with pytest.warns(UserWarning, match="The last 2 of 10 images don't fill a batch of 4: left out") as caught:
        made = EntropyCalibrator(fp32_model, {"x": images(10)}, 4)
    assert caught[0].filename == __file__
    assert made.batch_shapes == {"x": (4, 3, 32, 32)}


@pytest.mark.usefixtures("tensorrt_10")
def test_a_model_of_a_fixed_batch_takes_that_batch_alone(tmp_path):
    model = residual_model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, tmp_path / "fixed.onnx")
    with pytest.raises(CalibrationError, match=r"Batches of 4 .*don't fit the input x .*\[2, 3, 32, 32\]"):
        EntropyCalibrator(tmp_path / "fixed.onnx", {"x": images(8)}, 4)
    EntropyCalibrator(tmp_path / "fixed.onnx", {"x": images(8)}, 2)


@pytest.mark.usefixtures("tensorrt_10")
def test_a_model_that_is_missing(tmp_path):
    with pytest.raises(ModelFileError, match="There is no model"):
        EntropyCalibrator(tmp_path / "absent.onnx", {"x": images(8)}, 4)


@pytest.mark.usefixtures("tensorrt_10")
def test_a_failure_while_tensorrt_calibrates_is_kept(fp32_model, monkeypatch):
    """TensorRT swallows what a calibrator raises; the build raises it instead."""
    monkeypatch.setitem(sys.modules, "pycuda", None)
    made = EntropyCalibrator(fp32_model, {"x": images(8)}, 4)
    assert made.get_batch(["x"]) is None
    assert "The calibration images can't be copied to the GPU: " in made.failure.cause


# --- the table --------------------------------------------------------------------------------------------------------


def test_a_table_is_read_instead_of_calibrating_again(calibrated, fp32_model):
    assert EntropyCalibrator(fp32_model, {"x": images(8)}, 4, cache_file=calibrated).read_calibration_cache() == TABLE
    assert sorted(path.name for path in calibrated.parent.iterdir()) == ["model.table", "model.table.json"]


def test_without_a_file_every_build_calibrates(fp32_model, tensorrt_10):
    made = EntropyCalibrator(fp32_model, {"x": images(8)}, 4)
    assert made.read_calibration_cache() is None


@pytest.mark.parametrize("content", [b"", TABLE[:-9], TABLE.replace(b"100600", b"8601")], ids=["empty", "cut", "other"])
def test_a_table_that_was_altered(content, calibrated, fp32_model):
    calibrated.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"model\.table was cut short or altered.*Delete it"):
        EntropyCalibrator(fp32_model, {"x": images(8)}, 4, cache_file=calibrated)


def test_a_table_of_another_tensorrt(calibrated, fp32_model, monkeypatch):
    monkeypatch.setattr(calibrators.trt, "__version__", "10.13.2.6")
    with pytest.raises(CalibrationError, match=r"was made by TensorRT 10\.6\.0\.post1, not 10\.13\.2\.6"):
        EntropyCalibrator(fp32_model, {"x": images(8)}, 4, cache_file=calibrated)


def test_a_table_of_another_algorithm(calibrated, fp32_model):
    with pytest.raises(CalibrationError, match="was made by EntropyCalibration2, not MinMaxCalibration"):
        MinMaxCalibrator(fp32_model, {"x": images(8)}, 4, cache_file=calibrated)


def test_a_table_of_another_model(calibrated, tmp_path):
    """The names of its tensors are the same."""
    onnx.save(residual_model(seed=1), tmp_path / "retrained.onnx")
    with pytest.raises(CalibrationError, match="was made for another model"):
        EntropyCalibrator(tmp_path / "retrained.onnx", {"x": images(8)}, 4, cache_file=calibrated)


@pytest.mark.parametrize(
    ("arrays", "batch_size", "says"), [(images(8, seed=5), 4, "with other images"), (images(8), 2, "with batches of 4")]
)
def test_a_table_of_another_calibration(arrays, batch_size, says, calibrated, fp32_model):
    with pytest.raises(CalibrationError, match=says):
        EntropyCalibrator(fp32_model, {"x": arrays}, batch_size, cache_file=calibrated)


@pytest.mark.parametrize("content", [None, b"{}", b"\x80", b"[1]"], ids=["missing", "empty", "binary", "a list"])
def test_a_table_without_a_record(content, calibrated, fp32_model):
    record = Path(f"{calibrated}.json")
    assert json.loads(record.read_text())["tensorrt"] == "10.6.0.post1"
    record.unlink()
    if content is not None:
        record.write_bytes(content)
    with pytest.raises(CalibrationError, match="has no record of its own"):
        EntropyCalibrator(fp32_model, {"x": images(8)}, 4, cache_file=calibrated)


@pytest.mark.usefixtures("tensorrt_10")
def test_a_table_that_can_not_be_written_is_a_warning(fp32_model, tmp_path):
    made = EntropyCalibrator(fp32_model, {"x": images(8)}, 4, cache_file=tmp_path / "absent" / "model.table")
    with pytest.warns(UserWarning, match=r"model\.table can't be written: .*No such file"):
        made.write_calibration_cache(TABLE)


@pytest.mark.parametrize("given", [[images(8)], images(8), {"x": images(8).tolist()}], ids=["list", "array", "nested"])
def test_images_that_are_no_arrays_by_name_are_refused(given, fp32_model, tensorrt_10):
    with pytest.raises(CalibrationError, match="no NumPy arrays by input name"):
        EntropyCalibrator(fp32_model, given, 4)


@pytest.mark.parametrize("size", ["4", 4.0, True])
def test_a_batch_size_that_is_no_int_is_refused(size, fp32_model, tensorrt_10):
    with pytest.raises(CalibrationError, match="batch_size is"):
        EntropyCalibrator(fp32_model, {"x": images(8)}, size)
