"""Lesson 01, what fusion buys: four element-wise operators one by one and as one kernel, in PyTorch and in TensorRT.

On a tensor so large that its bytes take the time, and on one so small that the launches do: see `fused_chain`.
"""

import functools
from collections.abc import Mapping
from typing import Any

from tutorial_utils.lessons.lesson01 import fused_chain, fusion_baseline_figures, ways
from tutorial_utils.lessons.lesson01.ways import Way
from tutorial_utils.measure import on_stream, rows
from tutorial_utils.measure.experiment import Experiment

METHOD = (
    "CUDA events around each call on one stream, copies left out, data on the GPU; calls are enqueued one after "
    "another, so that the host may be the limit; after a warm-up until steady, the ways of a row take turns in 10 "
    "rounds; medians with 95 % intervals; graph: the same, replayed as a CUDA graph. kernels: those of one call, by "
    "PyTorch's profiler (CUPTI). Chain: relu(x + bias) + other, times a scale, FP16; PyTorch eager and torch.compile; "
    "TensorRT with one engine for each operator on one stream, and with one engine for all, optimization level 3"
)


def read(data: Mapping[str, Any]) -> dict[str, tuple[Way, ...] | str]:
    """Return the ways of each row, in the order of `ROWS`; where there are none, the reason."""
    recorded = {row.name: row for row in rows.read(data)}
    found = [recorded[name] for name in ROWS if name in recorded]
    return {row.name: row.reason if row.values is None else ways.from_plain(row.values) for row in found}


ROWS = {
    f"chain/{library.__name__}/{size}": functools.partial(library, size)
    for size in fused_chain.SIZES
    for library in (fused_chain.pytorch, fused_chain.tensorrt)
}

EXPERIMENT = Experiment(
    name="lesson01_fusion_baseline",
    title="A chain of operators with and without fusion, in PyTorch and TensorRT",
    method=METHOD,
    rows=ROWS,
    read=read,
    draw=lambda measured: fusion_baseline_figures.draw_chains(measured.result),
    libraries=on_stream.libraries,
)
