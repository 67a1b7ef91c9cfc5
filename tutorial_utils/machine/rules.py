"""What follows from the facts: a yes or a no, with a reason and a remedy, for each thing that the course does."""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from tutorial_utils.base import paddle_kernels
from tutorial_utils.base.flavour import FLAVOUR_VARIABLE, FLAVOURS, mistyped
from tutorial_utils.base.gpu import Capability, Gpu
from tutorial_utils.base.requirements import TENSORRT_FOR_BLACKWELL, pip_install, requirement
from tutorial_utils.machine.facts import Library

HOPPER = "9.0"
RUN_AGAIN = "Run this again: files that were read once are in memory, and come faster."
FULL_STACK = "Create the environment of environment.yml: it has Paddle's GPU build, TensorRT 10 and PyCUDA."


def judge(
    gpu: Gpu | None, driver: Capability, libraries: Mapping[str, Library], flavour: str | None
) -> dict[str, Capability]:
    """Turn what `find_gpu`, `find_libraries` and `installed_flavour` found into what can be run on this machine.

    Returns:
        The capabilities by the names of the fields of `Capabilities`.
    """

    def on_gpu(instead: str, rule: Callable[..., Capability], *facts: Any) -> Capability:
        if driver.available:
            return rule(*facts)
        return dataclasses.replace(driver, remedy=f"Nothing is broken: {instead}" if driver.harmless else driver.remedy)

    paddle = _works("paddle", libraries)
    build = _tensorrt_build(gpu, libraries, flavour)
    pycuda = on_gpu("only running TensorRT engines needs PyCUDA.", _pycuda, libraries)
    paddle_gpu = on_gpu("Paddle runs on the CPU.", _paddle_gpu, gpu, paddle, libraries)
    onnxruntime_cuda = on_gpu("ONNX Runtime runs on the CPU.", _onnxruntime_cuda, libraries)
    recorded = "its lesson shows recordings and the code."
    runs_on_cpu = "ONNX Runtime runs the models, and the lessons show recordings of TensorRT."
    run = on_gpu(runs_on_cpu, _tensorrt_run, gpu, build, pycuda, libraries, flavour)
    rows = {  # what it is, for a reader, and whether it works: the rules themselves give no name
        "driver": (driver.name, driver),
        "paddle": ("Paddle on the CPU", paddle),
        "onnx_export": ("Paddle to ONNX", _onnx_export(paddle, libraries)),
        "onnxruntime_cpu": ("ONNX Runtime on the CPU", _works("onnxruntime", libraries)),
        "onnxruntime_cuda": ("ONNX Runtime on the GPU", onnxruntime_cuda),
        "tensorrt_build": ("TensorRT builds engines", build),
        "tensorrt_int8": ("TensorRT builds INT8", _int8(gpu, build, libraries, flavour)),
        "tensorrt_run": ("TensorRT runs engines", run),
        "pycuda": ("PyCUDA", pycuda),
        "paddle_gpu": ("Paddle on the GPU", paddle_gpu),
        "paddle_tensorrt": ("Paddle-TensorRT", on_gpu(recorded, _paddle_tensorrt, gpu, paddle, libraries)),
        "polygraphy": ("Polygraphy", _works("polygraphy", libraries)),
    }
    return {field: dataclasses.replace(one, name=name) for field, (name, one) in rows.items()}


def _works(module: str, libraries: Mapping[str, Library]) -> Capability:
    """A library that works when it can be imported."""
    library = libraries.get(module)
    if library is None:
        return _no(f"{module} is not installed.", _install(requirement(module)))
    if library.error:
        again = _install(requirement(module), options="--force-reinstall")
        if library.late:
            reason = f"Importing {module} {library.version} gave {library.error}."
            remedy = f"{RUN_AGAIN} Where `python -c 'import {module}'` never ends, it is broken: {again}"
            return _no(f"{reason} The disk is slow, the machine is busy, or it hangs.", remedy)
        return _no(f"{module} {library.version} is installed but broken: {library.error}.", again)
    return Capability("", True, f"{FLAVOURS.get(module, module)} {library.version}".strip() + ".", "")


