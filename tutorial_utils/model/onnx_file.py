"""ONNX files: read, checked, and written whole or not at all."""

import contextlib
import errno
import graphlib
import itertools
import math
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from tutorial_utils.base import onnx_session, paths
from tutorial_utils.base.errors import ExportError, ModelFileError, PrecisionError, first_line
from tutorial_utils.model import weight_files

LARGEST = 2**31 - 2**24  # bytes of weights in one file, or in what protobuf serializes: its limit is 2 GiB
_SMALL = 1024  # bytes of weights that stay in the file itself even so
_LFS = b"version https://git-lfs"
# Bits of a number of each data type in a file.
_BITS = {
    getattr(TensorProto, name): bits
    for bits, names in {
        4: "INT4 UINT4 FLOAT4E2M1",
        8: "BOOL INT8 UINT8 FLOAT8E4M3FN FLOAT8E4M3FNUZ FLOAT8E5M2 FLOAT8E5M2FNUZ FLOAT8E8M0",
        16: "INT16 UINT16 FLOAT16 BFLOAT16",
        32: "INT32 UINT32 FLOAT",
        64: "INT64 UINT64 DOUBLE COMPLEX64",
        128: "COMPLEX128",
    }.items()
    for name in names.split()
    if hasattr(TensorProto, name)  # onnx 1.17 lacks the newest
}


def load(onnx_path: str | Path, *, external_data: bool = True) -> onnx.ModelProto:
    """Read an ONNX model, with its nodes in order and a name of its own for each (`name_nodes`).

    ONNX wants a node to stand behind those whose tensors it reads. ONNX Runtime doesn't, and there are such files.
    An IR version that is newer than the installed onnx becomes the newest that it knows: operators are told by the
    opset.

    Args:
        onnx_path: The model.
        external_data: Whether to read the weights that lie in other files, too. They are looked at in any case.

    Raises:
        ModelFileError: The file is missing or is not an ONNX model, or its external data is missing or cut short.
    """
    path = Path(onnx_path)
    weight_files.require_model(path)
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        with path.open("rb") as file:
            is_pointer = file.read(len(_LFS)) == _LFS
        if is_pointer:
            raise ModelFileError(
                f"{path.name} is a pointer of Git LFS, and no model.", "Run `git lfs pull`."
            ) from error
        raise ModelFileError(f"{path.name} is not an ONNX model, or was cut short.", "Export it again.") from error
    if lack := _lack(model):
        raise ModelFileError(f"{path.name} {lack}.", "Export it again.")
    model.ir_version = min(model.ir_version, onnx.IR_VERSION)
    require_weights(model, path)
    if external_data:
        load_external_data(model, path)
    for graph in graphs(model.graph):
        _require_one_writer(graph, path.name)
        try:
            _sort(graph)
        except graphlib.CycleError as error:
            raise ModelFileError(
                f"In {path.name}, nodes read each other's tensors in a circle.", "Export it again."
            ) from error
    name_nodes(model)
    return model


def _lack(model: onnx.ModelProto) -> str:
    """Return which part without which nothing is computed a model lacks; "" where it has them all."""
    graph = model.graph
    for lacks, what in (
        (not graph.node, "holds no operators"),
        (not graph.output, "has no outputs"),
        (not model.opset_import, "doesn't say of which opset it is"),
    ):
        if lacks:
            return what
    without_type = [value.name for value in graph.input if not value.type.WhichOneof("value")]
    return f"doesn't say of which data type its input {without_type[0]} is" if without_type else ""


def _require_one_writer(graph: onnx.GraphProto, name: str) -> None:
    writers = Counter(output for node in graph.node for output in node.output if output)
    if several := [tensor for tensor, count in writers.items() if count > 1]:
        raise ModelFileError(f"In {name}, several nodes write the tensor {several[0]}.", "Export it again.")


