"""Lesson 05, an engine after fusion: overview, a block in detail, precision by layer, and where ONNX nodes went.

Layers have the numbers of their order of execution in all four, and in their text twins.
"""

import itertools
import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tutorial_utils import plotting
from tutorial_utils.engine import EngineLayer, EngineTensor
from tutorial_utils.inspection import engine_layers
from tutorial_utils.inspection.engine_layers import CONTROL, KINDS, MATRIX, MOVE, POINTWISE, POOLING, Edge, Fate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour and hatch of each kind of layer. Red is for those that compute nothing.
KIND_STYLES = {
    MATRIX: (plotting.BLUE, ""),
    POINTWISE: (plotting.GREEN, "///"),
    POOLING: (plotting.ORANGE, "..."),
    MOVE: (plotting.RED, "xxx"),
    CONTROL: (plotting.GREY, ""),
}
_DTYPES = {
    "fp32": (plotting.BLUE, ""), "fp16": (plotting.ORANGE, "///"), "bf16": ("#F0E442", "\\\\\\"),
    "int8": (plotting.GREEN, "xxx"), "fp8": ("#CC79A7", "..."), "int4": ("#56B4E9", "ooo"),
}  # fmt: skip
_FORMATS = {"Linear": ("#ffffff", ""), "NHWC": ("#b9c2cb", ""), "Transposed": (plotting.RED, "\\\\\\")}
_OTHER = (plotting.GREY, "---")


# --- overview --------------------------------------------------------------------------------------------------------

_ROW_WIDTH = 15.5  # in widths of a kernel
_ROW_HEIGHT = 1.75
_WIDTHS = {True: 1.0, False: 0.32}  # of a kernel, and of a layer that only orders streams


def overview(layers: Sequence[EngineLayer], name: str) -> plotting.Picture:
    """Draw all layers in the order of execution, in rows that end where the resolution changes.

    A box is a kernel, with its number and its first ONNX operation; a small triangle orders streams. Arcs are tensors
    that skip kernels; where one leads to another row, small print names the other end.

    Args:
        layers: The layers of an engine.
        name: What the engine is, for the description.
    """
    rows = _rows(layers)
    figure, axes = plotting.new_figure(0.7 + 0.62 * len(rows))
    bare(axes, (-2.0, _ROW_WIDTH + 0.4), (-_ROW_HEIGHT * (len(rows) - 1) - 0.75, 1.0))
    places: dict[int, tuple[int, float]] = {}  # row and left edge of each layer
    for row, members in enumerate(rows):
        left = 0.0
        for position in members:
            places[position] = (row, left)
            left += _WIDTHS[layers[position].is_kernel]
        axes.text(-0.35, -_ROW_HEIGHT * row, _row_label(layers, members), ha="right", va="center", fontsize=8)
    for position, layer in enumerate(layers):
        row, left = places[position]
        if layer.is_kernel:
            _draw_kernel(axes, left, -_ROW_HEIGHT * row, position, layer)
        else:
            _draw_control(axes, left, -_ROW_HEIGHT * row, layer)
    _draw_tensors(axes, layers, places)
    counts = Counter(engine_layers.kind(layer) for layer in layers)
    labels = {kind: "signal \u25b2, wait \u25bc, shapes \u25c6" if kind == CONTROL else kind for kind in KINDS}
    legend(figure, {f"{labels[kind]} ({counts[kind]})": KIND_STYLES[kind] for kind in KINDS if counts[kind]})
    alt = (
        f"The {len(layers)} layers of {name} in {len(rows)} rows, in the order of execution: "
        + ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
        + "."
    )
    text = [f"{kind}: {counts[kind]}" for kind in KINDS if counts[kind]]
    for members in rows:
        text.append(f"row {members[0]}-{members[-1]}: " + " ".join(_word(layers[position]) for position in members))
    return plotting.Picture(figure, alt, "\n".join(text))


def _word(layer: EngineLayer) -> str:
    return engine_layers.short_name(layer) if layer.is_kernel else f"({layer.type})"


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


def _row_label(layers: Sequence[EngineLayer], members: list[int]) -> str:
    sizes = [size for position in members if (size := _resolution(layers[position]))]
    return f"{members[0]}-{members[-1]}" + (f"\n{sizes[-1]}" if sizes else "")


