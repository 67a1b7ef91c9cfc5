"""Static Paddle model to FP32 ONNX."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tutorial_utils.base import child_process, errors
from tutorial_utils.base.errors import ExportError
from tutorial_utils.model import onnx_file, paddle_program
from tutorial_utils.model.exporting import export_samples, legacy_export, paddle2onnx_errors

OPSET = 17
_WORKER = "tutorial_utils.model.exporting.paddle2onnx_worker"
WORKER_COURSE_ERROR = 3  # exit status of paddle2onnx_worker: the last line of stderr is an error of the course, as JSON


def to_onnx(
    model_path: str | Path,
    params_path: str | Path,
    onnx_path: str | Path,
    *,
    opset: int = OPSET,
    verify: bool = True,
    samples: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Convert a static Paddle model to FP32 ONNX, and return the path of the ONNX file.

    The names of inputs and outputs stay as in the Paddle model. A dynamic first dimension is called "batch" where the
    model has one input; of several inputs, dynamic dimensions have names of their own, since they may differ in size.

    Args:
        model_path: The program that `paddle.jit.save` wrote: ``.json``, or in the form of Paddle 2, ``.pdmodel``, for
            which `legacy_export` installs an older paddle2onnx when it is first needed.
        params_path: Its weights (``.pdiparams``). Paddle writes no such file for a model without weights.
        onnx_path: Where to write the model.
        opset: ONNX opset; 17 is the newest that all libraries of the course handle.
        verify: Compare ONNX Runtime's outputs with Paddle's.
        samples: Inputs for that, by name; None for random ones, of which integers are ids below the size of each
            embedding, or 0 and 1.

    Raises:
        ModelFileError: A file of the Paddle model is missing, or damaged.
        BackendUnavailableError: The program is a legacy one, and its paddle2onnx can't be installed.
        UnsupportedOperatorError: paddle2onnx can't convert an operator of the model.
        InputError: Names or data types of the samples aren't those of the model's inputs.
        ExportError: The conversion failed in another way, its result disagrees with Paddle, or Paddle refuses the
            samples.
    """
    model_path, params_path, onnx_path = Path(model_path), Path(params_path), Path(onnx_path)
    paddle_program.require_files(model_path, params_path)
    if onnx_path.resolve() in (model_path.resolve(), params_path.resolve()):
        raise ExportError(
            f"{onnx_path} is a file of the Paddle model itself.", "Choose another path, such as model.onnx."
        )
    with onnx_file.writing(onnx_path) as temporary:
        samples_path = temporary.with_name("samples.npz")
        if samples is not None:
            export_samples.save(samples, samples_path)
        if model_path.suffix != ".json":  # the form of Paddle 2, whose files have several names
            converted = temporary.with_name(legacy_export.CONVERTED)
            legacy_export.to_onnx(model_path, params_path, converted, opset)
        _run_worker(model_path, params_path, temporary, opset, samples_path if verify else None)
        if verify:
            export_samples.compare(temporary, samples_path, paddle2onnx_errors.hint(model_path))
    return onnx_path


def _run_worker(model: Path, params: Path, onnx_path: Path, opset: int, samples: Path | None) -> None:
    """Let `paddle2onnx_worker` write the model and the samples, and raise what kept it from that."""
    arguments = [model, params, onnx_path, opset, *([samples] if samples else [])]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", _WORKER, *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        env=child_process.environment(GLOG_minloglevel="3"),
    )
    if done.returncode == 0:
        return
    if done.returncode == WORKER_COURSE_ERROR:
        name, cause, remedy = json.loads(done.stderr.splitlines()[-1])
        if "valid ONNX" in cause:
            remedy = paddle2onnx_errors.hint(model) or export_samples.NO_HINT
        raise getattr(errors, name)(cause, remedy)
    if onnx_path.exists():
        raise ExportError(
            f"Paddle's own process ended while it ran {model.name} on the samples (exit status {done.returncode}).",
            export_samples.BY_HAND,
        )
    raise paddle2onnx_errors.of_log(done.stdout + done.stderr, done.returncode, model)
