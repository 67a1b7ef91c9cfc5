"""Lesson 01, calibration: the thresholds that the methods choose, and what they do to answers and logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tutorial_utils import plotting
from tutorial_utils.plotting import BLUE, GREEN, GREY, ORANGE, RED, Picture

_COLOURS = (BLUE, RED, GREEN, ORANGE)


@dataclass(frozen=True)
class Calibrated:
    """A quantized model: accuracy, 0 to 1; signal over noise of its logits in decibels."""

    accuracy: float
    sqnr_db: float


def draw_quality(groups: Sequence[tuple[str, Mapping[str, Calibrated]]], interval: tuple[float, float]) -> Picture:
    """Draw logit quality and accuracy of calibrated models side by side, with the FP32 model's interval, 0 to 1.

    Groups have a title and models by name, such as ``[("method", {"minmax": ...}), ("images", {...})]``.
    """
    rows = [(title, name, one) for title, models in groups for name, one in models.items()]
    figure, (left, right) = plotting.new_figure(1.0 + 0.3 * len(rows), ncols=2, sharey=True, width_ratios=[1.4, 1])
    colours = dict(zip([title for title, _ in groups], _COLOURS, strict=False))
    right.axvspan(100 * interval[0], 100 * interval[1], color=GREY, alpha=0.2)
    for position, (title, _, one) in enumerate(rows):
        left.barh(position, one.sqnr_db, color=colours[title], height=0.7)
        right.plot(100 * one.accuracy, position, "o", color=colours[title], markersize=7)
    plotting.name_rows(left, [name for _, name, _ in rows])
    left.set_xlabel("signal to quantization noise of the logits, dB")
    right.set_xlabel("accuracy, % (band: 95 % interval of FP32)")
    for title, colour in colours.items():
        left.plot([], [], "s", color=colour, label=title)
    figure.legend(loc="outside upper left", ncols=len(colours), frameon=False)
    width = max(len(name) for _, name, _ in rows)
    lines = [f"{name:{width}}  {one.sqnr_db:6.1f} dB  accuracy {100 * one.accuracy:5.1f} %" for _, name, one in rows]
    listed = "; ".join(" ".join(line.split()) for line in lines)
    alt = f"Logit quality and accuracy of {len(rows)} calibrations. {listed}."
    return Picture(figure, alt, "\n".join(lines))
