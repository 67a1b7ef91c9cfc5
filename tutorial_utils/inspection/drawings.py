"""Drawings of an engine after fusion, all its layers and a few in detail, and what other drawings of engines share.

Layers have the numbers of their order of execution, here and in the text twins.
"""

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tutorial_utils import plotting
from tutorial_utils.engine import EngineLayer, EngineTensor
from tutorial_utils.engine.computed_types import ATTENTION, CONVOLUTION, OPAQUE, PRODUCT
from tutorial_utils.inspection import engine_layers
from tutorial_utils.inspection.engine_layers import CONTROL, HEAVY, KINDS, MOVE, POINTWISE, POOLING, Edge

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour and hatch of each kind of layer. Red is for those that compute nothing.
KIND_STYLES = {
    CONVOLUTION: (plotting.BLUE, ""),
    PRODUCT: ("#0B4F6C", "\\\\\\"),
    ATTENTION: ("#882255", "ooo"),
    OPAQUE: ("#332288", "++"),
    POINTWISE: (plotting.GREEN, "///"),
    POOLING: (plotting.ORANGE, "..."),
    MOVE: (plotting.RED, "xxx"),
    CONTROL: (plotting.GREY, ""),
}

_ARROW = {"arrowstyle": "-|>", "color": "#333333", "shrinkA": 0, "shrinkB": 0}


# --- overview --------------------------------------------------------------------------------------------------------

_ROW_WIDTH = 10.7  # in widths of a kernel
_ROW_HEIGHT = 1.6
_SHORT = {"BatchNormalization": "BatchN", "GlobalAveragePool": "AvgPool"}
_WIDTHS = {True: 1.0, False: 0.32}  # of a kernel, and of a layer that only orders streams


def overview(layers: Sequence[EngineLayer], name: str) -> plotting.Picture:
    """Draw all layers in the order of execution, in rows that end where the resolution changes.

    A box is a kernel, with its number and its first ONNX operation; a small triangle orders streams. Arcs are tensors
    that skip kernels; where one leads to another row, small print names the other end. The name is for the description.
    """
    rows = _rows(layers)
    figure, axes = plotting.new_figure(0.7 + 0.78 * len(rows))
    bare(axes, (-1.75, _ROW_WIDTH + 0.2), (-_ROW_HEIGHT * (len(rows) - 1) - 0.75, 1.0))
    places: dict[int, tuple[float, float]] = {}  # left edge and middle of each layer
    for row, members in enumerate(rows):
        left, middle = 0.0, -_ROW_HEIGHT * row
        sizes = [*dict.fromkeys(size for position in members if (size := _resolution(layers[position])))]
        label = f"{members[0]}-{members[-1]}\n{sizes[0]}" + f" to\n{sizes[-1]}" * (len(sizes) > 1) if sizes else ""
        axes.text(-0.3, middle, label or f"{members[0]}-{members[-1]}", ha="right", va="center", fontsize=8)
        for position in members:
            places[position] = (left, middle)
            _draw_layer(axes, left, middle, position, layers[position])
            left += _WIDTHS[layers[position].is_kernel]
    _draw_tensors(axes, layers, places)
    counts = Counter(engine_layers.kind(layer) for layer in layers)
    present = [kind for kind in KINDS if counts[kind]]
    labels = {kind: "signal \u25b2, wait \u25bc, shapes \u25c6" if kind == CONTROL else kind for kind in KINDS}
    legend(figure, {f"{labels[kind]} ({counts[kind]})": KIND_STYLES[kind] for kind in present})
    listed = ", ".join(f"{counts[kind]} {kind}" for kind in present)
    alt = f"The {len(layers)} layers of {name} in {len(rows)} rows, in the order of execution: {listed}."
    text = [f"{kind}: {counts[kind]}" for kind in present]
    for members in rows:
        own = (layers[position] for position in members)
        words = (engine_layers.short_name(layer) if layer.is_kernel else f"({layer.type})" for layer in own)
        text.append(f"row {members[0]}-{members[-1]}: {' '.join(words)}")
    return plotting.Picture(figure, alt, "\n".join(text))


def _resolution(layer: EngineLayer) -> str:
    """Return height and width of what a layer writes, "" where it isn't an image or is one value per channel."""
    shape = layer.outputs[0].shape if layer.outputs else ()
    return "x".join(map(str, shape[2:])) if len(shape) > 3 and set(shape[2:]) != {1} else ""


