"""How a cell is measured: the same for every library, so that only what they do themselves makes a difference."""

import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutorial_utils.base.errors import BackendUnavailableError, PrecisionError
from tutorial_utils.base.flavour import installed_flavour
from tutorial_utils.measure import gpu_state, quality, timing
from tutorial_utils.measure.resnet50_matrix.cells import LIBRARIES, SHAPES, Cell
from tutorial_utils.measure.resnet50_matrix.files import Files

METHOD = (
    "ResNet-50 with 10 classes, random weights, the same in every library; images are normally distributed, inputs and "
    "outputs FP32, so that 16 bits include two casts; each row in a process of its own, each time "
    "after a warm-up until steady. host: host clock around a call from images in host memory to logits in host memory. "
    "device: CUDA events around each call on its stream, without copies; calls are enqueued one after another, so that "
    "the host may be the limit. graph: the same, replayed as a CUDA graph; host_graph: as host, with it. "
    "Intervals: 95 %, bootstrap over rounds. "
    "Static shapes; TensorRT's default optimization level; PyTorch: NCHW, inference_mode, cudnn.benchmark off, 16 bits "
    "by model.to(); ONNX Runtime: default convolution search. Error and agreement: against ONNX Runtime FP32 on the CPU"
)
SECONDS = 0.5  # of each of the times, after a warm-up of at most as long
_MAX_CALLS = 500
_ROUNDED = 1e-5  # what FP32 stays below in this network: an error beyond it comes from numbers of fewer bits


def measure_cell(cell: Cell, models: Mapping[str, Path], seconds: float = SECONDS) -> dict[str, Any]:
    """Measure one cell; return the values of a `Row` as plain values.

    Raises:
        BackendUnavailableError: The library isn't installed here.
        PrecisionError: The library has no such precision, or its FP32 isn't FP32.
    """
    files = Files(models["resnet50-fp32"])
    images, reference = files.images(cell.shape), files.reference(cell.shape)
    how = {"batch": len(images), "seconds": seconds, "max_calls": _MAX_CALLS}
    module = importlib.import_module(f"{__package__}.{LIBRARIES[cell.library]}")
    with module.opened(cell, files) as candidate:
        before = gpu_state.read()
        host = timing.measure(functools.partial(candidate.infer, images), **how)
        on_gpu = {
            name: timed and _interval(timing.measure_on_device(timed, **how))
            for name, timed in (("device", candidate.device_times), ("graph", candidate.graph_times))
        }
        infer_graph = candidate.infer_graph and functools.partial(candidate.infer_graph, images)
        host_graph = infer_graph and _interval(timing.measure(infer_graph, **how))
        after = gpu_state.read()
        logits = candidate.infer(images)
    error = quality.relative_error(logits, reference)
    if cell.precision == "fp32" and error > _ROUNDED:
        raise PrecisionError(
            f"TF32 was turned off, and still numbers are rounded: the relative error is {error:.1e}, and FP32's is "
            f"below {_ROUNDED:.0e}.",
            "Take this library's TF32 for what it is.",
        )
    return {
        "host": _interval(host),
        **on_gpu,
        "host_graph": host_graph,
        "first_call_ms": round(host.first_call_ms, 3),
        "relative_error": float(f"{error:.3g}"),
        "agreement": quality.agreement(logits, reference),
        "gpu_before": before,
        "gpu_after": after,
        **candidate.facts,
        "reasons": dict(candidate.reasons),
    }


def measure_reference(stack: str, models: Mapping[str, Path], seconds: float = SECONDS) -> dict[str, Any]:
    """Measure the row that all stacks share: ONNX Runtime CUDA in FP32 at the first shape. It shows their drift.

    Raises:
        BackendUnavailableError: This is another stack, or has no ONNX Runtime with CUDA.
    """
    here = installed_flavour()
    if here != stack and not (stack == "article" and here is None):
        raise BackendUnavailableError(f"This is the stack of {here}, not of {stack}.", "Measure its own reference row.")
    return measure_cell(Cell("onnxruntime_cuda", "fp32", SHAPES[0]), models, seconds)


def _interval(measurement: timing.Measurement) -> list[float]:
    low, high = timing.median_interval(measurement)
    return [round(ms, 4) for ms in (measurement.median_ms, low, high, measurement.p99_ms)]
