"""Lesson 01, CUDA graphs: the course's clocks and NVIDIA's `trtexec` on the same plans.

`trtexec` is NVIDIA's own program for timing engines. The one on the PATH times the plans too, if it is of the installed
TensorRT's version. Its file of times holds, for every call, the moments of two CUDA events around the engine and of the
host's clock around the enqueue.
"""

import functools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutorial_utils import engine, plotting
from tutorial_utils.base.errors import PlanError
from tutorial_utils.measure import rows, trtexec
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.model import onnx_file

if TYPE_CHECKING:
    from tutorial_utils.runners.tensorrt import TensorRTRunner

SHAPE = (64, 3, 32, 32)
ENGINES = {"resnet50-fp16": "ResNet-50 FP16", "quick-fp32": "quick classifier FP32"}
# What is held against trtexec's "compute": the time between two events, less what they take themselves. `device_times`
# leaves that microsecond in, as the clocks of all other libraries do.
EVENTS, NOTHING = "events around each call", "two events with nothing between"
ROUNDS, CALLS, WARM_UP = 3, 200, 300
TRTEXEC_OPTIONS = ("--duration=1", "--warmUp=300", "--useSpinWait", f"--shapes=x:{'x'.join(map(str, SHAPE))}")
METHOD = (
    f"input {'x'.join(map(str, SHAPE))}, profile from batch 1 to {SHAPE[0]}; after {WARM_UP} calls, {ROUNDS} rounds, "
    f"in each of which every clock and trtexec has its turn; medians of {CALLS} calls, and of these the median of the "
    f"rounds. trtexec: a process of its own on the same plan, {' '.join(TRTEXEC_OPTIONS[:3])}, and --useCudaGraph "
    "where the engine is a graph; it prints moments to the microsecond"
)


@dataclass(frozen=True)
class Clocks:
    """What the clocks say of one engine, in milliseconds.

    Attributes:
        engine: Its name.
        cuda_graph: Whether it ran as a CUDA graph.
        ours: By the names of `_clocks`.
        trtexec: "compute", "enqueue", "copy in", "copy out" and "latency", which is their sum without the enqueue;
            empty where it didn't run.
        missing: Why it didn't, or "".
    """

    engine: str
    cuda_graph: bool
    ours: dict[str, float]
    trtexec: dict[str, float]
    missing: str = ""

    @property
    def label(self) -> str:
        """Name and way to run."""
        return f"{self.engine}, {'CUDA graph' if self.cuda_graph else 'calls'}"

    @property
    def device_ms(self) -> float:
        """The GPU's time for a call, without that of the events."""
        return self.ours[EVENTS] - self.ours[NOTHING]


def measure(model: str, models: Mapping[str, Path], rounds: int = ROUNDS, calls: int = CALLS) -> dict[str, Any]:
    """Run all clocks on this machine's GPU; return the fields of two `Clocks`: of "calls" and of a "graph".

    Args:
        model: One of `ENGINES`.
        models: ONNX files by name.
        rounds, calls: How often each clock has its turn, and the calls that it times then.

    Raises:
        BackendUnavailableError: TensorRT engines can't run here, or CUDA graphs can't be captured.
    """
    profile = engine.Profile.batch("x", SHAPE[1:], opt=SHAPE[0], max=SHAPE[0])
    with tempfile.TemporaryDirectory() as folder:
        opened = onnx_file.open_image_size(onnx_file.load(models[model]))  # ResNet-50 is exported for 224x224
        path = onnx_file.save(opened, Path(folder) / f"{model}.onnx")
        built = engine.build(path, engine.BuildOptions(profiles=(profile,)))
        return {
            way: _clocks_of(built, ENGINES[model], cuda_graph, rounds, calls)
            for way, cuda_graph in (("calls", False), ("graph", True))
        }


def read(data: Mapping[str, Any]) -> list[Clocks]:
    """Return what was measured, engine by engine; a row that failed is left out."""
    measured = [row.values for row in rows.read(data) if row.values]
    return [Clocks(**values[way]) for values in measured for way in ("calls", "graph")]


