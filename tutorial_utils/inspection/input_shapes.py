"""The shapes that a model is inspected at: as they are given, else as it declares them, with guesses for open sizes."""

import re
from collections.abc import Mapping

import onnx

from tutorial_utils.base.errors import InputError
from tutorial_utils.base.shapes import fits
from tutorial_utils.model import onnx_file

Shape = tuple[int, ...]
Declared = tuple[int | str, ...]  # the size of each dimension, or the name of one whose size is open

# Guesses: the batch in front; channels and sides of an image, which has four dimensions; and others, such as the length
# of a sequence: TensorRT builds for minutes where a recurrent network has 224 steps.
BATCH, CHANNELS, SIDE, LENGTH = 1, 3, 224, 16
_NO_NAMES = ("", "?")


def complete(graph: onnx.GraphProto, given: Mapping[str, Shape], model: str) -> tuple[dict[str, Shape], dict[str, str]]:
    """Return the shape of each input of a graph, and as texts the declared shapes of those that needed a guess.

    Open dimensions of one name get one size: the given one, if an input has it that a shape is given for.

    Raises:
        InputError: A shape is given for an input that there isn't, or doesn't fit it; or an input has no shape at all.
    """
    inputs = _declared(graph, given, model)
    for name, shape in given.items():
        if name not in inputs:
            raise InputError(f"{model} has no input {name}.", f"Its inputs are {', '.join(inputs) or 'none'}.")
        if not fits(shape, [-1 if isinstance(dim, str) else dim for dim in inputs[name]], zero_is_open=False):
            raise InputError(
                f"The shape {text(shape)} was given for the input {name}, which is {text(inputs[name])}.",
                "Give a size for each question mark, and the other sizes as they are.",
            )
    known: dict[str, int] = {}
    guesses: dict[str, int] = {}
    for name, dims in inputs.items():
        for axis, dim in enumerate(dims):
            if name in given and isinstance(dim, str):
                known[dim] = given[name][axis]
            elif isinstance(dim, str):
                guesses[dim] = min(guesses.get(dim, SIDE), _guess(dims, axis))
    sizes = {dim: size for dim, size in (guesses | known).items() if dim not in _NO_NAMES}
    shapes = {
        name: given.get(name, tuple(sizes.get(dim, _guess(dims, axis)) for axis, dim in enumerate(dims)))
        for name, dims in inputs.items()
    }
    return shapes, {name: text(dims) for name, dims in inputs.items() if name not in given and "?" in text(dims)}


def _declared(graph: onnx.GraphProto, given: Mapping[str, Shape], model: str) -> dict[str, Declared]:
    inputs: dict[str, Declared] = {}
    for name, kind in ((value.name, value.type) for value in onnx_file.inputs(graph)):
        if kind.HasField("tensor_type") and not kind.tensor_type.HasField("shape"):
            if name not in given:
                raise InputError(
                    f"{model} doesn't say how many dimensions its input {name} has.",
                    f"Give its shape, such as --shape {name}:1x3x224x224.",
                )
            inputs[name] = ("",) * len(given[name])
        else:
            dims = kind.tensor_type.shape.dim
            inputs[name] = tuple(
                dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param for dim in dims
            )
    return inputs


def _guess(dims: Declared, axis: int) -> int:
    if isinstance(dims[axis], int):
        return dims[axis]
    if axis == 0 or len(dims) != 4:
        return LENGTH if axis else BATCH
    return CHANNELS if axis == 1 and not any(isinstance(dim, int) for dim in dims[2:]) else SIDE


def parse(option: str, separator: str = "x") -> tuple[str, Shape]:
    """Read an option such as ``x:1x3x224x224`` or, with a comma, ``sizes:1,-1``; raise InputError for another form."""
    name, _, numbers = option.rpartition(":")
    pattern = r"\d+(x\d+)*" if separator == "x" else r"-?\d+(,-?\d+)*"
    if not name or not re.fullmatch(pattern, numbers, re.ASCII):
        what, example = ("shape", "1x3x224x224") if separator == "x" else ("values", "1,3,64,64")
        raise InputError(f"{option!r} is not the {what} of an input.", f"Write it as NAME:{example}.")
    return name, tuple(map(int, numbers.split(separator)))


def text(dims: Declared) -> str:
    """Return a shape as "1x3x224x224", with a question mark for a size that is open."""
    return "x".join("?" if isinstance(dim, str) else str(dim) for dim in dims) or "scalar"
