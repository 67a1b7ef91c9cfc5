"""Maps of an engine: data types and formats by kernel, ONNX nodes by kernel, and when which tensor is alive.

Kernels have the numbers of their layers in the order of execution, here and in the text twins.
"""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tutorial_utils import plotting
from tutorial_utils.engine import EngineLayer, EngineTensor
from tutorial_utils.inspection import engine_layers
from tutorial_utils.inspection.dataflow import Dataflow
from tutorial_utils.inspection.drawings import KIND_STYLES, bare, clipped, filled, ink, kind_legend, legend
from tutorial_utils.inspection.engine_layers import NodeHome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DTYPES = {
    "fp32": (plotting.BLUE, ""), "fp16": (plotting.ORANGE, "///"), "bf16": ("#F0E442", "\\\\\\"),
    "int8": (plotting.GREEN, "xxx"), "fp8": ("#CC79A7", "..."), "int4": ("#56B4E9", "ooo"),
}  # fmt: skip
_FORMATS = {
    "NHWC": ("#b9c2cb", ""), "NCHW": ("#ffffff", ""), "row major": ("#ffffff", ""), "column major": ("#e9d8a6", "\\\\"),
    "vector": ("#ffffff", "..."),
}  # fmt: skip
_OTHER = (plotting.GREY, "---")


# --- precision -------------------------------------------------------------------------------------------------------

_STRIP = 80  # kernels in a row


def precision_map(engines: dict[str, Sequence[EngineLayer]]) -> plotting.Picture:
    """Draw the data types that each kernel of some engines reads and writes, and its memory format, as strips."""
    strips = [(name, row) for name, layers in engines.items() for row in _parts(_kernels(layers), _STRIP)]
    figure, axes = plotting.new_figure(0.75 + 0.95 * len(strips), nrows=len(strips), ncols=1, squeeze=False)
    widest = max(len(kernels) for _, kernels in strips)
    for one, (name, kernels) in zip(axes.flat, strips, strict=True):
        _draw_strip(one, name, kernels, widest)
    tensors = [tensor for layers in engines.values() for layer in layers for tensor in (*layer.inputs, *layer.outputs)]
    shown = {dtype: _DTYPES.get(dtype, _OTHER) for dtype in Counter(tensor.dtype for tensor in tensors)}
    formats = dict.fromkeys(tensor.format for tensor in tensors)
    named: dict[tuple[str, str], list[str]] = {}  # formats that look alike share an entry of the legend
    for one in formats:
        named.setdefault(_FORMATS.get(one, _OTHER), []).append(one)
    legend(figure, shown | {f"format {', '.join(alike)}": style for style, alike in named.items()})
    text = [line for name, layers in engines.items() for line in _precision_text(name, layers)]
    alt = "Data types and formats by kernel. " + " ".join(f"{line}." for line in text if not line.startswith(" "))
    return plotting.Picture(figure, alt, "\n".join(text))


def _kernels(layers: Sequence[EngineLayer]) -> list[tuple[int, EngineLayer]]:
    return [(position, layer) for position, layer in enumerate(layers) if layer.is_kernel]


def _parts(values: list, most: int) -> list[list]:
    """Cut a list into parts of equal length, the last one perhaps shorter, with at most so many values."""
    size = math.ceil(len(values) / math.ceil(len(values) / most))
    return [values[start : start + size] for start in range(0, len(values), size)]


