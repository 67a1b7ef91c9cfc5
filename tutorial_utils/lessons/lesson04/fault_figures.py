"""Lesson 04c: how large the tensors of a network are on their way, and which of them FP16 can't hold."""

from collections.abc import Mapping

import numpy as np

from tutorial_utils import plotting
from tutorial_utils.model.number_formats import FP16
from tutorial_utils.plotting import BLUE, GREY, RED, Picture

_MASKED = -1e8  # what lies below is a mask


def on_their_way(values: Mapping[str, np.ndarray]) -> Picture:
    """Draw the largest magnitude of every tensor of an FP32 run as a bar, without what a mask makes of padding.

    The values are those of `tensor_errors.all_outputs`.
    """
    figure, axes = plotting.new_figure(0.9 + 0.28 * len(values))
    lines = []
    behind = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 1}  # so that the line doesn't cross a text
    for position, (name, array) in enumerate(values.items()):
        padding = array <= _MASKED
        peak = float(np.abs(array[~padding]).max(initial=0))
        beyond = peak > FP16.largest
        axes.barh(position, peak, color=RED if beyond else BLUE, hatch="//" if beyond else None, height=0.7)
        text = f"{peak:,.3g}" if peak < 1000 else f"{peak:,.0f}"
        masked = f"and {array.min():.0e} for padding".replace("e+0", "e") if padding.any() else ""
        said = [text, *(["overflows"] if beyond else []), *([masked] if masked else [])]
        plotting.note(axes, " ".join(said), (max(peak, 1.0), position), (4, 0), bbox=behind)
        lines.append(f"{name:10} {' '.join(said)}")
    plotting.name_rows(axes, list(values))
    axes.axvline(FP16.largest, color=GREY, linewidth=1.2, linestyle="--", label="largest FP16 number, 65,504")
    axes.set_xscale("log")
    axes.set_xlim(1, 3e7)
    axes.set_xlabel("largest magnitude in FP32")
    figure.legend(loc="outside upper left", frameon=False)
    listed = "; ".join(" ".join(line.split()) for line in lines)
    alt = f"The largest magnitude of each tensor in FP32 as a bar, with a line at 65,504, where FP16 ends. {listed}."
    return Picture(figure, alt, "\n".join(lines))
