"""Figures of lesson 01: what calibrations leave of the answers, and what engines compute in, beside what was asked."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tutorial_utils import plotting
from tutorial_utils.debug.calibration import Calibrated
from tutorial_utils.lessons.lesson01 import calibration
from tutorial_utils.measure import quality
from tutorial_utils.model import data
from tutorial_utils.plotting import BLUE, GREEN, GREY, ORANGE, RED, Picture

if TYPE_CHECKING:
    from tutorial_utils.lessons.lesson01.calibrated_int8 import Result

_SHADES = {"fp32": GREY, "tf32": BLUE, "fp16": ORANGE, "bf16": GREEN, "int8": RED, "fp8": "#CC79A7"}


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


def draw_types(results: "Mapping[str, Result | str]") -> Picture:
    """Draw what the convolutions and products of the engine of each precision compute in, beside what was asked for."""
    asked = {name.removeprefix("precision/"): one for name, one in results.items() if name.startswith("precision/")}
    shown = {name: one for name, one in asked.items() if not isinstance(one, str)}
    figure, axes = plotting.new_figure(1.0 + 0.32 * len(shown))
    for position, one in enumerate(shown.values()):
        left = 0
        for dtype, count in one.types.items():
            axes.barh(position, count, left=left, color=_SHADES.get(dtype, "black"), height=0.7)
            left += count
    plotting.name_rows(axes, list(shown))
    axes.set_xlabel("convolutions and matrix products, by the type that they compute in")
    present = dict.fromkeys(dtype for one in shown.values() for dtype in one.types)
    for dtype in present:
        axes.plot([], [], "s", color=_SHADES.get(dtype, "black"), label=dtype.upper())
    figure.legend(loc="outside upper left", ncols=len(present), frameon=False)
    width = max(map(len, asked))
    lines = [
        f"asked for {name:{width}}  "
        + (one if isinstance(one, str) else f"accuracy {one.accuracy:.1%}, agreement {one.agreement:.1%}; {one.line}")
        for name, one in asked.items()
    ]
    return Picture(figure, f"Types that engines compute in. {'; '.join(lines)}.", "\n".join(lines))
