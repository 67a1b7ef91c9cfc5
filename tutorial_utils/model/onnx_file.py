"""ONNX files: read, checked, and written whole or not at all."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper

from tutorial_utils.base import onnx_session, paths
from tutorial_utils.base.errors import ExportError, ModelFileError, PrecisionError


def load(onnx_path: str | Path) -> onnx.ModelProto:
    """Read an ONNX model.

    Raises:
        ModelFileError: The file is missing, or is not an ONNX model.
    """
    path = Path(onnx_path)
    if not path.is_file():
        raise ModelFileError(f"There is no model {path}.", "Check the path, or export the model first.")
    try:
        model = onnx.load(path)
    except Exception as error:
        raise ModelFileError(f"{path.name} is not an ONNX model, or was cut short.", "Export it again.") from error
    if not model.graph.node:
        raise ModelFileError(f"{path.name} holds no operators.", "Export it again.")
    return model


def save(model: onnx.ModelProto, onnx_path: str | Path) -> Path:
    """Check a model with `onnx.checker` and write it, replacing an older file only when all went well.

    Raises:
        ExportError: The model is not valid ONNX, or the file can't be written.
    """
    path = Path(onnx_path)
    content = model.SerializeToString()  # once, for the check and the file
    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path.name} would not be valid ONNX: {error}.", "Try another opset.") from error
    with writing(path) as temporary:
        temporary.write_bytes(content)
    return path


def weights(onnx_path: str | Path) -> dict[str, np.ndarray]:
    """Return the float32 weights of a model by name."""
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in load(onnx_path).graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with batch norms folded into convolutions, as TensorRT does it too.

    ONNX Runtime does it, on the basic level of its optimizer, which writes ONNX operators only.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        onnx_session.new_session(model.SerializeToString(), optimize="basic", optimized_path=path)
        result = onnx.load(path)
    for entry in [entry for entry in result.opset_import if entry.domain]:
        result.opset_import.remove(entry)  # ONNX Runtime's own, which it always adds
    return result


def array_of(tensor: onnx.TensorProto) -> np.ndarray:
    """Return the values of a tensor as `onnx.numpy_helper.to_array` does, and those of BF16 as float32.

    onnx 1.17 reads BF16 byte by byte, as other numbers.
    """
    if tensor.data_type != onnx.TensorProto.BFLOAT16:
        return numpy_helper.to_array(tensor)
    raw = tensor.raw_data or np.array(tensor.int32_data, np.uint16).tobytes()
    return np.frombuffer(raw, ml_dtypes.bfloat16).astype(np.float32).reshape(tensor.dims)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a temporary path as `paths.replacing` does, for a model in a folder that may not exist yet."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with paths.replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise ExportError(
            f"{path} can't be written: {error.strerror or error}.", "Free some space, or choose a folder of your own."
        ) from error


def require_fp32(model: onnx.ModelProto, name: str) -> None:
    """Raise PrecisionError for a model that holds quantized or FP16 tensors already."""
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if quantized or any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in model.graph.initializer):
        was = "quantized" if quantized else "converted to FP16"
        raise PrecisionError(f"{name} is {was} already.", "Start from the original FP32 model.")
