"""The kernels that a call launches, whichever library launches them: PyTorch's profiler sees all of a process."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tutorial_utils.base.errors import BackendUnavailableError


@dataclass(frozen=True)
class Kernel:
    """A kernel that ran on the GPU: its name, and its own time from its first to its last instruction."""

    name: str
    ms: float


def launched(torch: ModuleType, call: Callable[[], Any]) -> list[Kernel]:
    """Return the kernels that a call launches, in the order in which they began.

    Raises:
        BackendUnavailableError: The profiler sees none, as where the driver keeps its counters to administrators.
    """
    for _ in range(2):  # CUDA's profiling starts with the first, and may miss its kernels
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            call()
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        kernels = in_trace(json.loads(trace.read_text())["traceEvents"])
    if not kernels:
        raise BackendUnavailableError("PyTorch's profiler sees no kernels here.", "See whether CUPTI is installed.")
    return kernels


def in_trace(events: Sequence[dict[str, Any]]) -> list[Kernel]:
    """Return the kernels among the events of a Chrome trace, whose times are microseconds: copies are no kernels."""
    found = [event for event in events if event.get("cat") == "kernel"]
    return [Kernel(event["name"], event["dur"] / 1000) for event in sorted(found, key=lambda event: event["ts"])]
