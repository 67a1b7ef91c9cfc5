"""What TensorRT makes of any ONNX model, on any machine: what ``python -m tutorial_utils inspect`` builds and shows.

The engine is built for one shape of each input, looked at, and dropped. Nothing is run and nothing is cached.
"""

import base64
import html
import json
import os
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tutorial_utils import engine
from tutorial_utils.base import paths
from tutorial_utils.base.errors import BuildError, InputError, TargetError
from tutorial_utils.engine import BuildOptions, BuildReport, Profile, computed_types
from tutorial_utils.inspection import dataflow, engine_layers, input_shapes
from tutorial_utils.inspection.engine_layers import KINDS, NodeHome
from tutorial_utils.inspection.input_shapes import Shape
from tutorial_utils.model import onnx_file

if TYPE_CHECKING:
    from tutorial_utils.plotting import Picture

_LARGEST = 10  # tensors that are listed
_NAMED = 12  # nodes that the text names for each reason; Paddle's files hold hundreds of constants


@dataclass(frozen=True)
class Written:
    """A tensor that a layer writes, with its size in bytes."""

    tensor: str
    size: int
    layer: int  # its position in the engine
    what: str  # data type, format and shape


@dataclass(frozen=True)
class Inspection:
    """A model and the engine that TensorRT builds from it."""

    model: str  # name of the file
    shapes: dict[str, Shape]  # the shape of each input that the engine was built for
    values: dict[str, Shape]  # the values of inputs that TensorRT reads as shapes
    guessed: tuple[str, ...]  # the inputs among them whose dynamic dimensions got the default sizes
    nodes: dict[str, int]  # how many nodes of each ONNX operator the model has
    report: BuildReport  # the report of the build
    node_homes: tuple[NodeHome, ...]  # where each node went
    largest: tuple[Written, ...]  # the largest tensors that kernels write, the largest first


def inspect(
    onnx_path: str | Path,
    targets: Sequence[str] = (),
    shapes: Mapping[str, Shape] | None = None,
    values: Mapping[str, Shape] | None = None,
    progress: bool = False,
) -> Inspection:
    """Build an engine from an ONNX model and look at it.

    Args:
        onnx_path: The model.
        targets: Compute capabilities to build for; none for TensorRT's own choice.
        shapes: Shapes of inputs by name. What others leave open is guessed, equal for equal names of dimensions.
        values: Values of the inputs that TensorRT reads as shapes, by name.
        progress: Whether to show a bar to a person who waits.

    Raises:
        InputError: A shape is given for an input that the model doesn't have, or doesn't fit it; or an input has no
            shape in the model and none is given.
        CourseError: What `onnx_file.load` and `engine.build` raise.
    """
    onnx_path = Path(onnx_path)
    model = onnx_file.load(onnx_path)
    given, values = dict(shapes or {}), dict(values or {})
    built_for, guessed = input_shapes.complete(model.graph, given, onnx_path.name)
    ranges = {name: (shape,) * 3 for name, shape in built_for.items() if name in guessed or name in given}
    profile = Profile.from_mapping(ranges).with_values({name: (one,) * 3 for name, one in values.items()})
    options = BuildOptions((profile,) if ranges or values else (), compute_capabilities=tuple(targets))
    try:
        report = engine.build(onnx_path, options, use_cache=False, progress=progress).report
    except BuildError as error:
        sized = [name for name, open_shape in guessed.items() if "?" in open_shape.split("x")[1:]]  # any batch would do
        if not sized or isinstance(error, TargetError) or "(Assertion" in error.cause:  # that is TensorRT's own fault
            raise
        chosen = ", ".join(f"{name}:{input_shapes.text(built_for[name])}" for name in sized)
        raise BuildError(
            f"{error.cause} The model leaves sizes open, and {chosen} was a guess.",
            "Give the sizes that it was made for, in place of the question marks: "
            f"--shape {sized[0]}:{guessed[sized[0]]}.",
        ) from error
    nodes = dict(Counter(node.op_type for node in model.graph.node).most_common())
    homes = engine_layers.node_homes(model.graph, report.layers)
    return Inspection(onnx_path.name, built_for, values, tuple(guessed), nodes, report, homes, _largest(report))


