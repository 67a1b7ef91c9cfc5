"""Lesson 04: how large the tensors of a network are, and how its rounding error grows with depth."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tutorial_utils import plotting
from tutorial_utils.debug import tensor_errors
from tutorial_utils.model.number_formats import FP16

_STYLES = {"fp16": (plotting.BLUE, "o"), "bf16": (plotting.ORANGE, "^")}


def magnitudes(tables: Mapping[str, pd.DataFrame]) -> plotting.Picture:
    """Draw the largest magnitude of every tensor in FP32, in the order of computation, against what FP16 can hold.

    The tables are those of `tensor_errors.compare`, with FP32 as the reference, by the name of the model.
    """
    figure, axes = plotting.new_figure(3.2)
    lines = []
    styles = ((plotting.RED, 3.0), (plotting.BLUE, 1.0))  # the second lies on the first, which shows where they differ
    for (name, table), (colour, width) in zip(tables.items(), styles, strict=False):
        peaks = table["peak_ref"].to_numpy()
        axes.plot(range(len(peaks)), peaks, color=colour, linewidth=width, label=name)
        above = np.flatnonzero(peaks > FP16.largest)
        for position in above:
            axes.plot(position, peaks[position], "x", color=colour, markersize=8, markeredgewidth=2)
        largest, peak = table["peak_ref"].idxmax(), table["peak_ref"].max()
        lines.append(f"{name}: largest {peak:,.0f} in {largest}; {len(above)} tensors above the limit")
    axes.axhline(FP16.largest, color="black", linewidth=1, linestyle="--", label="largest FP16 number, 65,504")
    axes.set_yscale("log")
    axes.set_xlabel("tensors in the order of computation")
    axes.set_ylabel("largest magnitude, FP32")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    alt = (
        f"The largest magnitude of each tensor in FP32, with a line at 65,504, which FP16 ends at. {'; '.join(lines)}."
    )
    return plotting.Picture(figure, alt, "\n".join(lines))


def error_growth(tables: Mapping[tensor_errors.Format, pd.DataFrame], depths: Mapping[str, int]) -> plotting.Picture:
    """Draw every tensor's relative L2 error against its depth, with the tolerance of `tensor_errors.tolerance`.

    Args:
        tables: What `tensor_errors.compare` returned, by the format in which the second run stored its tensors.
        depths: The depth of each tensor, from `tensor_errors.depths`.
    """
    figure, axes = plotting.new_figure(4.2)
    lines = []
    for dtype, table in tables.items():
        colour, marker = _STYLES[dtype]
        depth = np.array([depths[name] for name in table.index])
        error = table["rel_l2"].to_numpy()
        drawn = error > 0
        label = f"{dtype.upper()}: tensors"
        axes.plot(depth[drawn], error[drawn], marker, color=colour, markersize=4, alpha=0.5, label=label)
        line = np.arange(1, depth.max() + 1)
        epsilon = tensor_errors.machine_epsilon(dtype)
        axes.plot(line, epsilon * line**0.5, color=colour, linewidth=1.2, linestyle=":", label="epsilon * sqrt(depth)")
        allowed = np.array([tensor_errors.tolerance(dtype, one) for one in line])
        axes.plot(line, allowed, color=colour, linewidth=2, label="tolerance: twice that")
        share = (error / allowed[depth - 1]).max()
        lines.append(
            f"{dtype.upper()}: machine epsilon {epsilon:.1e}, all {len(table)} tensors within tolerance: {share < 1}"
        )
    axes.axhline(1e-5, color="black", linewidth=1, linestyle="--", label="1e-5, the habit")
    plotting.plain_numbers(axes.xaxis)
    axes.set_yscale("log")
    axes.set_xlabel("depth: operations between the input and the tensor")
    axes.set_ylabel("relative L2 error against FP32")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    figure.legend(loc="outside right upper", frameon=False)
    alt = (
        "Each tensor's relative L2 error against its depth, both on logarithmic axes. The points rise over the first "
        "tens of operations and then level off, below a line that rises with the square root of depth. "
        f"{'; '.join(lines)}. A line at 1e-5 lies below them."
    )
    return plotting.Picture(figure, alt, "\n".join(lines))


def two_ways(tables: Mapping[str, tuple[pd.DataFrame, pd.Series, pd.DataFrame]], culprit: str) -> plotting.Picture:
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
        axes.plot(places, usual, ".", color=plotting.GREY, markersize=4, label="trusted file")
        axes.plot(places, error, ".", color=plotting.BLUE, markersize=4, label="faulty file")
        bad = error > limit
        axes.plot(places[bad], error[bad], "X", color=plotting.RED, markersize=8, label="beyond what is allowed")
        where = faulty.index.get_loc(culprit)
        axes.axvline(where, color=plotting.ORANGE, linewidth=1.2, linestyle="--", label="tensor of the faulty layer")
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
    return plotting.Picture(figure, alt, "\n".join(lines))


def _first(table: pd.DataFrame, bad: np.ndarray) -> str:
    return table.index[int(np.argmax(bad))] if bad.any() else "none"
