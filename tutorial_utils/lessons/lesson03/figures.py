"""Lesson 03: latency against accuracy, ResNet-50 in three libraries, and what several clocks say."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tutorial_utils import plotting
from tutorial_utils.measure import quality
from tutorial_utils.measure.deployment import Row
from tutorial_utils.model.precisions import PRECISIONS

if TYPE_CHECKING:
    import pandas

    from tutorial_utils.lessons.lesson03.clock import Clocks
    from tutorial_utils.lessons.lesson03.resnet50 import ResnetRow

_BACKEND_COLOURS = (plotting.GREY, plotting.RED, plotting.BLUE, plotting.ORANGE, plotting.GREEN)
_CLOCKS = {  # those that are drawn, of `clock.Clocks`
    "ours": ("events around each call", "launches between two events", "enqueue"),
    "trtexec": ("compute", "enqueue"),
}
_COLOURS = {"TensorRT": plotting.GREEN, "ONNX Runtime": plotting.BLUE, "PyTorch eager": plotting.ORANGE}


def latency_accuracy(groups: Sequence[tuple[str, Sequence[Row]]], images: int) -> plotting.Picture:
    """Draw every row's median latency against its accuracy, with the accuracy's 95 % interval.

    Args:
        groups: Rows by where they were measured: the first is drawn filled, the others hollow.
        images: How many images the accuracy is from.
    """
    figure, axes = plotting.new_figure(4.6)
    backends = list(dict.fromkeys(row.backend for _, rows in groups for row in rows))
    colours = dict(zip(backends, (*_BACKEND_COLOURS, *_BACKEND_COLOURS), strict=False))
    lines = []
    for where, rows in groups:
        for row in rows:
            accuracy, median = row.quality.accuracy, row.latency.median_ms
            low, high = quality.accuracy_interval(round(accuracy * images), images)
            colour = colours[row.backend]
            axes.plot([median] * 2, [100 * low, 100 * high], color=colour, linewidth=1, alpha=0.5)
            axes.plot(median, 100 * accuracy, PRECISIONS[row.precision].marker, color=colour, markersize=9,
                      markerfacecolor=colour if where == groups[0][0] else "#fafafa", markeredgewidth=1.8)  # fmt: skip
            lines.append(f"{row.label:28} {median:9.3f} ms {100 * accuracy:6.2f} %  {where}")
    plotting.plain_numbers(axes.xaxis)
    axes.set_xlabel(f"median milliseconds for a batch of {groups[0][1][0].latency.batch}, copies included")
    axes.set_ylabel("accuracy in %, with its 95 % interval")
    for backend, colour in colours.items():
        axes.plot([], [], "o", color=colour, label=backend)
    shown = {row.precision for _, rows in groups for row in rows}
    for one in PRECISIONS.values():
        if one.name in shown:
            axes.plot([], [], one.marker, color=plotting.GREY, label=one.name.upper())
    for position, (where, _) in enumerate(groups):
        face = "#fafafa" if position else plotting.GREY
        axes.plot([], [], "o", color=plotting.GREY, markerfacecolor=face, label=where)
    figure.legend(loc="outside upper left", ncols=5, frameon=False)
    every = [row for _, rows in groups for row in rows]
    accuracies = [100 * row.quality.accuracy for row in every]
    medians = [row.latency.median_ms for row in every]
    alt = (
        f"{len(every)} rows: medians from {min(medians):.3g} to {max(medians):.3g} ms, accuracies from "
        f"{min(accuracies):.2f} to {max(accuracies):.2f} %. Text with every row stands beside the picture."
    )
    return plotting.Picture(figure, alt, "\n".join(lines))


def resnet50(rows: Sequence["ResnetRow"]) -> plotting.Picture:
    """Draw the call times of ResNet-50: a bar to the median, a line to the 99th percentile, a panel for each batch."""
    batches = sorted({row.batch for row in rows})
    figure, axes = plotting.new_figure(0.9 + 0.34 * len(rows) / len(batches), ncols=len(batches), sharey=True)
    lines, fastest = [], []
    for panel, batch in zip(axes, batches, strict=True):
        shown = [row for row in rows if row.batch == batch]
        for position, row in enumerate(shown):
            time = row.call
            panel.barh(position, time.median_ms, color=_COLOURS[row.library], height=0.7)
            panel.plot([time.median_ms, time.p99_ms], [position] * 2, color="black", linewidth=1)
            plotting.note(panel, f"{time.median_ms:.2f}", (time.p99_ms, position), (4, 0))
            lines.append(f"batch {batch:2}  {row.label:27} median {time.median_ms:7.3f} ms  p99 {time.p99_ms:7.3f} ms")
        plotting.name_rows(panel, [row.label for row in shown])
        panel.set_xlim(right=1.18 * max(row.call.p99_ms for row in shown))
        panel.set_xlabel(f"milliseconds per call, {batch}x3x224x224")
        best = min(shown, key=lambda row: row.call.median_ms)
        fastest.append(f"batch {batch}: {best.label} with {best.call.median_ms:.2f} ms")
    alt = f"ResNet-50 in three libraries, median times of a call. Fastest at {'; at '.join(fastest)}."
    return plotting.Picture(figure, alt, "\n".join(lines))


def clocks(rows: Sequence["Clocks"]) -> plotting.Picture:
    """Draw what the clocks say: a row for each engine, its calls beside its CUDA graph; trtexec's bars are hollow."""
    bars = [(owner, name) for owner, names in _CLOCKS.items() for name in names]
    count = len(rows) // 2
    shared = {"sharey": True, "sharex": "row", "squeeze": False}
    figure, axes = plotting.new_figure(1 + 1.5 * count, nrows=count, ncols=2, **shared)
    lines, compared = [], []
    for panel, row in zip(axes.flat, rows, strict=True):
        for position, (owner, name) in enumerate(bars):
            ms = getattr(row, owner).get(name)
            colour = plotting.ORANGE if name == "enqueue" else plotting.GREEN
            if ms is not None:
                fill = colour if owner == "ours" else "none"
                panel.barh(position, ms, height=0.7, linewidth=1.5, facecolor=fill, edgecolor=colour)
            plotting.note(panel, "n/a" if ms is None else f"{ms:.3f}", (ms or 0, position), (4, 0))
            value = f"{ms:.4f} ms" if ms is not None else f"n/a: {row.missing}"
            lines.append(f"{row.label:34} {owner:7} {name:28} {value}")
        plotting.name_rows(panel, [f"{owner}: {name}" for owner, name in bars])
        panel.set_title(row.label, fontsize=10)
        if row.deviation is not None:
            compared.append(f"{row.label} {100 * row.deviation:+.1f} %")
    figure.supxlabel("milliseconds a call: of the GPU in green, of the host's enqueue in orange", fontsize=10)
    lines += [
        f"{calls.engine}: a call takes {calls.device_ms:.3f} ms of the GPU, a graph {graph.device_ms:.3f}; for the "
        f"rest the GPU waits for the host, which enqueues a call in {calls.ours['enqueue']:.3f} ms."
        for calls, graph in zip(rows[::2], rows[1::2], strict=True)
    ]
    alt = " ".join(lines[-count:])
    if compared:
        alt += f" Our GPU time, less that of the events, against trtexec's: {', '.join(compared)}."
    return plotting.Picture(figure, alt, "\n".join(lines))


def resnet50_table(rows: Sequence["ResnetRow"]) -> "pandas.DataFrame":
    """Return the times of ResNet-50 as a table for display."""
    import pandas

    lines = [
        {
            "batch": row.batch,
            "library": row.label,
            "loading ms": f"{row.ready_ms:.0f}",
            "first call ms": f"{row.call.first_call_ms:.1f}",
            "median ms": f"{row.call.median_ms:.3f}",
            "p99 ms": f"{row.call.p99_ms:.3f}",
            "GPU median ms": f"{row.gpu.median_ms:.3f}",
            "GPU p99 ms": f"{row.gpu.p99_ms:.3f}",
            "images/s": f"{row.call.images_per_second:,.0f}",
            "error": f"{row.relative_error:.0e}",
        }
        for row in rows
    ]
    return pandas.DataFrame(lines).set_index(["batch", "library"])
