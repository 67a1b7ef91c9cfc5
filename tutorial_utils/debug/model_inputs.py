"""Inputs for a model that is to be debugged: read from an .npz file, or drawn so that the model accepts them."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx

from tutorial_utils.base.errors import InputError
from tutorial_utils.model import onnx_file
from tutorial_utils.runners.base import TensorSpec

# Operators that hand indices on as they are, on the way to the table that they index.
_HANDING_ON = {"Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
# Sizes to try for open dimensions: of pictures (rank 4), of sequences and all else, and of inputs after the first, such
# as states that are handed back, where they differ.
_SIZES = (
    *((224, 16, None), (320, 64, None), (640, 128, None), (48, 512, None), (32, 16000, None)),
    *((224, 16, 1), (320, 128, 1), (640, 512, 1), (48, 16000, 1)),
)


def specs(model: onnx.ModelProto) -> dict[str, TensorSpec]:
    """Return the inputs of a model by name, as far as they are no weights with a value of their own.

    Raises:
        InputError: An input is no tensor of numbers.
    """
    found = {}
    for value in onnx_file.inputs(model.graph):
        tensor = value.type.tensor_type
        if tensor.elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
            raise InputError(
                f"The input {value.name} is no tensor of numbers: it can't be drawn, nor read from an .npz file.",
                "Cut the model behind it: `polygraphy surgeon extract`.",
            )
        shape = tuple(max(dim.dim_value, 0) or -1 for dim in tensor.shape.dim) if tensor.HasField("shape") else None
        found[value.name] = TensorSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape)
    return found


def read(path: Path, model: onnx.ModelProto, specs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray]:
    """Read one array for each input of a model from an .npz file. Nothing in it is unpickled.

    Raises:
        InputError: The file is missing, damaged or holds Python objects; a name, data type or shape doesn't fit the
            model; a value is NaN or infinite, or an index lies outside the table that it is for.
    """
    remedy = "Write it with numpy.savez(FILE, NAME=array), one array for each input: " + ", ".join(specs) + "."
    if not path.is_file():
        raise InputError(f"There is no file {path} with inputs.", remedy)
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise InputError(f"{path.name} holds one array without a name, as numpy.save writes it.", remedy)
        with archive:
            found = {name: archive[name] for name in archive.files}
    except InputError:
        raise
    except Exception as error:  # a damaged file can fail in any way: in zip, zlib, NumPy's header or Python's parser
        what = "is damaged, or no file of numpy.savez"
        if isinstance(error, MemoryError):
            what = "says that it holds more than fits into the memory"
        if "Object arrays" in str(error):
            what = "holds Python objects, which are not read, since they could run code"
        raise InputError(f"{path.name} {what}.", remedy) from error
    if found.keys() != specs.keys():
        raise InputError(
            f"{path.name} holds {', '.join(found) or 'nothing'}, but the model takes {', '.join(specs)}.", remedy
        )
    rows = table_rows(model)
    for name, spec in specs.items():
        spec.check(found[name])
        _check_values(name, found[name], rows.get(name))
    return found


def _check_values(name: str, values: np.ndarray, rows: int | None) -> None:
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise InputError(
            f"The input {name} holds {count} values that are NaN or infinite.",
            "Look at how it is made: what follows from NaN says nothing of the model.",
        )
    if rows is not None and (values.max() >= rows or values.min() < -rows):
        worst = values.max() if values.max() >= rows else values.min()
        raise InputError(
            f"The input {name} holds the index {worst}, but the table that it indexes has {rows} rows.",
            "Use the tokenizer, or the vocabulary, that belongs to the model.",
        )


def table_rows(model: onnx.ModelProto) -> dict[str, int]:
    """Return for each input that indexes a table of weights (an embedding) how many rows the table has."""
    sizes = {name: weight.dims[0] for name, weight in onnx_file.constants(model.graph).items() if weight.dims}
    origin = {value.name: value.name for value in model.graph.input}  # of a tensor that is an input, handed on
    rows: dict[str, int] = {}
    for node in model.graph.node:
        first = node.input[0] if node.input else ""
        if node.op_type in _HANDING_ON and first in origin:
            origin[node.output[0]] = origin[first]
        axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
        if node.op_type == "Gather" and axis == 0 and first in sizes and node.input[1] in origin:
            name = origin[node.input[1]]
            rows[name] = min(rows.get(name, sizes[first]), sizes[first])
    return rows


def draw(model: onnx.ModelProto, specs: Mapping[str, TensorSpec], seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield random inputs, the likeliest sizes first: some models refuse most sizes, and don't say which they take.

    Numbers are normally distributed, pictures of bytes uniformly; indices lie in the range of the table that they are
    for; masks and scales are ones; lengths are the size of the other inputs' second dimension.
    """
    named = {value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in model.graph.input}
    rows = table_rows(model)
    for picture, sequence, of_others in _SIZES:
        rng = np.random.default_rng(seed)
        feeds = {}
        for position, (name, spec) in enumerate(specs.items()):
            other = picture if len(spec.shape or ()) == 4 else sequence
            other = of_others if of_others and position else other
            shape = tuple(
                size if size > 0 else _open_size(axis, dim, other)
                for axis, (size, dim) in enumerate(zip(spec.shape or (), named[name], strict=True))
            )
            feeds[name] = _values(rng, name, spec.dtype, shape, rows.get(name), sequence)
        yield feeds
        if not any(-1 in (spec.shape or ()) for spec in specs.values()):
            return


def _open_size(axis: int, name: str, other: int) -> int:
    is_length = re.search(r"seq|len|time|token", name, re.IGNORECASE)
    return 1 if re.search(r"batch", name, re.IGNORECASE) or (axis == 0 and not is_length) else other


def _values(
    rng: np.random.Generator, name: str, dtype: np.dtype, shape: tuple[int, ...], rows: int | None, length: int
) -> np.ndarray:
    if rows is not None:
        return rng.integers(0, rows, shape).astype(dtype)
    if dtype == np.bool_ or re.search(r"mask|scale_factor", name, re.IGNORECASE):
        return np.ones(shape, dtype)
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    if dtype == np.uint8:
        return rng.integers(0, 256, shape).astype(dtype)
    if re.search(r"len", name, re.IGNORECASE):
        return np.full(shape, length, dtype)
    if re.fullmatch(r"sr|(sample|sampling)_?rate", name, re.IGNORECASE):
        return np.full(shape, 16000, dtype)
    return np.zeros(shape, dtype) if re.search(r"type|segment", name, re.IGNORECASE) else np.ones(shape, dtype)
