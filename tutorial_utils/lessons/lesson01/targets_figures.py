"""Lesson 01, hardware targets: a matrix of what builds for which GPU."""

from collections.abc import Sequence

from tutorial_utils import plotting
from tutorial_utils.lessons.lesson01.targets import Attempt


def build_matrix(attempts: Sequence[Attempt]) -> plotting.Picture:
    """Draw models against compute capabilities: the kernels and kilobytes of each engine, or "refused".

    Args:
        attempts: Builds for one target each.
    """
    models = list(dict.fromkeys(one.model for one in attempts))
    targets = list(dict.fromkeys(one.targets[0] for one in attempts))
    figure, axes = plotting.new_figure(0.8 + 0.55 * len(models))
    lines = []
    for one in attempts:
        row, column = models.index(one.model), targets.index(one.targets[0])
        colour = plotting.BLUE if one.built else plotting.RED
        text = f"{one.kernels} kernels\n{one.plan_bytes / 1000:.0f} KB" if one.built else "refused"
        axes.barh(row, 0.96, left=column - 0.48, height=0.92, color=colour, hatch="" if one.built else "//", alpha=0.9)
        box = {"boxstyle": "round,pad=0.2", "facecolor": colour, "edgecolor": "none"}
        axes.text(column, row, text, ha="center", va="center", color="white", fontsize=9, weight="bold", bbox=box)
        lines.append(f"{one.model} for {one.targets[0]}: {text.replace(chr(10), ', ')}")
    axes.set_yticks(range(len(models)), models)
    axes.set_ylim(len(models) - 0.45, -0.55)
    axes.set_xticks(range(len(targets)), targets)
    axes.set_xlabel("compute capability of the target")
    axes.grid(visible=False)
    axes.spines[["bottom", "left"]].set_visible(False)
    refused = ", ".join(f"{one.model} for {one.targets[0]}" for one in attempts if not one.built)
    alt = f"{sum(one.built for one in attempts)} of {len(attempts)} builds succeed. Refused: {refused or 'none'}."
    return plotting.Picture(figure, alt, "\n".join(lines))
