"""Lesson 02: what becomes of a Paddle-TRT predictor that Paddle takes without a word, each in a process of its own.

The calls are Paddle's, without the refusals of `paddle_tensorrt_build`: those are what this gives the reasons for.
"""

import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils.base import child_process
from tutorial_utils.base.errors import CourseError
from tutorial_utils.measure import quality
from tutorial_utils.model import paddle_program
from tutorial_utils.model.classifier import SavedModel
from tutorial_utils.model.quiet_paddle import paddle
from tutorial_utils.runners import legacy_program, paddle_tensorrt, paddle_tensorrt_build, paddle_tensorrt_log
from tutorial_utils.runners.paddle import GPU_MEMORY_MB, PaddleRunner

BATCH = 64
IMAGE = (3, 32, 32)
SHAPES = {"x": ((1, *IMAGE), (BATCH, *IMAGE), (BATCH, *IMAGE))}


@dataclass(frozen=True)
class Trial:
    """One way to ask for Paddle-TRT: arguments of Paddle's own calls, where they aren't the usual ones.

    Attributes:
        ranges: "hand" (`set_trt_dynamic_shape_info`), "collected" (`enable_tuned_tensorrt_dynamic_shape`) or "none".
        tensorrt: Whether TensorRT is asked for at all.
    """

    precision: str = "fp32"
    ranges: str = "hand"
    min_subgraph_size: int = 3
    exp_disable_tensorrt_ops: tuple[str, ...] = ()
    use_calib_mode: bool = False
    tensorrt: bool = True


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        ended: How its process ended: "exit status 0", "signal 6", or the class of what Paddle raised.
        reached: The last step that was finished: "nothing", "predictor made" or "ran".
        said: The line of the log that says why it ended; empty for a process that ended well.
        log: What Paddle's log says of the offload, as a sentence.
        subgraphs: Operators in each subgraph for TensorRT.
        whole: Whether the whole program went to TensorRT.
        relative_error: Of the outputs against Paddle on the CPU; None without outputs.
        zeros: Whether all outputs are 0.
        refusal: What the package says instead, before anything runs; empty where it lets it run.
    """

    ended: str
    reached: str
    said: str
    log: str
    subgraphs: tuple[int, ...]
    whole: bool
    relative_error: float | None
    zeros: bool
    refusal: str

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Outcome":
        """Read an outcome back from plain values."""
        return cls(**{**values, "subgraphs": tuple(values["subgraphs"])})


TRIALS = {
    "usual": Trial(),
    "min_subgraph_size=1000": Trial(min_subgraph_size=1000),
    "pool2d kept out (ranges by hand)": Trial(exp_disable_tensorrt_ops=("pool2d",)),
    "pool2d kept out (ranges collected)": Trial(exp_disable_tensorrt_ops=("pool2d",), ranges="collected"),
    "no ranges: static shapes": Trial(ranges="none"),
    "INT8 calibration (ranges by hand)": Trial("int8", use_calib_mode=True),
    "INT8 calibration (ranges collected)": Trial("int8", use_calib_mode=True, ranges="collected"),
    "INT8 without calibration": Trial("int8"),
    "Paddle on the GPU without TensorRT": Trial(tensorrt=False),
}


def measure(name: str, _: Mapping[str, Path]) -> dict[str, Any]:
    """Try one of `TRIALS` on the quick classifier; return the fields of an `Outcome`.

    Raises:
        BackendUnavailableError: Paddle can't use TensorRT here.
    """
    paddle_tensorrt.require_tensorrt()
    trial, files = TRIALS[name], legacy_program.untrained("quick")
    images = np.random.default_rng(0).standard_normal((BATCH, *IMAGE), dtype=np.float32)
    with PaddleRunner(files.model_path, files.params_path, onednn=False) as runner:
        (expected,) = runner.infer({"x": images}).values()
    with tempfile.TemporaryDirectory() as folder:
        found = _in_another_process(trial, files, images, Path(folder))
        outputs = Path(folder) / "outputs.npy"
        logits = np.load(outputs) if outputs.exists() else None
        refusal = _refusal(trial, files, Path(folder))
    error = None if logits is None else quality.relative_error(logits, expected)
    return asdict(
        Outcome(**found, relative_error=error, zeros=bool(logits is not None and not logits.any()), refusal=refusal)
    )


def _in_another_process(trial: Trial, files: SavedModel, images: np.ndarray, folder: Path) -> dict[str, Any]:
    log, ended, raised = folder / "log", "exit status 0", ""
    try:
        child_process.run_with_log(log, paddle_tensorrt_build.WITH_LOG, _try, trial, files, images, folder)
    except subprocess.CalledProcessError as error:
        ended = paddle_tensorrt_build.end(error)
    except Exception as error:  # what Paddle raised there
        ended, raised = type(error).__name__, paddle_program.reason(error)
    text = log.read_text(errors="replace")
    read = paddle_tensorrt_log.parse(text)
    reached = next((step for step in ("ran", "predictor made") if (folder / step).exists()), "nothing")
    said = raised or ("" if ended == "exit status 0" else paddle_tensorrt_log.last_line(text))
    return {
        "ended": ended, "reached": reached, "said": said,
        "log": str(read), "subgraphs": read.subgraphs, "whole": read.whole,
    }  # fmt: skip


def config(trial: Trial, files: SavedModel, folder: Path) -> "paddle.inference.Config":
    """Return Paddle's configuration of a trial."""
    made = paddle.inference.Config(str(files.model_path), str(files.params_path))
    made.enable_use_gpu(GPU_MEMORY_MB, 0)
    if not trial.tensorrt:
        return made
    types = paddle.inference.PrecisionType
    made.enable_tensorrt_engine(
        max_batch_size=BATCH,
        min_subgraph_size=trial.min_subgraph_size,
        precision_mode={"fp32": types.Float32, "int8": types.Int8}[trial.precision],
        use_calib_mode=trial.use_calib_mode,
    )
    if trial.ranges == "hand":
        smallest, best, largest = ({name: list(shapes[index]) for name, shapes in SHAPES.items()} for index in range(3))
        made.set_trt_dynamic_shape_info(smallest, largest, best)
    elif trial.ranges == "collected":
        made.enable_tuned_tensorrt_dynamic_shape(str(folder / "ranges.pbtxt"), True)
    if trial.exp_disable_tensorrt_ops:
        made.exp_disable_tensorrt_ops(list(trial.exp_disable_tensorrt_ops))
    return made


