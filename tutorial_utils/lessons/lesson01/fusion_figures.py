"""Lesson 01, layer fusion: which ONNX node ended in which kernel, and the bytes moved with and without fusion."""

from collections.abc import Mapping

import onnx

from tutorial_utils import plotting
from tutorial_utils.engine import BuildReport
from tutorial_utils.inspection.dataflow import Dataflow

_COLOURS = {
    "Conv": plotting.BLUE, "MatMul": plotting.BLUE, "Gemm": plotting.BLUE, "BatchNormalization": plotting.ORANGE,
    "Relu": plotting.GREEN, "Add": plotting.RED,
}  # fmt: skip
_SHORT = {"BatchNormalization": "BatchNorm", "GlobalAveragePool": "AveragePool"}


def fusion_map(graph: onnx.GraphProto, report: BuildReport) -> plotting.Picture:
    """Draw one row for each kernel of an engine, with a box for each ONNX node that was fused into it.

    Args:
        graph: The ONNX graph.
        report: The report of its build, with layers.
    """
    operators = {node.name: node.op_type for node in graph.node}
    kernels = report.kernels
    figure, axes = plotting.new_figure(0.9 + 0.36 * len(kernels))
    lines = []
    for row, kernel in enumerate(kernels):
        names = [name for name in operators if name in kernel.onnx_nodes]  # in the order of the graph
        for column, name in enumerate(names):
            axes.barh(row, 0.95, left=column, height=0.8, color=_COLOURS.get(operators[name], plotting.GREY))
            label = name.replace(operators[name], _SHORT.get(operators[name], operators[name]))
            axes.text(column + 0.475, row, label, ha="center", va="center", color="white", fontsize=9, weight="bold")
        if not names:
            axes.text(0.04, row, "no ONNX node: a change of memory layout", va="center", color="#333333", fontsize=9)
        lines.append(f"kernel {row + 1:2}: {', '.join(names) or 'no ONNX node'}")
    axes.set_yticks(range(len(kernels)), [f"kernel {row + 1}" for row in range(len(kernels))])
    axes.set_ylim(len(kernels) - 0.4, -0.6)
    axes.set_xticks([])
    axes.spines[["bottom", "left"]].set_visible(False)
    fused = {name for kernel in kernels for name in kernel.onnx_nodes}
    gone = [name for name in operators if name not in fused]
    lines.append(f"in no kernel: {', '.join(gone) or 'none'}")
    largest = max(kernels, key=lambda kernel: len(kernel.onnx_nodes))
    alt = (
        f"Fusion map: {len(operators)} ONNX nodes in {len(kernels)} kernels. The largest, of type {largest.type}, "
        f"holds {len(largest.onnx_nodes)} nodes; {len(gone)} nodes are in no kernel."
    )
    return plotting.Picture(figure, alt, "\n".join(lines))


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