def _onnx_export(paddle: Capability, libraries: Mapping[str, Library]) -> Capability:
    if paddle.available:
        return _works("paddle2onnx", libraries)
    return _no("paddle2onnx needs Paddle, which doesn't work here.", paddle.remedy)


def _pycuda(libraries: Mapping[str, Library]) -> Capability:
    works = _works("pycuda", libraries)
    if works.available:
        return works
    without_toolkit = " It needs the CUDA toolkit (nvcc); `conda install -c conda-forge pycuda` doesn't."
    return dataclasses.replace(works, remedy=works.remedy + without_toolkit)


def _onnxruntime_cuda(libraries: Mapping[str, Library]) -> Capability:
    works = _works("onnxruntime", libraries)
    if not works.available:
        return works
    library = libraries["onnxruntime"]
    gpu_build = pip_install("onnxruntime-gpu")
    replace = f"Run `python -m pip uninstall -y onnxruntime onnxruntime-gpu && {gpu_build}`."
    if "CUDAExecutionProvider" not in library.details["providers"]:
        if len(library.distributions) > 1:
            reason = "onnxruntime and onnxruntime-gpu are both installed, and the CPU build has overwritten the other."
        else:
            reason = f"This build of ONNX Runtime ({library.version}) has no CUDA provider."
        return _no(reason, replace)
    return works


def _tensorrt_build(gpu: Gpu | None, libraries: Mapping[str, Library], flavour: str | None) -> Capability:
    if flavour is None:
        return _no("No TensorRT is installed.", _install(_rtx_for(gpu)))
    if wrong := mistyped(flavour):
        return _no(wrong.cause, wrong.remedy)
    works = _works(flavour, libraries)
    if not works.available:
        if flavour not in libraries and FLAVOUR_VARIABLE in os.environ:
            return dataclasses.replace(works, reason=f"{FLAVOUR_VARIABLE} asks for {flavour}, which is not installed.")
        return works
    if flavour == "tensorrt_rtx":
        return works
    library = libraries[flavour]
    if _version(library.version) < (10,):
        reason = f"TensorRT {library.version} is too old: the course needs 10.0 or newer."
        return _no(reason, _install(requirement("tensorrt")))
    if gpu is None:
        reason = f"TensorRT {library.version} needs an NVIDIA GPU also to build; TensorRT-RTX doesn't."
        return _no(reason, _use_rtx(gpu, libraries))
    if _version(gpu.compute_capability) < (7, 5):
        reason = f"{gpu.name} has compute capability {gpu.compute_capability}; the course needs 7.5 or newer."
        return _no(reason, _use_rtx(gpu, libraries))
    if _version(gpu.compute_capability) >= (10, 0) and _version(library.version) < (10, 8):
        reason = f"TensorRT {library.version} doesn't know compute capability {gpu.compute_capability} (Blackwell)."
        return _no(reason, _install(TENSORRT_FOR_BLACKWELL))
    if error := library.details.get("builder_error"):
        remedy = "Compare its CUDA with the driver's, which `nvidia-smi` shows; else reinstall TensorRT."
        return _no(f"TensorRT {library.version} makes no builder for {gpu.name}: {error}.", remedy)
    return works


def _int8(gpu: Gpu | None, build: Capability, libraries: Mapping[str, Library], flavour: str | None) -> Capability:
    version = libraries[flavour].version if build.available else ""
    if not build.available or flavour != "tensorrt_rtx" or _version(version) >= (1, 7, 1):
        return build
    reason = f"TensorRT-RTX {version} can't build INT8 convolutions; 1.7.1 is the first that can."
    if gpu and gpu.compute_capability == HOPPER:
        keep = f"Nothing is broken: keep {version}, since 1.7.1 builds INT8 but runs no engine on Hopper."
        return _no(reason, keep, harmless=True)
    return _no(reason, _install(requirement("tensorrt_rtx")))