def _sort(graph: onnx.GraphProto) -> None:
    """Put nodes behind those whose tensors they, or graphs inside them, read. A graph in order stays as it is."""
    writers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    reads = [{*node.input, *captured(node)} for node in graph.node]
    before = {index: {writers[name] for name in read & writers.keys()} for index, read in enumerate(reads)}
    if any(max(earlier, default=-1) >= index for index, earlier in before.items()):
        replace_nodes(graph, [graph.node[index] for index in graphlib.TopologicalSorter(before).static_order()])


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Let a graph have these nodes, among them its own."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]  # the next line clears its own
    del graph.node[:]
    graph.node.extend(copies)


def captured(node: onnx.NodeProto) -> set[str]:
    """Return the tensors that the bodies of a node read from outside, without being inputs of the node."""
    found = set()
    for body in subgraphs(node):
        inside = {value.name for value in (*body.input, *body.initializer)}
        inside |= {name for one in body.node for name in one.output}
        reads = {name for one in body.node for name in (*one.input, *captured(one)) if name}
        found |= (reads | {value.name for value in body.output}) - inside
    return found


def load_external_data(model: onnx.ModelProto, onnx_path: str | Path) -> None:
    """Read the weights of a model that was loaded without its external data.

    Raises:
        ModelFileError: onnx refuses the file, which is a link to elsewhere, say.
    """
    path = Path(onnx_path)
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise ModelFileError(
            f"The external data of {path.name} can't be read: {error}.", "Export it again, with its external data."
        ) from error


def require_weights(model: onnx.ModelProto, onnx_path: Path) -> None:
    """Refuse weights that aren't as long as their shape says, or lie elsewhere than beside the model or below.

    What a model names outside of its own folder isn't even looked at: a device or a pipe there never ends.

    Raises:
        ModelFileError: It names the weight, or the file.
    """
    for tensor in weight_files.tensors(model):
        name = tensor.name or "of a node"
        if external_data_helper.uses_external_data(tensor):
            _require_external_data(name, tensor, onnx_path)
        elif fault := _fault_inside(tensor):
            raise ModelFileError(
                f"The weight {name} of {onnx_path.name} is damaged: {fault}.", "Export the model again."
            )


def _size(tensor: TensorProto) -> int:
    """Return the bytes of a tensor's values in a file; raise ValueError where its shape or data type is none."""
    if tensor.data_type not in _BITS:
        raise ValueError(f"there is no data type {tensor.data_type}")
    if min(tensor.dims, default=0) < 0:
        raise ValueError(f"it has the shape {[*tensor.dims]}")
    return math.ceil(math.prod(tensor.dims) * _BITS[tensor.data_type] / 8)


def _fault_inside(tensor: TensorProto) -> str:
    if tensor.data_type == TensorProto.STRING:
        return ""
    try:
        size = _size(tensor)
    except ValueError as error:
        return str(error)
    raw, count = len(tensor.raw_data), math.prod(tensor.dims)
    if raw:
        return "" if raw == size else f"it has {raw:,} bytes, and the shape {[*tensor.dims]} wants {size:,}"
    found = len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type)))
    return "" if found or not count else f"it has no values, and the shape {[*tensor.dims]} wants {count:,}"


def _require_external_data(name: str, tensor: TensorProto, path: Path) -> None:
    """Raise ModelFileError unless the file that holds a tensor lies beside the model or below, and is long enough."""
    remedy = "Export the model again, with its weights in the same folder, or bring the file that belongs to it."
    try:
        entries = external_data_helper.ExternalDataInfo(tensor)
        size, offset = _size(tensor), entries.offset or 0
    except ValueError as error:  # of numbers that are none
        raise ModelFileError(f"The weight {name} of {path.name} is damaged: {error}.", remedy) from error
    held = weight_files.located(path, entries.location).stat().st_size
    if offset < 0 or held < offset + size or entries.length not in (None, size):
        raise ModelFileError(
            f"{path.name} wants {size:,} bytes at {offset:,} of {entries.location} for {name}, and that file is cut "
            f"short or of another model: it has {held:,}.",
            remedy,
        )


