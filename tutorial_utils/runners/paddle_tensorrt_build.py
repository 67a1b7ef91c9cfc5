"""Paddle-TRT's legacy way, opened after a look at Paddle's log.

A predictor builds its engines when it is made, says in its log alone what stayed outside, and may end the process. So
it is made in another process first: its engines go to a cache folder, its log to a file. Where that is fit to run, a
predictor of this process takes the engines from there, in less than a second.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3
from filelock import FileLock

from tutorial_utils.base import child_process, paths, sealed_files
from tutorial_utils.base.errors import BackendUnavailableError, BuildError
from tutorial_utils.base.gpu import find_gpu
from tutorial_utils.model import paddle_program
from tutorial_utils.model.quiet_paddle import paddle
from tutorial_utils.runners import paddle_kernels, paddle_tensorrt, paddle_tensorrt_log
from tutorial_utils.runners.paddle import PaddleRunner
from tutorial_utils.runners.paddle_tensorrt_log import OffloadLog

LOG_NAME, OPTIMIZED_NAME = "paddle.log", "_optimized.pdmodel"
_SECONDS_NAME = "seconds.txt"
_REMEDY = "Collect the ranges of all tensors (paddle_tensorrt.collect_shape_ranges), or leave fewer operators out."


@dataclass(frozen=True)
class Built:
    """What the making of a predictor left in its cache folder.

    Attributes:
        folder: Engines, the optimized program and the log, `LOG_NAME`.
        log: What Paddle's log says.
        seconds: What making the predictor took.
    """

    folder: Path
    log: OffloadLog
    seconds: float


def cached(model_path: str | Path, params_path: str | Path, **options: Any) -> Built:
    """Make a predictor in a process of its own, for the engines and the log that it leaves; once, they are kept.

    Args:
        model_path: ``.pdmodel``.
        params_path: ``.pdiparams``.
        options: Arguments of `paddle_tensorrt.legacy_config`, but for the folder.

    Raises:
        BuildError: Paddle refused or ended the process. The cause ends with the last that it said; nothing is kept.
        CourseError: Those of `paddle_tensorrt.legacy_config`, before anything is built.
    """
    engines = paths.cache_dir("paddle_tensorrt")
    paddle_tensorrt.legacy_config(model_path, params_path, engines, **options)  # refuses here what can be refused
    folder = engines / _key(model_path, params_path, options)
    with paths.filling_cache(), FileLock(f"{folder}.lock"):
        if not (folder.exists() and sealed_files.ready(_read_later(folder))):
            shutil.rmtree(folder, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=".building-", dir=folder.parent) as unfinished:
                whole = Path(unfinished) / "whole"
                seconds = _build(model_path, params_path, whole, options)
                (whole / _SECONDS_NAME).write_text(str(seconds))
                sealed_files.seal(_read_later(whole))
                whole.rename(folder)
        log = paddle_tensorrt_log.parse((folder / LOG_NAME).read_text(errors="replace"))
        return Built(folder, log, float((folder / _SECONDS_NAME).read_text()))


def _read_later(folder: Path) -> list[Path]:
    """Return the files that Paddle doesn't write again when it loads the engines."""
    return [folder / LOG_NAME, folder / _SECONDS_NAME, *sorted(folder.rglob("trt_serialized_*"))]


def open_runner(model_path: str | Path, params_path: str | Path, **options: Any) -> PaddleRunner:
    """Return a runner of Paddle-TRT with the engines of `cached`, which takes the same arguments.

    INT8 needs a quantized program: calibrating takes two predictors, see `paddle_tensorrt.legacy_config`.

    Raises:
        BackendUnavailableError: Operators stayed with Paddle, which has no kernels for this GPU.
        BuildError, CourseError: Those of `cached`.
    """
    built = cached(model_path, params_path, **options)
    require_runnable(built.log, built.folder)
    config = paddle_tensorrt.legacy_config(model_path, params_path, built.folder, **options)
    return PaddleRunner.from_config(config, "Paddle-TRT", options.get("shapes"))


def require_runnable(log: OffloadLog, folder: Path) -> None:
    """Refuse a predictor that would leave operators to Paddle on a GPU that Paddle has no kernels for.

    On any other GPU it is only said, with a warning.

    Args:
        log: What Paddle's log says.
        folder: The cache folder, where the optimized program names the operators that stay.

    Raises:
        BackendUnavailableError: They would end the process, or leave their outputs as they were.
    """
    if log.whole:
        return
    left = paddle_program.tensorrt_use(paddle_program.operators(folder / OPTIMIZED_NAME))
    if sentence := paddle_kernels.missing():
        raise BackendUnavailableError(
            f"{left}, where it can't run: {sentence}.",
            "Leave nothing to Paddle: a smaller min_subgraph_size, no exp_disable_tensorrt_ops; or go through ONNX.",
        )
    warnings.warn(f"{left}.", stacklevel=3)


def _build(model_path: str | Path, params_path: str | Path, folder: Path, options: dict[str, Any]) -> float:
    """Make a predictor in a process of its own, for what it leaves in a folder; return the seconds."""
    folder.mkdir()
    log = folder / LOG_NAME
    try:
        return child_process.run_with_log(
            log, paddle_tensorrt_log.VARIABLES, _create, model_path, params_path, folder, options
        )
    except subprocess.CalledProcessError as error:
        last = paddle_tensorrt_log.last_line(log.read_text(errors="replace"))
        raise BuildError(
            f"Paddle ended the process that made the engines ({child_process.ending(error.returncode)}): {last}.",
            _REMEDY,
        ) from None


def _create(model_path: str | Path, params_path: str | Path, folder: Path, options: dict[str, Any]) -> float:
    """Make a predictor, in that process; return the seconds."""
    config = paddle_tensorrt.legacy_config(model_path, params_path, folder, quiet=False, **options)
    started = time.perf_counter()
    try:
        paddle.inference.create_predictor(config)
    except Exception as error:  # Paddle raises RuntimeError, ValueError and its own types here
        raise BuildError(f"Paddle can't make the engines: {paddle_program.reason(error)}.", _REMEDY) from None
    return time.perf_counter() - started


def _key(model_path: str | Path, params_path: str | Path, options: dict[str, Any]) -> str:
    """Return the name of the folder for these engines: Paddle's own key knows neither weights nor GPU nor TensorRT."""
    gpu, _ = find_gpu()
    versions = [paddle.version.full_version, paddle.inference.get_trt_runtime_version(), str(gpu)]
    versions.append(os.environ.get("NVIDIA_TF32_OVERRIDE"))  # the one variable that makes TensorRT build another engine
    hasher = blake3(json.dumps([versions, {name: str(value) for name, value in sorted(options.items())}]).encode())
    for path in filter(None, (model_path, params_path, options.get("shape_ranges"))):
        sealed_files.add(hasher, Path(path))
    return f"{Path(model_path).stem}-{options.get('precision', 'fp32')}-{hasher.hexdigest(length=8)}"
