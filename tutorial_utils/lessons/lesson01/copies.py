"""Lesson 01, copies from the host to the GPU: from pinned and from pageable memory, and whether calls wait.

The GPU copies by itself from memory that the operating system may not move (pinned). Memory of any other kind is first
copied by the processor into a pinned buffer of the driver.
"""

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils import plotting
from tutorial_utils.measure import rows
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.plotting import BLUE, ORANGE, Picture

SIZES = tuple(2**power for power in range(12, 29, 2))  # 4 KiB to 256 MiB
_CALLS = 21
METHOD = (
    f"PyCUDA's memcpy_htod_async on a stream, {_CALLS} copies of each size, medians; the array was written before. "
    "call: host's clock until memcpy_htod_async returns; copy: until the stream is synchronized"
)
KINDS = ("pinned", "pageable")


@dataclass(frozen=True)
class Copy:
    """Copies of one size from one kind of memory: milliseconds."""

    kind: str
    bytes: int
    call_ms: float
    copy_ms: float

    @property
    def bandwidth(self) -> float:
        """Bytes per second, from the call to the end of the copy."""
        return 1000 * self.bytes / self.copy_ms

    @property
    def returns_before(self) -> float:
        """The share of the copy that goes on after the call has returned, 0 to 1."""
        return 1 - self.call_ms / self.copy_ms


def measure(kind: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """Copy arrays of all `SIZES` to the GPU; return the fields of each `Copy`.

    Raises:
        BackendUnavailableError: There is no GPU.
    """
    from tutorial_utils.runners.tensorrt import primary_context

    with primary_context():
        return {"copies": [[kind, size, *_copied(kind, size)] for size in SIZES]}


def _copied(kind: str, size: int) -> list[float]:
    from tutorial_utils.runners.tensorrt import cuda

    array = cuda.pagelocked_empty(size, np.uint8) if kind == "pinned" else np.empty(size, np.uint8)
    array[:] = 1  # so that the memory is there
    target, stream = cuda.mem_alloc(size), cuda.Stream()
    times = []
    for _ in range(_CALLS + 3):
        begin = time.perf_counter()
        cuda.memcpy_htod_async(target, array, stream)
        returned = time.perf_counter()
        stream.synchronize()
        ended = time.perf_counter()
        times.append((1000 * (returned - begin), 1000 * (ended - begin)))
    target.free()
    return [round(float(ms), 5) for ms in np.median(times[3:], axis=0)]


def read(data: Mapping[str, Any]) -> list[Copy]:
    """Return the copies of all rows."""
    return [Copy(*one) for row in rows.read(data) if row.values for one in row.values["copies"]]


def draw(copies: list[Copy]) -> Picture:
    """Draw bandwidth, and how much of the copy goes on after the call, over the size."""
    figure, panels = plotting.new_figure(3.4, ncols=2)
    lines = []
    for kind, colour, marker in zip(KINDS, (BLUE, ORANGE), "os", strict=True):
        some = [one for one in copies if one.kind == kind]
        sizes = [one.bytes / 2**10 for one in some]
        panels[0].plot(sizes, [one.bandwidth / 1e9 for one in some], f"{marker}-", color=colour, label=f"{kind} memory")
        panels[1].plot(sizes, [100 * one.returns_before for one in some], f"{marker}-", color=colour)
        lines += [f"{kind:8} {_size(one.bytes):>8}: {one.bandwidth / 1e9:6.2f} GB/s; the call returns after "
                  f"{one.call_ms:.4f} of {one.copy_ms:.4f} ms" for one in some]  # fmt: skip
    for panel in panels:
        panel.set_xscale("log", base=2)
        panel.set_xticks([2**power for power in (2, 6, 10, 14, 18)], ["4 KiB", "64 KiB", "1 MiB", "16 MiB", "256 MiB"])
        panel.minorticks_off()
        panel.grid(axis="y", color="#dddddd", linewidth=0.8)
        panel.set_xlabel("size of the copy")
        panel.set_ylim(bottom=0)
    panels[0].set_ylabel("GB per second")
    panels[1].set_ylabel("% of the copy after the call's return")
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    largest = [one for one in copies if one.bytes == max(SIZES)]
    told = ", ".join(f"from {one.kind} memory {one.bandwidth / 1e9:.1f} GB/s" for one in largest)
    return Picture(figure, f"Copies to the GPU by size. The largest: {told}.", "\n".join(lines))


def _size(size: int) -> str:
    return f"{size // 2**20} MiB" if size >= 2**20 else f"{size // 2**10} KiB"


EXPERIMENT = Experiment(
    name="lesson01_copies",
    title="Copies to the GPU from pinned and from pageable memory",
    method=METHOD,
    rows={kind: functools.partial(measure, kind) for kind in KINDS},
    read=read,
    draw=lambda measured: draw(measured.result),
)
