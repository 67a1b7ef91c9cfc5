"""Weights that lie in other files than the ONNX model: which those are, and which a model may name.

A model is somebody else's file. What it names is opened by libraries as it stands there, wherever that is: a device
without an end, a pipe that nobody writes to, a file of the reader's. So it is looked at first.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tutorial_utils.base import sealed_files
from tutorial_utils.base.errors import ModelFileError

if TYPE_CHECKING:
    import onnx

LARGEST_FILE = 2**31 - 1  # bytes that protobuf reads


def named_by(onnx_path: str | Path) -> list[Path]:
    """Return the files with weights that a model names: none where it has none, or is no ONNX model.

    They are looked at, not opened. A tensor with external data always holds the key "location": looking for those bytes
    first spares the usual model, which has no such tensor, from being parsed.

    Raises:
        ModelFileError: The model is no ordinary file, or it names a file as `load` refuses it.
    """
    path = Path(onnx_path)
    require_model(path)
    before = b""
    for chunk in sealed_files.chunks(path):
        if b"location" in before + chunk:
            break
        before = chunk[-len(b"location") :]
    else:
        return []
    import onnx  # here: importing it takes longer than all else that is done for the key of a usual engine
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # whoever reads it says so, with the reason
        return []
    names = {ExternalDataInfo(tensor).location for tensor in tensors(model) if uses_external_data(tensor)}
    return [located(path, name) for name in sorted(names)]


def require_model(path: Path) -> None:
    """Refuse what can't be an ONNX file before a byte of it is read.

    Raises:
        ModelFileError: There is none, or it is a folder, a device or a pipe, or too large.
    """
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder, and no ONNX model.", "Name the .onnx file.")
    if not path.is_file():
        raise ModelFileError(f"There is no model {path}.", "Check the path, or export the model first.")
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ModelFileError(
            f"{path.name} is no ONNX model: it has {size:,} bytes, and such a file ends at {LARGEST_FILE:,}.",
            "Export it with its weights in a second file: onnx.save(..., save_as_external_data=True).",
        )


def tensors(model: "onnx.ModelProto") -> Iterator["onnx.TensorProto"]:
    """Iterate over all values that a model holds: weights and attributes, in bodies of nodes and in functions, too."""
    yield from _tensors(model.graph)
    for function in model.functions:
        yield from _tensors(function)


def _tensors(graph: "onnx.GraphProto | onnx.FunctionProto") -> Iterator["onnx.TensorProto"]:
    yield from getattr(graph, "initializer", ())  # which a function doesn't have
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for body in (attribute.g, *attribute.graphs):
                yield from _tensors(body)


def located(path: Path, location: str) -> Path:
    """Return the file of a model's weights, or raise ModelFileError unless it is one, beside the model or below.

    A link may lead elsewhere only where the model itself is a link to that place, as in the cache of a hub.
    """
    file = path.parent / location
    outside = (
        not file.resolve().is_relative_to(path.parent.resolve()) and file.resolve().parent != path.resolve().parent
    )
    if outside or Path(location).is_absolute() or ".." in Path(location).parts:
        fault = "outside of its own folder"
    elif not file.exists():
        fault = "and there is no such file beside it"
    elif not file.is_file():
        fault = "and that is no ordinary file"
    else:
        return file
    raise ModelFileError(
        f"{path.name} has weights in {location!r}, {fault}.",
        "Export the model again, with its weights in the same folder, or bring the file of weights that belongs to it.",
    )
