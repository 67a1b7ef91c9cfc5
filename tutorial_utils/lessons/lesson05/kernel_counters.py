"""Lesson 05, time: what Nsight Compute counts of the kernels of one engine, and what bounds each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutorial_utils.lessons.lesson05.program_models import MODEL, built
from tutorial_utils.measure import ncu, rows
from tutorial_utils.measure.experiment import Experiment

BATCH = 64
# Those of ncu's section "GPU Speed Of Light Throughput", and the bytes that device memory moves.
DURATION, BYTES = "gpu__time_duration.sum", "dram__bytes.sum"
COMPUTE = "sm__throughput.avg.pct_of_peak_sustained_elapsed"
MEMORY = "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed"
DRAM = "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed"
METRICS = (DURATION, COMPUTE, MEMORY, DRAM, BYTES)
METHOD = (
    f"ResNet-50 FP16, {BATCH} images; one call of the engine under ncu with --metrics {','.join(METRICS)}, else its "
    "defaults: every kernel runs several times, with caches emptied before and clocks held at their base"
)
# Below this share of either peak, a kernel is bound by neither: NVIDIA's guide calls such kernels latency bound.
ENOUGH_PERCENT = 60
_NANOSECONDS = {"ns": 1, "nsecond": 1, "us": 1e3, "usecond": 1e3, "ms": 1e6, "msecond": 1e6}


@dataclass(frozen=True)
class Kernel:
    """A kernel of one call: microseconds, and how much of the GPU's peaks it reaches, in percent.

    ``compute`` is the busiest unit of the multiprocessors, which need not be one that multiplies; ``memory`` the
    busiest of shared memory, caches and device memory; ``device_memory`` the last alone.
    """

    name: str
    microseconds: float
    compute: float
    memory: float
    device_memory: float

    @property
    def bound(self) -> str:
        """What bounds it: "compute", "memory", or "neither"."""
        if max(self.compute, self.memory) < ENOUGH_PERCENT:
            return "neither"
        return "compute" if self.compute > self.memory else "memory"


def measure(models: Mapping[str, Path]) -> dict[str, Any]:
    """Let ncu count a call of the engine; return its kernels, as `read` takes them.

    Raises:
        BackendUnavailableError: There is no ncu.
        PlanError: It counts nothing.
    """
    ncu.require()
    engine, shape = built(models[MODEL], BATCH)
    return {"shape": list(shape), "kernels": ncu.counted(engine.plan, METRICS)}


def read(data: Mapping[str, Any]) -> list[Kernel]:
    """Return the kernels in the order in which they ran; none where nothing could be counted."""
    found = []
    for row in rows.read(data):
        for one in (row.values or {"kernels": []})["kernels"]:
            counts = one["counts"]
            if {DURATION, COMPUTE, MEMORY, DRAM} <= counts.keys():
                nanoseconds = counts[DURATION] * _NANOSECONDS[one["units"][DURATION]]
                found.append(Kernel(one["kernel"], nanoseconds / 1000, counts[COMPUTE], counts[MEMORY], counts[DRAM]))
    return found


def three(kernels: Sequence[Kernel]) -> list[Kernel]:
    """Return three kernels that show what a kernel can be bound by: of each kind, the one that takes longest.

    Where a kind is missing, the kernels that take longest fill the place.
    """
    longest = sorted(kernels, key=lambda kernel: -kernel.microseconds)
    chosen = [next((one for one in longest if one.bound == what), None) for what in ("compute", "memory", "neither")]
    found = [one for one in chosen if one is not None]
    return (found + [one for one in longest if one not in found])[:3]


EXPERIMENT = Experiment(
    name="lesson05_ncu",
    title="What Nsight Compute counts of the kernels of ResNet-50 in FP16",
    method=METHOD,
    rows={f"batch {BATCH}": measure},
    read=read,
    models=(f"{MODEL}.onnx",),
)
