"""Lesson 01, where the time of a call goes: launches, bytes, arithmetic. ResNet-50 under the roofs of its GPU.

A layer can't be faster than its arithmetic at the GPU's best rate, nor than its bytes at the bandwidth of its memory.
What a call takes beyond the larger of the two, layer by layer, is spent on starting kernels and on kernels too small to
fill the GPU.
"""

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutorial_utils import engine
from tutorial_utils.base import flavour
from tutorial_utils.base.errors import CourseError
from tutorial_utils.engine.tensorrt import LayerTimes, trt
from tutorial_utils.inspection import engine_layers
from tutorial_utils.lessons.lesson01 import chip, gpu_kernels, layer_work
from tutorial_utils.lessons.lesson01.roofline_data import PRECISIONS, Call, Chip, Layer, Roofline
from tutorial_utils.measure import gpu_state, on_stream, rows, timing
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.model import half_precision, onnx_file

if TYPE_CHECKING:
    from tutorial_utils.runners.tensorrt import TensorRTRunner

SHAPES = ((1, 3, 32, 32), (64, 3, 32, 32), (1, 3, 224, 224), (64, 3, 224, 224), (1024, 3, 32, 32))
LEVEL = 3
METHOD = (
    f"ResNet-50 with 10 classes, random weights and images, static shapes, optimization level {LEVEL}, typed by the "
    "file, inputs and outputs FP32; one timing cache for all rows. plain: CUDA events around each call, copies left "
    "out, calls enqueued one after another, so that the host may be the limit; graph: the same, replayed as a CUDA "
    "graph; medians with 95 % intervals. kernels: those of one call and their own times, by PyTorch's profiler (CUPTI)."
    " layers: TensorRT's IProfiler, median of 50 calls, which together take longer than a call. Multiply-adds and least"
    " bytes of a layer: inputs, outputs and weights of the ONNX nodes in it. Roofs: PyTorch's product of 8192 x 8192 "
    "random matrices after 1.5 s under load; 20 copies within device memory in a CUDA graph, bytes read plus written; "
    "empty kernels launched 500 at a time"
)
_CALLS = 50


def layer_times(runner: "TensorRTRunner", calls: int = _CALLS) -> dict[str, float]:
    """Let TensorRT time each layer; return medians in milliseconds by name, in the order of execution."""
    runner.context.profiler = times = LayerTimes()
    runner.event_times(3)  # to warm up
    times.milliseconds.clear()
    for _ in range(calls):
        runner.event_times(1)
    return {name: float(np.median(ms)) for name, ms in times.milliseconds.items()}


def measure_call(precision: str, shape: tuple[int, ...], models: Mapping[str, Path]) -> dict[str, Any]:
    """Build ResNet-50 for a shape, and time it as a whole and layer by layer; return the fields of a `Call`.

    Raises:
        BackendUnavailableError: Data-centre TensorRT, PyTorch or a GPU is missing.
    """
    torch = on_stream.require_torch()
    flavour.require("tensorrt")
    from tutorial_utils.runners.tensorrt import TensorRTRunner, primary_context

    with tempfile.TemporaryDirectory() as folder:
        path = models["resnet50-fp32"]
        if precision == "fp16":
            path = half_precision.to_fp16(path, Path(folder) / "fp16.onnx")
        static = layer_work.at_shape(path, shape, Path(folder) / f"resnet50-{precision}.onnx")
        built = engine.build(static, engine.BuildOptions(optimization_level=LEVEL), progress=False)
        graph = onnx_file.load(static).graph
    feeds = {"x": np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}
    graph_times, no_graph = None, ""
    with primary_context(), TensorRTRunner(built) as runner:
        runner.context.nvtx_verbosity = trt.ProfilingVerbosity.NONE  # its marks would lengthen each launch
        plain = _interval(runner, feeds)
        kernels = gpu_kernels.launched(torch, runner.run)
        try:
            with TensorRTRunner(runner, cuda_graph=True) as replayed:
                graph_times = _interval(replayed, feeds)
        except CourseError as error:
            no_graph = error.cause
        state = gpu_state.read()
        times = layer_times(runner)
    return {
        "precision": precision,
        "shape": list(shape),
        "plain": plain,
        "graph": graph_times,
        "no_graph": no_graph,
        "kernels": len(kernels),
        "kernels_ms": round(sum(kernel.ms for kernel in kernels), 4),
        "layers": layers_with_times(graph, built.report.layers, times),
        "build_s": round(built.report.build_seconds, 1),
        "state": state,
    }


def layers_with_times(graph: Any, layers: Any, times: Mapping[str, float]) -> list[list[Any]]:
    """Return the fields of a `Layer` for each layer that TensorRT timed; one that no report names has no work."""
    works = dict(zip((layer.name for layer in layers), layer_work.of_layers(graph, layers), strict=True))
    by_name = {layer.name: layer for layer in layers}
    found = []
    for name, ms in times.items():
        layer, work = by_name.get(name), works.get(name, layer_work.Work(0, 0))
        kind = engine_layers.kind(layer) if layer else ""
        found.append([name, kind, round(ms, 5), work.multiply_adds, work.bytes, layer.tactic if layer else ""])
    return found


def _interval(runner: "TensorRTRunner", feeds: Mapping[str, np.ndarray]) -> list[float]:
    times = timing.measure_on_device(functools.partial(runner.device_times, feeds), seconds=0.5)
    return [round(ms, 4) for ms in (times.median_ms, *timing.median_interval(times))]


def measure_chip(what: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """Measure one of the roofs, "copies", "products" or "launches"; return it as `chip` does."""
    torch = on_stream.require_torch()
    if what == "launches":
        return chip.launch_times()
    found = chip.copy_rates(torch) if what == "copies" else chip.product_rates(torch)
    return {str(name): value for name, value in found.items()}


def read(data: Mapping[str, Any]) -> Roofline:
    """Return what was measured."""
    recorded = {row.name: row for row in rows.read(data)}
    roofs = {what: recorded[name].values or {} if (name := f"chip/{what}") in recorded else {} for what in CHIP}
    limits = Chip(
        {int(size): rate for size, rate in roofs["copies"].items()},
        {name: one["flops"] for name, one in roofs["products"].items()},
        roofs["launches"],
    )
    calls = [_call(recorded[name].values) for name in ROWS if name in recorded and name not in _CHIP_ROWS
             and recorded[name].values]  # fmt: skip
    reasons = {name: row.reason for name, row in recorded.items() if row.values is None}
    return Roofline(limits, tuple(calls), reasons)


def _call(values: Mapping[str, Any]) -> Call:
    intervals = {name: values[name] and tuple(values[name]) for name in ("plain", "graph")}
    layers = tuple(Layer(*layer) for layer in values["layers"])
    return Call(**{**values, **intervals, "shape": tuple(values["shape"]), "layers": layers})


CHIP = ("copies", "products", "launches")
_CHIP_ROWS = {f"chip/{what}": functools.partial(measure_chip, what) for what in CHIP}
ROWS = _CHIP_ROWS | {
    f"{precision}/{'x'.join(map(str, shape))}": functools.partial(measure_call, precision, shape)
    for shape in SHAPES
    for precision in PRECISIONS
}

EXPERIMENT = Experiment(
    name="lesson01_roofline",
    title="ResNet-50 under the roofs of its GPU: launches, bytes and arithmetic",
    method=METHOD,
    rows=ROWS,
    read=read,
    models=("resnet50-fp32.onnx",),
    libraries=on_stream.libraries,
)
