"""Lesson 01: which implementation wins at which shape."""

from tutorial_utils import plotting
from tutorial_utils.plotting import BLUE, GREEN, GREY, ORANGE, RED, Picture

_STYLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (RED, "D"), (GREY, "P"))


def winners(times: dict[str, dict[str, float]], where: str) -> Picture:
    """Draw the time of each implementation as a multiple of the fastest one, shape by shape.

    Args:
        times: Median milliseconds by shape and implementation.
        where: The machine, for the title.
    """
    names = list(next(iter(times.values())))
    figure, axes = plotting.new_figure(1.3 + 0.42 * len(times))
    for name, (colour, marker) in zip(names, _STYLES, strict=False):
        ratios = [by_name[name] / min(by_name.values()) for by_name in times.values()]
        axes.plot(ratios, range(len(times)), marker, color=colour, markersize=8, alpha=0.85, label=name)
    axes.set_yticks(range(len(times)), list(times))
    axes.set_ylim(len(times) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axvline(1, color=GREY, linewidth=1)
    axes.set_xlabel(f"time as a multiple of the fastest implementation of the row ({where})")
    figure.legend(loc="outside upper left", ncols=5, frameon=False)
    width = max(map(len, times))
    lines, best = [], []
    for shape, by_name in times.items():
        best.append(min(by_name, key=by_name.get))
        listed = ", ".join(f"{name} {milliseconds:.3g} ms" for name, milliseconds in by_name.items())
        lines.append(f"{shape:{width}}  fastest: {best[-1]}  ({listed})")
    alt = f"Times of {len(names)} implementations of a convolution at {len(times)} shapes, {where}. " + " ".join(
        f"At {shape} the fastest is {name}." for shape, name in zip(times, best, strict=True)
    )
    return Picture(figure, alt, "\n".join(lines))
