"""The figures of lesson 04: how large tensors are, what is found on the page, errors, and what remedies do."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tutorial_utils import plotting
from tutorial_utils.debug import remedies
from tutorial_utils.lessons.lesson04 import text_detection
from tutorial_utils.model.number_formats import FP16
from tutorial_utils.plotting import BLUE, GREEN, GREY, ORANGE, RED, Picture

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

_PANEL_INCHES = 2.9
_TOP, _STEP = 0.95, 0.1  # where labels stand, as shares of a panel's height: the first one, and from one to the next
_MASKED = -1e8  # what lies below is a mask


def magnitudes(networks: Mapping[str, Mapping[str, np.ndarray]], labels: Mapping[str, Mapping[str, str]]) -> Picture:
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
        axes.plot(range(len(peaks)), list(peaks.values()), color=BLUE, linewidth=1.2)
        above = [place for place, tensor in enumerate(order) if peaks[tensor] > FP16.largest]
        axes.plot(above, [peaks[order[place]] for place in above], "x", color=RED, markersize=7, linestyle="")
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
    return Picture(figure, alt, "\n".join(lines))


def _label(axes: "Axes", text: str, point: tuple[float, float], right: float, up: float) -> None:
    """Write a text left of a point, or right of it in the left half, at a height of its own, with an arrow to it."""
    side = "right" if right > 0.5 else "left"
    axes.annotate(
        plotting.literal(text), point, (right + (-0.03 if side == "right" else 0.03), up), "data", "axes fraction",
        {"arrowstyle": "->", "color": RED, "linewidth": 1.2}, ha=side, va="center", fontsize=9,
        color=RED,
    )  # fmt: skip


def on_their_way(values: Mapping[str, np.ndarray]) -> Picture:
    """Draw the largest magnitude of every tensor of an FP32 run as a dot, without what a mask makes of padding.

    The values are those of `tensor_errors.all_outputs`. A tensor that is all 0 has no dot: the axis is logarithmic.
    """
    figure, axes = plotting.new_figure(0.9 + 0.28 * len(values))
    lines = []
    for position, (name, array) in enumerate(values.items()):
        padding = array <= _MASKED
        peak = float(np.abs(array[~padding]).max(initial=0))
        beyond = peak > FP16.largest
        if peak:
            axes.plot(peak, position, "X" if beyond else "o", color=RED if beyond else BLUE, markersize=9)
        text = f"{peak:,.3g}" if peak < 1000 else f"{peak:,.0f}"
        masked = f"and {array.min():.0e} for padding".replace("e+0", "e") if padding.any() else ""
        said = [text, *(["overflows"] if beyond else []), *([masked] if masked else [])]
        before = 1000 <= peak <= FP16.largest  # where a text behind the dot would lie on the line
        plotting.note(
            axes, " ".join(said), (max(peak, 1.0), position), (-9 if before else 9, 0), ha="right" if before else "left"
        )
        lines.append(f"{name:10} {' '.join(said)}")
    plotting.name_rows(axes, list(values))
    axes.axvline(FP16.largest, color=GREY, linewidth=1.2, linestyle="--", label="largest FP16 number, 65,504")
    axes.set_xscale("log")
    axes.set_xlim(0.7, 3e7)
    axes.set_xlabel("largest magnitude in FP32")
    figure.legend(loc="outside upper left", frameon=False)
    listed = "; ".join(" ".join(line.split()) for line in lines)
    alt = f"The largest magnitude of each tensor in FP32 as a dot, with a line at 65,504, where FP16 ends. {listed}."
    return Picture(figure, alt, "\n".join(lines))


def detections(image: np.ndarray, runs: Mapping[str, np.ndarray]) -> Picture:
    """Draw the boxes of one or more runs of the text detector on the page, and the pixels for which a run says NaN.

    Args:
        image: uint8 RGB, shape ``[H, W, 3]``.
        runs: The network's output for that image, ``[1, 1, height, width]``, by the name of the run.
    """
    height = 9 / len(runs) * image.shape[0] / image.shape[1] + 0.3
    figure, panels = plotting.new_figure(height, ncols=len(runs), squeeze=False)
    lines = []
    for panel, (name, probability) in zip(panels.flat, runs.items(), strict=True):
        panel.set_axis_off()
        plane = np.asarray(probability).reshape(probability.shape[-2:])
        extent = (0, plane.shape[1], plane.shape[0], 0)
        panel.imshow(image, extent=extent, aspect="equal")
        lost = np.isnan(plane)
        if lost.any():
            red = np.zeros((*plane.shape, 4))
            red[lost] = (0.84, 0.37, 0, 0.75)
            panel.imshow(red, extent=extent, aspect="equal", interpolation="nearest")
        found = text_detection.boxes(plane)
        for x0, y0, x1, y1 in found:
            panel.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=BLUE, linewidth=1.6)
        share = f", {100 * lost.mean():.1f} % of the pixels NaN" if lost.any() else ""
        lines.append(f"{name}: {len(found)} boxes{share}")
        panel.set_title(lines[-1], fontsize=10)
    alt = f"A photograph of a printed page with the boxes that each run found around its lines. {'; '.join(lines)}."
    return Picture(figure, alt, "\n".join(lines))


def two_ways(tables: "Mapping[str, tuple[pandas.DataFrame, pandas.Series, pandas.DataFrame]]", culprit: str) -> Picture:
    """Draw the errors of a faulty file taken in several ways, each with its tolerance and the trusted file's errors.

    Args:
        tables: By the way, what `tensor_errors.compare` returned for the trusted file, the tolerance of each tensor,
            and what it returned for the faulty one.
        culprit: The tensor that the faulty layer writes.
    """
    figure, panels = plotting.new_figure(5.6, nrows=len(tables), sharex=True, sharey=True)
    lines = []
    for axes, (way, (trusted, allowed, faulty)) in zip(panels, tables.items(), strict=True):
        places = np.arange(len(faulty))
        error, limit = faulty["rel_l2"].to_numpy(), allowed.reindex(faulty.index).to_numpy()
        usual = trusted["rel_l2"].reindex(faulty.index).to_numpy()
        axes.plot(places, limit, color="black", linewidth=1.5, label="allowed: three times the trusted file's largest")
        axes.plot(places, usual, ".", color=GREY, markersize=4, label="trusted file")
        axes.plot(places, error, ".", color=BLUE, markersize=4, label="faulty file")
        bad = error > limit
        axes.plot(places[bad], error[bad], "X", color=RED, markersize=8, label="beyond what is allowed")
        where = faulty.index.get_loc(culprit)
        axes.axvline(where, color=ORANGE, linewidth=1.2, linestyle="--", label="tensor of the faulty layer")
        axes.set_yscale("log")
        axes.set_ylim(5e-5, 0.1)
        axes.set_ylabel("relative L2 error")
        axes.set_title(way, loc="left", fontsize=11)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        lines.append(f"{way}: {bad.sum()} of {len(bad)} tensors beyond what is allowed; first {_first(faulty, bad)}")
    panels[-1].set_xlabel("tensors in the order of computation")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False)
    alt = (
        f"Errors of a faulty file's tensors, with what is allowed of each and the errors of the file that is trusted, "
        f"one panel for each way of taking them. A line marks {culprit}. {'. '.join(lines)}."
    )
    return Picture(figure, alt, "\n".join(lines))


def _first(table: "pandas.DataFrame", bad: np.ndarray) -> str:
    return table.index[int(np.argmax(bad))] if bad.any() else "none"


def outcomes(patients: Mapping[str, Mapping[str, remedies.Outcome]]) -> Picture:
    """Draw the error of each remedy as a mark, a panel for each patient, with the answers that are kept beside it.

    What isn't finite has no error, and no mark.
    """
    counts = [len(one) for one in patients.values()]
    figure, panels = plotting.new_figure(0.9 * len(counts) + 0.36 * sum(counts), nrows=len(counts), sharex=True,
                                         squeeze=False, height_ratios=counts)  # fmt: skip
    finite = [one.rel_l2 for of in patients.values() for one in of.values() if np.isfinite(one.rel_l2)]
    low = min(finite) / 3
    kinds = ("o", GREEN, "all answers as in FP32"), ("s", BLUE, "some are not")
    lines = []
    for axes, (patient, of) in zip(panels[:, 0], patients.items(), strict=True):
        for position, (remedy, one) in enumerate(of.items()):
            is_finite = bool(np.isfinite(one.rel_l2))
            answers = f"{one.task:.1%} of the answers"
            if is_finite:
                marker, colour, _ = kinds[0 if one.task == 1 else 1]
                axes.plot(one.rel_l2, position, marker, color=colour, markersize=9)
                plotting.note(axes, answers, (one.rel_l2, position), (9, 0))
            else:
                plotting.note(axes, f"Inf or NaN; {answers}", (low, position), (6, 0), color=RED)
            error = f"error {one.rel_l2:.1e}" if is_finite else f"finite for {one.finite:.0%} of the inputs"
            lines.append(f"{patient}, {remedy}: {error}, {one.task:.1%} of the answers as in FP32")
        plotting.name_rows(axes, list(of))
        axes.set_xscale("log")
        axes.set_xlim(low, 20 * max(finite))  # room for the text
        axes.set_title(patient, loc="left", fontsize=11)
    panels[-1, 0].set_xlabel("relative L2 error of the output against FP32")
    for marker, colour, label in kinds:
        panels[0, 0].plot([], [], marker, color=colour, label=label)
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    alt = f"Error of each remedy as a mark, a panel for each patient. {'; '.join(lines)}."
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