def _largest(report: BuildReport) -> tuple[Written, ...]:
    sizes = dataflow.from_report(report, input_shapes.BATCH).sizes if report.kernels else {}
    written = []
    for position, layer in enumerate(report.layers):
        for tensor in layer.outputs if layer.is_kernel else ():
            written.append(Written(tensor.name, sizes[tensor.name], position, engine_layers.describe(tensor)))
    return tuple(sorted(written, key=lambda one: -one.size)[:_LARGEST])


# --- as text and JSON ------------------------------------------------------------------------------------------------


def summary(one: Inspection) -> list[tuple[str, str]]:
    """Return the main facts as pairs of what and value."""
    report, layers = one.report, one.report.layers
    kinds = Counter(map(engine_layers.kind, layers))
    formats = Counter(tensor.format for kernel in report.kernels for tensor in kernel.outputs)
    notes = dict.fromkeys(one.guessed, " (sizes guessed, see --shape)")
    notes |= {name: f" = {','.join(map(str, values))}" for name, values in one.values.items()}
    inputs = (f"{name} {input_shapes.text(shape)}{notes.get(name, '')}" for name, shape in one.shapes.items())
    moves = [
        f"{position} {engine_layers.short_name(layer)} ({engine_layers.conversion(layer)})"
        for position, layer in enumerate(layers)
        if engine_layers.kind(layer) == engine_layers.MOVE
    ]
    targets = ", ".join(report.targets) or "TensorRT's own choice"
    return [
        ("model", one.model),
        ("inputs", "; ".join(inputs)),
        ("built by", f"{report.flavour} {report.version} for {targets}"),
        ("ONNX nodes", f"{sum(one.nodes.values())}: {_counted(one.nodes)}"),
        ("layers", f"{len(layers)}, of which {len(report.kernels)} are kernels"),
        ("kinds", _counted({kind: kinds[kind] for kind in KINDS if kinds[kind]})),
        ("types of layers", _counted(Counter(layer.type for layer in layers))),
        ("kernels write", _counted(report.kernel_dtypes)),
        ("formats written", _counted(formats)),
        ("moves of data", "; ".join(moves) or "none of their own"),
        ("activations", _size_text(report.activation_bytes)),
        ("weights", _size_text(report.weights_bytes)),
        ("plan", _size_text(report.plan_bytes)),
        ("computes in", report.precision_line),
        ("warnings", "; ".join(" ".join(text.split()) for text in report.warnings) or "none"),
    ]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]))


def _size_text(size: int | None) -> str:
    if size is None or size < 1024:
        return "not known" if size is None else f"{size} bytes"
    scaled, unit = (size / 2**20, "MiB") if size >= 2**20 else (size / 2**10, "KiB")
    return f"{scaled:.2f} {unit} ({size:,} bytes)"


def as_text(one: Inspection) -> str:
    """Return the summary, the precision and the ONNX nodes of every kernel, and the largest tensors."""
    lines = [f"{what:17} {value}" for what, value in summary(one)]
    lines += ["", "Kernels by number of layer: kind, what it reads and writes, its ONNX nodes"]
    for position, layer in enumerate(one.report.layers):
        if layer.is_kernel:
            reads = "+".join(dict.fromkeys(tensor.dtype for tensor in layer.inputs)) or "nothing"
            writes = "+".join(dict.fromkeys(f"{tensor.dtype} {tensor.format}" for tensor in layer.outputs))
            nodes = ", ".join(layer.onnx_nodes) or "no ONNX node"
            kind = engine_layers.kind_word(layer)
            lines.append(f"{position:4} {kind:14} {reads} to {writes:15} {engine_layers.short_name(layer)}: {nodes}")
    lines += ["", "ONNX nodes that no layer names"]
    unnamed = engine_layers.unnamed(one.node_homes)
    for reason, nodes in unnamed.items():
        more = f" and {len(nodes) - _NAMED} more (all of them: --json)" if len(nodes) > _NAMED else ""
        lines.append(f"  {reason}: {', '.join(nodes[:_NAMED])}{more}")
    if not unnamed:
        lines.append("  none")
    lines += ["", "Largest tensors"]
    lines += [" ".join(row) for row in _largest_rows(one)]
    return "\n".join(lines)


def _largest_rows(one: Inspection) -> list[tuple[str, str]]:
    rows = []
    for tensor in one.largest:
        writer = engine_layers.short_name(one.report.layers[tensor.layer])
        size = _size_text(tensor.size).partition(" (")[0]
        rows.append((f"{size:>13}", f"{tensor.what}, written by {tensor.layer} {writer}"))
    return rows


