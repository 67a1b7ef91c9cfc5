"""Lesson 01: range and resolution of number formats, the TF32 flag, and FP16 against FP32 on a GPU."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tutorial_utils import plotting
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model.number_formats import BF16, FORMATS, FP8, FP16, FP32, INT8, TF32
from tutorial_utils.plotting import BLUE, GREEN, GREY, ORANGE, RED, Picture

# Colour, line style, and where along the line its name stands: a magnitude at which it runs free of the others.
_LINES = {
    FP32: (GREY, "-", 2.0**8),
    TF32: (BLUE, "-", 2.0**28),
    BF16: (GREEN, "-", 2.0**28),
    FP16: (ORANGE, "--", 2.0**-21),
    FP8: (RED, "-", 2.0**3),
    INT8: (GREY, ":", 2.0**2),
}
_SMALLEST, _LARGEST = 2.0**-32, 2.0**36


def range_and_resolution(tensors: Mapping[str, np.ndarray]) -> Picture:
    """Draw each format's relative step over the magnitude, above the magnitudes that a network really has.

    INT8 is drawn with the scale 1/16, FP8 without a scale.

    Args:
        tensors: Values by name, such as weights and activations; the names go into the legend.
    """
    figure, (top, bottom) = plotting.new_figure(5.6, nrows=2, sharex=True, height_ratios=[2.2, 1])
    for number_format, (colour, style, label_at) in _LINES.items():
        scale = 1 / 16 if number_format is INT8 else 1.0
        low, high = max(number_format.smallest * scale, _SMALLEST), min(number_format.largest * scale, _LARGEST)
        magnitudes = np.exp2(np.linspace(np.log2(low), np.log2(high), 2000))
        binades = np.exp2(np.floor(np.log2(magnitudes)))  # the step relative to the binade: a line and not a saw
        top.plot(magnitudes, number_format.step(binades / scale) * scale / binades, style, color=colour, linewidth=2)
        at = float(number_format.step(np.array(label_at / scale)) * scale / label_at)
        top.annotate(
            number_format.name, (label_at, at), xytext=(3, 5), textcoords="offset points", color=colour, fontsize=10
        )
    top.set_yscale("log", base=2)
    top.set_ylim(2.0**-26, 2.0)
    top.set_ylabel("step / magnitude\n(lower is finer)")
    top.set_xscale("log", base=2)
    bins = np.exp2(np.arange(-32, 37))
    for (name, values), colour in zip(tensors.items(), (BLUE, ORANGE), strict=False):
        magnitudes = np.abs(values[values != 0])
        bottom.hist(
            magnitudes,
            bins,
            weights=np.full(magnitudes.size, 100 / magnitudes.size),
            color=colour,
            alpha=0.6,
            label=name,
        )
    bottom.set_ylabel("% of values\nother than 0")
    bottom.set_xlabel("magnitude (FP32, TF32 and BF16 go on to both sides, to about $2^{-126}$ and $2^{128}$)")
    bottom.legend(frameon=False)
    lines = [
        f"{one.name:8}  largest {one.largest:9.3g}  "
        f"smallest normal {'-' if one is INT8 else format(one.smallest_normal, '.3g'):>9}  "
        f"step at 1: {float(one.step(np.array(1.0))):.3g}"
        for one in FORMATS
    ]
    alt = (
        "Relative step of six number formats over the magnitude. FP32, TF32 and BF16 span the whole axis at three "
        "heights; FP16 is as fine as TF32 down to its smallest normal number and then loses a bit per halving; FP8 is "
        "coarser and narrower still; INT8 is a slope, fine only near its largest value. Below, histograms of the "
        f"magnitudes of {' and '.join(tensors)}."
    )
    return Picture(figure, alt, "\n".join(lines))


def tf32_errors(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """Draw the error of "FP32" engines against the rounding of TF32 and FP32.

    Args:
        rows: ``operator``, ``tf32_flag`` and ``rms_error`` of each engine.
    """
    figure, axes = plotting.new_figure(1.1 + 0.36 * len(rows))
    labels = [f"{row['operator']}, TF32 flag {'set' if row['tf32_flag'] else 'cleared'}" for row in rows]
    axes.plot([row["rms_error"] for row in rows], range(len(rows)), "o", color=BLUE, markersize=9)
    for exponent, name, colour in (
        (-11, "TF32 rounds by up to $2^{-11}$", RED),
        (-24, "FP32 by up to $2^{-24}$", GREEN),
    ):
        axes.axvline(2.0**exponent, color=colour, linewidth=1.5, linestyle="--", label=name)
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlim(1e-8, 1e-2)
    axes.set_xlabel("root mean square error, as a fraction of the result's")
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    width = max(map(len, labels))
    lines = [f"{label:{width}}  error {row['rms_error']:.1e}" for label, row in zip(labels, rows, strict=True)]
    return Picture(figure, f"Errors of engines built from FP32 models. {'. '.join(lines)}.", "\n".join(lines))


def batch_times(times: Mapping[str, Mapping[str, Measurement]]) -> Picture:
    """Draw the GPU time for one image, by batch size and precision.

    Args:
        times: Measurements by precision and batch size (as text).
    """
    batches = list(next(iter(times.values())))
    figure, axes = plotting.new_figure(2.6)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.grid(visible=False, axis="x")
    width = 0.8 / len(times)
    lines = []
    for index, (precision, by_batch) in enumerate(times.items()):
        positions = np.arange(len(batches)) + index * width - 0.4 + width / 2
        heights = [by_batch[batch].median_ms / int(batch) for batch in batches]
        bars = axes.bar(positions, heights, width * 0.92, color=(BLUE, ORANGE, GREEN)[index], label=precision)
        axes.bar_label(bars, [f"{height:.3g} ms" for height in heights], fontsize=9)
        lines += [
            f"{precision:6} batch {batch:>3}: {one.median_ms:7.3f} ms, {one.images_per_second:8,.0f} images/s"
            for batch, one in by_batch.items()
        ]
    axes.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
    axes.set_ylabel("milliseconds for one image")
    axes.legend(frameon=False)
    return Picture(figure, f"GPU time by precision and batch size. {'; '.join(lines)}.", "\n".join(lines))
