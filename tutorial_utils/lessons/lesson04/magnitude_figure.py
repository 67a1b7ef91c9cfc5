"""Lesson 04a: how large the tensors of a network are in FP32, in the order of computation, and what made them so."""

from collections.abc import Mapping

import numpy as np

from tutorial_utils import plotting
from tutorial_utils.model.number_formats import FP16

_PANEL_INCHES = 2.9
_TOP, _STEP = 0.95, 0.1  # where labels stand, as shares of a panel's height: the first one, and from one to the next


def magnitudes(
    networks: Mapping[str, Mapping[str, np.ndarray]], labels: Mapping[str, Mapping[str, str]]
) -> plotting.Picture:
    """Draw the largest magnitude of each FP32 tensor against what FP16 can hold, a panel for each network.

    Args:
        networks: Every tensor of a network in the order of computation, by the name of the network. Those that are
            all zero, or of another type than float32, are left out.
        labels: What to write at which tensors, by the name of their network.
    """
    figure, panels = plotting.new_figure(_PANEL_INCHES * len(networks), nrows=len(networks), squeeze=False)
    lines = []
    for axes, (name, tensors) in zip(panels.flat, networks.items(), strict=True):
        numbers = {tensor: one for tensor, one in tensors.items() if one.dtype == np.float32 and one.any()}
        peaks = {tensor: float(np.abs(one).max()) for tensor, one in numbers.items()}
        order = list(peaks)
        axes.plot(range(len(peaks)), list(peaks.values()), color=plotting.BLUE, linewidth=1.2)
        above = [place for place, tensor in enumerate(order) if peaks[tensor] > FP16.largest]
        axes.plot(above, [peaks[order[place]] for place in above], "x", color=plotting.RED, markersize=7, linestyle="")
        axes.axhline(FP16.largest, color="black", linewidth=1, linestyle="--")
        axes.set_yscale("log")
        axes.set_ylim(top=max(FP16.largest, *peaks.values()) * 1e4)  # room for the labels
        axes.set_title(name, fontsize=10, loc="left")
        axes.set_ylabel("largest magnitude")
        said = []
        for number, (tensor, text) in enumerate(labels.get(name, {}).items()):
            place = order.index(tensor)
            _label(axes, text, (place, peaks[tensor]), place / len(order), _TOP - _STEP * number)
            said.append(f"{tensor} {peaks[tensor]:,.0f}, {text}")
        lines.append("; ".join([f"{name}: {len(above)} of {len(peaks)} tensors above 65,504", *said]))
    panels.flat[-1].set_xlabel("tensors in the order of computation; dashed: 65,504, where FP16 ends")
    alt = f"The largest magnitude of each tensor in FP32, with a line at 65,504, where FP16 ends. {'. '.join(lines)}."
    return plotting.Picture(figure, alt, "\n".join(lines))


def _label(axes, text: str, point: tuple[float, float], right: float, up: float) -> None:
    """Write a text left of a point, or right of it in the left half, at a height of its own, with an arrow to it."""
    side = "right" if right > 0.5 else "left"
    axes.annotate(
        plotting.literal(text), point, (right + (-0.03 if side == "right" else 0.03), up), "data", "axes fraction",
        {"arrowstyle": "->", "color": plotting.RED, "linewidth": 1.2}, ha=side, va="center", fontsize=9,
        color=plotting.RED,
    )  # fmt: skip
