"""Lesson 02: what becomes of a Paddle-TRT predictor that Paddle takes without a word, each in a process of its own.

The calls are Paddle's, without the refusals of `paddle_tensorrt_build`: those are what this gives the reasons for.
"""

import subprocess
import tempfile
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils.base import child_process
from tutorial_utils.base.errors import BackendUnavailableError, CourseError
from tutorial_utils.measure import quality
from tutorial_utils.model import paddle_program, paddle_quantization
from tutorial_utils.model.classifier import SavedModel
from tutorial_utils.model.quiet_paddle import paddle
from tutorial_utils.runners import (
    legacy_program,
    paddle_kernels,
    paddle_tensorrt,
    paddle_tensorrt_build,
    paddle_tensorrt_log,
)
from tutorial_utils.runners.paddle import GPU_MEMORY_MB, PaddleRunner
from tutorial_utils.runners.paddle_tensorrt_build import LOG_NAME, OPTIMIZED_NAME

BATCH = 64
IMAGE = (3, 32, 32)
NOTHING, MADE, RAN = "nothing", "predictor made", "ran"
RANGES_NAME = "ranges.pbtxt"
SHAPES = {"x": ((1, *IMAGE), (BATCH, *IMAGE), (BATCH, *IMAGE))}


@dataclass(frozen=True)
class Trial:
    """One way to ask for Paddle-TRT: arguments of Paddle's own calls, where they aren't the usual ones.

    Attributes:
        ranges: "hand" (`set_trt_dynamic_shape_info`), "collected" (`enable_tuned_tensorrt_dynamic_shape`) or "none".
        quantized: Whether the program was quantized offline.
        explicit: Whether TensorRT gets the nodes of that (`enable_tensorrt_explicit_quantization`).
        other_weights_first: Whether the cache folder holds the engine of the same network with other weights.
        tensorrt: Whether TensorRT is asked for at all.
    """

    precision: str = "fp32"
    ranges: str = "hand"
    min_subgraph_size: int = 3
    exp_disable_tensorrt_ops: tuple[str, ...] = ()
    use_calib_mode: bool = False
    quantized: bool = False
    explicit: bool = False
    other_weights_first: bool = False
    tensorrt: bool = True


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        ended: How its process ended: "exit status 0", "SIGABRT", or the class of what Paddle raised.
        reached: The last step that was finished: `NOTHING`, `MADE` or `RAN`.
        said: The line of the log that says why it went no further; empty where it ran.
        left: The engines of the optimized program, and what stayed with Paddle; empty if no predictor was made.
        reasons: Why operators stayed outside, in Paddle's words.
        subgraphs: Operators in each subgraph for TensorRT.
        whole: Whether the whole program went to TensorRT.
        relative_error: Of the outputs against Paddle on the CPU; None without outputs, and where some are NaN.
        zeros: Whether all outputs are 0.
        refusal: What the package says instead, before anything runs; empty where it lets it run.
    """

    ended: str
    reached: str
    said: str
    left: str
    reasons: tuple[str, ...]
    subgraphs: tuple[int, ...]
    whole: bool
    relative_error: float | None
    zeros: bool
    refusal: str

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Outcome":
        """Read an outcome back from plain values."""
        return cls(**{**values, **{name: tuple(values[name]) for name in ("subgraphs", "reasons")}})


TRIALS = {
    "usual": Trial(),
    "min_subgraph_size=1000": Trial(min_subgraph_size=1000),
    "pool2d kept out (ranges by hand)": Trial(exp_disable_tensorrt_ops=("pool2d",)),
    "pool2d kept out (ranges collected)": Trial(exp_disable_tensorrt_ops=("pool2d",), ranges="collected"),
    "no ranges: static shapes": Trial(ranges="none"),
    "INT8 calibration (ranges by hand)": Trial("int8", use_calib_mode=True),
    "INT8 calibration (ranges collected)": Trial("int8", use_calib_mode=True, ranges="collected"),
    "INT8 without calibration": Trial("int8"),
    "INT8 quantized offline": Trial("int8", quantized=True),
    "INT8 explicit (ranges by hand)": Trial("int8", quantized=True, explicit=True),
    "INT8 explicit (ranges collected)": Trial("int8", quantized=True, explicit=True, ranges="collected"),
    "cache folder of other weights": Trial(other_weights_first=True),
    "Paddle on the GPU without TensorRT": Trial(tensorrt=False),
}


def told(outcomes: Mapping[str, Outcome], names: Iterable[str]) -> str:
    """Return what became of some of `TRIALS` as text; those that have no outcome stand together at the end."""
    lines, missing = [], []
    for name in names:
        if (one := outcomes.get(name)) is None:
            missing.append(name)
            continue
        sizes = ", ".join(map(str, one.subgraphs)) or "none"
        lines += [
            name,
            f"    operators in subgraphs for TensorRT: {sizes}; the entire graph: {'yes' if one.whole else 'no'}",
        ]
        if one.left:
            lines.append(f"    {one.left}")
        lines += [f"    outside because: {reason}" for reason in one.reasons]
        if one.reached == RAN:
            error = (
                "n/a, some outputs are NaN or infinite" if one.relative_error is None else f"{one.relative_error:.1e}"
            )
            lines.append(f"    it ran; relative error {error}{', all outputs are 0' if one.zeros else ''}")
        else:
            lines.append(f"    {one.reached if one.reached == MADE else 'no predictor'}, then {one.ended}: {one.said}")
    if missing:
        lines += textwrap.wrap(f"n/a, not measured: {'; '.join(missing)}", 110, subsequent_indent="    ")
    return "\n".join(lines)


def measure(name: str, _: Mapping[str, Path]) -> dict[str, Any]:
    """Try one of `TRIALS` on the quick classifier; return the fields of an `Outcome`.

    Raises:
        BackendUnavailableError: Paddle can't use TensorRT here, or lacks a library, which says nothing of the trial.
    """
    paddle_tensorrt.require_tensorrt()
    trial, plain = TRIALS[name], legacy_program.untrained("quick")
    images = np.random.default_rng(0).standard_normal((BATCH, *IMAGE), dtype=np.float32)
    with PaddleRunner(plain.model_path, plain.params_path, onednn=False) as runner:
        (expected,) = runner.infer({"x": images}).values()
    with tempfile.TemporaryDirectory() as path:
        folder, files = Path(path), plain
        if trial.quantized:
            files = paddle_quantization.quantize(plain.model_path, plain.params_path, images, folder / "quantized")
        if trial.ranges == "collected":
            batches = [{"x": images[:size]} for size in (1, BATCH, BATCH)]
            paddle_tensorrt.collect_shape_ranges(files.model_path, files.params_path, batches, folder / RANGES_NAME)
        if trial.other_weights_first:
            _in_another_process(trial, legacy_program.untrained("quick", seed=1), images, folder)
        found = _in_another_process(trial, files, images, folder)
        outputs = folder / "outputs.npy"
        logits = np.load(outputs) if found["reached"] == RAN else None
        refusal = _refusal(trial, files, folder, found["reached"])
    if found["said"].startswith("Could not load library"):
        raise BackendUnavailableError(f"{found['said']}.", "Put all libraries of cuDNN 8.9 into LD_LIBRARY_PATH.")
    sound = logits is not None and np.isfinite(logits).all()
    error = quality.relative_error(logits, expected) if sound else None
    zeros = logits is not None and not logits.any()
    return asdict(Outcome(**found, relative_error=error, zeros=bool(zeros), refusal=refusal))


def _in_another_process(trial: Trial, files: SavedModel, images: np.ndarray, folder: Path) -> dict[str, Any]:
    log, steps, ended = folder / LOG_NAME, folder / "steps", "exit status 0"
    steps.write_text("")
    try:
        child_process.run_with_log(log, paddle_tensorrt_log.VARIABLES, _try, trial, files, images, folder)
    except subprocess.CalledProcessError as error:
        ended = child_process.ending(error.returncode)
    except Exception as error:  # what Paddle raised there
        ended = type(error).__name__
    text = log.read_text(errors="replace")
    read = paddle_tensorrt_log.parse(text)
    *_, reached = [NOTHING, *steps.read_text().splitlines()]
    optimized = folder / OPTIMIZED_NAME
    left = str(paddle_program.tensorrt_use(paddle_program.operators(optimized))) if optimized.exists() else ""
    return {
        "ended": ended, "reached": reached, "said": "" if reached == RAN else paddle_tensorrt_log.last_line(text),
        "left": left, "reasons": read.reasons, "subgraphs": read.subgraphs, "whole": read.whole,
    }  # fmt: skip


def config(trial: Trial, files: SavedModel, folder: Path) -> "paddle.inference.Config":
    """Return Paddle's configuration of a trial."""
    made = paddle.inference.Config(str(files.model_path), str(files.params_path))
    made.enable_use_gpu(GPU_MEMORY_MB, 0)
    if not trial.tensorrt:
        return made
    types = paddle.inference.PrecisionType
    made.set_optim_cache_dir(str(folder))
    made.enable_save_optim_model(True)
    made.enable_tensorrt_engine(
        max_batch_size=BATCH,
        min_subgraph_size=trial.min_subgraph_size,
        precision_mode={"fp32": types.Float32, "int8": types.Int8}[trial.precision],
        use_static=not trial.use_calib_mode,
        use_calib_mode=trial.use_calib_mode,
    )
    if trial.ranges == "hand":
        smallest, best, largest = ({name: list(shapes[index]) for name, shapes in SHAPES.items()} for index in range(3))
        made.set_trt_dynamic_shape_info(smallest, largest, best)
    elif trial.ranges == "collected":
        made.enable_tuned_tensorrt_dynamic_shape(str(folder / RANGES_NAME), True)
    if trial.explicit:
        made.enable_tensorrt_explicit_quantization()
    if trial.exp_disable_tensorrt_ops:
        made.exp_disable_tensorrt_ops(list(trial.exp_disable_tensorrt_ops))
    return made