def name_nodes(model: onnx.ModelProto) -> None:
    """Give each node a name of its own, in subgraphs too.

    A node without a name is called ``node_of_`` and its first output, as TensorRT's parser calls it. Of several nodes
    with one name, which ONNX Runtime refuses, the later ones get a number.
    """
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    taken = {node.name for node in nodes}
    seen = {""}
    numbers: dict[str, Iterator[int]] = {}  # that the nodes of one name go on with
    for node in nodes:
        if node.name in seen:
            base = node.name or f"node_of_{next(filter(None, node.output), node.op_type)}"
            count = numbers.setdefault(base, itertools.count(2))
            names = itertools.chain([] if node.name else [base], (f"{base}_{number}" for number in count))
            node.name = next(name for name in names if name not in taken)
            taken.add(node.name)
        seen.add(node.name)


def require_nodes(names: Collection[str], model: onnx.ModelProto, file_name: str) -> None:
    """Refuse names of nodes to stay in FP32 that the model doesn't have, not even in a subgraph.

    Raises:
        PrecisionError: It names them.
    """
    unknown = sorted(set(names) - {node.name for graph in graphs(model.graph) for node in graph.node})
    if unknown:
        raise PrecisionError(
            f"{file_name} has no node {', '.join(unknown[:3])} that could stay in FP32.",
            "Give names of nodes, not of tensors: node.name for node in model.graph.node.",
        )


def names_in(given: Iterable[str]) -> frozenset[str]:
    """Return names of nodes or tensors; a string is one name, and no iterable of letters."""
    return frozenset([given] if isinstance(given, str) else map(str, given))


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Iterate over a graph and those inside its nodes, an outer one before its inner ones."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from graphs(inner)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Iterate over the bodies of If, Loop and Scan."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def with_shapes(model: onnx.ModelProto, **options: bool) -> onnx.ModelProto:
    """Return the model with the shapes and types of its tensors, as far as onnx infers them.

    Raises:
        ModelFileError: onnx finds a contradiction, or a domain of operators of which the model doesn't give the opset.
    """
    try:
        return onnx.shape_inference.infer_shapes(model, **options)
    except Exception as error:  # InferenceError, and what protobuf raises
        raise ModelFileError(
            f"onnx can't infer the shapes of the model: {first_line(error)}.",
            "Export it again; onnx.checker.check_model(path, full_check=True) must pass.",
        ) from error


def inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs of a graph that hold data. Old files list weights among them."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def open_image_size(model: onnx.ModelProto) -> onnx.ModelProto:
    """Leave open how high and wide the images ``[N, C, H, W]`` of a network are, where its export named a size.

    For a network that takes any, as one does that ends in a global pooling. The model is changed, and returned.
    """
    (images,) = inputs(model.graph)
    for dim, name in zip(images.type.tensor_type.shape.dim[2:], ("height", "width"), strict=True):
        dim.dim_param = name
    del model.graph.value_info[:]  # shapes of that size
    return model


def fix_weights(model: onnx.ModelProto) -> None:
    """Let no weight be an input as well, whose value a caller may replace: a converter takes it for a constant."""
    data = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs(model.graph)]
    del model.graph.input[:]
    model.graph.input.extend(data)
    model.ir_version = max(model.ir_version, 4)  # before, initializers had to be inputs


def weight_bytes(model: onnx.ModelProto) -> int:
    """Return the size of a model's weights, as far as they aren't in another file."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def float_tensors(model: onnx.ModelProto, names: Collection[str]) -> dict[str, list[int | str | None]]:
    """Return the FP32 ones of these tensors and their shapes: ONNX Runtime sees behind operators of its own domain."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names))
    found = onnx_session.new_session(probe.SerializeToString(), optimize=False).get_outputs()
    return {one.name: one.shape for one in found if one.name in names and one.type == "tensor(float)"}