def _draw_kernel(axes: "Axes", left: float, middle: float, position: int, layer: EngineLayer) -> None:
    from matplotlib.patches import Rectangle

    colour, hatch = KIND_STYLES[engine_layers.kind(layer)]
    axes.add_patch(Rectangle((left + 0.08, middle - 0.4), 0.84, 0.8, facecolor=colour, edgecolor=colour))
    axes.add_patch(
        Rectangle(
            (left + 0.08, middle - 0.4), 0.84, 0.18, facecolor=colour, edgecolor="white", hatch=hatch, linewidth=0
        )
    )
    ink = "black" if colour == plotting.ORANGE else "white"
    axes.text(left + 0.5, middle + 0.2, str(position), ha="center", va="center", color=ink, fontsize=8, weight="bold")
    axes.text(left + 0.5, middle - 0.08, clipped(_label(layer), 8), ha="center", va="center", color=ink, fontsize=6)


def _label(layer: EngineLayer) -> str:
    """Return the end of the name of one ONNX node in a layer: its convolution or product, else its first."""
    if not layer.onnx_nodes:
        return engine_layers.short_name(layer)
    heavy = (node for node in layer.onnx_nodes if any(word in node for word in ("Conv", "MatMul", "Gemm")))
    node = next(heavy, layer.onnx_nodes[0]) if engine_layers.kind(layer) == MATRIX else layer.onnx_nodes[0]
    return ".".join(node.rsplit("/", 1)[-1].split(".")[-2:])


def _draw_control(axes: "Axes", left: float, middle: float, layer: EngineLayer) -> None:
    marker = {"signal": "^", "wait": "v"}.get(layer.type, "d")
    axes.plot(left + _WIDTHS[False] / 2, middle, marker, color=plotting.GREY, markersize=5)


def _draw_tensors(axes: "Axes", layers: Sequence[EngineLayer], places: dict[int, tuple[int, float]]) -> None:
    from matplotlib.patches import FancyArrowPatch

    arrow = {"arrowstyle": "-|>", "mutation_scale": 5, "linewidth": 0.8, "color": "#333333", "shrinkA": 0, "shrinkB": 0}
    rank = {position: index for index, position in enumerate(p for p, layer in enumerate(layers) if layer.is_kernel)}
    leaving: dict[int, list[int]] = {}
    coming: dict[int, list[int]] = {}
    for edge in engine_layers.edges(layers):
        if edge.source is None or edge.source not in rank or edge.target not in rank:
            continue
        (row, left), (other_row, other_left) = places[edge.source], places[edge.target]
        middle, skips = -_ROW_HEIGHT * row, rank[edge.target] - rank[edge.source] > 1
        if row != other_row:
            leaving.setdefault(edge.source, []).append(edge.target)
            coming.setdefault(edge.target, []).append(edge.source)
        elif skips:
            start, end = (left + 0.6, middle + 0.42), (other_left + 0.4, middle + 0.42)
            bend = -0.55 / max(1.6, (end[0] - start[0]) ** 0.9)
            axes.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", **arrow))
        else:
            axes.add_patch(FancyArrowPatch((left + 0.9, middle), (other_left + 0.1, middle), **arrow))
    for ends, left_of, label, line in ((coming, 0.1, "from", 0), (leaving, 0.9, "to", 1)):
        for position, others in ends.items():
            row, left = places[position]
            several = list(dict.fromkeys(map(str, others)))
            text = f"{label} {', '.join(several[:2])}{'…' if len(several) > 2 else ''}"
            below = 0.46 + 0.22 * line * (position in coming)  # on a second line where both would meet
            axes.text(
                left + left_of, -_ROW_HEIGHT * row - below, text, ha="right" if line else "left", va="top",
                fontsize=6, color="#333333",
            )  # fmt: skip


# --- a block in detail -----------------------------------------------------------------------------------------------


