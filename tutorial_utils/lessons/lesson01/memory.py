"""Lesson 01, memory reuse: the memory that sum, bound and engine need."""

from collections.abc import Mapping

import numpy as np

from tutorial_utils import plotting

_MIB = 2**20


def memory_by_batch(networks: Mapping[str, Mapping[str, Mapping[int, int]]]) -> plotting.Picture:
    """Draw activation memory over the largest batch: for each network a panel, for each label its bytes by batch."""
    figure, _ = plotting.new_figure(3.4, nrows=1, ncols=len(networks))
    colours = (plotting.RED, plotting.GREY, plotting.GREEN, plotting.BLUE)
    lines = []
    for one, (network, curves) in zip(figure.axes, networks.items(), strict=True):
        for (label, curve), colour in zip(curves.items(), colours, strict=False):
            batches, sizes = list(curve), np.array(list(curve.values())) / _MIB
            one.plot(batches, sizes, "o-", color=colour, label=label, markersize=5)
            listed = (f"batch {batch} {size:.1f} MiB" for batch, size in zip(batches, sizes, strict=True))
            lines.append(f"{network}, {label}: {', '.join(listed)}")
        one.set_xscale("log", base=2)
        plotting.plain_numbers(one.yaxis)
        one.set_xticks(batches, batches)
        one.minorticks_off()
        one.grid(axis="y", color="#dddddd", linewidth=0.8)
        one.set_title(network, fontsize=11)
        one.set_xlabel("largest batch of the profile")
    figure.axes[0].set_ylabel("MiB of activations")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    alt = "Activation memory against the largest batch, on logarithmic axes. " + ". ".join(
        f"At batch {max(curve)}, {network}, {label}: {curve[max(curve)] / _MIB:.1f} MiB"
        for network, curves in networks.items()
        for label, curve in curves.items()
    )
    return plotting.Picture(figure, f"{alt}.", "\n".join(lines))
