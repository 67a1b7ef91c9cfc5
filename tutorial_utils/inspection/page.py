"""What TensorRT makes of any ONNX model, on any machine: what ``python -m tutorial_utils inspect`` builds and shows.

The engine is built for one shape of each input, looked at, and dropped. Nothing is run and nothing is cached.
"""

import base64
import contextlib
import html
import json
import os
import string
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from tutorial_utils import engine
from tutorial_utils.base import paths
from tutorial_utils.base.errors import BuildError, InputError, TargetError
from tutorial_utils.base.shapes import fits
from tutorial_utils.engine import BuildOptions, BuildReport, Profile
from tutorial_utils.inspection import dataflow, engine_layers
from tutorial_utils.inspection.engine_layers import KINDS, NodeHome
from tutorial_utils.model import onnx_file

Shape = tuple[int, ...]

# Sizes for dynamic dimensions where no shape is given: for the first, which is the batch as a rule, and the others.
DEFAULT_BATCH, DEFAULT_SIZE = 1, 224
_LARGEST = 10  # tensors that are listed
_NAMED = 12  # nodes that the text names for each reason; Paddle's files hold hundreds of constants
_MIB = 2**20


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
    guessed: tuple[str, ...]  # the inputs among them whose dynamic dimensions got the default sizes
    nodes: dict[str, int]  # how many nodes of each ONNX operator the model has
    report: BuildReport  # the report of the build
    node_homes: tuple[NodeHome, ...]  # where each node went
    largest: tuple[Written, ...]  # the largest tensors that kernels write, the largest first


def inspect(
    onnx_path: str | Path, targets: Sequence[str] = (), shapes: Mapping[str, Shape] | None = None
) -> Inspection:
    """Build an engine from an ONNX model and look at it.

    Args:
        onnx_path: The model.
        targets: Compute capabilities to build for; none for TensorRT's own choice.
        shapes: Shapes of inputs by name. Dynamic dimensions of others become `DEFAULT_BATCH` and `DEFAULT_SIZE`.

    Raises:
        InputError: A shape is given for an input that the model doesn't have, or doesn't fit its input.
        CourseError: What `onnx_file.load` and `engine.build` raise.
    """
    onnx_path = Path(onnx_path)
    model = onnx_file.load(onnx_path)
    declared = _declared_shapes(model.graph)
    given = shapes or {}
    for name, shape in given.items():
        _check_shape(name, shape, declared, onnx_path.name)
    guessed = tuple(name for name, shape in declared.items() if name not in given and 0 in shape)
    built_for = {name: given.get(name) or _with_defaults(shape) for name, shape in declared.items()}
    ranges = {name: (built_for[name],) * 3 for name, shape in declared.items() if 0 in shape or name in given}
    profiles = (Profile.from_mapping(ranges),) if ranges else ()
    options = BuildOptions(profiles=profiles, compute_capabilities=tuple(targets))
    try:
        with _buildable(onnx_path, model, built_for) as path:
            report = engine.build(path, options, use_cache=False, progress=False).report
    except BuildError as error:
        sized = [name for name in guessed if 0 in declared[name][1:]]  # any batch would do
        if not sized or isinstance(error, TargetError):
            raise
        chosen = ", ".join(f"{name}:{shape_text(built_for[name])}" for name in sized)
        raise BuildError(
            f"{error.cause} The model leaves sizes open, and {chosen} was a guess.",
            "Give the sizes that it was made for, in place of the question marks: "
            f"--shape {sized[0]}:{shape_text(declared[sized[0]])}.",
        ) from error
    nodes = dict(Counter(node.op_type for node in model.graph.node).most_common())
    homes = engine_layers.node_homes(model.graph, report.layers)
    return Inspection(onnx_path.name, built_for, guessed, nodes, report, homes, _largest(report))


def _largest(report: BuildReport) -> tuple[Written, ...]:
    sizes = dataflow.from_report(report, DEFAULT_BATCH).sizes
    written = []
    for position, layer in enumerate(report.layers):
        for tensor in layer.outputs if layer.is_kernel else ():
            written.append(Written(tensor.name, sizes[tensor.name], position, engine_layers.describe(tensor)))
    return tuple(sorted(written, key=lambda one: -one.size)[:_LARGEST])


@contextlib.contextmanager
def _buildable(onnx_path: Path, model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> Iterator[Path]:
    """Give the path of the model, or of a copy without names of dimensions where one name has several sizes.

    TensorRT takes equal names for equal sizes, but some exporters call every unknown dimension "?".
    """
    dims = [
        (dim, size)
        for value in model.graph.input
        if value.name in shapes
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=False)
    ]
    sizes: dict[str, set[int]] = {}
    for dim, size in dims:
        sizes.setdefault(dim.dim_param, set()).add(size)
    if all(len(several) == 1 for name, several in sizes.items() if name):
        yield onnx_path
        return
    for dim, _ in dims:
        if dim.dim_param:
            dim.ClearField("dim_param")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / onnx_path.name
        copy.write_bytes(model.SerializeToString())
        yield copy


def _declared_shapes(model: onnx.GraphProto) -> dict[str, Shape]:
    """Return the shapes of a model's inputs, with 0 for dynamic dimensions."""
    weights = {weight.name for weight in model.initializer}  # old files list them among the inputs
    return {
        value.name: tuple(max(dim.dim_value, 0) for dim in value.type.tensor_type.shape.dim)
        for value in model.input
        if value.name not in weights
    }