def block(layers: Sequence[EngineLayer], first: int, last: int) -> plotting.Picture:
    """Draw some layers in detail: type, name and ONNX nodes in the boxes, type, format and shape at the tensors.

    Args:
        layers: The layers of an engine.
        first: The first layer to draw.
        last: The last one, included. Layers that only order streams are left out.
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
        _draw_box(axes, *centre[position], position, layers[position], lanes)
        read = [edge for edge in inside if edge.target == position]
        outside = [edge for edge in read if edge.source not in centre]
        for edge in read:
            if edge.source in centre:
                _draw_edge(axes, centre[edge.source], centre[position], edge, occupied=set(centre.values()))
        if outside:
            x, y = centre[position]
            notes = [f"from {_origin(edge)}: {engine_layers.describe(edge.tensor)}" for edge in outside]
            axes.text(
                x - 0.44, y + 0.31, "\n".join(notes), fontsize=7, va="bottom", color=plotting.GREY, style="italic"
            )
        lines.append(_detail(position, layers[position], read))
    kinds = [kind for kind in KINDS if any(engine_layers.kind(layers[position]) == kind for position in shown)]
    legend(figure, {kind: KIND_STYLES[kind] for kind in kinds})
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
    from matplotlib.patches import Rectangle

    colour, hatch = KIND_STYLES[engine_layers.kind(layer)]
    strip = 0.0125 * lanes  # as wide for any number of lanes
    axes.add_patch(Rectangle((x - 0.46, y - 0.27), 0.92, 0.54, facecolor="white", edgecolor=colour, linewidth=1.5))
    axes.add_patch(
        Rectangle((x - 0.46, y - 0.27), strip, 0.54, facecolor=colour, edgecolor="white", hatch=hatch, linewidth=0)
    )
    room = 104 // lanes  # characters in a line
    nodes = textwrap.wrap(", ".join(layer.onnx_nodes) or "no ONNX node", room, max_lines=2, placeholder=" …")
    left = x - 0.46 + 1.8 * strip
    axes.text(left, y + 0.15, clipped(f"{position}  {layer.type}", room), va="center", fontsize=8.5, weight="bold")
    axes.text(left, y + 0.03, clipped(layer.name, room), va="center", fontsize=7, color="#333333")
    axes.text(left, y - 0.14, "\n".join(nodes), va="center", fontsize=7.5)


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
        corners = [
            (x - 0.46, y - 0.15),
            (margin, y - 0.15),
            (margin, target_y + 0.15),
            (target_x - 0.46, target_y + 0.15),
        ]
    elif x == target_x:
        corners = [(x, y - 0.27), (x, target_y + 0.27)]
        note = (x, (y + target_y) / 2)
    else:
        side = 0.3 if x > target_x else -0.3
        corners = [(x - side, y - 0.27), (x - side, target_y + 0.6), (target_x + side, target_y + 0.27)]
        note = (x - side, target_y + 0.66) if between else (target_x + side, target_y + 0.42)
    axes.add_patch(
        FancyArrowPatch(
            path=Path(corners), arrowstyle="-|>", mutation_scale=7, linewidth=1, color="#333333", shrinkA=0, shrinkB=0
        )
    )
    if note:
        box = {"facecolor": "#fafafa", "edgecolor": "none", "pad": 1}
        axes.annotate(
            engine_layers.describe(edge.tensor),
            note,
            xytext=(5, 0),
            textcoords="offset points",
            fontsize=7,
            va="center",
            bbox=box,
        )


def _origin(edge: Edge) -> str:
    return "the engine's input" if edge.source is None else f"layer {edge.source}"


def _detail(position: int, layer: EngineLayer, read: list[Edge]) -> str:
    reads = "; ".join(f"{engine_layers.describe(edge.tensor)} from {_origin(edge)}" for edge in read)
    writes = "; ".join(engine_layers.describe(tensor) for tensor in layer.outputs)
    nodes = ", ".join(layer.onnx_nodes) or "none"
    head = f"{position} {layer.type} {engine_layers.short_name(layer)}"
    return f"{head}\n  nodes: {nodes}\n  reads: {reads}\n  writes: {writes}"


# --- precision -------------------------------------------------------------------------------------------------------

_STRIP = 80  # kernels in a row


def precision_map(engines: dict[str, Sequence[EngineLayer]]) -> plotting.Picture:
    """Draw the data types that each kernel reads and writes, and the memory format that it writes, as strips.

    Args:
        engines: The layers of one or more engines, by a name for each.
    """
    strips = []  # name, and the kernels of one row
    for name, layers in engines.items():
        kernels = [(position, layer) for position, layer in enumerate(layers) if layer.is_kernel]
        strips += [(name, part) for part in _parts(kernels, _STRIP)]
    figure, axes = plotting.new_figure(0.75 + 0.95 * len(strips), nrows=len(strips), ncols=1, squeeze=False)
    widest = max(len(kernels) for _, kernels in strips)
    for one, (name, kernels) in zip(axes.flat, strips, strict=True):
        _draw_strip(one, name, kernels, widest)
    tensors = [tensor for layers in engines.values() for layer in layers for tensor in (*layer.inputs, *layer.outputs)]
    dtypes = Counter(tensor.dtype for tensor in tensors)
    formats = Counter(tensor.format for tensor in tensors)
    shown = {dtype: _DTYPES.get(dtype, _OTHER) for dtype in dtypes}
    legend(figure, shown | {f"format {one}": _FORMATS.get(one, _OTHER) for one in formats})
    text = [line for name, layers in engines.items() for line in _precision_text(name, layers)]
    alt = "Data types and formats by kernel. " + " ".join(f"{line}." for line in text if not line.startswith(" "))
    return plotting.Picture(figure, alt, "\n".join(text))


def _draw_strip(axes: "Axes", name: str, kernels: list[tuple[int, EngineLayer]], widest: int) -> None:
    from matplotlib.patches import Rectangle

    bare(axes, (-0.3, widest + 0.3), (-0.05, 3.45))
    for column, (_, layer) in enumerate(kernels):
        bands = ((2.0, _band(layer.inputs)), (1.0, _band(layer.outputs)), (0.0, _band(layer.outputs, "format")))
        for bottom, styles in bands:
            for part, (colour, hatch) in enumerate(styles):  # side by side where a kernel reads several types
                axes.add_patch(
                    Rectangle(
                        (column + part / len(styles), bottom + 0.08), 0.94 / len(styles), 0.84, facecolor=colour,
                        edgecolor="#fafafa" if hatch else colour, hatch=hatch, linewidth=0,
                    )
                )  # fmt: skip
                axes.add_patch(
                    Rectangle((column, bottom + 0.08), 0.94, 0.84, facecolor="none", edgecolor="#8a949e", linewidth=0.4)
                )
        reads, writes = ({tensor.dtype for tensor in side} for side in (layer.inputs, layer.outputs))
        if reads != writes:
            axes.plot(column + 0.47, 3.2, "v", color="black", markersize=4)
    for bottom, label in enumerate(("format", "writes", "reads")):
        axes.text(-0.6, bottom + 0.5, label, ha="right", va="center", fontsize=8)
    step = max(1, widest // 16)
    axes.set_xticks(
        [c + 0.47 for c in range(0, len(kernels), step)], [kernels[c][0] for c in range(0, len(kernels), step)]
    )
    axes.tick_params(labelsize=7, length=0, pad=1)
    axes.set_title(f"{name}: kernels by number of layer; ▾ where a kernel changes the type", fontsize=9, loc="left")


def _band(tensors: Sequence[EngineTensor], attribute: str = "dtype") -> list[tuple[str, str]]:
    styles = _DTYPES if attribute == "dtype" else _FORMATS
    values = dict.fromkeys(getattr(tensor, attribute) for tensor in tensors)
    return [styles.get(value, _OTHER) for value in values] or [("#fafafa", "")]


def _precision_text(name: str, layers: Sequence[EngineLayer]) -> list[str]:
    """Say how many kernels write each type, then which kernels read and write what."""
    written = Counter(layer.outputs[0].dtype for layer in layers if layer.is_kernel and layer.outputs)
    lines = [f"{name}, kernels by the type that they write: {_listed(written)}"]
    kernels = [(position, layer) for position, layer in enumerate(layers) if layer.is_kernel]
    types = [
        (position, f"{_each(layer.inputs, 'dtype')} to {_each(layer.outputs, 'dtype')}") for position, layer in kernels
    ]
    formats = [(position, _each(layer.outputs, "format")) for position, layer in kernels]
    return [*lines, f"  types: {_runs(types)}", f"  formats: {_runs(formats)}"]


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _each(tensors: Sequence[EngineTensor], attribute: str) -> str:
    return "+".join(dict.fromkeys(getattr(tensor, attribute) for tensor in tensors)) or "nothing"


def _runs(values: list[tuple[int, str]]) -> str:
    """Return numbered values as "0 a; 1-7 b", with one entry for each run of equal values."""
    runs = [list(run) for _, run in itertools.groupby(values, key=lambda pair: pair[1])]
    return "; ".join(f"{run[0][0] if len(run) == 1 else f'{run[0][0]}-{run[-1][0]}'} {run[0][1]}" for run in runs)


# --- fusion ----------------------------------------------------------------------------------------------------------

_COLUMNS = 72


def fusion_map(fates: Sequence[Fate], layers: Sequence[EngineLayer]) -> plotting.Picture:
    """Draw a matrix: which layer (column) holds nodes of which ONNX operator (row), and how many no layer names.

    Args:
        fates: Where each node went, see `engine_graph.fates`.
        layers: The layers of the engine.
    """
    kernels = [position for position, layer in enumerate(layers) if layer.is_kernel]
    operators = [operator for operator, _ in Counter(fate.operator for fate in fates).most_common()]
    operators = [one for one in operators if any(fate.operator == one and fate.layers for fate in fates)]
    parts = _parts(kernels, _COLUMNS)
    height = 0.55 + len(parts) * (0.45 + 0.2 * len(operators))
    figure, axes = plotting.new_figure(height, nrows=len(parts), ncols=1, squeeze=False)
    for one, columns in zip(axes.flat, parts, strict=True):
        _draw_matrix(one, fates, layers, operators, columns, len(parts[0]))
    missing = Counter(fate.operator for fate in fates if not fate.layers)
    last = axes.flat[-1]
    for row, operator in enumerate(operators):
        if missing[operator]:
            last.text(len(parts[0]) + 0.6, row, f"{missing[operator]} unnamed", va="center", fontsize=7)
    present = {engine_layers.kind(layers[position]) for position in kernels}
    legend(figure, {kind: KIND_STYLES[kind] for kind in KINDS if kind in present})
    named = sum(bool(fate.layers) for fate in fates)
    reasons = Counter(fate.reason.partition(";")[0] for fate in fates if fate.reason)
    gone = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    alt = (
        f"Fusion map: {len(fates)} ONNX nodes, of which {named} are named by {len(kernels)} kernels"
        f"{f'; the others: {gone}' if gone else ''}."
    )
    return plotting.Picture(figure, alt, "\n".join([alt, *fusion_lines(fates, layers)]))


def fusion_lines(fates: Sequence[Fate], layers: Sequence[EngineLayer]) -> list[str]:
    """Return the fusion map as text: a line for each kernel, then one for each reason why no layer names a node."""
    inside: dict[int, list[str]] = {}
    gone: dict[str, list[str]] = {}
    for fate in fates:
        for position in fate.layers:
            inside.setdefault(position, []).append(fate.node)
        if fate.reason:
            gone.setdefault(fate.reason, []).append(fate.node)
    lines = [
        f"{position:3} {engine_layers.short_name(layer)}: {', '.join(inside.get(position, ['no ONNX node']))}"
        for position, layer in enumerate(layers)
        if layer.is_kernel
    ]
    return lines + [f"{reason}: {', '.join(nodes)}" for reason, nodes in gone.items()]


def _draw_matrix(
    axes: "Axes",
    fates: Sequence[Fate],
    layers: Sequence[EngineLayer],
    operators: list[str],
    columns: list[int],
    width: int,
) -> None:
    from matplotlib.patches import Rectangle

    bare(axes, (-0.3, width + 5.5), (len(operators) - 0.4, -0.6))
    counts = Counter((fate.operator, position) for fate in fates for position in fate.layers)
    for row, operator in enumerate(operators):
        axes.axhline(row + 0.5, color="#e3e6e9", linewidth=0.6)
        for column, position in enumerate(columns):
            if count := counts[operator, position]:
                colour, hatch = KIND_STYLES[engine_layers.kind(layers[position])]
                axes.add_patch(
                    Rectangle(
                        (column + 0.04, row - 0.42),
                        0.9,
                        0.84,
                        facecolor=colour,
                        edgecolor="white",
                        hatch=hatch,
                        linewidth=0,
                    )
                )
                if count > 1:
                    ink = "black" if colour == plotting.ORANGE else "white"
                    axes.text(column + 0.5, row, count, ha="center", va="center", color=ink, fontsize=6, weight="bold")
    axes.set_yticks(range(len(operators)), operators, fontsize=8)
    step = max(1, width // 16)
    axes.set_xticks([c + 0.5 for c in range(0, len(columns), step)], [columns[c] for c in range(0, len(columns), step)])
    axes.tick_params(labelsize=7, length=0, pad=1)


# --- shared ----------------------------------------------------------------------------------------------------------


def _parts(values: list, most: int) -> list[list]:
    """Cut a list into parts of equal length, the last one perhaps shorter, with at most so many values."""
    size = math.ceil(len(values) / math.ceil(len(values) / most))
    return [values[start : start + size] for start in range(0, len(values), size)]


def clipped(text: str, room: int) -> str:
    """Return a text that has room, cut with an ellipsis if need be."""
    return text if len(text) <= room else f"{text[: room - 1]}…"


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
        Patch(facecolor=colour, hatch=hatch, label=label, edgecolor="#8a949e" if colour == "#ffffff" else "white")
        for label, (colour, hatch) in styles.items()
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=5, frameon=False, fontsize=8, handleheight=1.1)
