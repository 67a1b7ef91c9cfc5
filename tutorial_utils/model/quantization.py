"""FP32 ONNX to its INT8 and FP8 variants: QuantizeLinear and DequantizeLinear around what is computed with 8 bits."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils.base import shapes
from tutorial_utils.base.errors import CalibrationError, PrecisionError
from tutorial_utils.model import onnx_file
from tutorial_utils.model.number_formats import FP8, INT8

CalibrationMethod = Literal["minmax", "entropy", "percentile"]

# Operators whose inputs are quantized: those that TensorRT has INT8 tensor-core kernels for.
_QUANTIZED_OPERATORS = ["Conv", "Gemm", "MatMul"]
_FP8_OPSET = 19  # the first in which QuantizeLinear knows FP8


def to_int8(
    onnx_path: str | Path,
    target_path: str | Path,
    images: np.ndarray | None,
    *,
    method: CalibrationMethod = "minmax",
    per_channel: bool = True,
    batch_size: int = 64,
) -> Path:
    """Quantize the inputs and weights of convolutions and matrix products to INT8, with ranges from real images.

    The result holds QuantizeLinear and DequantizeLinear nodes (Q/DQ), in the form that TensorRT accepts: symmetric, so
    without zero points; weights per output channel; biases not quantized; activations quantized at the inputs of a
    layer only, so that TensorRT can fuse what follows the layer.

    Args:
        onnx_path: The FP32 model. It has one input.
        target_path: Where to write the quantized model. It is returned.
        images: Calibration images, float32, shape ``[N, ...]`` as the model's input.
        method: How ranges are chosen from the values seen.
        per_channel: One scale for each output channel of a weight, instead of one for the whole weight.
        batch_size: The most images in one calibration step; a model with a static batch takes its own.

    Raises:
        CalibrationError: There are no images, they don't fit the model's input, or the method is unknown.
        PrecisionError: The model can't be quantized.
    """
    if method not in get_args(CalibrationMethod):
        known = ", ".join(get_args(CalibrationMethod))
        raise CalibrationError(f"There is no calibration method {method!r}.", f"Choose one of {known}.")
    model = onnx_file.load(onnx_path)
    name, static_batch = _check_calibration_images(model, images)
    onnx_file.require_fp32(model, Path(onnx_path).name)
    # Equal batches, the largest: ONNX Runtime stacks activations in entropy calibration.
    batch = static_batch or max(size for size in range(1, batch_size + 1) if len(images) % size == 0)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        try:
            result = _quantize(Path(onnx_path), Path(folder), _ImageReader(name, images, batch), method, per_channel)
        except Exception as error:
            raise PrecisionError(
                f"{Path(onnx_path).name} can't be quantized: {error}.",
                "Quantize the original FP32 model, of opset 13 or later.",
            ) from error
    return onnx_file.save(result, target_path)


def _quantize(
    onnx_path: Path, folder: Path, reader: "_ImageReader", method: CalibrationMethod, per_channel: bool
) -> onnx.ModelProto:
    """Calibrate and quantize with ONNX Runtime's parts.

    Its `quantize_static` is these same steps, but gives entropy calibration 128 bins for 128 levels, so that there is
    only one threshold to choose. The search takes time with the square of the bins: 512 are a compromise.
    """
    from onnxruntime.quantization import CalibrationMethod as Method
    from onnxruntime.quantization import QuantType, create_calibrator
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    methods = {
        "minmax": (Method.MinMax, {}),
        "entropy": (Method.Entropy, {"num_bins": 512, "num_quantized_bins": 128}),
        "percentile": (Method.Percentile, {"num_bins": 2048, "percentile": 99.99}),
    }
    calibrate_method, options = methods[method]
    # Batch norms are folded into convolutions first: a Q/DQ pair between them would keep TensorRT from it.
    folded = onnx.shape_inference.infer_shapes(onnx_file.folded(onnx.load(onnx_path)))
    onnx.save(folded, folder / "folded.onnx")
    calibrator = create_calibrator(
        folder / "folded.onnx",
        _QUANTIZED_OPERATORS,
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=calibrate_method,
        extra_options={"symmetric": True, **options},
    )
    calibrator.collect_data(reader)
    quantizer = QDQQuantizer(
        folded,
        per_channel,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=calibrator.compute_data(),
        nodes_to_quantize=[],  # all of the operators below
        nodes_to_exclude=[],
        op_types_to_quantize=_QUANTIZED_OPERATORS,
        extra_options={
            "ActivationSymmetric": True,  # TensorRT refuses zero points other than 0
            "WeightSymmetric": True,
            "QuantizeBias": False,  # TensorRT refuses INT32 inputs of DequantizeLinear
            "OpTypesToExcludeOutputQuantization": _QUANTIZED_OPERATORS,
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def _check_calibration_images(model: onnx.ModelProto, images: np.ndarray | None) -> tuple[str, int]:
    """Return the name of the model's input, and its batch size or 0 for a dynamic one, if the images fit it."""
    value = model.graph.input[0]
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]  # 0 for a dynamic dimension
    if images is None or len(images) == 0:
        raise CalibrationError(
            "INT8 needs calibration images and got none.",
            "Pass some hundred training images, for example data.calibration_images(...).",
        )
    fits = shapes.fits(images.shape[1:], shape[1:])
    if fits and shape[0] and len(images) % shape[0]:
        raise CalibrationError(
            f"The input {value.name} takes batches of exactly {shape[0]}, and {len(images)} images don't fill them.",
            f"Pass a multiple of {shape[0]} images.",
        )
    if not fits or images.dtype != np.float32 or not np.isfinite(images).all():
        wanted = ", ".join(str(size or "any") for size in shape)
        raise CalibrationError(
            f"The calibration images ({images.dtype}, shape {images.shape}) don't fit the input {value.name} "
            f"(finite float32, shape [{wanted}]).",
            "Preprocess them exactly as for inference.",
        )
    return value.name, shape[0]


