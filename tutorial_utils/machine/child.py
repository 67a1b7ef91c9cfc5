"""Ask another process a question that a broken driver or library may answer by ending it.

`ask` starts this very file as a script, ``python -I child.py QUESTION SYS_PATH [ARGUMENT ...]``, with the caller's
`sys.path` as JSON, so that both find the same modules. The script imports next to nothing itself: several run at once
while a reader waits. Its answer is lines of JSON with a prefix, which tells them from what libraries print.
"""

import ctypes
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

SECONDS = 60.0  # for one question; a driver that hangs takes longer, and so may a slow disk
_PREFIX = "tutorial_utils answer: "
_ANSWERED = 77  # exit status after a whole answer: no library ends Python with it


@dataclass(frozen=True)
class Answer:
    """What came back from a process that was asked something."""

    values: Mapping[str, Any]  # the answer, as far as it came
    error: str = ""  # why there is no whole answer, or ""
    end: str = ""  # how the process ended without a whole answer: a signal's name, for example
    late: bool = False  # whether there is no whole answer because `SECONDS` were over


def ask(question: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Answer:
    """Put one of `QUESTIONS` to another process, whose environment is this one's unless given."""
    command = [sys.executable, "-I", __file__, question, json.dumps(sys.path), *arguments]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    try:
        child = subprocess.run(command, env=environment, timeout=SECONDS, **quiet)
    except subprocess.TimeoutExpired as error:
        return Answer(_read(error.stdout or b""), f"no answer within {SECONDS:.0f} s", late=True)
    except OSError as error:
        return Answer({}, f"no process can be started: {error}")
    values = _read(child.stdout)
    if child.returncode == _ANSWERED:
        return Answer(values, values.get("error", ""))
    try:
        end = signal.Signals(-child.returncode).name
    except ValueError:
        end = f"exit status {child.returncode}"
    return Answer(values, f"the process ended without an answer ({end})", end=end)


def _read(output: bytes) -> dict[str, Any]:
    lines = output.decode(errors="replace").splitlines()
    answers = [json.loads(line.removeprefix(_PREFIX)) for line in lines if line.startswith(_PREFIX)]
    return {name: value for answer in answers for name, value in answer.items()}


# What the other process does


def main(question: str, search_path: str, *arguments: str) -> None:
    """Print the answer, and end without Python's own clean-up, in which some libraries crash."""
    sys.path[:] = json.loads(search_path)
    try:
        for answer in QUESTIONS[question](*arguments):
            _say(answer)
    except BaseException as error:  # a broken library raises whatever it likes, SystemExit too
        _say({"error": _message(error)})
    os._exit(_ANSWERED)


def _say(answer: Mapping[str, Any]) -> None:
    print(f"\n{_PREFIX}{json.dumps(answer)}", flush=True)  # a library may have printed half a line


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200].rstrip('.')}"


def modules(*names: str) -> Iterator[dict[str, Any]]:
    """Import modules one after the other: ``{name: {"version": ..., "details": ...}}``, or ``{name: {"error": ...}}``.

    The details are what only the imported library knows: "providers" of onnxruntime; "cuda", "tensorrt", "kernels" of
    paddle. On a machine with a GPU, tensorrt is answered twice: once more with "builder_error", why it makes no
    builder, or "".
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # or ONNX Runtime sends usage data when it is imported
    gc.disable()  # takes a third off Paddle's import, the longest by far
    for name in names:
        try:
            module = importlib.import_module(name)
            report = {"version": str(getattr(module, "__version__", "")), "details": _details(module)}
            yield {name: report}
            # Without a driver, making a builder ends the process (TensorRT 10.6); and nothing could be built anyhow.
            if name == "tensorrt" and importlib.import_module("tutorial_utils.base.gpu").find_gpu()[0]:
                yield {name: {**report, "details": {"builder_error": _builder_error(module)}}}
        except BaseException as error:  # as above
            yield {name: {"error": _message(error)}}


def _details(module: ModuleType) -> dict[str, Any]:
    if module.__name__ == "onnxruntime":
        return {"providers": module.get_available_providers()}
    if module.__name__ == "paddle":
        inference, version = (importlib.import_module(f"paddle.{name}") for name in ("inference", "version"))
        kernels = importlib.import_module("tutorial_utils.base.paddle_kernels")
        # The version of TensorRT is (0, 0, 0) in a build without it.
        return {
            "cuda": module.is_compiled_with_cuda(),
            "tensorrt": list(inference.get_trt_compile_version()),
            "kernels": kernels.compiled_for(
                getattr(version, "cuda_archs", tuple)(), version.full_version, version.cuda()
            ),
        }
    if module.__name__ == "pycuda":
        importlib.import_module("pycuda.driver")  # the part that is bound to the driver and the toolkit
    return {}


def _builder_error(trt: ModuleType) -> str:
    """Return why TensorRT makes no builder, or "". It needs libraries for this GPU, and a driver for its CUDA."""
    said = []

    class Log(trt.ILogger):
        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                said.append(message)

    log = Log()
    try:
        made = trt.Builder(log)
    except Exception as error:  # the bindings raise TypeError for a builder that is a null pointer
        return " ".join(said[-1].split()).rstrip(".") if said else _message(error)
    return "" if made else "TensorRT gave no message"


def kernel() -> Iterator[dict[str, Any]]:
    """Find the kernel that Jupyter starts for the lessons: its command, and the folder that it is described in."""
    from jupyter_client.kernelspec import KernelSpecManager

    spec = KernelSpecManager().get_kernel_spec("python3")
    yield {"argv": spec.argv, "folder": spec.resource_dir}


def context() -> Iterator[dict[str, Any]]:
    """Retain the primary context of the first GPU, as `runners.tensorrt` does."""
    import pycuda.driver as cuda

    cuda.init()
    primary = cuda.Device(0).retain_primary_context()
    primary.push()
    primary.pop()
    yield {}


def libraries() -> Iterator[dict[str, Any]]:
    """Open TensorRT's libraries by the names that Paddle uses: what failed, and the version."""
    from tutorial_utils.machine.tensorrt_libraries import OPENED_BY_PADDLE

    errors, version = [], None
    for name in OPENED_BY_PADDLE:
        try:
            library = ctypes.CDLL(f"{name}.so")
            if name == "libnvinfer":
                version = library.getInferLibVersion()
        except (OSError, AttributeError) as error:  # not found, or not TensorRT
            errors.append(_message(error))
    yield {"errors": errors, "version": version}


QUESTIONS = {"modules": modules, "kernel": kernel, "context": context, "libraries": libraries}

if __name__ == "__main__":
    main(*sys.argv[1:])
