"""Lesson 01, low precision on a GPU: what FP16 gains, whether FP32 is FP32, and whether FP8 answers rightly."""

import functools
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils import engine
from tutorial_utils.base.errors import BuildError, ModelFileError
from tutorial_utils.machine import capabilities
from tutorial_utils.measure import deployment, quality, recordings, timing
from tutorial_utils.model import data, export, onnx_file
from tutorial_utils.model.quantization import to_fp8

METHOD = (
    "engine time by CUDA events, copies excluded, median of 10 rounds after a warm-up until steady; "
    "errors against float64 or ONNX Runtime's FP32 on the CPU; quality on all test images"
)
RESNET_BATCHES = (1, 8, 64)
_GEMM_SIZE = 1024
_CONV = (32, 64, 56, 56)  # images, channels, height, width of a 3x3 convolution


def save_gemm(path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Write a model of one matrix product in FP32; return its path, an input and the result in float64."""
    random = np.random.default_rng(0)
    x, weight = (random.standard_normal((_GEMM_SIZE, _GEMM_SIZE), np.float32) for _ in range(2))
    node = helper.make_node("MatMul", ["x", "weight"], ["y"], name="MatMul.0")
    _save(path, node, weight, x.shape, x.shape)
    return path, x, x.astype(np.float64) @ weight.astype(np.float64)


def save_convolution(path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Write a model of one 3x3 convolution in FP32; return its path, an input and ONNX Runtime's result."""
    from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

    random = np.random.default_rng(0)
    x = random.standard_normal(_CONV, np.float32)
    weight = random.standard_normal((_CONV[1], _CONV[1], 3, 3), np.float32)
    node = helper.make_node("Conv", ["x", "weight"], ["y"], name="Conv.0", pads=[1, 1, 1, 1])
    _save(path, node, weight, _CONV, _CONV)
    with OnnxRuntimeRunner(path) as runner:
        return path, x, runner.infer({"x": x})["y"]


def _save(path: Path, node: onnx.NodeProto, weight: np.ndarray, shape_in: tuple, shape_out: tuple) -> None:
    graph = helper.make_graph(
        [node],
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape_in)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape_out)],
        [numpy_helper.from_array(weight, "weight")],
    )
    opset = helper.make_opsetid("", export.OPSET)
    onnx_file.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


def build_with_tf32_flag(onnx_path: Path, allowed: bool) -> bytes:
    """Build a model with static shapes, with the builder's TF32 flag set (its default) or cleared.

    Raises:
        BuildError: TensorRT refuses the build.
        ModelFileError: TensorRT's parser refuses the file.
    """
    from tutorial_utils.engine.tensorrt import MessageLog, checked, trt

    log = MessageLog()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    checked(
        parser.parse_from_file(str(onnx_path)),
        log, ModelFileError, f"TensorRT can't read {onnx_path.name}", "Write the model again.",
    )  # fmt: skip
    config = builder.create_builder_config()
    (config.set_flag if allowed else config.clear_flag)(trt.BuilderFlag.TF32)
    plan = builder.build_serialized_network(network, config)
    return bytes(checked(plan, log, BuildError, f"TensorRT can't build {onnx_path.name}", "Read its message."))


def rms_error(actual: np.ndarray, reference: np.ndarray) -> float:
    """Return the root mean square of the difference as a fraction of that of the reference."""
    return float(10 ** (-quality.sqnr_db(actual, reference) / 20))


