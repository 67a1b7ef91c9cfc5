"""Lesson 05, time: layers end to end beside the network's own time, runs of trtexec, and what bounds kernels."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tutorial_utils import plotting
from tutorial_utils.inspection.drawings import clipped
from tutorial_utils.lessons.lesson05.kernel_counters import ENOUGH_PERCENT, Kernel
from tutorial_utils.lessons.lesson05.layer_times import LayerTime, TimedLayers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from tutorial_utils.lessons.lesson05.trtexec_runs import Run

_LONGEST_LABEL = 50  # characters
_MICROSECONDS_BELOW_MS = 5


def waterfall(timed: TimedLayers, title: str, labelled: int = 10) -> plotting.Picture:
    """Draw the layers' times end to end, in the order of execution, with a network and a machine as title.

    So many of the slowest layers get a labelled bar of their own; what lies between is one bar. Below are their sum and
    the network's own time.
    """
    rows = _grouped(timed, labelled)
    total = timed.sum_ms
    scale, unit = (1, "ms") if total > _MICROSECONDS_BELOW_MS else (1000, "µs")
    figure, axes = plotting.new_figure(1.5 + 0.28 * len(rows))
    box = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 0.5}  # lines end at the text
    begin, lines = 0.0, []
    for row, (layer, count) in enumerate(rows):
        colour, hatch = (plotting.GREY, "///") if count > 1 else (plotting.BLUE, None)
        axes.barh(row, scale * layer.ms, left=scale * begin, height=0.72, color=colour, hatch=hatch, edgecolor="white",
                  linewidth=0)  # fmt: skip
        text = f"{clipped(layer.name, _LONGEST_LABEL)}  {scale * layer.ms:.3g} {unit}, {layer.ms / total:.0%}"
        early = begin + layer.ms / 2 < total / 2  # then there is room to the right of the bar
        end, points, align = (begin + layer.ms, 4, "left") if early else (begin, -4, "right")
        plotting.note(axes, text, (scale * end, row), (points, 0), ha=align, color="#222222", bbox=box)
        lines.append(f"from {begin:8.4f} ms: {layer.ms:8.4f} ms {layer.ms / total:6.1%}  {layer.name}")
        begin += layer.ms
    wholes = {f"sum of the {timed.unit}": (total, plotting.GREY),
              "the network without profiler": (timed.network_ms, plotting.RED)}  # fmt: skip
    for row, (name, (ms, colour)) in enumerate(wholes.items(), len(rows)):
        axes.barh(row, scale * ms, height=0.72, facecolor="none", edgecolor=colour, linewidth=1.5)
        plotting.note(axes, f"{name}  {scale * ms:.3g} {unit}", (0, row), (6, 0), color="#222222", bbox=box)
    axes.set_xlim(0, 1.03 * scale * max(total, timed.network_ms))
    axes.set_ylim(len(rows) + len(wholes) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_xlabel(f"{unit}, {timed.unit} end to end")
    axes.set_title(title, fontsize=11, loc="left")
    lines.append(f"sum of the {timed.unit} {total:.4f} ms, the network without profiler {timed.network_ms:.4f} ms")
    slowest = "; ".join(f"{layer.name} with {layer.ms / total:.0%}" for layer in timed.slowest(3))
    alt = (
        f"Waterfall of {title}: {len(timed.layers)} {timed.unit}, {total:.3g} ms end to end; the network alone takes "
        f"{timed.network_ms:.3g} ms. Slowest: {slowest}."
    )
    return plotting.Picture(figure, alt, "\n".join(lines))


def _grouped(timed: TimedLayers, labelled: int) -> list[tuple[LayerTime, int]]:
    """Return the rows of a waterfall, and of each how many layers it stands for."""
    fast = {id(layer) for layer in timed.layers} - {id(layer) for layer in timed.slowest(labelled)}
    rows: list[tuple[LayerTime, int]] = []
    waiting: list[LayerTime] = []
    for layer in timed.layers:
        if id(layer) in fast:
            waiting.append(layer)
            continue
        rows += [*_as_one(waiting, timed.unit), (layer, 1)]
        waiting = []
    return rows + _as_one(waiting, timed.unit)


def _as_one(layers: list[LayerTime], unit: str) -> list[tuple[LayerTime, int]]:
    layers = [layer for layer in layers if layer.ms]  # without those that only order streams
    if not layers:
        return []
    name = f"{len(layers)} {unit}" if len(layers) > 1 else layers[0].name
    return [(LayerTime(name, "", sum(layer.ms for layer in layers)), len(layers))]


def trtexec_runs(runs: "Sequence[Run]") -> plotting.Picture:
    """Draw what trtexec says of each run: the GPU's time for a call, and the host's time to launch it."""
    sides = {"GPU compute": [run.times["compute"] for run in runs],
             "enqueue, on the host": [run.times["enqueue"] for run in runs]}  # fmt: skip
    figure, axes = _pairs([run.name for run in runs], sides, "{:.3f} ms")
    axes.set_xlim(right=1.2 * max(map(max, sides.values())))
    axes.set_xlabel("milliseconds for a call: medians of the exported times")
    lines = [
        f"{run.name}: GPU compute {run.times['compute']:.3f} ms, enqueue {run.times['enqueue']:.3f} ms; warnings: "
        f"{' '.join(run.warnings) or 'none'}"
        for run in runs
    ]
    return plotting.Picture(figure, f"Runs of trtexec. {' '.join(lines)}", "\n".join(lines))


def bounds(kernels: Sequence[Kernel]) -> plotting.Picture:
    """Draw how busy some kernels keep the busiest unit of a multiprocessor, and how much of the peak memory throughput
    they reach.
    """
    sides = {"compute": [one.compute for one in kernels], "memory": [one.memory for one in kernels]}
    labels = [
        "\n".join([*_first_lines(kernel.name), f"{kernel.microseconds:.1f} µs, bound by {kernel.bound}",
                   f"device memory {kernel.device_memory:.0f} %"])
        for kernel in kernels
    ]  # fmt: skip
    figure, axes = _pairs(labels, sides, "{:.0f} %")
    axes.axvline(ENOUGH_PERCENT, color=plotting.GREY, linestyle="--", linewidth=1)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlim(0, 108)
    axes.set_xlabel("percent of the GPU's peak")
    lines = [
        f"{kernel.name}: {kernel.microseconds:.1f} µs, compute {kernel.compute:.0f} %, memory {kernel.memory:.0f} %, "
        f"device memory {kernel.device_memory:.0f} %: bound by {kernel.bound}"
        for kernel in kernels
    ]
    return plotting.Picture(figure, f"What bounds {len(kernels)} kernels. {' '.join(lines)}", "\n".join(lines))


def _first_lines(name: str, width: int = 46) -> list[str]:
    """Return the first two lines of a kernel's name, broken after "_", and "…" for what is left out."""
    lines = textwrap.wrap(name.replace("_", "_ "), width, max_lines=2, placeholder="…")
    return [line.replace("_ ", "_") for line in lines]


def _pairs(names: Sequence[str], sides: Mapping[str, Sequence[float]], form: str) -> "tuple[Figure, Axes]":
    """Draw two bars for each name: one value of each side, written beside it in this form."""
    figure, axes = plotting.new_figure(1.2 + 0.7 * len(names))
    box = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 0.5}  # lines end at the text
    styles = {"color": plotting.BLUE}, {"color": plotting.ORANGE, "hatch": "///", "edgecolor": "white"}
    for (side, values), offset, style in zip(sides.items(), (-0.2, 0.2), styles, strict=True):
        axes.barh([row + offset for row in range(len(names))], values, 0.36, linewidth=0, label=side, **style)
        for row, value in enumerate(values):
            plotting.note(axes, form.format(value), (value, row + offset), (4, 0), bbox=box)
    plotting.name_rows(axes, names)
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return figure, axes
