"""The precisions that an FP32 model is converted to."""

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from tutorial_utils.base.errors import PrecisionError
from tutorial_utils.model import half_precision, onnx_file, quantization

Precision = Literal["fp32", "fp16", "int8"]


def to_precision(
    onnx_path: str | Path, precision: Precision, target_path: str | Path, images: np.ndarray | None = None
) -> Path:
    """Write the variant of an FP32 ONNX model in one precision. See `to_fp16` and `to_int8`.

    Raises:
        PrecisionError: The precision is unknown.
    """
    if precision == "fp32":
        return onnx_file.save(onnx_file.load(onnx_path), target_path)
    if precision == "fp16":
        return half_precision.to_fp16(onnx_path, target_path)
    if precision == "int8":
        return quantization.to_int8(onnx_path, target_path, images)
    raise PrecisionError(f"There is no precision {precision!r}.", f"Choose one of {', '.join(get_args(Precision))}.")