def _rows(layers: Sequence[EngineLayer]) -> list[list[int]]:
    """Break the layers into rows: where one is full, and where the resolution changes after three kernels or more."""
    rows: list[list[int]] = [[]]
    width, kernels, resolution = 0.0, 0, ""
    for position, layer in enumerate(layers):
        changes = bool(resolution and _resolution(layer)) and _resolution(layer) != resolution
        if width + _WIDTHS[layer.is_kernel] > _ROW_WIDTH or (changes and kernels >= 3):
            rows.append([])
            width, kernels = 0.0, 0
        rows[-1].append(position)
        width += _WIDTHS[layer.is_kernel]
        kernels += layer.is_kernel
        resolution = _resolution(layer) or resolution
    return rows


def _draw_layer(axes: "Axes", left: float, middle: float, position: int, layer: EngineLayer) -> None:
    colour, hatch = KIND_STYLES[engine_layers.kind(layer)]
    if not layer.is_kernel:
        marker = {"signal": "^", "wait": "v"}.get(layer.type, "d")
        axes.plot(left + _WIDTHS[False] / 2, middle, marker, color=colour, markersize=5)
        return
    filled(axes, left + 0.08, middle - 0.4, 0.84, 0.8, (colour, ""), edgecolor=colour, linewidth=1)
    filled(axes, left + 0.08, middle - 0.4, 0.84, 0.18, (colour, hatch))
    text = {"ha": "center", "va": "center", "color": ink(colour)}
    axes.text(left + 0.5, middle + 0.2, str(position), fontsize=9, weight="bold", **text)
    axes.text(left + 0.5, middle - 0.08, clipped(_label(layer), 9), fontsize=7.5, **text)


def _label(layer: EngineLayer) -> str:
    """Return the end of the name of one ONNX node in a layer: its convolution or product, else its first.

    A layer that moves data, or belongs to no node, is called by what it does.
    """
    if not layer.onnx_nodes or engine_layers.kind(layer) == MOVE:
        return engine_layers.kind_word(layer)
    heavy = (node for node in layer.onnx_nodes if any(word in node for word in ("Conv", "MatMul", "Gemm")))
    node = next(heavy, layer.onnx_nodes[0]) if engine_layers.kind(layer) in HEAVY else layer.onnx_nodes[0]
    operator, *number = node.rsplit("/", 1)[-1].split(".")[-2:]
    return ".".join([_SHORT.get(operator, operator), *number])


def _draw_tensors(axes: "Axes", layers: Sequence[EngineLayer], places: dict[int, tuple[float, float]]) -> None:
    """Draw the tensors between kernels: arrows within a row, arcs past kernels, and notes of what comes and leaves."""
    from matplotlib.patches import FancyArrowPatch

    arrow = {**_ARROW, "mutation_scale": 5, "linewidth": 0.8}
    rank = {position: index for index, position in enumerate(p for p, layer in enumerate(layers) if layer.is_kernel)}
    leaving, coming = defaultdict(list), defaultdict(list)
    for edge in engine_layers.edges(layers):
        if edge.source not in rank or edge.target not in rank:
            continue
        (left, middle), (other_left, other_middle) = places[edge.source], places[edge.target]
        if middle != other_middle:
            leaving[edge.source].append(edge.target)
            coming[edge.target].append(edge.source)
        elif rank[edge.target] - rank[edge.source] > 1:
            start, end = (left + 0.6, middle + 0.42), (other_left + 0.4, middle + 0.42)
            bend = -0.55 / max(1.6, (end[0] - start[0]) ** 0.9)
            axes.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", **arrow))
        else:
            axes.add_patch(FancyArrowPatch((left + 0.9, middle), (other_left + 0.1, middle), **arrow))
    note = {"va": "top", "fontsize": 7.5, "color": "#333333"}
    for position, others in coming.items():
        left, middle = places[position]
        axes.text(left + 0.1, middle - 0.46, f"from {_few(others)}", ha="left", **note)
    for position, others in leaving.items():
        left, middle = places[position]
        below = 0.66 if position in coming else 0.46  # on a second line where both would meet
        axes.text(left + 0.9, middle - below, f"to {_few(others)}", ha="right", **note)


