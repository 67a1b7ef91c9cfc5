"""Weights that lie in other files than the ONNX model: which those are, and which a model may name.

A model is somebody else's file. What it names is opened by libraries as it stands there, wherever that is: a device
without an end, a pipe that nobody writes to, a file of the reader's. So it is looked at first.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutorial_utils.base import sealed_files
from tutorial_utils.base.errors import ModelFileError

if TYPE_CHECKING:
    import onnx

LARGEST_FILE = 2**31 - 1  # bytes that protobuf reads
_LONGEST_SHOWN = 200  # of a path in a message


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
    named = filter(uses_external_data, tensors(model))
    try:
        names = {ExternalDataInfo(tensor).location for tensor in named}
    except ValueError as error:  # an offset or a length that is no number
        raise ModelFileError(
            f"{path.name} doesn't say where its weights are: {error}.", "Export the model again."
        ) from error
    return [located(path, name) for name in sorted(names)]


def require_model(path: str | Path) -> None:
    """Refuse a path that no ONNX model can be read from, before a byte is read.

    A reader would wait for ever for a pipe that nobody writes to, read a device without end, or fill the memory with a
    file that is too large in any case.

    Raises:
        ModelFileError: There is no such file, it can't be read, it is a folder, a pipe or a device, or it is empty or
            larger than protobuf takes.
    """
    try:
        str(path).encode()
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode):
            open(path, "rb").close()  # are there rights to read it?
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelFileError(f"There is no model {path}.", "Check the path, or export the model first.") from error
    except UnicodeEncodeError as error:
        raise ModelFileError(f"The path {path} is no UTF-8, and TensorRT takes no other.", "Rename it.") from error
    except (OSError, ValueError) as error:  # no rights; a name with a null byte or one that is too long
        shown = text if len(text := str(path)) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
        reason = getattr(error, "strerror", None) or error
        raise ModelFileError(f"The model {shown} can't be read: {reason}.", "Check the path.") from error
    if stat.S_ISDIR(found.st_mode):
        raise ModelFileError(f"{path} is a folder, and no ONNX model.", "Name the .onnx file.")
    if not stat.S_ISREG(found.st_mode):
        raise ModelFileError(f"{path} is a pipe or a device, and no ONNX model.", "Name the .onnx file.")
    if found.st_size == 0:
        raise ModelFileError(f"{Path(path).name} is empty.", "Export it again.")
    if found.st_size > LARGEST_FILE:
        raise ModelFileError(
            f"{Path(path).name} is no ONNX model: it has {found.st_size:,} bytes, and such a file ends at "
            f"{LARGEST_FILE:,}.",
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
            yield from _held(attribute, "t", "tensors")
            for sparse in _held(attribute, "sparse_tensor", "sparse_tensors"):
                yield from (sparse.values, sparse.indices)
            for body in _held(attribute, "g", "graphs"):
                yield from _tensors(body)


def _held(attribute: "onnx.AttributeProto", one: str, several: str) -> Iterator[Any]:
    if attribute.HasField(one):
        yield getattr(attribute, one)
    yield from getattr(attribute, several)


def located(path: Path, location: str) -> Path:
    """Return the file of a model's weights, or raise ModelFileError unless it is one, beside the model or below.

    A link may lead elsewhere only where the model itself is a link to that place, as in the cache of a hub.
    """
    file = path.parent / location.replace("\0", "\ufffd")  # a null byte is in no name
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
