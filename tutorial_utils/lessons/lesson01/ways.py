"""Ways to do the same on a GPU, timed in turn: as calls and as CUDA graphs, with the kernels that they launch."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tutorial_utils.base.errors import first_line
from tutorial_utils.lessons.lesson01 import gpu_kernels
from tutorial_utils.measure import on_stream, timing


@dataclass(frozen=True)
class Way:
    """One way to run a network or a chain.

    Attributes:
        name: Of the way.
        plain, graph: Milliseconds: median and the ends of its 95 % interval. graph is None where `no_graph` says why.
        kernels: How many kernels a call launches.
        kernels_ms: Their own times together.
        moved: Bytes that its kernels read and write at least; 0 where that isn't known.
    """

    name: str
    plain: tuple[float, float, float]
    graph: tuple[float, float, float] | None
    no_graph: str
    kernels: int
    kernels_ms: float
    moved: int = 0

    @property
    def best_ms(self) -> float:
        """The shorter of both medians."""
        return min(one[0] for one in (self.plain, self.graph) if one)

    @property
    def bandwidth(self) -> float:
        """Bytes per second of the shorter median."""
        return 1000 * self.moved / self.best_ms


def captured(torch: ModuleType, stream: Any, calls: Mapping[str, Callable[[], Any]]) -> tuple[dict, dict]:
    """Capture each call as a CUDA graph; return their replays and the reasons where there is none."""
    graphs, reasons = {}, {}
    for name, call in calls.items():
        try:
            for _ in range(3):  # what happens only in the first calls must not be captured
                call()
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                call()
            graphs[name] = graph.replay
        except Exception as error:  # PyTorch and CUDA raise whatever they like
            reasons[name] = f"{first_line(error)}."
    return graphs, reasons


def timed(
    torch: ModuleType,
    stream: Any,
    calls: Mapping[str, Callable[[], Any]],
    graphs: Mapping[str, Callable[[], Any]],
    no_graph: Mapping[str, str],
    moved: Mapping[str, int],
) -> dict[str, Any]:
    """Time calls and their graphs in turn; return the fields of each `Way` under "ways".

    Args:
        torch, stream: PyTorch, and its stream on which all of them run.
        calls: By the names of the ways.
        graphs: Those of them that replay as a CUDA graph, too.
        no_graph: Why others don't.
        moved: Bytes that a call's kernels read and write at least, where they are known.
    """
    both = {(name, kind): call for kind, some in (("plain", calls), ("graph", graphs)) for name, call in some.items()}
    clocks = {key: functools.partial(on_stream.event_times, torch, stream, call) for key, call in both.items()}
    times = timing.measure_on_device_in_turn(clocks, seconds=0.5)
    found = []
    for name, call in calls.items():
        kernels = gpu_kernels.launched(torch, call)
        found.append({
            "name": name,
            "plain": _interval(times[name, "plain"]),
            "graph": _interval(times[name, "graph"]) if (name, "graph") in times else None,
            "no_graph": no_graph.get(name, ""),
            "kernels": len(kernels),
            "kernels_ms": round(sum(kernel.ms for kernel in kernels), 4),
            "moved": moved.get(name, 0),
        })  # fmt: skip
    return {"ways": found}


def _interval(measured: timing.Measurement) -> list[float]:
    return [round(ms, 5) for ms in (measured.median_ms, *timing.median_interval(measured))]


def from_plain(values: Mapping[str, Any]) -> tuple[Way, ...]:
    """Read ways back from `timed`."""
    return tuple(
        Way(**{**way, **{name: way[name] and tuple(way[name]) for name in ("plain", "graph")}})
        for way in values["ways"]
    )
