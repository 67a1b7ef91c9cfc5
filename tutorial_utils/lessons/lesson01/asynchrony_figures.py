"""The figures of lesson 01 about asynchrony: who works when, and streams on a GPU against their bound."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutorial_utils import plotting
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.plotting import Picture


@dataclass(frozen=True)
class Span:
    """One piece of work: what was done for which batch, from when to when on the host's clock, in seconds."""

    stage: str
    batch: int
    begin: float
    end: float


def timeline(orders: Mapping[str, Sequence[Span]]) -> Picture:
    """Draw when each stage worked on which batch, one block of rows for each order of work.

    Args:
        orders: The spans of one run by name of the order. Every order has the same stages.
    """
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


def streams(overlap: Sequence[Mapping[str, Any]]) -> Picture:
    """Draw the time of a batch in every order of work on the GPU, each with its bound where that is known.

    Args:
        overlap: One entry for each batch size, as `experiments.lesson01_async.measure` returns them.
    """
    names = list(overlap[0]["runs"])
    figure, axes = plotting.new_figure(0.9 + 0.27 * len(names), ncols=len(overlap), sharey=True, squeeze=False)
    lines, best = [], []
    for one, entry in zip(axes[0], overlap, strict=True):
        times = {
            name: Measurement.from_dict(values).median_ms / entry["batches_per_run"]
            for name, values in entry["runs"].items()
        }
        for position, name in enumerate(names):
            one.barh(position, times[name], color=_colour(name), height=0.7)
            one.annotate(
                f"{times[name]:.2f}", (max(times[name], bound(entry, name) or 0), position),
                xytext=(8, 0), textcoords="offset points",
                va="center", fontsize=9,
            )  # fmt: skip
            limit = bound(entry, name)
            if limit is not None:
                one.plot([limit] * 2, [position - 0.42, position + 0.42], color="black", linewidth=2)
            lines.append(
                f"batch {entry['batch']:2}  {name:24} {times[name]:7.3f} ms"
                + (f"  bound {limit:7.3f} ms" if limit is not None else "")
            )
        one.set_xlim(right=1.2 * max(times.values()))
        one.set_title(f"batch of {entry['batch']}", fontsize=10)
        one.set_xlabel("milliseconds for a batch")
        winner = min(times, key=times.get)
        best.append(
            f"batch {entry['batch']}: {winner}, {times[winner]:.2f} ms, one by one {times['one by one']:.2f} ms"
        )
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].invert_yaxis()
    figure.suptitle(
        "black: the bound, the sum of the stages one by one and on 1 stream, else the longest one", fontsize=9
    )
    alt = f"Time of a batch in {len(names)} orders of work on the GPU. Fastest at {'; '.join(best)}."
    return Picture(figure, alt, "\n".join(lines))


def bound(entry: Mapping[str, Any], name: str) -> float | None:
    """Return the least time for a batch in one order of work, in milliseconds; None where a stage wasn't timed.

    One by one and on a single stream, it is the sum of the GPU's stages. On several streams, it is the longest stage,
    the host's work of handing the engine to the GPU among them. Stages with pageable memory were not timed.
    """
    if name.endswith("pageable"):
        return None
    stages = entry["stages_graph_ms" if name.endswith("CUDA graph") else "stages_ms"]
    if name.startswith(("one by one", "1 stream")):
        return sum(ms for stage, ms in stages.items() if stage != "enqueue")
    return max(stages.values())


def _colour(name: str) -> str:
    if name.endswith("pageable"):
        return plotting.RED
    if name.startswith("one by one"):
        return plotting.GREY
    return plotting.GREEN if name.endswith("CUDA graph") else plotting.BLUE