def _tensorrt_run(
    gpu: Gpu, build: Capability, pycuda: Capability, libraries: Mapping[str, Library], flavour: str | None
) -> Capability:
    if not build.available:
        return build
    if flavour == "tensorrt_rtx":
        if _version(gpu.compute_capability) < (7, 5):
            reason = f"TensorRT-RTX needs compute capability 7.5 or newer; {gpu.name} has {gpu.compute_capability}."
            return _no(reason, "Nothing is broken: ONNX Runtime runs the models on this GPU.", harmless=True)
        version = libraries[flavour].version
        if gpu.compute_capability == HOPPER and _version(version) >= (1, 7):
            refuses = f"TensorRT-RTX {version} refuses to load engines on compute capability 9.0 (Hopper); "
            return _no(f"{refuses}1.6.1.120 was measured to work there.", _install(_rtx_for(gpu)))
    if not pycuda.available:
        return _no(f"Running engines needs PyCUDA. {pycuda.reason}", pycuda.remedy)
    return Capability("", True, f"{build.reason.rstrip('.')} on {gpu.name}.", "")


def _paddle_gpu(gpu: Gpu, paddle: Capability, libraries: Mapping[str, Library]) -> Capability:
    build = _paddle_gpu_build(paddle, libraries)
    if not build.available:
        return build
    library = libraries["paddle"]
    if lacks := paddle_kernels.missing(tuple(library.details.get("kernels", ())), gpu.compute_capability):
        remedy = "Run Paddle on the CPU. Paddle-TensorRT runs what becomes an engine as a whole."
        return _no(f"Paddle {library.version} {lacks} ({gpu.name}).", remedy)
    return build


def _paddle_gpu_build(paddle: Capability, libraries: Mapping[str, Library]) -> Capability:
    if not paddle.available:
        return paddle
    library = libraries["paddle"]
    return paddle if library.details["cuda"] else _no(f"Paddle {library.version} is the CPU build.", FULL_STACK)


def _paddle_tensorrt(gpu: Gpu, paddle: Capability, libraries: Mapping[str, Library]) -> Capability:
    build = _paddle_gpu_build(paddle, libraries)
    if not build.available:
        only = " Only Paddle's GPU builds hold paddle.tensorrt." if paddle.available else ""
        return dataclasses.replace(build, reason=build.reason + only)
    library = libraries["paddle"]
    compiled = ".".join(str(number) for number in library.details["tensorrt"])
    if compiled == "0.0.0":
        return _no(f"Paddle {library.version} was compiled without TensorRT.", FULL_STACK)
    works = _works("tensorrt", libraries)  # never TensorRT-RTX: Paddle links against libnvinfer
    if not works.available:
        return dataclasses.replace(works, reason=f"Paddle was compiled for TensorRT {compiled}. {works.reason}")
    installed = libraries["tensorrt"].version
    if _version(installed)[:1] != _version(compiled)[:1]:
        reason = f"Paddle was compiled for TensorRT {compiled}, and {installed} is installed."
        return _no(reason, _install(f"tensorrt=={compiled}"))
    found = f"Paddle {library.version}, compiled for TensorRT {compiled}, with {installed}."
    if paddle_kernels.missing(tuple(library.details.get("kernels", ())), gpu.compute_capability):
        found += f" On {gpu.name}, only programs that become engines as a whole."
    return Capability("", True, found, "")


def _no(reason: str, remedy: str, *, harmless: bool = False) -> Capability:
    return Capability("", False, reason, remedy, harmless)


def _use_rtx(gpu: Gpu | None, libraries: Mapping[str, Library]) -> str:
    if "tensorrt_rtx" in libraries:
        return f"TensorRT-RTX is installed: set {FLAVOUR_VARIABLE}=tensorrt_rtx."
    return _install(_rtx_for(gpu))


def _rtx_for(gpu: Gpu | None) -> str:
    extra = "hopper" if gpu and gpu.compute_capability == HOPPER else "default"
    return requirement("tensorrt_rtx", extra)


def _install(*requirements: str, options: str = "") -> str:
    return f"Run `{pip_install(*requirements, options=options)}`."


def _version(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, or of a compute capability: "10.5.0.post1" is (10, 5, 0)."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(number) for number in match.group().split(".")) if match else ()
