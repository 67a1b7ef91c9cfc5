"""Lesson 01, asynchrony: copies and an engine overlapped on several streams, with and without CUDA graphs."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils import engine, plotting
from tutorial_utils.measure import quality, timing
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.plotting import Picture

PROFILE = engine.Profile.batch("x", (3, 224, 224), opt=8, max=64)
BATCHES = (8, 32)
BATCHES_PER_RUN = 24
STREAMS = 3
METHOD = (
    "ResNet-50 FP16, random weights, FP32 inputs and outputs; images already in pinned memory unless 'pageable'; a run "
    f"is {BATCHES_PER_RUN} batches, host clock around it, all copies included; warm-up until steady, then rounds in "
    "which the candidates take turns; stages: medians of CUDA events, one batch at a time, and of the host clock "
    "around the enqueue"
)
_STAGE_CALLS = 100
_SAME = 0.01  # a relative error; TensorRT-RTX may change kernels between two calls, which made 0.004


@dataclass(frozen=True)
class Overlap:
    """Orders of work at one batch size."""

    batch: int
    batches_per_run: int
    stages_ms: dict[str, float]  # of "copy in", "engine", "copy out", and of "enqueue" on the host
    stages_graph_ms: dict[str, float]  # the same with the engine as a CUDA graph
    runs: dict[str, Measurement]  # of a run by order of work: "one by one", "1 stream", ...


def measure(models: Mapping[str, Path], seconds: float = 0.5) -> dict[str, Any]:
    """Run the experiment on this machine's GPU, each candidate for about so many seconds; return what `read` takes.

    Raises:
        BackendUnavailableError: TensorRT engines can't run here.
        RuntimeError: A lane's results aren't those of batches run one by one.
    """
    from tutorial_utils.lessons.lesson01.lanes import Lanes  # imports PyCUDA

    built = engine.build(models["resnet50-fp16"], engine.BuildOptions(profiles=(PROFILE,)))
    images = np.random.default_rng(0).standard_normal((max(BATCHES), 3, 224, 224), dtype=np.float32)
    with Lanes(built, images, STREAMS) as plain, Lanes(built, images, STREAMS, cuda_graph=True) as graphs:
        return {"overlap": [_overlap(plain, graphs, batch, seconds) for batch in BATCHES]}


def _overlap(plain: Any, graphs: Any, batch: int, seconds: float) -> dict[str, Any]:
    """Time the orders of one batch size; return the fields of an `Overlap`. ``plain`` and ``graphs`` are `Lanes`."""
    runs = {}
    for lanes, suffix in ((plain, ""), (graphs, ", CUDA graph")):
        lanes.use(batch)
        runs[f"one by one{suffix}"] = functools.partial(lanes.one_by_one, BATCHES_PER_RUN)
        for streams in range(1, STREAMS + 1):
            name = f"{streams} stream{'s' if streams > 1 else ''}{suffix}"
            runs[name] = functools.partial(lanes.on_streams, streams, BATCHES_PER_RUN)
    runs["2 streams, pageable"] = functools.partial(plain.on_streams, 2, BATCHES_PER_RUN, pinned=False)
    measured = timing.measure_in_turn(runs, batch=batch * BATCHES_PER_RUN, seconds=seconds)
    left = [*plain.logits(), *graphs.logits()]  # by the runs that were timed
    plain.one_by_one(1)
    require_same(left, plain.logits()[0])
    return {
        "batch": batch,
        "batches_per_run": BATCHES_PER_RUN,
        "stages_ms": plain.stage_times(_STAGE_CALLS),
        "stages_graph_ms": graphs.stage_times(_STAGE_CALLS),
        "runs": timing.to_plain(measured),
    }


def require_same(results: Sequence[np.ndarray], expected: np.ndarray) -> None:
    """Raise RuntimeError where one of some results differs from the expected by more than kernels of FP16 differ."""
    error = max(quality.relative_error(one, expected) for one in results)
    if error > _SAME:
        raise RuntimeError(f"A lane's results differ from those of batches one by one: relative error {error:.2g}.")


def read(data: Mapping[str, Any]) -> list[Overlap]:
    """Return what `measure` found."""
    return [Overlap(**{**entry, "runs": timing.from_plain(entry["runs"])}) for entry in data["overlap"]]


@dataclass(frozen=True)
class Span:
    """One piece of work: what was done for which batch, from when to when on the host's clock, in seconds."""

    stage: str
    batch: int
    begin: float
    end: float


def watch(orders: Mapping[str, Callable[..., Any]], **stages: Callable[[Any], Any]) -> dict[str, list[Span]]:
    """Run each order of work once, with its stages timed; return the spans by order, as `draw_timeline` takes them.

    An order is called with the stages as keyword arguments.
    """

    def timed(name: str, stage: Callable[[Any], Any], spans: list[Span]) -> Callable[[Any], Any]:
        def work(argument: Any) -> Any:
            begin = time.perf_counter()
            result = stage(argument)
            end = time.perf_counter()
            spans.append(Span(name, 1 + sum(span.stage == name for span in spans), begin, end))
            return result

        return work

    seen: dict[str, list[Span]] = {name: [] for name in orders}
    for name, order in orders.items():
        order(**{stage: timed(stage, function, seen[name]) for stage, function in stages.items()})
    return seen