def tf32_experiment(folder: Path, seconds: float = 0.5) -> list[dict[str, Any]]:
    """Run a matrix product and a convolution in "FP32" with the TF32 flag set and cleared.

    Args:
        folder: Where to write the two models.
        seconds: About how long to time each engine.

    Returns:
        One row for each operator and flag: ``operator``, ``tf32_flag``, ``rms_error``, ``time`` (a `Measurement`).
    """
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    rows = []
    for operator, save in (("MatMul", save_gemm), ("Conv", save_convolution)):
        path, x, reference = save(folder / f"{operator}.onnx")
        for flag in (True, False):
            with TensorRTRunner(build_with_tf32_flag(path, flag)) as runner:
                error = rms_error(runner.infer({"x": x})["y"], reference)
                device_times = functools.partial(runner.device_times, {"x": x})
                time = timing.measure_on_device(device_times, batch=len(x), seconds=seconds, max_calls=200)
            rows.append({"operator": operator, "tf32_flag": flag, "rms_error": error, "time": time.to_dict()})
    return rows


def resnet_times(models: dict[str, Path], seconds: float = 0.5) -> dict[str, dict[str, Any]]:
    """Time ResNet-50 at 3x224x224 in each precision at several batch sizes.

    Args:
        models: ONNX file of each precision.
        seconds: About how long to time each batch size.

    Returns:
        `Measurement` as a dict by precision and batch size, the latter as text: JSON has no other keys.
    """
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    profile = engine.Profile.batch("x", (3, 224, 224), opt=8, max=max(RESNET_BATCHES))
    images = np.random.default_rng(0).standard_normal((max(RESNET_BATCHES), 3, 224, 224), np.float32)
    times: dict[str, dict[str, Any]] = {precision: {} for precision in models}
    with ExitStack() as stack:
        runners = {}
        for precision, path in models.items():
            built = engine.build(path, engine.BuildOptions(profiles=(profile,)))
            runners[precision] = stack.enter_context(TensorRTRunner(built))
        for batch in RESNET_BATCHES:
            feeds = {"x": images[:batch]}
            calls = {precision: functools.partial(one.device_times, feeds) for precision, one in runners.items()}
            measured = timing.measure_on_device_in_turn(calls, batch=batch, seconds=seconds, max_calls=200)
            for precision, one in measured.items():
                times[precision][str(batch)] = one.to_dict()
    return times


def quick_quality(models: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Run TensorRT engines of the quick classifier on all test images and compare them with FP32 on the CPU.

    Args:
        models: ONNX file of each precision; "fp32" is the reference.

    Returns:
        ``accuracy`` and ``sqnr_db`` of the logits, by precision.
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


def record(models: Path) -> Path:
    """Run the experiments on this machine's GPU and keep the result as a recording.

    Args:
        models: A folder with ``quick-{fp32,fp16,int8}.onnx`` and ``resnet50-{fp32,fp16}.onnx``.

    Returns:
        The file that was written.

    Raises:
        BackendUnavailableError: TensorRT engines can't run here.
        ModelFileError: A model is missing.
    """
    machine = capabilities.require_tensorrt_run()
    resnet = {precision: Path(models) / f"resnet50-{precision}.onnx" for precision in ("fp32", "fp16")}
    quick = {precision: Path(models) / f"quick-{precision}.onnx" for precision in ("fp32", "fp16", "int8")}
    for path in (*resnet.values(), *quick.values()):
        onnx_file.load(path)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        on_gpu = {"fp32": quick["fp32"], "fp16": quick["fp16"]}
        if machine.tensorrt_int8.available:
            on_gpu["int8"] = quick["int8"]
        if tuple(map(int, machine.gpu.compute_capability.split("."))) >= (8, 9):
            on_gpu["fp8"] = to_fp8(quick["fp32"], quick["int8"], folder / "quick-fp8.onnx")
        results = {
            "resnet50": resnet_times(resnet),
            "tf32": tf32_experiment(folder),
            "quick": quick_quality(on_gpu),
        }
    recording = recordings.new(
        title="Precisions on a GPU: ResNet-50 in FP32 and FP16, the TF32 flag, and the quick classifier's answers",
        method=METHOD,
        machine=machine.machine(),
        data=results,
    )
    return recordings.save(recording, recordings.FOLDER / "lesson01_precision.json")
