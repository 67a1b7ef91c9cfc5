"""The pictures of the roofline: where the time of each call goes, and the layers under the roofs."""

import numpy as np

from tutorial_utils import plotting
from tutorial_utils.lessons.lesson01.roofline_data import PRECISIONS, Roofline, split
from tutorial_utils.plotting import BLUE, GREEN, GREY, ORANGE, RED, Picture

_PARTS = {  # colour and hatch, so that colour alone tells nothing
    "arithmetic": (GREEN, ""),
    "bytes": (BLUE, "//"),
    "rest": (ORANGE, ""),
    "launches": (RED, ".."),
}
_LABELS = {
    "arithmetic": "arithmetic, at the rate of a large product",
    "bytes": "bytes, at the bandwidth of a large copy",
    "rest": "the rest: kernels that reach neither rate, as small ones",
    "launches": "gaps: what a CUDA graph saves",
}
_MARKERS = "os^Dv"
_COLOURS = (BLUE, ORANGE, GREEN, RED, GREY)


def draw_split(measured: Roofline) -> Picture:
    """Draw a bar for each call: which share of its time arithmetic, bytes, launches and the rest take."""
    if not (measured.chip.flops and measured.chip.bytes_per_s):
        measured = Roofline(measured.chip, (), measured.reasons)  # without roofs, nothing to split by
    calls = sorted(measured.calls, key=lambda call: (PRECISIONS.index(call.precision), call.shape[::-1]))
    figure, axes = plotting.new_figure(1.7 + 0.34 * len(calls))
    lines = []
    for position, call in enumerate(calls):
        parts, left, plain = split(call, measured.chip), 0.0, call.plain[0]
        for name, ms in parts.items():
            colour, hatch = _PARTS[name]
            axes.barh(position, 100 * ms / plain, left=left, color=colour, hatch=hatch, edgecolor="#fafafa", height=0.7)
            left += 100 * ms / plain
        plotting.note(axes, f"{plain:.3g} ms, {call.kernels} kernels", (max(left, 100), position), (5, 0))
        shares = ", ".join(f"{name} {100 * ms / plain:.0f} %" for name, ms in parts.items())
        graph = f", as a CUDA graph {call.graph[0]:.3f} ms" if call.graph else f" ({call.no_graph})"
        kernels = f"{call.kernels} kernels of together {call.kernels_ms:.3f} ms"
        lines.append(f"{call.label}: {plain:.3f} ms{graph}, {kernels}; {shares}")
    plotting.name_rows(axes, [call.label for call in calls])
    axes.set_xlim(0, 145)
    axes.set_xticks(range(0, 101, 20))
    axes.axvline(100, color=GREY, linewidth=1)
    axes.set_xlabel("% of the time of a call on the GPU")
    for name, (colour, hatch) in _PARTS.items():
        axes.bar(0, 0, color=colour, hatch=hatch, edgecolor="#fafafa", label=_LABELS[name])
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    lines += [f"{name}: not measured. {reason}" for name, reason in measured.reasons.items()]
    alt = f"Where the time of a call of ResNet-50 goes. {' '.join(f'{line}.' for line in lines[: len(calls)])}"
    return Picture(figure, alt, "\n".join(lines))


def draw_roofline(measured: Roofline, precision: str) -> Picture:
    """Draw the layers of a precision that multiply: FLOP per second over FLOP per byte, under the GPU's roofs."""
    limits = measured.chip
    calls = [call for call in measured.calls if call.precision == precision]
    figure, axes = plotting.new_figure(4.8)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    intensities = np.logspace(-0.5, 3.7, 50)
    cached = max(limits.bytes_per_s.values())
    memory = f"memory {limits.bandwidth / 1e12:.2f} TB/s"
    for name, style, what in ((precision, "-", memory), ("fp32", ":", "no Tensor Cores")):
        roof = np.minimum(limits.bandwidth * intensities, limits.flops[name]) / 1e12
        label = f"{name.upper()}: {limits.flops[name] / 1e12:.0f} TFLOP/s, {what}"
        axes.plot(intensities, roof, style, color="black", linewidth=1.5, label=label)
    if cached > 1.05 * limits.bandwidth:
        below = intensities[cached * intensities < limits.flops[precision]]
        label = f"bytes that the L2 cache holds: {cached / 1e12:.2f} TB/s"
        axes.plot(below, cached * below / 1e12, "--", color=GREY, linewidth=1.2, label=label)
    lines = [f"roof: {precision.upper()} {limits.flops[precision] / 1e12:.1f} TFLOP/s, memory "
             f"{limits.bandwidth / 1e12:.2f} TB/s, from the cache {cached / 1e12:.2f} TB/s"]  # fmt: skip
    for call, marker, colour in zip(calls, _MARKERS, _COLOURS, strict=False):
        layers = [layer for layer in call.layers if layer.multiply_adds and layer.bytes and layer.ms]
        axes.plot([layer.intensity for layer in layers], [layer.flops / 1e12 for layer in layers], marker,
                  color=colour, markersize=5, alpha=0.7, label="x".join(map(str, call.shape)))  # fmt: skip
        reached = [layer.flops / min(limits.bandwidth * layer.intensity, limits.flops[precision]) for layer in layers]
        if reached:
            lines.append(f"{call.label}: {len(layers)} layers that multiply reach {100 * min(reached):.0f} to "
                         f"{100 * max(reached):.0f} % of the roof above them, half of them at least "
                         f"{100 * float(np.median(reached)):.0f} %")  # fmt: skip
    plotting.plain_numbers(axes.xaxis)
    plotting.plain_numbers(axes.yaxis)
    axes.set_xlabel("floating point operations for each byte that must be moved")
    axes.set_ylabel("TFLOP per second")
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return Picture(figure, f"Layers of ResNet-50 under the roofs of the GPU. {'. '.join(lines)}.", "\n".join(lines))