def draw_timeline(orders: Mapping[str, Sequence[Span]]) -> Picture:
    """Draw when each stage worked on which batch: a block of rows for each order of work, all with the same stages."""
    stages = list(dict.fromkeys(span.stage for spans in orders.values() for span in spans))
    colours = dict(zip(stages, (plotting.ORANGE, plotting.BLUE, plotting.GREEN), strict=False))
    rows = [(order, stage) for order in orders for stage in stages]
    figure, axes = plotting.new_figure(0.9 + 0.42 * len(rows))
    lines, lasted = [], {}
    for order, spans in orders.items():
        start = min(span.begin for span in spans)
        lasted[order] = 1000 * (max(span.end for span in spans) - start)
        for span in spans:
            position = rows.index((order, span.stage))
            begin, length = 1000 * (span.begin - start), 1000 * (span.end - span.begin)
            axes.barh(position, length, left=begin, color=colours[span.stage], edgecolor="white", height=0.75)
            if length > 0.02 * lasted[order]:
                ink = "white" if colours[span.stage] == plotting.BLUE else "black"
                middle = begin + length / 2
                axes.text(middle, position, str(span.batch), ha="center", va="center", fontsize=8, color=ink)
        busy = {stage: 1000 * sum(s.end - s.begin for s in spans if s.stage == stage) for stage in stages}
        shares = ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in busy.items())
        lines.append(f"{order}: {lasted[order]:.1f} ms for {len(spans) // len(stages)} batches ({shares})")
    axes.set_yticks(range(len(rows)), [f"{order}: {stage}" for order, stage in rows])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds since the start; the numbers are batches")
    took = ", ".join(f"{order} {ms:.0f} ms" for order, ms in lasted.items())
    alt = f"Timeline of {' and '.join(stages)} in {len(orders)} orders of work. From start to end: {took}."
    return Picture(figure, alt, "\n".join(lines))


def draw_streams(overlap: Sequence[Overlap]) -> Picture:
    """Draw the time of a batch in every order of work on the GPU, each with its estimate where there is one."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = list(overlap[0].runs)
    figure, axes = plotting.new_figure(0.9 + 0.27 * len(names), ncols=len(overlap), sharey=True, squeeze=False)
    lines, best = [], []
    for one, entry in zip(axes[0], overlap, strict=True):
        times = {name: run.median_ms / entry.batches_per_run for name, run in entry.runs.items()}
        for position, name in enumerate(names):
            one.barh(position, times[name], color=_colour(name), height=0.7)
            lines.append(f"batch {entry.batch:2}  {name:24} {times[name]:7.3f} ms")
            limit = estimate(entry, name)
            if limit is not None:
                one.plot([limit] * 2, [position - 0.42, position + 0.42], color="black", linewidth=2)
                lines[-1] += f"  estimate {limit:7.3f} ms"
            end = min(times[name], limit or times[name])  # the text stays in the bar, left of the mark
            ink = "white" if _colour(name) in (plotting.GREY, plotting.BLUE) else "black"
            plotting.note(one, f"{times[name]:.2f}", (end, position), (-5, 0), ha="right", color=ink)
        one.set_xlim(right=1.05 * max(times.values()))
        one.set_title(f"batch of {entry.batch}", fontsize=10)
        one.set_xlabel("milliseconds for a batch")
        winner = min(times, key=times.get)
        best.append(f"batch {entry.batch}: {winner}, {times[winner]:.2f} ms, one by one {times['one by one']:.2f} ms")
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].invert_yaxis()
    label = "estimate: one batch at a time in each stage"
    marks = [Patch(color=colour, label=meaning) for colour, meaning in _COLOURS.items()]
    marks.append(Line2D([], [], color="black", linewidth=2, label=label))
    figure.legend(handles=marks, loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    alt = f"Time of a batch in {len(names)} orders of work on the GPU. Fastest at {'; '.join(best)}."
    return Picture(figure, alt, "\n".join(lines))


def estimate(entry: Overlap, name: str) -> float | None:
    """Return the time for a batch in one order of work if each stage works on one batch at a time, in milliseconds.

    One by one and on a single stream, it is the sum of the GPU's stages. On several streams, it is the longest stage,
    the host's work of handing the engine to the GPU among them. Stages with pageable memory
    were not timed: None. Batches whose engines share the GPU can take less.
    """
    if name.endswith("pageable"):
        return None
    stages = entry.stages_graph_ms if name.endswith("CUDA graph") else entry.stages_ms
    if name.startswith(("one by one", "1 stream")):
        return sum(ms for stage, ms in stages.items() if stage != "enqueue")
    return max(stages.values())


def _colour(name: str) -> str:
    if name.endswith("pageable"):
        return plotting.RED
    if name.startswith("one by one"):
        return plotting.GREY
    return plotting.GREEN if name.endswith("CUDA graph") else plotting.BLUE


_COLOURS = {
    plotting.GREY: "waits after each stage, also as a CUDA graph",
    plotting.BLUE: "waits for a free lane",
    plotting.GREEN: "waits for a free lane, as CUDA graphs",
    plotting.RED: "from pageable memory",
}

EXPERIMENT = Experiment(
    name="lesson01_async",
    title="Copies and ResNet-50 overlapped on CUDA streams, pinned and pageable memory, and CUDA graphs",
    method=METHOD,
    measure=measure,
    read=read,
    draw=lambda measured: draw_streams(measured.result),
    models=("resnet50-fp16.onnx",),
)