def _check_shape(name: str, given: Shape, declared: Mapping[str, Shape], model: str) -> None:
    if name not in declared:
        raise InputError(f"{model} has no input {name}.", f"Its inputs are {', '.join(declared) or 'none'}.")
    sizes = declared[name]
    if not fits(given, sizes):
        raise InputError(
            f"The shape {shape_text(given)} was given for the input {name}, which is {shape_text(sizes)}.",
            "Give a size for each question mark, and the other sizes as they are.",
        )


def _with_defaults(shape: Shape) -> Shape:
    return tuple(size or (DEFAULT_SIZE if axis else DEFAULT_BATCH) for axis, size in enumerate(shape))


def parse_shape(text: str) -> tuple[str, Shape]:
    """Read an option such as ``x:1x3x224x224``; raise InputError where it has another form."""
    name, _, sizes = text.rpartition(":")
    numbers = sizes.split("x")
    if not name or not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise InputError(f"{text!r} is not the shape of an input.", "Write it as NAME:1x3x224x224.")
    return name, tuple(map(int, numbers))


def shape_text(shape: Shape) -> str:
    """Return a shape as "1x3x224x224", with a question mark for a size of 0, which is open."""
    return "x".join(str(size or "?") for size in shape) or "scalar"


# --- as text and JSON ------------------------------------------------------------------------------------------------


def summary(one: Inspection) -> list[tuple[str, str]]:
    """Return the main facts as pairs of what and value."""
    report, layers = one.report, one.report.layers
    kinds = Counter(map(engine_layers.kind, layers))
    formats = Counter(tensor.format for kernel in report.kernels for tensor in kernel.outputs)
    notes = dict.fromkeys(one.guessed, " (sizes guessed, see --shape)")
    inputs = (f"{name} {shape_text(shape)}{notes.get(name, '')}" for name, shape in one.shapes.items())
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
        ("reformats, casts", "; ".join(moves) or "none of their own"),
        ("activations", _mib(report.activation_bytes)),
        ("weights", _mib(report.weights_bytes)),
        ("plan", _mib(report.plan_bytes)),
        ("warnings", "; ".join(" ".join(text.split()) for text in report.warnings) or "none"),
    ]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]))


def _mib(size: int | None) -> str:
    return "not known" if size is None else f"{size / _MIB:.2f} MiB ({size:,} bytes)"


def as_text(one: Inspection) -> str:
    """Return the summary, the precision and the ONNX nodes of every kernel, and the largest tensors."""
    lines = [f"{what:17} {value}" for what, value in summary(one)]
    lines += ["", "Kernels by number of layer: kind, what it reads and writes, its ONNX nodes"]
    for position, layer in enumerate(one.report.layers):
        if layer.is_kernel:
            reads = "+".join(dict.fromkeys(tensor.dtype for tensor in layer.inputs)) or "nothing"
            writes = "+".join(dict.fromkeys(f"{tensor.dtype} {tensor.format}" for tensor in layer.outputs))
            nodes = ", ".join(layer.onnx_nodes) or "no ONNX node"
            kind = engine_layers.kind(layer).partition("/")[0]
            lines.append(f"{position:4} {kind:11} {reads} to {writes:15} {engine_layers.short_name(layer)}: {nodes}")
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
        rows.append((f"{tensor.size / _MIB:9.2f} MiB", f"{tensor.what}, written by {tensor.layer} {writer}"))
    return rows


def as_json(one: Inspection) -> str:
    """Return everything as JSON: the fields of `Inspection`, and for each layer also its kind."""
    values = asdict(one)
    for layer, described in zip(one.report.layers, values["report"]["layers"], strict=True):
        described["kind"] = engine_layers.kind(layer)
    return json.dumps(values, indent=1, ensure_ascii=False)


# --- as a page -------------------------------------------------------------------------------------------------------

_BLOCK = 8  # kernels that the page shows in detail
_TEMPLATE = Path(__file__).with_name("page.html")  # with $title and $body


def write_page(one: Inspection, path: Path) -> Path:
    """Write all views as one HTML file, which loads nothing from anywhere; raise InputError where that fails."""
    from tutorial_utils.inspection import drawings, maps

    report, layers = one.report, one.report.layers
    kernels = [position for position, layer in enumerate(layers) if layer.is_kernel]
    sections = [_table(summary(one))]
    pictures = {
        "Layers in the order of execution": drawings.overview(layers, one.model),
        f"The first {min(_BLOCK, len(kernels))} kernels in detail": drawings.block(layers, 0, kernels[:_BLOCK][-1]),
        "Precision map": maps.precision_map({one.model: layers}),
        "Fusion map: ONNX nodes by kernel": maps.fusion_map(one.node_homes, layers),
    }
    for heading, picture in pictures.items():
        source = base64.b64encode(picture._repr_mimebundle_()[0]["image/png"]).decode()
        sections.append(
            f"<h2>{html.escape(heading)}</h2>\n"
            f'<img alt="{html.escape(picture.alt)}" src="data:image/png;base64,{source}">\n'
            f"<details><summary>As text</summary><pre>{html.escape(picture.text)}</pre></details>"
        )
    sections += ["<h2>Largest tensors</h2>", _table(_largest_rows(one))]
    title = html.escape(f"{one.model} as an engine of {report.flavour} {report.version}")
    page = string.Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(title=title, body="\n".join(sections))
    try:
        with paths.replacing(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    return path


def check_writable(path: Path) -> None:
    """Raise InputError where a file can't be written, before the work for it is done."""
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise _unwritable(path, "no file can be made there")


def _unwritable(path: Path, reason: str) -> InputError:
    return InputError(f"{path} can't be written: {reason}.", "Name a file in a folder that you can write to.")


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = (f"<tr><th>{html.escape(what)}</th><td>{html.escape(value)}</td></tr>" for what, value in rows)
    return f"<table>{''.join(cells)}</table>"
