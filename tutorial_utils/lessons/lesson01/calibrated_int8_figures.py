"""Figures of lesson 01: what calibrations leave of the answers, and where they cut activations off."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tutorial_utils import plotting
from tutorial_utils.debug.calibration import Calibrated
from tutorial_utils.lessons.lesson01 import calibration
from tutorial_utils.measure import quality
from tutorial_utils.model import data
from tutorial_utils.plotting import GREY, RED, Picture

if TYPE_CHECKING:
    from tutorial_utils.lessons.lesson01.calibrated_int8 import Result


def draw_quality(results: "Mapping[str, Result | str]") -> Picture:
    """Draw what each engine leaves of the logits and of the answers; of calibrations, the text has the reasons."""
    groups: dict[str, dict[str, Calibrated]] = {}
    had = {name: one for name, one in results.items() if not isinstance(one, str)}
    for name, one in had.items():
        group, _, case = name.partition("/")
        groups.setdefault(group, {})[case] = Calibrated(one.accuracy, one.sqnr_db, {})
    right = round(next(iter(had.values())).fp32_accuracy * data.DIGITS_TEST_IMAGES)
    interval = quality.accuracy_interval(right, data.DIGITS_TEST_IMAGES)
    picture = calibration.draw_quality(list(groups.items()), interval)
    lines = [
        f"{name}: {one if isinstance(one, str) else f'{one.sqnr_db:.1f} dB, agreement {one.agreement:.1%}; {one.why}'}"
        for name, one in results.items()
    ]
    return Picture(picture.figure, picture.alt, "\n".join(lines))


def draw_thresholds(values: np.ndarray, chosen: Mapping[str, float]) -> Picture:
    """Draw an activation's magnitudes, and the one at which each calibration, by its name, puts INT8's last step."""
    figure, axes = plotting.new_figure(3.4)
    magnitudes = np.abs(values[values != 0])
    edges = np.geomspace(0.01, 1.3 * max(*chosen.values(), magnitudes.max()), 120)
    axes.hist(magnitudes, edges, weights=np.full(magnitudes.size, 100 / magnitudes.size), color=GREY, alpha=0.55)
    top = 1.9 * axes.get_ylim()[1]
    lines = []
    for position, (name, threshold) in enumerate(sorted(chosen.items(), key=lambda pair: -pair[1])):
        height = top * (0.97 - 0.42 * position / len(chosen))
        axes.plot([threshold] * 2, [0, height], color=RED, linewidth=1.5)
        plotting.note(axes, name, (threshold, height), (-5, -4), ha="right")
        cut = float(np.mean(magnitudes > threshold))
        lines.append(f"{name}: last step at {threshold:.4g}, {100 * cut:.2f} % of the values other than 0 beyond it")
    plotting.plain_numbers(axes.xaxis)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, top)
    axes.set_xlabel("magnitude (lines: where a calibration puts the last of INT8's 127 steps)")
    axes.set_ylabel("% of the values\nother than 0")
    listed = "; ".join(lines)
    return Picture(figure, f"An activation, and where calibrations cut it off. {listed}.", "\n".join(lines))
