"""Lesson 03: what several clocks say of the same engine."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tutorial_utils import plotting

if TYPE_CHECKING:
    from tutorial_utils.lessons.lesson03.clock import Clocks

_CLOCKS = {  # those that are drawn, of `clock.Clocks`
    "ours": ("events around each call", "launches between two events", "enqueue"),
    "trtexec": ("compute", "enqueue"),
}


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
