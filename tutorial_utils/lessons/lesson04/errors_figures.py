"""Lesson 04: the errors of a faulty file's tensors, against what is allowed of each."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tutorial_utils import plotting


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
