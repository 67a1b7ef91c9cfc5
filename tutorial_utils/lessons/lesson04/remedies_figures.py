"""Lesson 04: what the remedies do, to the error of one answer and to the accuracy of a classifier."""

from collections.abc import Mapping, Sequence

import numpy as np

from tutorial_utils import plotting
from tutorial_utils.debug import remedies
from tutorial_utils.plotting import BLUE, GREEN, ORANGE, RED, Picture


def outcomes(patients: Mapping[str, Mapping[str, remedies.Outcome]]) -> Picture:
    """Draw the error of each remedy as a bar, a panel for each patient, with the answers that are kept beside it."""
    counts = [len(one) for one in patients.values()]
    figure, panels = plotting.new_figure(0.9 * len(counts) + 0.36 * sum(counts), nrows=len(counts), sharex=True,
                                         squeeze=False, height_ratios=counts)  # fmt: skip
    finite = [one.rel_l2 for of in patients.values() for one in of.values() if np.isfinite(one.rel_l2)]
    low, top = min(finite) / 3, 3 * max(finite)
    lines = []
    for axes, (patient, of) in zip(panels[:, 0], patients.items(), strict=True):
        for position, (remedy, one) in enumerate(of.items()):
            is_finite = bool(np.isfinite(one.rel_l2))
            style = {"color": GREEN if one.task == 1 else BLUE} if is_finite else {"facecolor": "white", "hatch": "//"}
            end = one.rel_l2 if is_finite else top
            axes.barh(position, end - low, left=low, height=0.62, edgecolor=RED if not is_finite else "none", **style)
            text = f"{one.task:.1%} of the answers" if is_finite else f"Inf or NaN; {one.task:.1%} of the answers"
            plotting.note(axes, text, (end, position), (6, 0))
            error = f"error {one.rel_l2:.1e}" if is_finite else f"finite for {one.finite:.0%} of the inputs"
            lines.append(f"{patient}, {remedy}: {error}, {one.task:.1%} of the answers as in FP32")
        plotting.name_rows(axes, list(of))
        axes.set_xscale("log")
        axes.set_xlim(low, 30 * top)
        axes.set_title(patient, loc="left", fontsize=11)
    panels[-1, 0].set_xlabel("relative L2 error of the output against FP32")
    for colour, label in ((GREEN, "all answers as in FP32"), (BLUE, "some are not")):
        panels[0, 0].plot([], [], "s", color=colour, label=label)
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    alt = f"Error of each remedy as bars, a panel for each patient. {'; '.join(lines)}."
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