def _try(trial: Trial, files: SavedModel, images: np.ndarray, folder: Path) -> None:
    """Make a predictor and run it once; write down each step that is done."""
    with (folder / "steps").open("w", buffering=1) as steps:
        try:
            predictor = paddle.inference.create_predictor(config(trial, files, folder))
            steps.write(f"{MADE}\n")
            predictor.get_input_handle("x").copy_from_cpu(images)
            predictor.run()
            logits = predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()
        except Exception as error:
            print(f"{type(error).__name__}: {paddle_program.reason(error)}", flush=True)  # the process may end yet
            raise
        np.save(folder / "outputs.npy", logits)
        steps.write(f"{RAN}\n")


def _refusal(trial: Trial, files: SavedModel, folder: Path, reached: str) -> str:
    """Return what the package says of the same wish; empty where it lets it run.

    Where Paddle made the predictor, the package has its log to judge by, and the engine needs no second build.
    """
    paths = files.model_path, files.params_path
    ways = {"hand": {"shapes": SHAPES}, "collected": {"shape_ranges": folder / RANGES_NAME}, "none": {}}
    options = {
        **ways[trial.ranges], "precision": trial.precision, "min_subgraph_size": trial.min_subgraph_size,
        "exp_disable_tensorrt_ops": trial.exp_disable_tensorrt_ops, "explicit_quantization": trial.explicit,
    }  # fmt: skip
    try:
        if not trial.tensorrt:
            paddle_kernels.require()
        elif reached == NOTHING:
            paddle_tensorrt_build.open_runner(*paths, **options).close()
        else:
            paddle_tensorrt.legacy_config(*paths, folder, **options)
            log = paddle_tensorrt_log.parse((folder / LOG_NAME).read_text(errors="replace"))
            paddle_tensorrt_build.require_runnable(log, folder)
    except CourseError as error:
        return error.cause
    return ""