def _draw_strip(axes: "Axes", name: str, kernels: list[tuple[int, EngineLayer]], widest: int) -> None:
    bare(axes, (-0.3, widest + 0.3), (-0.05, 3.45))
    for column, (_, layer) in enumerate(kernels):
        bands = (_band(layer.outputs, "format"), _band(layer.outputs), _band(layer.inputs))
        for bottom, styles in enumerate(bands):
            width = 0.94 / len(styles)  # side by side where a kernel reads several types
            for part, style in enumerate(styles):
                edge = "#fafafa" if style[1] else style[0]
                filled(axes, column + part * width, bottom + 0.08, width, 0.84, style, edgecolor=edge)
            filled(axes, column, bottom + 0.08, 0.94, 0.84, ("none", ""), edgecolor="#8a949e", linewidth=0.4)
        reads, writes = ({tensor.dtype for tensor in side} for side in (layer.inputs, layer.outputs))
        if reads != writes:
            axes.plot(column + 0.47, 3.2, "v", color="black", markersize=4)
    for bottom, label in enumerate(("format", "writes", "reads")):
        axes.text(-0.6, bottom + 0.5, label, ha="right", va="center", fontsize=8)
    _number_columns(axes, [position for position, _ in kernels], widest)
    name = plotting.literal(name)
    axes.set_title(f"{name}: kernels by number of layer; ▾ where a kernel changes the type", fontsize=9, loc="left")


def _band(tensors: Sequence[EngineTensor], attribute: str = "dtype") -> list[tuple[str, str]]:
    styles = _DTYPES if attribute == "dtype" else _FORMATS
    values = dict.fromkeys(getattr(tensor, attribute) for tensor in tensors)
    return [styles.get(value, _OTHER) for value in values] or [("#fafafa", "")]


def _number_columns(axes: "Axes", numbers: Sequence[int], width: int) -> None:
    """Write the number of its layer below each column, or below those of every fifth number where there are many.

    Numbers of layers that aren't kernels are missing.
    """
    step = next((step for step in (1, 2, 5, 10) if width <= 20 * step), 20)
    columns = [column for column, number in enumerate(numbers) if number % step == 0]
    axes.set_xticks([column + 0.47 for column in columns], [numbers[column] for column in columns])
    axes.tick_params(labelsize=7, length=0, pad=1)


def _precision_text(name: str, layers: Sequence[EngineLayer]) -> list[str]:
    """Say how many kernels write each type, then which kernels read and write what."""
    kernels = _kernels(layers)
    written = Counter(layer.outputs[0].dtype for _, layer in kernels if layer.outputs)
    listed = ", ".join(f"{dtype} {count}" for dtype, count in written.items())
    types = [(number, f"{_each(one.inputs)} to {_each(one.outputs)}") for number, one in kernels]
    formats = [(number, _each(one.outputs, "format")) for number, one in kernels]
    heading = f"{name}, kernels by the type that they write: {listed}"
    return [heading, f"  types: {_runs(types)}", f"  formats: {_runs(formats)}"]


def _each(tensors: Sequence[EngineTensor], attribute: str = "dtype") -> str:
    return "+".join(dict.fromkeys(getattr(tensor, attribute) for tensor in tensors)) or "nothing"


def _runs(values: list[tuple[int, str]]) -> str:
    """Return numbered values as "0 a; 1-7 b", with one entry for each run of equal values."""
    runs = [list(run) for _, run in itertools.groupby(values, key=lambda pair: pair[1])]
    return "; ".join(f"{run[0][0] if len(run) == 1 else f'{run[0][0]}-{run[-1][0]}'} {run[0][1]}" for run in runs)


# --- fusion ----------------------------------------------------------------------------------------------------------

_COLUMNS = 72  # kernels in a row of the matrix
_MOST_ROWS, _MOST_BOXES = 16, 6  # kernels, and nodes in one of them, up to which each node has a box with its name
_OPERATOR_COLOURS = {
    "Conv": plotting.BLUE, "MatMul": plotting.BLUE, "Gemm": plotting.BLUE, "BatchNormalization": plotting.ORANGE,
    "Relu": plotting.GREEN, "Add": plotting.RED,
}  # fmt: skip
_SHORT = {"BatchNormalization": "BatchNorm", "GlobalAveragePool": "AveragePool"}


