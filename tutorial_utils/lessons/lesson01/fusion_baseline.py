"""Lesson 01, what fusion buys: the same library with it and without, and one chain of operators as many and as one.

ONNX Runtime runs each network with its graph optimizations disabled and with all of them. PyTorch and TensorRT run four
element-wise operators one by one and as one kernel, on a tensor so large that its bytes take the time, and on one so
small that the launches do: see `fused_chain`.
"""

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import BackendUnavailableError, first_line
from tutorial_utils.lessons.lesson01 import fused_chain, fusion_baseline_figures, ways
from tutorial_utils.lessons.lesson01.ways import Way
from tutorial_utils.measure import on_stream, rows
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.model import half_precision, onnx_file

METHOD = (
    "CUDA events around each call on one stream, copies left out, data on the GPU; calls are enqueued one after "
    "another, so that the host may be the limit; after a warm-up until steady, the ways of a row take turns in 10 "
    "rounds; medians with 95 % intervals; graph: the same, replayed as a CUDA graph. kernels: those of one call, by "
    "PyTorch's profiler (CUPTI). ONNX Runtime's CUDA provider without TF32 and without fallback to the CPU, default "
    "search for convolutions. Chain: relu(x + bias) + other, times a scale, FP16; PyTorch eager and torch.compile; "
    "TensorRT with one engine for each operator on one stream, and with one engine for all, optimization level 3"
)
NETWORKS = {  # ONNX files and the shapes that they run at
    "quick-fp32": ((64, 3, 32, 32),),
    "quick-fp16": ((64, 3, 32, 32),),
    "resnet50-fp32": ((64, 3, 32, 32), (64, 3, 224, 224)),
    "resnet50-fp16": ((64, 3, 32, 32), (64, 3, 224, 224)),
}


def networks(stem: str, shape: tuple[int, ...], models: Mapping[str, Path]) -> dict[str, Any]:
    """Run a network in ONNX Runtime without graph optimizations and with all; return the fields of two `Way`."""
    torch = on_stream.require_torch()
    stream = torch.cuda.Stream()
    with tempfile.TemporaryDirectory() as folder, torch.cuda.stream(stream):
        network, precision = stem.split("-")
        model = onnx_file.open_image_size(onnx_file.load(models[f"{network}-fp32"]))
        path = onnx_file.save(model, Path(folder) / "fp32.onnx")
        if precision == "fp16":
            path = half_precision.to_fp16(path, Path(folder) / "fp16.onnx")
        images = torch.from_numpy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32)).cuda()
        calls, graphs, no_graph = {}, {}, {}
        for name, optimize in (("disabled", False), ("all", True)):
            open_session = functools.partial(session, path, stream, optimize, tensor_cores=precision == "fp16")
            calls[name] = on_stream.onnxruntime_call(open_session(), torch, images)
            try:
                graphs[name] = on_stream.onnxruntime_call(open_session(graph=True), torch, images)
                for _ in range(3):  # ONNX Runtime captures in its first runs
                    graphs[name]()
                stream.synchronize()
            except Exception as error:  # ONNX Runtime's exceptions have no common base class
                graphs.pop(name, None)
                no_graph[name] = f"ONNX Runtime: {first_line(error)}."
        return ways.timed(torch, stream, calls, graphs, no_graph, {})


def session(path: Path, stream: Any, optimize: bool, tensor_cores: bool, graph: bool = False) -> Any:
    """Return a session on a stream: ``optimize=False`` is ONNX Runtime's level ORT_DISABLE_ALL.

    Without Tensor Cores, FP32 isn't TF32. The provider's setting for that takes them from FP16, too.
    """
    options = {
        "device_id": "0",
        "use_tf32": str(int(tensor_cores)),
        "enable_cuda_graph": str(int(graph)),
        "user_compute_stream": str(stream.cuda_stream),
    }
    opened = onnx_session.open_model(
        path, providers=[("CUDAExecutionProvider", options)], optimize=optimize,
        entries={"session.disable_cpu_ep_fallback": "1"},  # a node on the CPU would be no matter of fusion
    )  # fmt: skip
    if opened.get_providers()[0] != "CUDAExecutionProvider":
        raise BackendUnavailableError("ONNX Runtime has no CUDA provider here.", "Install onnxruntime-gpu.")
    return opened


def read(data: Mapping[str, Any]) -> dict[str, tuple[Way, ...] | str]:
    """Return the ways of each row, in the order of `ROWS`; where there are none, the reason."""
    recorded = {row.name: row for row in rows.read(data)}
    found = [recorded[name] for name in ROWS if name in recorded]
    return {row.name: row.reason if row.values is None else ways.from_plain(row.values) for row in found}


ROWS = {
    **{f"chain/{library.__name__}/{size}": functools.partial(library, size)
       for size in fused_chain.SIZES for library in (fused_chain.pytorch, fused_chain.tensorrt)},
    **{f"onnxruntime/{stem}/{'x'.join(map(str, shape))}": functools.partial(networks, stem, shape)
       for stem, shapes in NETWORKS.items() for shape in shapes},
}  # fmt: skip

EXPERIMENT = Experiment(
    name="lesson01_fusion_baseline",
    title="With and without fusion: networks in ONNX Runtime, a chain of operators in PyTorch and TensorRT",
    method=METHOD,
    rows=ROWS,
    read=read,
    draw=lambda measured: fusion_baseline_figures.draw_chains(measured.result),
    models=("quick-fp32.onnx", "resnet50-fp32.onnx"),
    libraries=on_stream.libraries,
)