def draw(found: Sequence[Clocks]) -> plotting.Picture:
    """Draw the GPU's time for a call by our clock and by trtexec's, and until when the host was busy launching it."""
    figure, axes = plotting.new_figure(1.1 + 0.6 * len(found))
    styles = {"color": plotting.BLUE}, {"color": plotting.ORANGE, "hatch": "///", "edgecolor": "white"}
    sides: dict[str, list[tuple[float, float] | None]] = {
        "GPU, by our clock": [(one.device_ms, one.ours["enqueue"]) for one in found],
        "GPU, by trtexec's": [
            (one.trtexec["compute"], one.trtexec["enqueue"]) if one.trtexec else None for one in found
        ],
    }
    lines = [f"{one.label}:" for one in found]
    for (side, times), offset, style in zip(sides.items(), (-0.2, 0.2), styles, strict=True):
        for row, pair in enumerate(times):
            if pair is None:
                continue
            ms, enqueue = pair
            axes.barh(row + offset, ms, 0.34, linewidth=0, label=side if row == 0 else None, **style)
            axes.plot([enqueue] * 2, [row + offset - 0.2, row + offset + 0.2], color="black", linewidth=2,
                      label="the host is busy until here" if row == 0 and offset < 0 else None)  # fmt: skip
            plotting.note(axes, f"{ms:.3f} ms", (max(pair), row + offset), (5, 0))
            lines[row] += f" {side} {ms:.3f} ms, host {enqueue:.3f} ms;"
    plotting.name_rows(axes, [one.label for one in found])
    axes.set_xlim(0, 1.15 * max(max(pair) for times in sides.values() for pair in times if pair))
    axes.set_xlabel("milliseconds for a call: medians")
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    lines = [line.rstrip(";") for line in lines]
    return plotting.Picture(figure, f"Times of a call by two clocks. {'. '.join(lines)}.", "\n".join(lines))


def _clocks_of(built: engine.Engine, name: str, cuda_graph: bool, rounds: int, calls: int) -> dict[str, Any]:
    from tutorial_utils.runners.tensorrt import TensorRTRunner, primary_context

    feeds = {"x": np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)}
    missing = trtexec.missing()
    ours, theirs = [], []
    with primary_context(), TensorRTRunner(built, cuda_graph=cuda_graph) as runner:
        for _ in range(WARM_UP):
            runner.infer(feeds)
        clocks = _clocks(runner, feeds)
        for _ in range(rounds):
            ours.append({clock: float(np.median(times(calls))) for clock, times in clocks.items()})
            if not missing:
                try:
                    theirs.append(_trtexec(built.plan, cuda_graph))
                except PlanError as error:  # our own clocks need no trtexec
                    missing = error.cause
    return {
        "engine": name,
        "cuda_graph": cuda_graph,
        "ours": _medians(ours),
        "trtexec": _medians(theirs) if theirs else {},
        "missing": missing,
    }


def _medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each time over the rounds, in milliseconds to a tenth of a microsecond."""
    return {name: round(float(np.median([one[name] for one in rounds])), 4) for name in rounds[0]}


def _clocks(runner: "TensorRTRunner", feeds: Mapping[str, np.ndarray]) -> dict[str, Callable[[int], Any]]:
    """Return the clocks by name: each takes a number of calls and returns milliseconds."""
    between = functools.partial(_between_events, runner)

    def burst(calls: int) -> float:
        (total,) = between(lambda: [runner.run() for _ in range(calls)], 1)
        return total / calls

    return {
        EVENTS: runner.event_times,
        "launches between two events": burst,
        NOTHING: functools.partial(between, lambda: None),
        "copy in": functools.partial(between, runner.copy_in),
        "copy out": functools.partial(between, runner.copy_out),
        "enqueue": functools.partial(_host_times, runner, runner.run),
        "host to host": functools.partial(_host_times, runner, lambda: runner.infer(feeds)),
    }


def _between_events(runner: "TensorRTRunner", work: Callable[[], Any], calls: int) -> list[float]:
    """Time work by events around each of its calls, while the GPU has other work before it."""
    import pycuda.driver as cuda

    pairs = [(cuda.Event(), cuda.Event()) for _ in range(calls)]
    runner.run()
    for start, end in pairs:
        start.record(runner.stream)
        work()
        end.record(runner.stream)
    runner.stream.synchronize()
    return [start.time_till(end) for start, end in pairs]


def _host_times(runner: "TensorRTRunner", work: Callable[[], Any], calls: int) -> list[float]:
    """Time work by the host's clock, each call with an idle GPU."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
        runner.stream.synchronize()
    return times


def _trtexec(plan: bytes, cuda_graph: bool) -> dict[str, float]:
    """Time a plan with trtexec; return the medians of its calls, in milliseconds, by the names of `Clocks.trtexec`."""
    options = (*TRTEXEC_OPTIONS, *(("--useCudaGraph",) if cuda_graph else ()))
    return trtexec.medians(trtexec.run(plan, options, ["exportTimes"]).exported["exportTimes"])


EXPERIMENT = Experiment(
    name="lesson01_clock",
    title="The course's clocks and trtexec's on the same engines, with and without CUDA graphs",
    method=METHOD,
    rows={model: functools.partial(measure, model) for model in ENGINES},
    read=read,
    draw=lambda measured: draw(measured.result),
    models=tuple(f"{model}.onnx" for model in ENGINES),
)
