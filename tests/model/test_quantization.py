import logging

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_models import images

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import CalibrationError, PrecisionError
from tutorial_utils.model import onnx_file, quantization


@pytest.fixture
def target(tmp_path):
    """A path for a model that is not to appear: afterwards, its folder must be empty."""
    folder = tmp_path / "target"
    folder.mkdir()
    yield folder / "model.onnx"
    assert list(folder.iterdir()) == []


def run(path, batch):
    return onnx_session.new_session(path).run(None, {"x": batch})[0]


def producers(model):
    return {name: node for node in model.graph.node for name in node.output}


def weights(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_int8_is_close_to_fp32_and_is_not_fp32(models):
    batch = images(8, seed=2)
    exact, quantized = run(models["fp32"], batch), run(models["int8"], batch)
    error = np.abs(quantized - exact).max() / np.abs(exact).max()
    assert 1e-4 < error < 0.1


def test_int8_quantizes_the_inputs_of_convolutions_and_matrix_products_only(models):
    model = onnx.load(models["int8"])
    by_output = producers(model)
    dequantized = [name for name, node in by_output.items() if node.op_type == "DequantizeLinear"]
    consumers = [node for node in model.graph.node if set(node.input) & set(dequantized)]
    wide = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(wide) == 3
    for node in wide:
        assert [by_output[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
        assert not any(name in dequantized for name in node.input[2:]), "biases stay FP32"
    # The residual sum may read the tensor that feeds the second convolution, but no layer has a Q/DQ pair of its own.
    assert {node.op_type for node in consumers} <= {"Conv", "Gemm", "MatMul", "Add"}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert by_output.get(node.input[0], node).op_type not in ("Conv", "Gemm"), "Q/DQ after a layer"


def test_int8_has_the_form_that_tensorrt_accepts(models):
    model = onnx.load(models["int8"])
    values = weights(model)
    quantizers = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantizers
    for node in quantizers:
        zero_point = values[node.input[2]]
        assert zero_point.dtype == np.int8, "an INT32 DequantizeLinear is refused"
        assert not zero_point.any(), "a zero point other than 0 is refused"
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(("per_channel", "sizes"), [(True, {16, 10}), (False, {1})])
def test_int8_scales_of_weights(per_channel, sizes, fp32_model, tmp_path):
    path = quantization.to_int8(fp32_model, tmp_path / "int8.onnx", images(8), per_channel=per_channel)
    model = onnx.load(path)
    values = weights(model)
    stored = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in values]
    assert {values[node.input[1]].size for node in stored} == sizes
    assert len(stored) == 3


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_range_that_minmax_keeps_is_cut(method, fp32_model, models, tmp_path):
    path = quantization.to_int8(fp32_model, tmp_path / "int8.onnx", images(32), method=method)
    scale = weights(onnx.load(path))["relu0_scale"]
    assert scale < weights(onnx.load(models["int8"]))["relu0_scale"]


def test_calibration_prints_nothing(fp32_model, tmp_path, capfd):
    quantization.to_int8(fp32_model, tmp_path / "int8.onnx", images(32), method="entropy")
    assert capfd.readouterr().out == ""


def test_int8_calibrates_with_all_images(fp32_model, tmp_path):
    """The widest image is in the last, incomplete batch: its range must count."""
    batch = images(10)
    batch[-1] *= 100
    path = quantization.to_int8(fp32_model, tmp_path / "int8.onnx", batch, batch_size=4)
    assert weights(onnx.load(path))["x_scale"] == pytest.approx(np.abs(batch).max() / 127, rel=0.02)


BAD_IMAGES = {
    "none": (None, "got none"),
    "no images": (images(0), "got none"),
    "one channel": (images(2)[:, :1], r"shape \(2, 1, 32, 32\)"),
    "one image without batch": (images(1)[0], r"shape \(3, 32, 32\)"),
    "float64": (images(2).astype(np.float64), "float64"),
    "bytes": (images(2).astype(np.uint8), "uint8"),
    "nan": (images(2) * np.nan, "finite float32"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_calibration_images(case, fp32_model, target):
    given, message = BAD_IMAGES[case]
    with pytest.raises(CalibrationError, match=message):
        quantization.to_int8(fp32_model, target, given)


def test_unknown_calibration_method(fp32_model, target):
    with pytest.raises(CalibrationError, match=r"'kl'.*minmax, entropy, percentile"):
        quantization.to_int8(fp32_model, target, images(2), method="kl")


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_a_number_of_images_that_no_batch_divides(method, fp32_model, tmp_path):
    path = quantization.to_int8(fp32_model, tmp_path / "int8.onnx", images(7), method=method, batch_size=4)
    assert path.exists()


def test_a_static_batch_is_calibrated_in_its_own_size(fp32_model, tmp_path):
    model = onnx.load(fp32_model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    static = onnx_file.save(model, tmp_path / "static.onnx")
    assert quantization.to_int8(static, tmp_path / "int8.onnx", images(8)).exists()
    with pytest.raises(CalibrationError, match="batches of exactly 4, and 6 images"):
        quantization.to_int8(static, tmp_path / "int8.onnx", images(6))


def test_int8_leaves_logging_as_it_was(fp32_model, tmp_path):
    logging.disable(logging.INFO)
    try:
        quantization.to_int8(fp32_model, tmp_path / "int8.onnx", images(2))
        assert logging.root.manager.disable == logging.INFO
    finally:
        logging.disable(logging.NOTSET)


def test_int8_of_fp16_is_refused(models, target):
    with pytest.raises(PrecisionError, match="converted to FP16 already"):
        quantization.to_int8(models["fp16"], target, images(2))


def test_int8_twice_is_refused(models, target):
    with pytest.raises(PrecisionError, match="is quantized already"):
        quantization.to_int8(models["int8"], target, images(2))
