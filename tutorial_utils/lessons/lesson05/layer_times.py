"""What each layer of a network takes, beside what the whole network takes: the two don't agree, and both are needed.

On the CPU, ONNX Runtime's profiler is asked here (`on_cpu`). For an engine, TensorRT's profiler runs on a GPU
(`lesson05.profile`), and `of_engine` brings its numbers into the same form.
"""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tutorial_utils.base import onnx_session
from tutorial_utils.engine import EngineLayer
from tutorial_utils.lessons.lesson05.profile import Profile

_WARM_UP = 3  # calls; the first one also allocates


@dataclass(frozen=True)
class LayerTime:
    """Time of one node or engine layer."""

    name: str  # the node's name, or the ONNX nodes inside an engine layer
    operation: str  # ONNX operator, or the layer's type in the engine; empty where it isn't known
    ms: float


@dataclass(frozen=True)
class TimedLayers:
    """The layers of a network with their times, and the time of the network itself."""

    layers: tuple[LayerTime, ...]  # in the order of execution
    profiled_ms: float  # the call whose layers these are, timed from outside
    network_ms: float  # a call without the profiler: the only number that a user of the network meets
    unit: str = "layers"  # what they are called: "nodes" of ONNX Runtime

    @property
    def sum_ms(self) -> float:
        """The layers together."""
        return sum(layer.ms for layer in self.layers)

    def slowest(self, count: int) -> tuple[LayerTime, ...]:
        """Return the slowest layers, the slowest first."""
        return tuple(sorted(self.layers, key=lambda layer: -layer.ms)[:count])


def on_cpu(onnx_path: str | Path, feeds: Mapping[str, np.ndarray], calls: int = 20) -> TimedLayers:
    """Time the nodes of a model with ONNX Runtime's profiler, on this machine's CPU.

    A session with the profiler and one without take turns. Of each, the fastest call counts, which was disturbed least:
    a disturbance hits other nodes in every call, so that medians of nodes would not add up to the median of the call.

    Args:
        onnx_path: The model.
        feeds: Its inputs by name.
        calls: Calls to time each way, after a warm-up.

    Returns:
        The nodes that ran, which are those of ONNX Runtime's optimized graph, under names of the file (`in_file`).
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = onnx_session.open_model(onnx_path)
        profiling = onnx_session.open_model(onnx_path, profile_prefix=Path(folder) / "profile")
        alone, profiled = [], []
        for _ in range(_WARM_UP + calls):
            alone.append(_timed(plain, feeds))
            profiled.append(_timed(profiling, feeds))
        events = json.loads(Path(profiling.end_profiling()).read_text(encoding="utf-8"))
    each_call = list(zip(profiled, calls_in(events), strict=True))[_WARM_UP:]
    call_ms, layers = min(each_call, key=lambda call: call[0])
    graph = onnx.load(onnx_path, load_external_data=False).graph
    return TimedLayers(in_file(layers, graph), call_ms, min(alone[_WARM_UP:]), "nodes")


def in_file(layers: Sequence[LayerTime], graph: onnx.GraphProto) -> tuple[LayerTime, ...]:
    """Name ONNX Runtime's nodes by those of the file.

    For the CPU it packs channels in blocks (NCHWc), and calls each such node by the tensor that it writes, with
    "_nchwc" behind it. Here it is called by its operator and the last node of the file that is in it.
    """
    writers = {tensor: node.name for node in graph.node for tensor in node.output}

    def name(layer: LayerTime) -> str:
        last = writers.get(layer.name.removesuffix("_nchwc"), "")
        if not last or last == layer.name:
            return layer.name
        return last if last.startswith(layer.operation) else f"{layer.operation} to {last}"

    return tuple(replace(layer, name=name(layer)) for layer in layers)


def _timed(session: Any, feeds: Mapping[str, np.ndarray]) -> float:
    begin = time.perf_counter()
    session.run(None, dict(feeds))
    return 1000 * (time.perf_counter() - begin)


def calls_in(events: Sequence[Mapping[str, Any]]) -> list[list[LayerTime]]:
    """Return the nodes of each call in a profile of ONNX Runtime, in the order in which they ran.

    Args:
        events: The profile's content: events of the Chrome trace format, times in microseconds. The nodes of a call
            stand before the call's own event, ``model_run``. Nodes inside ``If`` or ``Loop`` count twice: for
            themselves, and within the node that holds them.
    """
    calls: list[list[LayerTime]] = []
    running: list[LayerTime] = []
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            layer = LayerTime(name.removesuffix("_kernel_time"), event["args"]["op_name"], event["dur"] / 1000)
            running.append(layer)
        elif name == "model_run":
            calls.append(running)
            running = []
    return calls


def of_engine(profile: Profile, layers: Sequence[EngineLayer] = ()) -> TimedLayers:
    """Bring what TensorRT's profiler said about an engine into the same form.

    ONNX nodes stand for the names of those layers that are given, where they have any.
    """
    known = {layer.name: (", ".join(layer.onnx_nodes) or layer.name, layer.type) for layer in layers}
    times = tuple(LayerTime(*known.get(name, (name, "")), ms) for name, ms in profile.layers.items())
    return TimedLayers(times, profile.profiled_ms, profile.engine_ms)
