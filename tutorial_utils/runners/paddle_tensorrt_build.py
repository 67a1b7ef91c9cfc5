"""Paddle-TRT's legacy way, opened after a look at Paddle's log.

A predictor builds its engines when it is made, says in its log alone what stayed outside, and may end the process. So
it is made in another process first: its engines go to a cache folder, its log to a file. Where that is fit to run, a
predictor of this process takes the engines from there, in less than a second.
"""

import json
import shutil
import subprocess
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3
from filelock import FileLock

from tutorial_utils.base import child_process, paths
from tutorial_utils.base.errors import BackendUnavailableError, BuildError
from tutorial_utils.base.gpu import find_gpu
from tutorial_utils.model import paddle_program
from tutorial_utils.model.quiet_paddle import paddle
from tutorial_utils.runners import paddle_kernels, paddle_tensorrt, paddle_tensorrt_log
from tutorial_utils.runners.paddle import PaddleRunner
from tutorial_utils.runners.paddle_tensorrt_log import OffloadLog

LOG_NAME = "paddle.log"
_WITH_LOG = {"GLOG_minloglevel": "0", "GLOG_v": "0"}


@dataclass(frozen=True)
class Built:
    """What one making of a predictor left in its cache folder.

    Attributes:
        folder: Engines, the optimized program and the log, `LOG_NAME`.
        log: What Paddle's log says.
        seconds: What making the predictor took. Nearly nothing where the folder held the engines already.
    """

    folder: Path
    log: OffloadLog
    seconds: float


def build(model_path: str | Path, params_path: str | Path, folder: str | Path, **options: Any) -> Built:
    """Make a predictor in a process of its own, for the engines and the log that it leaves in a folder.

    Args:
        model_path: ``.pdmodel``.
        params_path: ``.pdiparams``.
        folder: The cache folder of `paddle_tensorrt.legacy_config`, made if it is missing.
        options: Its other arguments.

    Raises:
        BuildError: Paddle refused or ended the process. The cause ends with the last that it said.
        CourseError: Those of `paddle_tensorrt.legacy_config`, before anything is built.
    """
    paddle_tensorrt.legacy_config(model_path, params_path, folder, **options)  # refuses here what can be refused
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    log = target / LOG_NAME
    remedy = "Collect the ranges of all tensors (paddle_tensorrt.collect_shape_ranges), or leave fewer operators out."
    try:
        seconds = child_process.run_with_log(log, _WITH_LOG, _create, model_path, params_path, target, options)
    except subprocess.CalledProcessError as error:
        last = paddle_tensorrt_log.last_line(log.read_text(errors="replace"))
        raise BuildError(f"Paddle ended the process that made the engines ({_end(error)}): {last}.", remedy) from None
    return Built(target, paddle_tensorrt_log.parse(log.read_text(errors="replace")), seconds)


def open_runner(model_path: str | Path, params_path: str | Path, **options: Any) -> PaddleRunner:
    """Return a runner of Paddle-TRT, with the engines of the course's cache or newly built ones.

    Args:
        model_path: ``.pdmodel``.
        params_path: ``.pdiparams``.
        options: Arguments of `paddle_tensorrt.legacy_config`, but for the folder. INT8 needs a quantized program.

    Raises:
        BackendUnavailableError: Operators stayed with Paddle, which has no kernels for this GPU.
        BuildError, CourseError: Those of `build`.
    """
    paddle_tensorrt.legacy_config(model_path, params_path, "", **options)
    folder = paths.cache_dir("paddle_tensorrt") / _key(model_path, params_path, options)
    with FileLock(f"{folder}.lock"):
        if folder.exists():
            log = paddle_tensorrt_log.parse((folder / LOG_NAME).read_text(errors="replace"))
        else:
            log = _build_whole(model_path, params_path, folder, options)
    require_runnable(log)
    config = paddle_tensorrt.legacy_config(model_path, params_path, folder, **options)
    return PaddleRunner.from_config(config, "Paddle-TRT", options.get("shapes"))


def require_runnable(log: OffloadLog) -> None:
    """Refuse a predictor that would leave operators to Paddle on a GPU that Paddle has no kernels for.

    On any other GPU it is only said, with a warning.

    Raises:
        BackendUnavailableError: They would end the process, or leave their outputs as they were.
    """
    if log.whole:
        return
    if sentence := paddle_kernels.missing():
        raise BackendUnavailableError(
            f"{log}, and what stayed would compute nothing: {sentence}.",
            "Leave nothing to Paddle: a smaller min_subgraph_size, no exp_disable_tensorrt_ops; or go through ONNX.",
        )
    warnings.warn(f"{log}: those run in Paddle's own kernels.", stacklevel=3)


def _build_whole(model_path: str | Path, params_path: str | Path, folder: Path, options: dict[str, Any]) -> OffloadLog:
    """Build into a folder that gets its name when it is complete."""
    unfinished = folder.with_name(f".building-{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        log = build(model_path, params_path, unfinished, **options).log
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return log


def _create(model_path: str | Path, params_path: str | Path, folder: Path, options: dict[str, Any]) -> float:
    """Make a predictor, in a process of its own; return the seconds."""
    config = paddle_tensorrt.legacy_config(model_path, params_path, folder, quiet=False, **options)
    started = time.perf_counter()
    try:
        paddle.inference.create_predictor(config)
    except Exception as error:  # Paddle raises RuntimeError, ValueError and its own types here
        raise BuildError(
            f"Paddle can't make the engines: {paddle_program.reason(error)}.",
            "Collect the ranges of all tensors (paddle_tensorrt.collect_shape_ranges), or leave fewer operators out.",
        ) from None
    return time.perf_counter() - started


def _key(model_path: str | Path, params_path: str | Path, options: dict[str, Any]) -> str:
    """Return the name of the folder for these engines: Paddle's own key knows neither weights nor GPU nor TensorRT."""
    gpu, _ = find_gpu()
    versions = [paddle.version.full_version, paddle.inference.get_trt_runtime_version(), str(gpu)]
    hasher = blake3(json.dumps([versions, {name: str(value) for name, value in sorted(options.items())}]).encode())
    for path in filter(None, (model_path, params_path, options.get("shape_ranges"))):
        hasher.update_mmap(path)
    return f"{Path(model_path).stem}-{options.get('precision', 'fp32')}-{hasher.hexdigest(length=8)}"


def _end(error: subprocess.CalledProcessError) -> str:
    return f"signal {-error.returncode}" if error.returncode < 0 else f"exit status {error.returncode}"