def _few(positions: Sequence[int]) -> str:
    several = list(dict.fromkeys(map(str, positions)))
    return f"{', '.join(several[:2])}{'…' if len(several) > 2 else ''}"


# --- a block in detail -----------------------------------------------------------------------------------------------


def block(layers: Sequence[EngineLayer], first: int, last: int) -> plotting.Picture:
    """Draw an engine's layers from the first to the last, that one included: all that the report says of each.

    Type, name and ONNX nodes stand in the boxes, type, format and shape at the tensors. Layers that only order streams
    are left out.
    """
    shown = [position for position in range(first, last + 1) if layers[position].is_kernel]
    inside = [edge for edge in engine_layers.edges(layers) if edge.target in shown]
    level, lane = _layout(shown, inside)
    lanes, levels = max(lane.values()) + 1, max(level.values()) + 1
    figure, axes = plotting.new_figure(0.5 + 1.1 * levels)
    bare(axes, (-0.02, lanes + 0.02), (-levels + 0.7, 0.5))
    centre = {position: (lane[position] + 0.5, -float(level[position])) for position in shown}
    lines = []
    for position in shown:
        reads = [edge for edge in inside if edge.target == position]
        _draw_box(axes, *centre[position], position, layers[position], lanes)
        _draw_reads(axes, centre, position, reads)
        lines.append(_detail(position, layers[position], reads))
    kind_legend(figure, [layers[position] for position in shown])
    alt = f"Layers {first} to {last} in detail: {len(shown)} kernels on {levels} levels. " + " ".join(
        f"{position} holds {', '.join(layers[position].onnx_nodes) or 'no ONNX node'}." for position in shown
    )
    return plotting.Picture(figure, alt, "\n".join(lines))


def _layout(shown: list[int], inside: list[Edge]) -> tuple[dict[int, int], dict[int, int]]:
    """Give each layer a level, below all that it reads from, and a lane: that of one that it reads from, if free."""
    level: dict[int, int] = {}
    lane: dict[int, int] = {}
    for position in shown:
        sources = [edge.source for edge in inside if edge.target == position and edge.source in level]
        level[position] = max((level[source] + 1 for source in sources), default=0)
        taken = {lane[other] for other in lane if level[other] == level[position]}
        wanted = [*sorted(lane[source] for source in sources), *range(len(shown))]
        lane[position] = next(one for one in wanted if one not in taken)
    return level, lane


def _draw_box(axes: "Axes", x: float, y: float, position: int, layer: EngineLayer, lanes: int) -> None:
    style = KIND_STYLES[engine_layers.kind(layer)]
    strip = 0.0125 * lanes  # as wide for any number of lanes
    filled(axes, x - 0.46, y - 0.27, 0.92, 0.54, ("white", ""), edgecolor=style[0], linewidth=1.5)
    filled(axes, x - 0.46, y - 0.27, strip, 0.54, style)
    room = 104 // lanes  # characters in a line
    nodes = textwrap.wrap(", ".join(layer.onnx_nodes) or "no ONNX node", room, max_lines=2, placeholder=" …")
    left = x - 0.46 + 1.8 * strip
    does = engine_layers.conversion(layer) if engine_layers.kind(layer) == MOVE else engine_layers.kind_word(layer)
    head = clipped(f"{position}  {does}", room)
    axes.text(left, y + 0.15, head, va="center", fontsize=8.5, weight="bold")
    name = clipped(f"{layer.type} {layer.name}", room)
    axes.text(left, y + 0.03, name, va="center", fontsize=7.5, color="#333333")
    axes.text(left, y - 0.14, plotting.literal("\n".join(nodes)), va="center", fontsize=7.5)


def _draw_reads(axes: "Axes", centre: dict[int, tuple[float, float]], position: int, reads: list[Edge]) -> None:
    """Draw the tensors that a layer reads: as arrows from layers that are drawn, in small print from others."""
    for edge in reads:
        if edge.source in centre:
            _draw_edge(axes, centre[edge.source], centre[position], edge, occupied=set(centre.values()))
    outside = [edge for edge in reads if edge.source not in centre]
    notes = "\n".join(f"from {_origin(edge)}: {engine_layers.describe(edge.tensor)}" for edge in outside)
    x, y = centre[position]
    axes.text(x - 0.44, y + 0.31, notes, fontsize=7.5, va="bottom", color=plotting.GREY, style="italic")