def fusion_map(homes: Sequence[NodeHome], layers: Sequence[EngineLayer]) -> plotting.Picture:
    """Draw which kernel holds which ONNX nodes.

    In a small engine each kernel has a row with a box for each of its nodes. A large one becomes a matrix: a column for
    each kernel, a row for each operator, and beside it how many of its nodes no layer names.
    """
    kernels = _kernels(layers)
    inside: dict[int, list[NodeHome]] = {position: [] for position, _ in kernels}
    for home in homes:
        for position in home.layers:
            if position in inside:
                inside[position].append(home)
    small = len(kernels) <= _MOST_ROWS and max(map(len, inside.values())) <= _MOST_BOXES
    figure = _boxes(homes, inside, layers) if small else _matrix(homes, kernels)
    text = [
        f"{number:3} {engine_layers.short_name(layer)}: "
        + (", ".join(home.node for home in inside[number]) or "no ONNX node")
        for number, layer in kernels
    ]
    text += [f"{reason}: {', '.join(nodes)}" for reason, nodes in engine_layers.unnamed(homes).items()]
    reasons = Counter(home.reason for home in homes if home.reason)
    gone = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    alt = (
        f"Fusion map: {len(homes)} ONNX nodes, of which {len(homes) - reasons.total()} are named by {len(kernels)} "
        f"kernels{f'; the others: {gone}' if gone else ''}."
    )
    return plotting.Picture(figure, alt, "\n".join([alt, *text]))


