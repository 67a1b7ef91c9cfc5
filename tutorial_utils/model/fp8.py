"""Lesson 01, low precision: an FP8 model whose scales are the calibrated ranges, so that its results are right.

ONNX Runtime's own quantizer can write FP8 too, but its only calibration for that type takes the scale from the standard
deviation of the values, and the large ones are cut off.
"""

import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils.base.errors import PrecisionError
from tutorial_utils.model import onnx_export, tensors
from tutorial_utils.model.number_formats import FP8, INT8

_FP8_OPSET = 19  # the first in which QuantizeLinear knows FP8


def to_fp8(fp32_path: str | Path, int8_path: str | Path, target_path: str | Path) -> Path:
    """Write the FP8 (E4M3) variant of a model: the graph of its INT8 variant with the other 8-bit type.

    The calibrated range of each activation stays; one scale for each weight, as TensorRT wants it for FP8.

    Args:
        fp32_path: The FP32 model, for the weights.
        int8_path: What `onnx_export.to_int8` made of it, for the activations' ranges.
        target_path: Where to write the FP8 model.

    Returns:
        ``target_path``.

    Raises:
        ModelFileError: A model is missing or damaged.
        PrecisionError: The second model is not the INT8 variant of the first.
    """
    model = onnx.version_converter.convert_version(onnx_export.load(int8_path), _FP8_OPSET)
    del model.graph.value_info[:]  # they name the old type
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    folded = _folded_weights(fp32_path)
    quantizers = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    new: dict[str, onnx.TensorProto] = {}
    for node in quantizers:
        values, scale, zero_point = node.input
        if values in constants:  # DequantizeLinear of a weight
            weight = folded.get(values.removesuffix("_quantized"))
            if weight is None:
                raise PrecisionError(
                    f"{Path(int8_path).name} is not the INT8 variant of {Path(fp32_path).name}: {values} differs.",
                    "Pass the model and what to_int8 made of it.",
                )
            new_scale = np.abs(weight).max() / np.float32(FP8.largest)
            new[values] = _fp8(values, weight / new_scale)
            del node.attribute[:]  # the axis of scales per channel
        else:
            new_scale = numpy_helper.to_array(constants[scale]) * np.float32(INT8.largest / FP8.largest)
        new[scale] = numpy_helper.from_array(np.asarray(new_scale, np.float32).reshape(()), scale)
        new[zero_point] = _fp8(zero_point, np.zeros((), np.float32))
    for name, tensor in new.items():
        constants[name].CopyFrom(tensor)
    return onnx_export.save(model, target_path)


def _folded_weights(fp32_path: str | Path) -> dict[str, np.ndarray]:
    """Return the weights after batch norms were folded into convolutions, as `onnx_export.to_int8` does it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        folded = Path(folder) / "folded.onnx"
        quant_pre_process(str(fp32_path), str(folded), skip_symbolic_shape=True)
        return tensors.weights(folded)


def _fp8(name: str, values: np.ndarray) -> onnx.TensorProto:
    raw = values.astype(ml_dtypes.float8_e4m3fn).tobytes()
    return helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, values.shape, raw, raw=True)