def constants(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """Return the constants of a graph by name, whether they are initializers or Constant nodes that hold a tensor."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        given = [one.t for one in node.attribute if one.name == "value"]
        if node.op_type == "Constant" and given and node.output:
            found[node.output[0]] = given[0]
    return found


def save(model: onnx.ModelProto, onnx_path: str | Path) -> Path:
    """Check a model with `onnx.checker` and write it, replacing an older file only when all went well.

    A model of more than 2 GB has its weights in a second file, ``model.onnx.data``, and no longer in ``model``.

    Raises:
        ExportError: The model is not valid ONNX, or the file can't be written.
    """
    path = Path(onnx_path)
    if weight_bytes(model) > LARGEST:
        return _save_with_data(model, path)
    content = model.SerializeToString()  # once, for the check and the file
    _require_valid(content, path.name)
    with writing(path) as temporary:
        temporary.write_bytes(content)
    return path


def _save_with_data(model: onnx.ModelProto, path: Path) -> Path:
    data = path.with_name(f"{path.name}.data")
    with writing(path) as temporary, writing(data) as temporary_data:
        if path.is_dir():  # seen here, the older data stay, too
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        onnx.save(model, temporary, save_as_external_data=True, location=data.name, size_threshold=_SMALL)
        _require_valid(temporary, path.name)
        os.replace(temporary.with_name(data.name), temporary_data)
    return path


def flaw(model: bytes | Path) -> str | None:
    """Return what ONNX's checker has against a model, serialized or in a file; None where it has nothing."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return " ".join(str(error).split()).rstrip(".")
    return None


def _require_valid(model: bytes | Path, name: str) -> None:
    if reason := flaw(model):
        raise ExportError(f"{name} would not be valid ONNX: {reason}.", "Try another opset.")


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with batch norms folded into convolutions, as TensorRT does it too.

    ONNX Runtime does it, on the basic level of its optimizer, which writes ONNX operators only.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        onnx_session.new_session(model.SerializeToString(), optimize="basic", optimized_path=path)
        result = onnx.load(path)
    used = {node.domain for node in result.graph.node}
    for entry in [entry for entry in result.opset_import if entry.domain and entry.domain not in used]:
        result.opset_import.remove(entry)  # ONNX Runtime's own, which it always adds
    return result


def array_of(tensor: TensorProto) -> np.ndarray:
    """Return the values of a tensor as `onnx.numpy_helper.to_array` does, and those of BF16 as float32.

    onnx 1.17 reads BF16 byte by byte, as other numbers.
    """
    if tensor.data_type != TensorProto.BFLOAT16:
        return numpy_helper.to_array(tensor)
    raw = tensor.raw_data or np.array(tensor.int32_data, np.uint16).tobytes()
    return np.frombuffer(raw, ml_dtypes.bfloat16).astype(np.float32).reshape(tensor.dims)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a temporary path as `paths.replacing` does, for a model in a folder that may not exist yet."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with paths.replacing(path) as temporary:
            yield temporary
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        if isinstance(error, ValueError) and "null byte" not in str(error):
            raise
        raise ExportError(
            f"{path} can't be written: {getattr(error, 'strerror', None) or error}.",
            "Free some space, or choose a folder of your own.",
        ) from error


def require_fp32(model: onnx.ModelProto, name: str) -> None:
    """Raise PrecisionError for a model that is quantized already, or holds more weights in 16 bits than in FP32."""
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    sizes = dict.fromkeys(TensorProto.DataType.values(), 0)
    for weight in model.graph.initializer:
        sizes[weight.data_type] += math.prod(weight.dims)
    half = max((TensorProto.FLOAT16, TensorProto.BFLOAT16), key=sizes.get)
    if quantized or sizes[half] > sizes[TensorProto.FLOAT]:
        was = "quantized" if quantized else f"converted to {'FP16' if half == TensorProto.FLOAT16 else 'BF16'}"
        raise PrecisionError(f"{name} is {was} already.", "Start from the original FP32 model.")
