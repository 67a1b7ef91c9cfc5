"""Lesson 01, serialization: what each way to an engine costs."""

from collections.abc import Mapping

from tutorial_utils import plotting


def times(networks: Mapping[str, Mapping[str, float]]) -> plotting.Picture:
    """Draw the milliseconds of each step on the way to an engine, on a logarithmic axis.

    Args:
        networks: For each network the milliseconds by step; all have the same steps.
    """
    steps = list(next(iter(networks.values())))
    figure, axes = plotting.new_figure(1.1 + 0.3 * len(steps) * len(networks))
    height = 0.8 / len(networks)
    lines = []
    for index, (network, values) in enumerate(networks.items()):
        positions = [row + (index - (len(networks) - 1) / 2) * height for row in range(len(steps))]
        colour = (plotting.BLUE, plotting.ORANGE, plotting.GREEN, plotting.RED)[index]
        axes.barh(positions, [values[step] for step in steps], height=0.9 * height, color=colour, label=network)
        for position, step in zip(positions, steps, strict=True):
            axes.text(values[step], position, f" {_milliseconds(values[step])}", va="center", fontsize=9)
            lines.append(f"{network}, {step}: {_milliseconds(values[step])}")
    axes.set_yticks(range(len(steps)), steps)
    axes.set_ylim(len(steps) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(right=axes.get_xlim()[1] * 3)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("milliseconds")
    figure.legend(loc="outside upper left", ncols=len(networks), frameon=False)
    slowest = {network: max(values, key=values.get) for network, values in networks.items()}
    alt = (
        "Milliseconds of "
        + ", ".join(steps)
        + ". "
        + ". ".join(
            f"For {network}, {step} takes longest: {_milliseconds(networks[network][step])}"
            for network, step in slowest.items()
        )
    )
    return plotting.Picture(figure, f"{alt}.", "\n".join(lines))


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"
