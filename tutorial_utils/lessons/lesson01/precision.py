"""Lesson 01, low precision on a GPU: what FP16 gains, whether FP32 is FP32, and whether FP8 answers rightly."""

import functools
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tutorial_utils import engine, plotting
from tutorial_utils.machine import capabilities
from tutorial_utils.measure import deployment, quality, timing
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model import data, export, onnx_file
from tutorial_utils.model.quantization import to_fp8
from tutorial_utils.plotting import BLUE, GREEN, ORANGE, Picture

METHOD = (
    "engine time by CUDA events, copies excluded, median over rounds after a warm-up until steady; "
    "errors against float64 or ONNX Runtime's FP32 on the CPU; quality on all test images"
)
RESNET_BATCHES = (1, 8, 64)
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


@dataclass(frozen=True)
class Answers:
    """The quick classifier in one precision: accuracy, 0 to 1, and decibels of its logits over their error."""

    accuracy: float
    sqnr_db: float


@dataclass(frozen=True)
class Precisions:
    """What the experiment found."""

    resnet50: dict[str, dict[int, Measurement]]  # by precision and batch size
    tf32: list[Tf32Row]
    quick: dict[str, Answers]  # by precision


def save_gemm(path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Write a model of one matrix product in FP32; return its path, an input and the result in float64."""
    random = np.random.default_rng(0)
    x, weight = (random.standard_normal((_GEMM_SIZE, _GEMM_SIZE), np.float32) for _ in range(2))
    _save(path, "MatMul(x, weight)", weight, x.shape)
    return path, x, x.astype(np.float64) @ weight.astype(np.float64)


def save_convolution(path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Write a model of one 3x3 convolution in FP32; return its path, an input and ONNX Runtime's result."""
    from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

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


def tf32_experiment(folder: Path) -> list[dict[str, Any]]:
    """Run a matrix product and a convolution in "FP32" with the TF32 flag set and cleared.

    Their models are written into the folder. Returns the fields of a `Tf32Row` for each operator and flag.
    """
    from tutorial_utils.engine.tensorrt import trt
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    hooks = {
        True: lambda network, config: config.set_flag(trt.BuilderFlag.TF32),
        False: lambda network, config: config.clear_flag(trt.BuilderFlag.TF32),
    }
    rows = []
    for operator, save in (("MatMul", save_gemm), ("Conv", save_convolution)):
        path, x, reference = save(folder / f"{operator}.onnx")
        for flag, configure in hooks.items():
            with TensorRTRunner(engine.build(path, configure=configure)) as runner:
                error = rms_error(runner.infer({"x": x})["y"], reference)
                device_times = functools.partial(runner.device_times, {"x": x})
                time = timing.measure_on_device(device_times, batch=len(x), seconds=_SECONDS, max_calls=200)
            rows.append({"operator": operator, "tf32_flag": flag, "rms_error": error, "time": time.to_dict()})
    return rows


def resnet_times(models: dict[str, Path]) -> dict[str, dict[int, Any]]:
    """Time ResNet-50 at 3x224x224 by precision and by each of `RESNET_BATCHES`; return measurements as plain values."""
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    profile = engine.Profile.batch("x", (3, 224, 224), opt=8, max=max(RESNET_BATCHES))
    images = np.random.default_rng(0).standard_normal((max(RESNET_BATCHES), 3, 224, 224), np.float32)
    options = engine.BuildOptions(profiles=(profile,))
    times: dict[str, dict[int, Any]] = {precision: {} for precision in models}
    with ExitStack() as stack:
        runners = {
            precision: stack.enter_context(TensorRTRunner(engine.build(path, options)))
            for precision, path in models.items()
        }
        for batch in RESNET_BATCHES:
            feeds = {"x": images[:batch]}
            calls = {precision: functools.partial(one.device_times, feeds) for precision, one in runners.items()}
            measured = timing.measure_on_device_in_turn(calls, batch=batch, seconds=_SECONDS, max_calls=200)
            for precision, one in measured.items():
                times[precision][batch] = one.to_dict()
    return times


def quick_quality(models: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Run TensorRT engines of the quick classifier on all test images and compare them with FP32 on the CPU.

    Takes the ONNX file of each precision, and returns the fields of its `Answers`.
    """
    from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    test_set = data.load("digits", "test")
    profile = engine.Profile.batch("x", data.IMAGE_SHAPE, opt=64, max=64)
    with OnnxRuntimeRunner(models["fp32"]) as runner:
        reference = deployment.predict(runner, test_set.images, 64)
    by_precision = {}
    for precision, path in models.items():
        with TensorRTRunner(engine.build(path, engine.BuildOptions(profiles=(profile,)))) as runner:
            logits = deployment.predict(runner, test_set.images, 64)
        accuracy = quality.classification_metrics(test_set.labels, logits).accuracy
        by_precision[precision] = {"accuracy": accuracy, "sqnr_db": quality.sqnr_db(logits, reference)}
    return by_precision


def measure(models: Mapping[str, Path]) -> dict[str, Any]:
    """Run the three experiments on this machine's GPU; return what `read` takes."""
    machine = capabilities.probe()
    quick = {precision: models[f"quick-{precision}"] for precision in ("fp32", "fp16", "int8")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if deployment.refusal(machine, "fp8") is None:
            quick["fp8"] = to_fp8(quick["fp32"], quick["int8"], folder / "quick-fp8.onnx")
        return {
            "resnet50": resnet_times({precision: models[f"resnet50-{precision}"] for precision in ("fp32", "fp16")}),
            "tf32": tf32_experiment(folder),
            "quick": quick_quality({one: path for one, path in quick.items() if not deployment.refusal(machine, one)}),
        }


def read(data: Mapping[str, Any]) -> Precisions:
    """Return what `measure` found."""
    return Precisions(
        resnet50={
            precision: {int(batch): Measurement.from_dict(one) for batch, one in by_batch.items()}
            for precision, by_batch in data["resnet50"].items()
        },
        tf32=[Tf32Row(**{**row, "time": Measurement.from_dict(row["time"])}) for row in data["tf32"]],
        quick={precision: Answers(**one) for precision, one in data["quick"].items()},
    )


def draw_batch_times(times: Mapping[str, Mapping[int, Measurement]]) -> Picture:
    """Draw the GPU time for one image, by precision and batch size."""
    batches = list(next(iter(times.values())))
    figure, axes = plotting.new_figure(2.6)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.grid(visible=False, axis="x")
    width = 0.8 / len(times)
    lines = []
    for index, (precision, by_batch) in enumerate(times.items()):
        positions = np.arange(len(batches)) + index * width - 0.4 + width / 2
        heights = [by_batch[batch].median_ms / batch for batch in batches]
        bars = axes.bar(positions, heights, width * 0.92, color=(BLUE, ORANGE, GREEN)[index], label=precision)
        axes.bar_label(bars, [f"{height:.3g} ms" for height in heights], fontsize=9)
        lines += [
            f"{precision:6} batch {batch:>3}: {one.median_ms:7.3f} ms, {one.images_per_second:8,.0f} images/s"
            for batch, one in by_batch.items()
        ]
    axes.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
    axes.set_ylabel("milliseconds for one image")
    axes.legend(frameon=False)
    return Picture(figure, f"GPU time by precision and batch size. {'; '.join(lines)}.", "\n".join(lines))


EXPERIMENT = Experiment(
    name="lesson01_precision",
    title="Precisions on a GPU: ResNet-50 in FP32 and FP16, the TF32 flag, and the quick classifier's answers",
    method=METHOD,
    measure=measure,
    read=read,
    draw=lambda measured: draw_batch_times(measured.result.resnet50),
    models=(*(f"quick-{name}.onnx" for name in ("fp32", "fp16", "int8")), "resnet50-fp32.onnx", "resnet50-fp16.onnx"),
)
