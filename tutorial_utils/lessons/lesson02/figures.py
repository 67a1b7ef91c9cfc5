"""Lesson 02: apparent speed-ups by one cold call beside warm ones, how wide accuracies are, engines of Paddle-TRT."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tutorial_utils import plotting
from tutorial_utils.lessons.lesson02.cold_calls import SpeedUp
from tutorial_utils.measure import quality
from tutorial_utils.plotting import BLUE, GREY, ORANGE, Picture

if TYPE_CHECKING:
    from tutorial_utils.lessons.lesson02.paddle_engines import PaddleEngine


def apparent_speed_ups(rows: Sequence[SpeedUp], baseline: str) -> Picture:
    """Draw speed-ups over a baseline by first calls and by warm medians, on a logarithmic axis."""
    figure, axes = plotting.new_figure(1.5 + 0.55 * len(rows))
    positions = range(len(rows))
    for position, one in enumerate(rows):
        axes.plot([one.cold, one.warm.speedup], [position] * 2, color=GREY, linewidth=1)
        axes.plot([one.warm.low, one.warm.high], [position] * 2, color=BLUE, linewidth=4, solid_capstyle="butt")
        for value, height in ((one.cold, 11), (one.warm.speedup, -17)):
            plotting.note(axes, f"{value:.2f}x", (value, position), (0, height), ha="center", va="baseline")
    axes.plot([one.cold for one in rows], positions, "D", color=ORANGE, markersize=9, label="one cold call (above)")
    warm_label = "median of warm calls, 95 % interval (below)"
    axes.plot([one.warm.speedup for one in rows], positions, "o", color=BLUE, markersize=9, label=warm_label)
    axes.axvline(1, color=GREY, linewidth=1.5, linestyle="--")
    plotting.name_rows(axes, [one.name for one in rows])
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.2, high * 1.2)
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low / 1.2 <= tick <= high * 1.2]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(f"times as fast as {baseline} (dashed line: no difference)")
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    lines = [
        f"{one.name}: {one.cold:.2f}x by one cold call, "
        f"{one.warm.speedup:.2f}x by warm calls ({one.warm.low:.2f} to {one.warm.high:.2f})"
        for one in rows
    ]
    return Picture(figure, f"Speed-ups over {baseline} by two ways of timing. {'; '.join(lines)}.", "\n".join(lines))


def accuracy_intervals(results: Mapping[str, tuple[int, int]]) -> Picture:
    """Draw accuracies, each from the number of right answers and of images, with their 95 % confidence intervals."""
    figure, axes = plotting.new_figure(1.1 + 0.42 * len(results))
    lines = []
    for position, (name, (right, total)) in enumerate(results.items()):
        low, high = (100 * bound for bound in quality.accuracy_interval(right, total))
        axes.plot([low, high], [position] * 2, color=BLUE, linewidth=3, solid_capstyle="butt")
        axes.plot(100 * right / total, position, "o", color=ORANGE, markersize=8)
        lines.append(
            f"{name}: {right} of {total}, {100 * right / total:.1f} %, interval {low:.1f} % to {high:.1f} %, "
            f"{high - low:.1f} points wide"
        )
        plotting.note(axes, f"{high - low:.1f} points", (low, position), (-6, 0), ha="right")
    plotting.name_rows(axes, list(results))
    axes.set_xlim(left=axes.get_xlim()[0] - 8)
    axes.set_xlabel("accuracy in % (dot) and its 95 % interval (line, with its width)")
    return Picture(figure, f"Accuracies and their intervals. {'; '.join(lines)}.", "\n".join(lines))


def paddle_engines(engines: "Mapping[str, PaddleEngine]") -> Picture:
    """Draw the median time of each engine in Paddle-TRT and in TensorRT's own loops."""
    bars = [(f"{name}: {way}", one.times[way].median_ms) for name, one in engines.items() for way in one.times]
    figure, axes = plotting.new_figure(0.9 + 0.36 * len(bars))
    colours = [BLUE if "Paddle" in label else GREY for label, _ in bars]
    axes.barh(range(len(bars)), [ms for _, ms in bars], color=colours)
    for position, (_, ms) in enumerate(bars):
        plotting.note(axes, f"{ms:.3f} ms", (ms, position), (5, 0))
    plotting.name_rows(axes, [label for label, _ in bars])
    axes.set_xlim(right=1.15 * max((ms for _, ms in bars), default=1))
    axes.set_xlabel("milliseconds from images to logits in host memory, median of warm calls")
    lines = [
        f"{name}: {one.times['Paddle-TRT'].median_ms:.3f} ms, {one.overhead.speedup:.2f} times the loop with the same "
        f"copies ({one.overhead.low:.2f} to {one.overhead.high:.2f}); error {one.relative_error:.1e}; {one.computes_in}"
        for name, one in engines.items()
    ]
    return Picture(
        figure, f"Times of ResNet-50 in Paddle-TRT and without Paddle. {'; '.join(lines)}.", "\n".join(lines)
    )