def _boxes(homes: Sequence[NodeHome], inside: dict[int, list[NodeHome]], layers: Sequence[EngineLayer]) -> "Figure":
    figure, axes = plotting.new_figure(0.6 + 0.36 * len(inside))
    columns = max(1, *map(len, inside.values()))
    bare(axes, (-0.02, columns), (len(inside) - 0.4, -0.6))
    for row, (position, own) in enumerate(inside.items()):
        for column, home in enumerate(own):
            colour = _OPERATOR_COLOURS.get(home.operator, plotting.GREY)
            filled(axes, column, row - 0.4, 0.95, 0.8, (colour, ""))
            name = home.node.rsplit("/", 1)[-1].replace(home.operator, _SHORT.get(home.operator, home.operator))
            label = {"ha": "center", "va": "center", "color": ink(colour), "fontsize": 9, "weight": "bold"}
            axes.text(column + 0.475, row, clipped(name, 66 // columns), **label)
        if not own:
            note = f"no ONNX node: {engine_layers.conversion(layers[position])}"
            axes.text(0.04, row, note, va="center", color="#333333", fontsize=9)
    axes.set_yticks(range(len(inside)), [f"layer {position}" for position in inside])
    axes.tick_params(length=0)
    gone = ", ".join(itertools.chain(*engine_layers.unnamed(homes).values()))
    axes.set_xlabel(clipped(f"named by no layer: {gone or 'none'}", 120), loc="left", fontsize=9)
    return figure


def _matrix(homes: Sequence[NodeHome], kernels: list[tuple[int, EngineLayer]]) -> "Figure":
    named = {home.operator for home in homes if home.layers}
    operators = [one for one, _ in Counter(home.operator for home in homes).most_common() if one in named]
    parts = _parts(kernels, _COLUMNS)
    width = len(parts[0])
    height = 0.55 + len(parts) * (0.45 + 0.2 * len(operators))
    figure, axes = plotting.new_figure(height, nrows=len(parts), ncols=1, squeeze=False)
    counts = Counter((home.operator, position) for home in homes for position in home.layers)
    for one, columns in zip(axes.flat, parts, strict=True):
        bare(one, (-0.3, width + 5.5), (len(operators) - 0.4, -0.6))
        for row, operator in enumerate(operators):
            one.axhline(row + 0.5, color="#e3e6e9", linewidth=0.6)
            for column, (position, layer) in enumerate(columns):
                _draw_cell(one, column, row, counts[operator, position], layer)
        one.set_yticks(range(len(operators)), map(plotting.literal, operators), fontsize=8)
        _number_columns(one, [position for position, _ in columns], width)
    missing = Counter(home.operator for home in homes if not home.layers)
    for row, operator in enumerate(operators):
        if missing[operator]:
            axes.flat[-1].text(width + 0.6, row, f"{missing[operator]} unnamed", va="center", fontsize=7)
    kind_legend(figure, [layer for _, layer in kernels])
    return figure


def _draw_cell(axes: "Axes", column: int, row: int, count: int, layer: EngineLayer) -> None:
    style = KIND_STYLES[engine_layers.kind(layer)]
    if count:
        filled(axes, column + 0.04, row - 0.42, 0.9, 0.84, style)
    if count > 1:
        box = {"facecolor": style[0], "edgecolor": "none", "pad": 0.8}  # the hatch would cross the number
        label = {"ha": "center", "va": "center", "color": ink(style[0]), "fontsize": 6, "weight": "bold"}
        axes.text(column + 0.5, row, count, bbox=box, **label)


# --- memory ----------------------------------------------------------------------------------------------------------

_MIB = 2**20
_LETTERS = "abcdefgh"  # for tensors that are alive at the fullest step
_NAMED_STEPS = 40  # up to which each step has its name below its bar


def lifetimes(flow: Dataflow, names: Sequence[str] = ()) -> plotting.Picture:
    """Draw when each tensor of a network is alive, and below it the bytes that are alive at each step.

    The steps are called by ``names``, or where that is empty by their own.
    """
    names = names or [step.name for step in flow.steps]
    tensors, live = flow.lifetimes(), flow.live_bytes() / _MIB
    fullest, largest = int(live.argmax()), max(one.size for one in tensors)
    alive = [row for row, one in enumerate(tensors) if one.first <= fullest <= one.last]
    figure, (upper, lower) = plotting.new_figure(6.2, nrows=2, ncols=1, sharex=True, height_ratios=[3.2, 1])
    styles = {True: {"facecolor": plotting.ORANGE, "hatch": "////"}, False: {"facecolor": plotting.BLUE}}
    for row, one in enumerate(tensors):
        upper.barh(
            row, one.last - one.first + 0.9, left=one.first - 0.45, height=0.25 + 0.65 * one.size / largest,
            edgecolor="white", linewidth=0, **styles[row in alive],
        )  # fmt: skip
    labels = [f"{tensors[row].size / _MIB:.2f} MiB, written by {names[tensors[row].first]}" for row in alive]
    for letter, row in zip(_LETTERS, alive, strict=False):  # lines to the words would cross other bars
        at = tensors[row].first - 0.45, row  # where the bars are staggered
        plotting.note(upper, letter, at, (-3, 0), ha="right", fontsize=8, weight="bold")
    listed = [f"{letter}  {label}" for letter, label in zip(_LETTERS, labels, strict=False)]
    more = [f"and {len(labels) - len(_LETTERS)} more"] * (len(labels) > len(_LETTERS))
    text = plotting.literal("\n".join([f"alive at step {fullest}:", *listed, *more]))
    upper.text(0.99, 0.97, text, transform=upper.transAxes, ha="right", va="top", fontsize=9, multialignment="left")
    upper.set_ylim(len(tensors) - 0.4, -1)
    upper.set_yticks([])
    upper.set_ylabel("tensors, thicker when larger")
    for step, size in enumerate(live):
        lower.bar(step, size, width=0.9, edgecolor="white", linewidth=0, **styles[size == live.max()])
    lower.axhline(live.max(), color=plotting.ORANGE, linewidth=1)
    lower.set_xlim(-0.6, len(live) - 0.4)
    lower.set_ylabel("MiB alive")
    if len(names) <= _NAMED_STEPS:
        lower.set_xticks(range(len(names)), map(plotting.literal, names), rotation=90, fontsize=8)
    else:
        lower.set_xlabel("steps in the order of execution")
    alt = (
        f"Lifetimes of {len(tensors)} tensors over {len(names)} steps: bars along a diagonal. Most is alive at "
        f"{(live == live.max()).sum()} of the steps, first at {names[fullest]}: {live.max():.2f} MiB."
    )
    text = [f"alive at the fullest: {label}" for label in labels]
    text += [f"{name}: {size:.2f} MiB alive" for name, size in zip(names, live, strict=True)]
    return plotting.Picture(figure, alt, "\n".join(text))
