"""Lesson 05, time: the layers of a network end to end, and what they add up to beside the network's own time."""

from tutorial_utils import plotting
from tutorial_utils.inspection.drawings import clipped
from tutorial_utils.lessons.lesson05.layer_times import LayerTime, TimedLayers

_LONGEST_LABEL = 44  # characters
_MICROSECONDS_BELOW_MS = 5


def waterfall(timed: TimedLayers, title: str, labelled: int = 10) -> plotting.Picture:
    """Draw the layers' times end to end, in the order of execution, with a network and a machine as title.

    So many of the slowest layers get a labelled bar of their own; what lies between is one bar.
    """
    rows = _grouped(timed, labelled)
    total = timed.sum_ms
    scale, unit = (1, "ms") if total > _MICROSECONDS_BELOW_MS else (1000, "µs")
    figure, axes = plotting.new_figure(1.3 + 0.26 * len(rows))
    begin, lines = 0.0, []
    for row, (layer, is_group) in enumerate(rows):
        colour, hatch = (plotting.GREY, "///") if is_group else (plotting.BLUE, None)
        axes.barh(row, scale * layer.ms, left=scale * begin, height=0.72, color=colour, hatch=hatch, edgecolor="white",
                  linewidth=0)  # fmt: skip
        text = f"{clipped(layer.name, _LONGEST_LABEL)}  {scale * layer.ms:.3g} {unit}, {layer.ms / total:.0%}"
        early = begin + layer.ms / 2 < total / 2  # then there is room to the right of the bar
        end, points, align = (begin + layer.ms, 4, "left") if early else (begin, -4, "right")
        box = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 0.5}  # lines end at the text
        style = {"ha": align, "fontsize": 8.5, "color": "#222222", "bbox": box}
        plotting.note(axes, text, (scale * end, row), (points, 0), **style)
        lines.append(f"from {begin:8.4f} ms: {layer.ms:8.4f} ms {layer.ms / total:6.1%}  {layer.name}")
        begin += layer.ms
    axes.axvline(scale * timed.network_ms, color=plotting.RED, linestyle="--", linewidth=1.5,
                 label="the network without profiler")  # fmt: skip
    axes.axvline(scale * total, color=plotting.GREY, linewidth=1.5, label="sum of the layers")
    axes.set_xlim(0, 1.03 * scale * max(total, timed.network_ms))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_xlabel(f"{unit}, layers end to end")
    axes.set_title(title, fontsize=11, loc="left")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False, fontsize=9)
    lines.append(f"sum of the layers {total:.4f} ms, the network without profiler {timed.network_ms:.4f} ms")
    slowest = "; ".join(f"{layer.name} with {layer.ms / total:.0%}" for layer in timed.slowest(3))
    alt = (
        f"Waterfall of {title}: {len(timed.layers)} layers, {total:.3g} ms end to end; the network alone takes "
        f"{timed.network_ms:.3g} ms. Slowest: {slowest}."
    )
    return plotting.Picture(figure, alt, "\n".join(lines))


def _grouped(timed: TimedLayers, labelled: int) -> list[tuple[LayerTime, bool]]:
    """Return the rows of a waterfall, and of each whether it stands for a group of layers."""
    fast = {id(layer) for layer in timed.layers} - {id(layer) for layer in timed.slowest(labelled)}
    rows: list[tuple[LayerTime, bool]] = []
    waiting: list[LayerTime] = []
    for layer in timed.layers:
        if id(layer) in fast:
            waiting.append(layer)
            continue
        rows += [*_as_one(waiting), (layer, False)]
        waiting = []
    return rows + _as_one(waiting)


def _as_one(layers: list[LayerTime]) -> list[tuple[LayerTime, bool]]:
    if not sum(layer.ms for layer in layers):  # none, or only layers that order streams
        return []
    name = f"{len(layers)} layers" if len(layers) > 1 else layers[0].name
    return [(LayerTime(name, "", sum(layer.ms for layer in layers)), True)]