def as_json(one: Inspection) -> str:
    """Return everything as JSON: the fields of `Inspection`, and for each layer its kind and what it computes in."""
    values = asdict(one)
    for layer, described in zip(one.report.layers, values["report"]["layers"], strict=True):
        described["kind"] = engine_layers.kind(layer)
        described["computed"] = asdict(computed_types.of_layer(layer))
    return json.dumps(values, indent=1, ensure_ascii=False)


# --- as a page -------------------------------------------------------------------------------------------------------

_BLOCK = 8  # kernels that the page shows in detail
_DRAWN = 500  # layers that the figures show: Matplotlib takes minutes for thousands, and nobody sees them
_TEMPLATE = Path(__file__).with_name("page.html")  # with $title and $body


def write_page(one: Inspection, path: Path) -> Path:
    """Write all views as one HTML file, which loads nothing from anywhere; raise InputError where that fails."""
    from tutorial_utils.inspection import drawings, maps

    report, layers = one.report, one.report.layers
    drawn = layers[:_DRAWN]
    homes = [home for home in one.node_homes if not home.layers or home.layers[0] < len(drawn)]
    part = f" (the first {len(drawn)} of {len(layers)}; all of them: --json)" if len(drawn) < len(layers) else ""
    kernels = [position for position, layer in enumerate(drawn) if layer.is_kernel]
    sections = [table(summary(one))]
    if kernels:  # an engine that only hands its inputs on has none
        detail = f"The first {min(_BLOCK, len(kernels))} kernels in detail"
        sections += [
            section(f"Layers in the order of execution{part}", drawings.overview(drawn, one.model)),
            section(detail, drawings.block(drawn, 0, kernels[:_BLOCK][-1])),
            section(f"Precision map{part}", maps.precision_map({one.model: drawn})),
            section(f"Fusion map: ONNX nodes by kernel{part}", maps.fusion_map(homes, drawn)),
        ]
    proof = html.escape(computed_types.table(layers)) or "No convolution, matrix product or attention."
    sections += ["<h2>What layers compute in, and what says so</h2>", f"<pre>{proof}</pre>"]
    sections += ["<h2>Largest tensors</h2>", table(_largest_rows(one))]
    return write_html(f"{one.model} as an engine of {report.flavour} {report.version}", "\n".join(sections), path)


def write_html(title: str, body: str, path: Path) -> Path:
    """Write a page of this look, with a body in HTML; raise InputError where that fails."""
    text = string.Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(title=html.escape(title), body=body)
    try:
        with paths.replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # of file names that are no UTF-8
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise _unwritable(path, getattr(error, "strerror", None) or str(error)) from error
    return path


def check_writable(path: Path, *read: Path) -> None:
    """Raise InputError for a file that can't be written or is one of those that are read, before the work is done."""
    for other in read:
        if os.path.realpath(path) == os.path.realpath(other):
            raise InputError(f"{path} is to be written, and is {other} itself.", "Name another file.")
    folder = path.absolute().parent
    try:
        in_the_way = path.exists() and not path.is_file()
    except (OSError, ValueError) as error:  # a name that is too long, or has a null byte
        raise _unwritable(path, getattr(error, "strerror", None) or str(error)) from error
    if in_the_way or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise _unwritable(path, "no file can be made there")


def _unwritable(path: Path, reason: str) -> InputError:
    return InputError(f"{path} can't be written: {reason}.", "Name a file in a folder that you can write to.")


def section(heading: str, picture: "Picture") -> str:
    """Return a heading and a picture, with its text, as HTML."""
    source = base64.b64encode(picture._repr_mimebundle_()[0]["image/png"]).decode()
    return (
        f"<h2>{html.escape(heading)}</h2>\n"
        f'<img alt="{html.escape(picture.alt)}" src="data:image/png;base64,{source}">\n'
        f"<details><summary>As text</summary><pre>{html.escape(picture.text)}</pre></details>"
    )


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Return rows of what and value as HTML."""
    cells = (f"<tr><th>{html.escape(what)}</th><td>{html.escape(value)}</td></tr>" for what, value in rows)
    return f"<table>{''.join(cells)}</table>"
