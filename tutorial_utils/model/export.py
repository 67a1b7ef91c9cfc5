"""Static Paddle model to FP32 ONNX."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from tutorial_utils.base import child_process, errors, onnx_session
from tutorial_utils.base.errors import ExportError, UnsupportedOperatorError
from tutorial_utils.model import onnx_file, paddle_program

OPSET = 17
# Paddle and ONNX Runtime both compute in FP32, in another order: their outputs differ by rounding only.
TOLERANCE = 1e-4
WORKER_COURSE_ERROR = 3  # exit status of paddle2onnx_worker: the last line of stderr is an error of the course, as JSON
# glibc is to keep freed memory for the next copy of the weights, instead of asking the kernel for pages each time: a
# sixth of the time for ResNet-50, at the same peak. Other C libraries ignore the variables.
_KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}


def to_onnx(
    model_path: str | Path, params_path: str | Path, onnx_path: str | Path, *, opset: int = OPSET, verify: bool = True
) -> Path:
    """Convert a static Paddle model to FP32 ONNX, and return the path of the ONNX file.

    The names of inputs and outputs stay as in the Paddle model, and a dynamic first dimension is called "batch".

    Args:
        model_path: The program that `paddle.jit.save` wrote (``.json``, or ``.pdmodel``).
        params_path: Its weights (``.pdiparams``).
        onnx_path: Where to write the model.
        opset: ONNX opset; 17 is the newest that all libraries of the course handle.
        verify: Compare ONNX Runtime's outputs with Paddle's on a random input.

    Raises:
        ModelFileError: A file of the Paddle model is missing, or damaged.
        UnsupportedOperatorError: paddle2onnx can't convert an operator of the model.
        ExportError: The conversion failed in another way, or its result disagrees with Paddle.
    """
    model_path, params_path, onnx_path = Path(model_path), Path(params_path), Path(onnx_path)
    paddle_program.require_files(model_path, params_path)
    with onnx_file.writing(onnx_path) as temporary:
        samples_path = temporary.with_name("samples.npz")
        _run_worker(model_path, params_path, temporary, opset, samples_path if verify else None)
        if verify:
            _compare_with_paddle(temporary, samples_path)
    return onnx_path


def _run_worker(model: Path, params: Path, onnx_path: Path, opset: int, samples: Path | None) -> None:
    """Let `paddle2onnx_worker` write the model and the samples, and raise what kept it from that."""
    arguments = [model, params, onnx_path, opset, *([samples] if samples else [])]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tutorial_utils.model.paddle2onnx_worker", *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        env=child_process.environment(**_KEEP_MEMORY, GLOG_minloglevel="3"),
    )
    if done.returncode == 0:
        return
    if done.returncode == WORKER_COURSE_ERROR:
        name, cause, remedy = json.loads(done.stderr.splitlines()[-1])
        raise getattr(errors, name)(cause, remedy)
    log = done.stdout + done.stderr
    if "unsupported operators" in log or "is not supported" in log:
        operators = sorted(set(re.findall(r"(pd_op\.\w+)", log)))
        raise UnsupportedOperatorError(
            f"paddle2onnx can't convert {', '.join(operators) or 'an operator'} of {model.name}.",
            "Replace the operator in the model, or keep that part in Paddle (paddle2onnx lists what it supports).",
        )
    lines = [line.strip().rstrip(".") for line in log.splitlines() if line.strip()]
    raise ExportError(
        f"paddle2onnx failed on {model.name} (exit status {done.returncode}): {lines[-1] if lines else 'no message'}.",
        "Check that both files come from one `paddle.jit.save` of Paddle 3.",
    )


def _compare_with_paddle(onnx_path: Path, samples_path: Path) -> None:
    session = onnx_session.new_session(onnx_path)
    with np.load(samples_path) as samples:
        feeds = {key.removeprefix("in:"): samples[key] for key in samples.files if key.startswith("in:")}
        expected = [samples[f"out:{i}"] for i in range(len(samples.files) - len(feeds))]
    for output, actual, wanted in zip(session.get_outputs(), session.run(None, feeds), expected, strict=True):
        error = np.abs(actual - wanted).max() / max(np.abs(wanted).max(), np.finfo(np.float32).tiny)
        if not error <= TOLERANCE:  # also catches NaN
            raise ExportError(
                f"{output.name} of {onnx_path.name} differs from Paddle's output by {error:.1e} of its largest value.",
                f"Up to {TOLERANCE:.0e} is rounding; more is a conversion fault: try another opset.",
            )
