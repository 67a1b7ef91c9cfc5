"""Lesson 01, whether FP32 is FP32: a matrix product and a convolution with TensorRT's TF32 flag set and cleared."""

import functools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tutorial_utils import engine
from tutorial_utils.measure import quality, timing
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model import export, onnx_file
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

METHOD = (
    "engine time by CUDA events, copies excluded, median over rounds after a warm-up until steady; errors against "
    "float64, of the convolution against ONNX Runtime's FP32 on the CPU"
)
_SECONDS = 0.5  # about how long each engine is timed
_GEMM_SIZE = 1024
_CONV = (32, 64, 56, 56)  # images, channels, height, width of a 3x3 convolution


@dataclass(frozen=True)
class Tf32Row:
    """An operator built with the TF32 flag set or cleared; its error is a fraction of the result's root mean square."""

    operator: str
    tf32_flag: bool
    rms_error: float
    time: Measurement


def save_gemm(path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Write a model of one matrix product in FP32; return its path, an input and the result in float64."""
    random = np.random.default_rng(0)
    x, weight = (random.standard_normal((_GEMM_SIZE, _GEMM_SIZE), np.float32) for _ in range(2))
    _save(path, "MatMul(x, weight)", weight, x.shape)
    return path, x, x.astype(np.float64) @ weight.astype(np.float64)


def save_convolution(path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Write a model of one 3x3 convolution in FP32; return its path, an input and ONNX Runtime's result."""
    random = np.random.default_rng(0)
    x = random.standard_normal(_CONV, np.float32)
    weight = random.standard_normal((_CONV[1], _CONV[1], 3, 3), np.float32)
    _save(path, "Conv <pads = [1, 1, 1, 1]> (x, weight)", weight, x.shape)
    with OnnxRuntimeRunner(path) as runner:
        return path, x, runner.infer({"x": x})["y"]


def _save(path: Path, operation: str, weight: np.ndarray, shape: tuple[int, ...]) -> None:
    """Write a model of one operation, in ONNX's text form, whose input x and output have the same shape."""
    kind = f"float{list(shape)}"
    head = f'<ir_version: 8, opset_import: ["": {export.OPSET}]>'
    model = onnx.parser.parse_model(f"{head} {path.stem} ({kind} x) => ({kind} y) {{ y = {operation} }}")
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    onnx_file.save(model, path)


def rms_error(actual: np.ndarray, reference: np.ndarray) -> float:
    """Return the root mean square of the difference as a fraction of that of the reference."""
    return float(10 ** (-quality.sqnr_db(actual, reference) / 20))


def measure(models: Mapping[str, Path]) -> dict[str, list[dict[str, Any]]]:
    """Run both operators in "FP32" with the flag set and cleared; return the fields of a `Tf32Row` of each, as "tf32".

    Raises:
        BackendUnavailableError: TensorRT engines can't run here.
    """
    from tutorial_utils.engine.tensorrt import trt
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    hooks = {
        True: lambda network, config: config.set_flag(trt.BuilderFlag.TF32),
        False: lambda network, config: config.clear_flag(trt.BuilderFlag.TF32),
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for operator, save in (("MatMul", save_gemm), ("Conv", save_convolution)):
            path, x, reference = save(Path(folder) / f"{operator}.onnx")
            for flag, configure in hooks.items():
                with TensorRTRunner(engine.build(path, configure=configure)) as runner:
                    error = rms_error(runner.infer({"x": x})["y"], reference)
                    device_times = functools.partial(runner.device_times, {"x": x})
                    time = timing.measure_on_device(device_times, batch=len(x), seconds=_SECONDS, max_calls=200)
                rows.append({"operator": operator, "tf32_flag": flag, "rms_error": error, "time": time.to_dict()})
    return {"tf32": rows}


def read(data: Mapping[str, Any]) -> list[Tf32Row]:
    """Return what `measure` found."""
    return [Tf32Row(**{**row, "time": Measurement.from_dict(row["time"])}) for row in data["tf32"]]


EXPERIMENT = Experiment(
    name="lesson01_tf32",
    title="A matrix product and a convolution in FP32, with the TF32 flag set and cleared",
    method=METHOD,
    measure=measure,
    read=read,
)
