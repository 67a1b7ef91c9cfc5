"""Lesson 05, memory: the lifetimes of an engine's tensors, and which of them are alive where memory is fullest."""

from tutorial_utils import plotting
from tutorial_utils.engine import BuildReport, EngineLayer
from tutorial_utils.inspection import dataflow

_MIB = 2**20


def what(kernel: EngineLayer) -> str:
    """Name a kernel by the ONNX nodes inside it, or by its type where it holds none."""
    return " + ".join(kernel.onnx_nodes) or f"a {kernel.type} kernel of no ONNX node"


def lifetimes(report: BuildReport, batch: int) -> plotting.Picture:
    """Draw when each tensor between an engine's kernels is alive, and below it the bytes alive at each kernel.

    Args:
        report: The engine's report, with layers.
        batch: Images in one call.
    """
    flow = dataflow.from_report(report, batch)
    tensors, live = flow.lifetimes(), flow.live_bytes() / _MIB
    fullest = int(live.argmax())
    as_full = [step for step, size in enumerate(live) if size == live.max()]
    largest = max(one.size for one in tensors)
    figure, (upper, lower) = plotting.new_figure(5.8, nrows=2, ncols=1, sharex=True, height_ratios=[3.2, 1])
    alive_rows = [row for row, one in enumerate(tensors) if one.first <= fullest <= one.last]
    lines = []
    for row, one in enumerate(tensors):
        alive = row in alive_rows
        upper.barh(
            row, one.last - one.first + 0.9, left=one.first - 0.45, height=0.5 + 2.2 * one.size / largest,
            color=plotting.ORANGE if alive else plotting.BLUE, hatch="///" if alive else None, edgecolor="white",
            linewidth=0.4,
        )  # fmt: skip
        if alive:
            label = f"{one.size / _MIB:.2f} MiB, written by {what(report.kernels[one.first])}"
            lines.append(f"alive at the fullest: {label}")
            # To the right of the diagonal, one below the other, so that no line crosses another.
            place = (len(live) * 0.28, 3.6 * alive_rows.index(row))
            upper.annotate(label, (one.last + 0.45, row), xytext=place, va="center", fontsize=9,
                           arrowprops={"arrowstyle": "-", "color": plotting.GREY})  # fmt: skip
    upper.set_ylim(len(tensors) + 0.6, -2.5)
    upper.set_yticks([])
    upper.set_ylabel("tensors, thicker when larger")
    bars = lower.bar(range(len(live)), live, width=0.9, color=plotting.BLUE, edgecolor="white", linewidth=0.4)
    for step in as_full:
        bars[step].set(facecolor=plotting.ORANGE, hatch="///")
    lower.axhline(live.max(), color=plotting.ORANGE, linewidth=1)
    lower.set_xlim(-1, len(live))
    lower.set_ylabel("MiB alive")
    lower.set_xlabel("kernels in the order of execution")
    kernels = report.kernels
    lines += [f"{what(kernel)}: {size:.2f} MiB alive" for kernel, size in zip(kernels, live, strict=True)]
    alt = (
        f"Lifetimes of {len(tensors)} tensors over {len(kernels)} kernels: bars along a diagonal. "
        f"Most is alive at {len(as_full)} of the kernels, first at "
        f"{what(kernels[fullest])}: {live.max():.2f} MiB."
    )
    return plotting.Picture(figure, alt, "\n".join(lines))
