"""Lesson 02: engines of Paddle-TRT beside TensorRT's own loops on them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tutorial_utils import plotting
from tutorial_utils.plotting import BLUE, GREY, Picture

if TYPE_CHECKING:
    from tutorial_utils.lessons.lesson02.paddle_engines import PaddleEngine


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
