"""What NVIDIA's kernel profiler `ncu` counts of an engine's call: instructions on the Tensor Cores, cycles they work.

The names of these counters differ between GPUs, so that ncu itself is asked for those of the GPU at hand.
"""

import re
from collections.abc import Sequence
from typing import Any

from tutorial_utils.base.errors import PlanError
from tutorial_utils.measure import ncu

# Of the counters that ncu lists for a GPU, those of Tensor Cores, and how each is to be summed up.
_WANTED = {
    r"sm__inst_executed_pipe_tensor\w*": "sum",
    r"sm__pipe_tensor\w*_cycles_active": "avg.pct_of_peak_sustained_active",
}
_ALWAYS = ("gpu__time_duration.sum", "sm__inst_executed.sum")


def counted(plan: bytes) -> list[dict[str, Any]]:
    """Run a plan once under ncu; return for each kernel its name, and its counts by metric. See `ncu.counted`."""
    ncu.require()
    return ncu.counted(plan, chosen(ncu.metrics()))


def chosen(names: Sequence[str]) -> list[str]:
    """Return which metrics to ask for, of those of this GPU.

    Raises:
        PlanError: None of them is of Tensor Cores.
    """
    found = [f"{name}.{rollup}" for name in names for pattern, rollup in _WANTED.items() if re.fullmatch(pattern, name)]
    if not found:
        raise PlanError("ncu lists no counter of Tensor Cores for this GPU.", "Read ncu --query-metrics.")
    return [*found, *_ALWAYS]