def _draw_edge(
    axes: "Axes", start: tuple[float, float], end: tuple[float, float], edge: Edge, occupied: set[tuple[float, float]]
) -> None:
    """Draw a tensor: down the lane of its source, then over to its target; past boxes in the margin on the left."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    (x, y), (target_x, target_y) = start, end
    between = {(x, float(level)) for level in range(int(target_y) + 1, int(y))}
    if occupied & between:
        margin, note = x - 0.485, None
        above, below = y - 0.15, target_y + 0.15
        corners = [(x - 0.46, above), (margin, above), (margin, below), (target_x - 0.46, below)]
    elif x == target_x:
        corners = [(x, y - 0.27), (x, target_y + 0.27)]
        note = (x, (y + target_y) / 2)
    else:
        side = 0.3 if x > target_x else -0.3
        corners = [(x - side, y - 0.27), (x - side, target_y + 0.6), (target_x + side, target_y + 0.27)]
        note = (x - side, target_y + 0.66) if between else (target_x + side, target_y + 0.42)
    axes.add_patch(FancyArrowPatch(path=Path(corners), **_ARROW, mutation_scale=7, linewidth=1))
    if note:
        lines = filter(None, (engine_layers.describe(edge.tensor), engine_layers.strides_text(edge.tensor)))
        axes.annotate(
            "\n".join(lines), note, xytext=(5, 0), textcoords="offset points", fontsize=7.5,
            va="center", bbox={"facecolor": "#fafafa", "edgecolor": "none", "pad": 1},
        )  # fmt: skip


def _origin(edge: Edge) -> str:
    return "the engine's input" if edge.source is None else f"layer {edge.source}"


def _detail(position: int, layer: EngineLayer, reads: list[Edge]) -> str:
    tensors = "; ".join(f"{_in_full(edge.tensor)} from {_origin(edge)}" for edge in reads)
    writes = "; ".join(_in_full(tensor) for tensor in layer.outputs)
    nodes = ", ".join(layer.onnx_nodes) or "none"
    head = f"{position} {layer.type} {engine_layers.short_name(layer)}"
    if engine_layers.kind(layer) == MOVE:
        head += f": {engine_layers.conversion(layer)}"
    return f"{head}\n  nodes: {nodes}\n  reads: {tensors}\n  writes: {writes}"


def _in_full(tensor: EngineTensor) -> str:
    return ", ".join(filter(None, (engine_layers.describe(tensor), engine_layers.strides_text(tensor))))


# --- shared -----------------------------------------------------------------------------------------------------------


def clipped(text: str, room: int) -> str:
    """Return a text for a figure that has room there, cut with an ellipsis if need be: see `plotting.literal`."""
    return plotting.literal(text if len(text) <= room else f"{text[: room - 1]}…")


def bare(axes: "Axes", x: tuple[float, float], y: tuple[float, float]) -> None:
    """Set the limits of axes that are a drawing: without ticks, grid and frame."""
    axes.set_xlim(*x)
    axes.set_ylim(*y)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def legend(figure: "Figure", styles: dict[str, tuple[str, str]]) -> None:
    """Put a legend of colours and hatches above a figure."""
    from matplotlib.patches import Patch

    handles = [
        Patch(
            facecolor=colour,
            hatch=hatch,
            label=label,
            edgecolor="#8a949e" if colour == "#ffffff" else "white",
        )
        for label, (colour, hatch) in styles.items()
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=5, frameon=False, fontsize=8, handleheight=1.1)


def kind_legend(figure: "Figure", layers: Iterable[EngineLayer]) -> None:
    """Put a legend of the kinds that some layers are of above a figure."""
    present = set(map(engine_layers.kind, layers))
    legend(figure, {kind: KIND_STYLES[kind] for kind in KINDS if kind in present})


def filled(
    axes: "Axes", left: float, bottom: float, width: float, height: float, style: tuple[str, str], **changes: Any
) -> None:
    """Draw a rectangle, in data coordinates of the axes: in a colour and with a hatch in white, unless changed."""
    from matplotlib.patches import Rectangle

    properties = {"facecolor": style[0], "hatch": style[1], "edgecolor": "white", "linewidth": 0, **changes}
    axes.add_patch(Rectangle((left, bottom), width, height, **properties))


def ink(colour: str) -> str:
    """Return the colour of text that can be read on a colour."""
    return "black" if colour == plotting.ORANGE else "white"
