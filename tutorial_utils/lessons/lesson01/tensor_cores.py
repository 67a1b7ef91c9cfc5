"""Lesson 01, Tensor Cores: what NVIDIA's profiler `ncu` counts on them, of one convolution in three precisions."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutorial_utils.base.errors import PlanError
from tutorial_utils.lessons.lesson01 import kernels
from tutorial_utils.measure import ncu, rows
from tutorial_utils.measure.experiment import Experiment

CONVOLUTION = kernels.CONVOLUTIONS[0]
METHOD = (
    f"one call of an engine of one convolution, {CONVOLUTION}, under ncu; instructions are counted for each warp of "
    "32 threads, of all kernels together; strongly typed, TF32 cleared for FP32"
)
# GPUs name these counters differently: on Hopper, ..._op_gmma_... counts the instructions of its newer kernels.
_ON_TENSOR_CORES = re.compile(r"sm__inst_executed_pipe_tensor\w*")
_PIPE = "sm__inst_executed_pipe_tensor.sum"
# The pipe also takes HFMA2, a multiply-add of two packed FP16 numbers, no matrices: a kernel that multiplies in FP32
# counts those alone, and without them the rest are exactly Hopper's matrix instructions (gmma).
_NO_MATRICES = "sm__inst_executed_pipe_tensor_op_hmma_type_hfma2.sum"
_ALL, _DURATION = "sm__inst_executed.sum", "gpu__time_duration.sum"


@dataclass(frozen=True)
class Counted:
    """What ncu counted of one call.

    Attributes:
        kernel: The name of the kernel that took longest.
        tensor_instructions: Instructions on Tensor Cores that multiply matrices.
        instructions: All of them.
    """

    kernel: str
    tensor_instructions: int
    instructions: int


def measure(precision: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """Let ncu count a call of the convolution's engine; return its longest kernel, all instructions, and each counter.

    Raises:
        BackendUnavailableError: There is no ncu, no GPU or no data-centre TensorRT.
        PlanError: This GPU has no such counters, or ncu may not read them.
    """
    ncu.require()
    counters = chosen(ncu.metrics())
    counted = ncu.counted(kernels.build(CONVOLUTION, precision).plan, (*counters, _ALL, _DURATION))
    sums = {name: int(sum(one["counts"].get(name, 0) for one in counted)) for name in (*counters, _ALL)}
    return {
        "kernel": max(counted, key=lambda one: one["counts"][_DURATION])["kernel"],
        "instructions": sums[_ALL],
        "counters": {name: sums[name] for name in counters},
    }


def chosen(names: Sequence[str]) -> list[str]:
    """Return the counters of instructions on Tensor Cores, of those that ncu lists for a GPU.

    Raises:
        PlanError: There are none.
    """
    found = [f"{name}.sum" for name in names if _ON_TENSOR_CORES.fullmatch(name)]
    if not found:
        raise PlanError("ncu lists no counter of Tensor Cores for this GPU.", "Read ncu --query-metrics.")
    return found


def read(data: Mapping[str, Any]) -> dict[str, Counted]:
    """Return the counts by precision; one that couldn't be counted is left out."""
    return {row.name: _counted(**row.values) for row in rows.read(data) if row.values}


def _counted(kernel: str, instructions: int, counters: Mapping[str, int]) -> Counted:
    return Counted(kernel, counters[_PIPE] - counters.get(_NO_MATRICES, 0), instructions)


EXPERIMENT = Experiment(
    name="lesson01_tensor_cores",
    title="Instructions on Tensor Cores of one convolution, counted by Nsight Compute",
    method=METHOD,
    rows={precision: functools.partial(measure, precision) for precision in kernels.PRECISIONS},
    read=read,
)
