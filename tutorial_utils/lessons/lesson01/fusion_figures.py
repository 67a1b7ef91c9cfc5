"""Lesson 01, layer fusion: the bytes moved with and without fusion."""

from collections.abc import Mapping

from tutorial_utils import plotting
from tutorial_utils.inspection.dataflow import Dataflow


def bytes_moved(networks: Mapping[str, Mapping[str, Dataflow]]) -> plotting.Picture:
    """Draw the bytes of activations that each variant of each network reads and writes.

    Args:
        networks: For each network its variants, such as ``{"quick": {"ONNX nodes": ..., "fused engine": ...}}``.
    """
    figure, axes = plotting.new_figure(2.6, nrows=1, ncols=len(networks))
    lines, fractions = [], []
    for one, (network, variants) in zip([axes] if len(networks) == 1 else axes, networks.items(), strict=True):
        for row, (name, flow) in enumerate(variants.items()):
            read, written = flow.read_bytes / 1e6, flow.written_bytes / 1e6
            one.barh(row, read, color=plotting.BLUE, label="read" if row == 0 else None)
            one.barh(row, written, left=read, color=plotting.ORANGE, label="written" if row == 0 else None)
            one.text(read + written, row, f" {read + written:.0f}", va="center", fontsize=9)
            lines.append(f"{network}, {name}: {read:.1f} MB read, {written:.1f} MB written, {len(flow.steps)} steps")
        one.set_yticks(range(len(variants)), variants)
        one.set_ylim(len(variants) - 0.4, -0.6)
        one.set_xlim(right=1.18 * max(flow.moved_bytes for flow in variants.values()) / 1e6)
        one.set_title(network, fontsize=11)
        one.set_xlabel("MB of activations for one batch")
        first, second = list(variants.values())[:2]
        fractions.append(f"{network} {second.moved_bytes / first.moved_bytes:.0%}")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    first, second = list(next(iter(networks.values())))[:2]
    alt = f"Bytes of activations moved by {second}, as a fraction of those by {first}: {', '.join(fractions)}."
    return plotting.Picture(figure, alt, "\n".join(lines))