class _ImageReader:
    """Hands calibration images to ONNX Runtime batch by batch (its CalibrationDataReader interface)."""

    def __init__(self, name: str, images: np.ndarray, batch_size: int):
        self._batches = iter([{name: batch} for batch in np.split(images, len(images) // batch_size)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what ONNX Runtime's quantizer logs and prints: calls for steps which were taken, and its progress."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def to_fp8(fp32_path: str | Path, int8_path: str | Path, target_path: str | Path) -> Path:
    """Write the FP8 (E4M3) variant of a model: the graph of its INT8 variant with the other 8-bit type.

    The calibrated range of each activation stays; one scale for each weight, as TensorRT wants it for FP8.

    Args:
        fp32_path: The FP32 model, for the weights.
        int8_path: What `to_int8` made of it, for the activations' ranges.
        target_path: Where to write the FP8 model. It is returned.

    Raises:
        PrecisionError: The second model is not the INT8 variant of the first.
    """
    model = onnx.version_converter.convert_version(onnx_file.load(int8_path), _FP8_OPSET)
    del model.graph.value_info[:]  # they name the old type
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    folded = {one.name: one for one in onnx_file.folded(onnx_file.load(fp32_path)).graph.initializer}
    quantizers = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    new: dict[str, onnx.TensorProto] = {}
    for node in quantizers:
        values, scale, zero_point = node.input
        if values in constants:  # DequantizeLinear of a weight
            name = values.removesuffix("_quantized")
            if name not in folded:
                raise PrecisionError(
                    f"{Path(int8_path).name} is not the INT8 variant of {Path(fp32_path).name}: {values} differs.",
                    "Pass the model and what to_int8 made of it.",
                )
            weight = numpy_helper.to_array(folded[name])
            new_scale = np.abs(weight).max() / np.float32(FP8.largest)
            new[values] = _fp8(values, weight / new_scale)
            del node.attribute[:]  # the axis of scales per channel
        else:
            new_scale = numpy_helper.to_array(constants[scale]) * np.float32(INT8.largest / FP8.largest)
        new[scale] = numpy_helper.from_array(np.asarray(new_scale, np.float32).reshape(()), scale)
        new[zero_point] = _fp8(zero_point, np.zeros((), np.float32))
    for name, tensor in new.items():
        constants[name].CopyFrom(tensor)
    return onnx_file.save(model, target_path)


def _fp8(name: str, values: np.ndarray) -> onnx.TensorProto:
    raw = values.astype(ml_dtypes.float8_e4m3fn).tobytes()
    return helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, values.shape, raw, raw=True)
