"""Lesson 01: where calibrations cut an activation off."""

from collections.abc import Mapping

import numpy as np

from tutorial_utils import plotting
from tutorial_utils.plotting import GREY, RED, Picture

_PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # keeps a name readable across other lines


def draw_thresholds(values: np.ndarray, chosen: Mapping[str, float]) -> Picture:
    """Draw an activation's magnitudes, and the one at which each calibration, by its name, puts INT8's last step."""
    figure, axes = plotting.new_figure(3.4)
    magnitudes = np.abs(values).ravel()
    edges = np.geomspace(0.01, 1.3 * max(*chosen.values(), magnitudes.max()), 120)
    weights = np.full(magnitudes.size, 100 / magnitudes.size)
    axes.hist(magnitudes, edges, weights=weights, color=GREY, alpha=0.55, label="values")
    top = 1.9 * axes.get_ylim()[1]
    lines = []
    for position, (name, threshold) in enumerate(sorted(chosen.items(), key=lambda pair: -pair[1])):
        axes.axvline(threshold, color=RED, linewidth=1.5, label="" if position else "range: INT8's last step")
        height = top * (0.95 - 0.45 * position / len(chosen))
        plotting.note(axes, name, (threshold, height), (-5, 0), ha="right", bbox=_PLATE)
        cut = float(np.mean(magnitudes > threshold))
        lines.append(f"{name}: last step at {threshold:.4g}, {100 * cut:.2f} % of all values beyond it")
    plotting.plain_numbers(axes.xaxis)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, top)
    axes.set_xlabel("magnitude (0 is left of the axis)")
    axes.set_ylabel("% of all values")
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    listed = "; ".join(lines)
    return Picture(figure, f"An activation, and where calibrations cut it off. {listed}.", "\n".join(lines))