def _try(trial: Trial, files: SavedModel, images: np.ndarray, folder: Path) -> None:
    if trial.ranges == "collected":
        _collect(files, images, folder)
    predictor = paddle.inference.create_predictor(config(trial, files, folder))
    (folder / "predictor made").touch()
    predictor.get_input_handle("x").copy_from_cpu(images)
    predictor.run()
    np.save(folder / "outputs.npy", predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu())
    (folder / "ran").touch()


def _collect(files: SavedModel, images: np.ndarray, folder: Path) -> Path:
    batches = [{"x": images[:size]} for size in (1, BATCH, BATCH)]
    return paddle_tensorrt.collect_shape_ranges(files.model_path, files.params_path, batches, folder / "ranges.pbtxt")


def _refusal(trial: Trial, files: SavedModel, folder: Path) -> str:
    """Return what the package says of the same wish; empty where it lets it run."""
    paths = files.model_path, files.params_path
    ways = {"hand": {"shapes": SHAPES}, "collected": {"shape_ranges": folder / "ranges.pbtxt"}, "none": {}}
    try:
        if not trial.tensorrt:
            PaddleRunner(*paths, device="gpu").close()
        else:
            paddle_tensorrt_build.open_runner(
                *paths, **ways[trial.ranges], precision=trial.precision, min_subgraph_size=trial.min_subgraph_size,
                exp_disable_tensorrt_ops=trial.exp_disable_tensorrt_ops,
            ).close()  # fmt: skip
    except CourseError as error:
        return error.cause
    return ""
