"""The picture of kernel choice: every tactic's time."""

from collections.abc import Mapping

from tutorial_utils import plotting
from tutorial_utils.lessons.lesson01.kernels_data import Built
from tutorial_utils.plotting import BLUE, GREEN, GREY, ORANGE, RED, Picture

# By the type that a kernel's name says it multiplies in: colour and marker.
_STYLES = {"fp32": (GREY, "s"), "tf32": (ORANGE, "^"), "fp16": (BLUE, "o"), "": (GREEN, "x")}


def draw_tactics(measured: Mapping[str, Mapping[str, Built] | str]) -> Picture:
    """Draw the time of every tactic that the builder timed, a row for each convolution and precision."""
    shown = [(precision, built) for found in measured.values() if not isinstance(found, str)
             for precision, built in found.items()]  # fmt: skip
    figure, axes = plotting.new_figure(1.5 + 0.32 * len(shown))
    lines, used = [], set()
    for position, (precision, built) in enumerate(shown):
        fastest, slowest = built.fastest.ms, built.fastest.ms * built.spread
        axes.plot([fastest, slowest], [position] * 2, color="#bbbbbb", linewidth=1, zorder=1)
        for computed, times in built.times.items():
            computed = computed if computed in _STYLES else ""
            used.add(computed)
            colour, marker = _STYLES[computed]
            axes.plot(times, [position] * len(times), marker, color=colour, markersize=5, alpha=0.6, zorder=2)
        chosen = [tactic for tactic in built.named if built.is_chosen(tactic)]
        if chosen:
            ms = min(one.ms for one in chosen)
            axes.plot(ms, position, "D", markersize=10, markerfacecolor="none", markeredgecolor=RED, zorder=3)
        count = f"{built.count} timed, " if built.count > 1 else "one timed, "
        label = plotting.note(axes, f"{count}{built.spread:.1f} x", (slowest, position), (8, 0), fontsize=8)
        label.set_in_layout(False)  # there is room for it, see the limit of the axis
        lines.append(_described(precision, built))
    plotting.name_rows(axes, [f"{built.convolution.name}, {precision.upper()}" for precision, built in shown])
    plotting.plain_numbers(axes.xaxis)
    if shown:
        low, high = axes.get_xlim()
        axes.set_xlim(low, high * (high / low) ** 0.2)  # room for the last label
    axes.set_xlabel("milliseconds of each kernel that TensorRT timed; at the end: slowest as a multiple of the fastest")
    for computed, (colour, marker) in _STYLES.items():
        if computed in used:
            name = f"multiplies in {computed.upper()}" if computed else "its name says no type"
            axes.plot([], [], marker, color=colour, label=name)
    axes.plot([], [], "D", markerfacecolor="none", markeredgecolor=RED, markersize=9, label="what the engine has")
    figure.legend(loc="outside upper left", ncols=5, frameon=False)
    lines += [f"{name}: not measured. {found}" for name, found in measured.items() if isinstance(found, str)]
    best = "; ".join(f"{built.convolution.name} in {precision.upper()} {built.fastest.ms:.3g} ms, the slowest "
                     f"{built.spread:.1f} times that" for precision, built in shown)  # fmt: skip
    return Picture(figure, f"Kernels that TensorRT timed for convolutions. The fastest: {best}.", "\n".join(lines))


def _described(precision: str, built: Built) -> str:
    return (
        f"{built.convolution}, {precision.upper()}: {built.count} tactics from {built.fastest.ms:.4f} to "
        f"{built.fastest.ms * built.spread:.4f} ms; the fastest, {built.fastest.name}, does {built.flops / 1e12:.1f} "
        f"TFLOP/s; the engine computes in {', '.join(map(str.upper, built.computed)) or 'an unknown type'} and takes "
        f"{built.engine_ms:.4f} ms"
    )
