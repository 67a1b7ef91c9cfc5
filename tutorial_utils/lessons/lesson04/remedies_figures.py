"""Lesson 04: what the remedies do, to the error of one answer and to the accuracy of a classifier."""

from collections.abc import Mapping, Sequence

from tutorial_utils import plotting
from tutorial_utils.lessons.lesson04.outcome import Outcome
from tutorial_utils.plotting import BLUE, GREEN, GREY, ORANGE, RED, Picture

_COLOURS = (RED, ORANGE, BLUE, GREEN, GREY)
_MARKERS = "X^osD"


def errors(curves: Mapping[str, Mapping[float, Outcome]]) -> Picture:
    """Draw the error of each variant, by name, against the factor that was moved between two layers.

    What isn't finite is drawn at the upper edge.
    """
    figure, axes = plotting.new_figure(3.6)
    finite = [one.rel_l2 for points in curves.values() for one in points.values() if one.finite]
    top = 20 * max(finite)
    lines, broken = [], []
    for (name, points), colour, marker in zip(curves.items(), _COLOURS, _MARKERS, strict=False):
        heights = [one.rel_l2 if one.finite else top for one in points.values()]
        axes.plot(list(points), heights, marker=marker, color=colour, label=name, markersize=7)
        for factor, one in points.items():
            state = "boxes kept" if one.boxes_kept else "boxes not kept"
            error = f"relative L2 error {one.rel_l2:.1e}, {state}" if one.finite else "not finite"
            lines.append(f"{name:26} factor {factor:5g}: {error}")
        if not all(one.finite for one in points.values()):
            broken.append(name)
    factors = sorted({factor for points in curves.values() for factor in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(factors, [f"{factor:g}" for factor in factors])
    axes.set_yscale("log")
    axes.axhline(top, color=GREY, linewidth=0.8, linestyle=":")
    beside = ("axes fraction", "data")
    plotting.note(axes, "Inf or NaN", (0.01, top), (0, 3), xycoords=beside, color=GREY, va="baseline")
    axes.set_ylim(min(finite) / 2, 2.5 * top)
    axes.set_xlabel("factor moved between two layers")
    axes.set_ylabel("relative L2 error against FP32")
    figure.legend(loc="outside upper left", ncols=len(curves), frameon=False)
    alt = (
        f"Relative L2 error of {', '.join(curves)} against the factor that was moved, both axes logarithmic. "
        f"Not finite at some factor: {', '.join(broken) or 'none'}. The errors stand in the text beside the picture."
    )
    return Picture(figure, alt, "\n".join(lines))


def accuracies(groups: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> Picture:
    """Draw the accuracy of a classifier, 0 to 1, before and after each remedy as bars: a group of rows for each."""
    rows = [(title, name, value) for title, entries in groups for name, value in entries]
    figure, axes = plotting.new_figure(0.9 + 0.3 * len(rows))
    colours = dict(zip([title for title, _ in groups], (BLUE, ORANGE, GREEN, RED), strict=False))
    for position, (title, _, value) in enumerate(rows):
        axes.barh(position, 100 * value, color=colours[title], height=0.7)
        plotting.note(axes, f"{100 * value:.1f}", (100 * value, position), (4, 0))
    plotting.name_rows(axes, [name for _, name, _ in rows])
    axes.set_xlim(0, 108)
    axes.set_xlabel("right answers on the test images, %")
    for title, colour in colours.items():
        axes.plot([], [], "s", color=colour, label=title)
    figure.legend(loc="outside upper left", ncols=len(colours), frameon=False)
    width = max(len(name) for _, name, _ in rows)
    lines = [f"{title}: {name:{width}} {100 * value:5.1f} %" for title, name, value in rows]
    listed = "; ".join(" ".join(line.split()) for line in lines)
    return Picture(figure, f"Accuracies as bars. {listed}.", "\n".join(lines))
