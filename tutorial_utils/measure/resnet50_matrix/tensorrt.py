"""ResNet-50 in TensorRT, by builder flags or by the types of the file, and in TensorRT-RTX."""

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils import engine
from tutorial_utils.base.errors import BackendUnavailableError, CourseError
from tutorial_utils.base.flavour import installed_flavour
from tutorial_utils.engine import BuildOptions, Profile, computed_types
from tutorial_utils.measure.resnet50_matrix.cells import TF32_OVERRIDE, Candidate, Cell, types_of
from tutorial_utils.measure.resnet50_matrix.files import Files
from tutorial_utils.runners import Runner

# What the builder may use, for a network that is typed weakly.
_FLAGS = {
    "fp16": ("fp16",),
    "bf16": ("bf16",),
    "int8_calibrated": ("int8", "fp16"),
    "int8_qdq": ("int8", "fp16"),
    "fp8": ("fp8", "fp16"),
}
_TYPED_FILES = {"fp16": "fp16", "bf16": "bf16", "int8_qdq": "int8", "fp8": "fp8"}  # FP32 for the others


@contextlib.contextmanager
def opened(cell: Cell, files: Files) -> Iterator[Candidate]:
    """Build an engine twice, the second time with all timings in the timing cache, and make it ready to run.

    Raises:
        BackendUnavailableError: Another TensorRT is installed.
        CourseError: TensorRT refuses the flags or the build.
    """
    wanted = "tensorrt_rtx" if cell.library == "tensorrt_rtx" else "tensorrt"
    if installed_flavour() != wanted:
        raise BackendUnavailableError(f"{wanted} isn't the TensorRT of this process.", "Measure it in its own stack.")
    if cell.library == "tensorrt_rtx" and cell.precision == "fp32":
        os.environ[TF32_OVERRIDE] = "0"
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    built, facts, reasons = _build(cell, files)
    feeds = {"x": files.images(cell.shape)}
    with TensorRTRunner(built) as runner, contextlib.ExitStack() as opened_too:
        graph_times = infer_graph = None
        try:
            graphed = opened_too.enter_context(TensorRTRunner(runner, cuda_graph=True))
            graphed.infer(feeds)  # captured at the first call
            graph_times = functools.partial(graphed.device_times, feeds)
            infer_graph = functools.partial(_logits, graphed)
        except CourseError as error:
            reasons["graph"] = error.cause
        yield Candidate(
            infer=functools.partial(_logits, runner),
            device_times=functools.partial(runner.device_times, feeds),
            graph_times=graph_times,
            infer_graph=infer_graph,
            facts=facts,
            reasons=reasons,
        )


def _logits(runner: Runner, images: np.ndarray) -> np.ndarray:
    (logits,) = runner.infer({"x": images}).values()
    return logits


def options(cell: Cell) -> BuildOptions:
    """Return what the engine of a cell is built with."""
    by_flags = cell.library == "tensorrt_flags"
    asks = by_flags or cell.precision == "int8_calibrated"  # refused with types from the file, and by TensorRT-RTX
    return BuildOptions(
        profiles=(Profile.of(x=(cell.shape,) * 3),),
        strongly_typed=not by_flags,
        flags=_FLAGS.get(cell.precision, ()) if asks else (),
        without_flags=("tf32",) if cell.precision == "fp32" and cell.library != "tensorrt_rtx" else (),
    )


def _build(cell: Cell, files: Files) -> tuple[engine.Engine, dict[str, Any], dict[str, str]]:
    size = cell.shape[2]
    by_type = _TYPED_FILES.get(cell.precision, "fp32")
    by_flags = "fp32" if cell.precision in ("fp16", "bf16") else by_type
    path = files.onnx(by_flags if cell.library == "tensorrt_flags" else by_type, size)
    configure = functools.partial(_calibrate, cell, files, path) if cell.precision == "int8_calibrated" else None
    with tempfile.TemporaryDirectory() as folder:  # for its timing cache
        build = functools.partial(
            engine.build,
            path,
            options(cell),
            configure=configure,
            cache_folder=Path(folder),
            use_cache=False,
            progress=False,
        )
        first = build()
        again = first if cell.library == "tensorrt_rtx" else build()
    facts = {
        "build_s": round(first.report.build_seconds, 2),
        "plan_bytes": first.report.plan_bytes,
        **types_of(cell, computed_types.totals(first.report.layers)),
    }
    if cell.library == "tensorrt_rtx":
        return first, facts, {"rebuild_s": "TensorRT-RTX chooses kernels when it runs, and has no timing cache."}
    facts |= {"rebuild_s": round(again.report.build_seconds, 2), "build_cache": "empty"}
    return first, facts, {}


def _calibrate(cell: Cell, files: Files, path: Path, network: Any, config: Any) -> None:
    from tutorial_utils.engine import calibrators

    images, table = files.calibration_images(cell.shape[2]), files.calibration_cache(cell.shape)
    config.int8_calibrator = calibrators.EntropyCalibrator(path, {"x": images}, cell.shape[0], cache_file=table)
