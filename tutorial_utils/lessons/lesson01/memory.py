"""Lesson 01, memory reuse: the lifetimes of tensors, and the memory that sum, bound and engine need."""

from collections.abc import Mapping

import numpy as np

from tutorial_utils import plotting
from tutorial_utils.inspection.dataflow import Dataflow

_MIB = 2**20


def lifetimes(flow: Dataflow) -> plotting.Picture:
    """Draw when each tensor of a network is alive, and below it the bytes that are alive at each step.

    Args:
        flow: The network, with steps in the order of execution.
    """
    tensors, live = flow.lifetimes(), flow.live_bytes() / _MIB
    fullest = int(live.argmax())
    largest = max(one.size for one in tensors)
    figure, (upper, lower) = plotting.new_figure(
        1.6 + 0.15 * len(tensors), nrows=2, ncols=1, sharex=True, height_ratios=[0.16 * len(tensors), 1.3]
    )
    for row, one in enumerate(tensors):
        alive = one.first <= fullest <= one.last
        upper.barh(
            row, one.last - one.first + 0.9, left=one.first - 0.45, height=0.25 + 0.65 * one.size / largest,
            color=plotting.ORANGE if alive else plotting.BLUE,
        )  # fmt: skip
    upper.set_ylim(len(tensors) - 0.4, -0.6)
    upper.set_yticks([])
    upper.set_ylabel("tensors, thicker when larger")
    lower.bar(range(len(live)), live, width=0.9, color=[plotting.BLUE] * len(live))
    lower.patches[fullest].set_color(plotting.ORANGE)
    lower.axhline(live.max(), color=plotting.ORANGE, linewidth=1)
    lower.set_ylabel("MiB alive")
    lower.set_xticks(range(len(flow.steps)), [step.name for step in flow.steps], rotation=90, fontsize=8)
    names = ", ".join(one.tensor for one in tensors if one.first <= fullest <= one.last)
    alt = (
        f"Lifetimes of {len(tensors)} tensors over {len(flow.steps)} steps: bars along a diagonal. The most memory "
        f"is alive at {flow.steps[fullest].name}: {live.max():.2f} MiB."
    )
    text = [f"{step.name}: {size:.2f} MiB alive" for step, size in zip(flow.steps, live, strict=True)]
    return plotting.Picture(figure, alt, "\n".join([*text, f"fullest: {flow.steps[fullest].name} with {names}"]))


def memory_by_batch(networks: Mapping[str, Mapping[str, Mapping[int, int]]]) -> plotting.Picture:
    """Draw how much activation memory grows with the largest batch, one panel for each network.

    Args:
        networks: For each network its curves by label, and for each curve the bytes by batch.
    """
    figure, axes = plotting.new_figure(3.4, nrows=1, ncols=len(networks), squeeze=False)
    colours = (plotting.RED, plotting.GREY, plotting.GREEN, plotting.BLUE)
    lines = []
    for one, (network, curves) in zip(axes.flat, networks.items(), strict=True):
        for (label, curve), colour in zip(curves.items(), colours, strict=False):
            batches, sizes = list(curve), np.array(list(curve.values())) / _MIB
            one.plot(batches, sizes, "o-", color=colour, label=label, markersize=5)
            lines.append(
                f"{network}, {label}: "
                + ", ".join(f"batch {batch} {size:.1f} MiB" for batch, size in zip(batches, sizes, strict=True))
            )
        one.set_xscale("log", base=2)
        one.set_yscale("log")
        one.set_xticks(batches, batches)
        one.minorticks_off()
        one.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        one.grid(axis="y", color="#dddddd", linewidth=0.8)
        one.set_title(network, fontsize=11)
        one.set_xlabel("largest batch of the profile")
    axes.flat[0].set_ylabel("MiB of activations")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    alt = "Activation memory against the largest batch, on logarithmic axes. " + ". ".join(
        f"At batch {max(curve)}, {network}, {label}: {curve[max(curve)] / _MIB:.1f} MiB"
        for network, curves in networks.items()
        for label, curve in curves.items()
    )
    return plotting.Picture(figure, f"{alt}.", "\n".join(lines))
