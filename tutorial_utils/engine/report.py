"""What a build made: layers after fusion with types, formats and ONNX nodes, memory, seconds and warnings.

Two sources give the same report. The engine inspector needs a GPU, since it reads a deserialized engine. The detailed
build log needs none: at VERBOSE, with detailed profiling verbosity, TensorRT prints the inspector's text when a build
ends. That text is not an API; it was read with TensorRT-RTX 1.6.1 and 1.7.1, and in the form of TensorRT 10, and a log
in another form gives a report without layers and a warning.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tutorial_utils.engine import computed_types, memory_format
from tutorial_utils.engine.layers import EngineLayer, EngineTensor
from tutorial_utils.model import number_formats


@dataclass(frozen=True)
class BuildReport:
    """What TensorRT said about an engine while building it.

    Attributes:
        flavour: "TensorRT-RTX" or "TensorRT".
        targets: Compute capabilities that the plan was asked for; empty for the flavour's default.
        layers: Layers after fusion; empty unless the profiling verbosity is "detailed".
        activation_bytes: Device memory for activations at the largest profile.
        weights_bytes: Device memory for weights.
        plan_bytes: Size of the serialized engine.
        build_seconds: Time that the builder took, without parsing.
        warnings: TensorRT's warnings, each once.
    """

    flavour: str
    version: str
    targets: tuple[str, ...] = ()
    layers: tuple[EngineLayer, ...] = ()
    activation_bytes: int | None = None
    weights_bytes: int | None = None
    plan_bytes: int = 0
    parse_seconds: float = 0.0
    build_seconds: float = 0.0
    warnings: tuple[str, ...] = ()

    @property
    def kernels(self) -> tuple[EngineLayer, ...]:
        """The layers that run on the GPU, without those that only order streams."""
        return tuple(layer for layer in self.layers if layer.is_kernel)

    @property
    def kernel_dtypes(self) -> dict[str, int]:
        """How many kernels write each data type. What they compute in is another matter: see `precision_line`."""
        return dict(Counter(tensor.dtype for layer in self.kernels for tensor in layer.outputs[:1]).most_common())

    @property
    def precision_line(self) -> str:
        """What the engine's convolutions, products and attentions compute in, and by which evidence: see `line`."""
        return computed_types.line(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BuildReport":
        """Read a report back from `to_dict`. Other values give a KeyError, TypeError or AttributeError."""
        return cls(**{**values, **{name: tuple(values[name]) for name in ("targets", "warnings")},
                      "layers": tuple(_layer_from_dict(layer) for layer in values["layers"])})  # fmt: skip


def _layer_from_dict(values: dict[str, Any]) -> EngineLayer:
    tensors = {
        side: tuple(
            EngineTensor(**{**one, "shape": tuple(one["shape"]), "strides": tuple(one.get("strides", ()))})
            for one in values[side]
        )
        for side in ("inputs", "outputs")
    }
    return EngineLayer(**{**values, **tensors, "onnx_nodes": tuple(values["onnx_nodes"])})


_NUMBERS = r"\[((?:-?\d{1,18}(?:,-?\d{1,18})*)?)\]"
# TensorRT-RTX gives strides, their order, type and format; TensorRT 10 "Format/Datatype: Half", in one field.
_LOG_TENSOR = re.compile(
    rf"(?P<name>.*?)(?:, Location: \w+)?, Dimensions: {_NUMBERS},"
    rf"(?: Strides: {_NUMBERS},)?(?: StrideOrder: {_NUMBERS},)?"
    r"(?: Datatype: (?P<dtype>\w+), Format: (?P<format>.*?)| Format/Datatype: (?P<combined>.*?)) \}",
    re.DOTALL,
)


def _onnx_nodes(metadata: str) -> tuple[str, ...]:
    """Return the names in entries such as "[ONNX Layer: blocks[0]/conv]", which a control character separates."""
    entries = re.split(r"[\x1e\x1f]|(?<=\])(?=\[ONNX Layer: )", metadata)
    return tuple(found[1] for entry in entries if (found := re.match(r"\[ONNX Layer: (.*)\]", entry, re.DOTALL)))


def layers_from_log(messages: list[str]) -> tuple[EngineLayer, ...]:
    """Read the layers from the messages of a build with detailed verbosity.

    A log without layers gives none. So does one in another form: some of the layers would be a wrong answer.
    """
    dump = next((text for text in reversed(messages) if text.startswith("Layers:\n")), "")
    lines = [line for line in re.split(r"\n(?=Name: |\n|$)", dump) if ", LayerType: " in line]
    try:
        return tuple(map(_layer_from_line, lines))
    except _AnotherFormError:
        return ()


class _AnotherFormError(Exception):
    """A line of the log isn't what TensorRT-RTX and TensorRT 10 write."""


def _layer_from_line(line: str) -> EngineLayer:
    """Read a line field by field: one pattern for all of it takes minutes for a long line in another form."""
    name, rest = _split(line.removeprefix("Name: "), ", LayerType: ")
    kind, rest = _split(rest, ", Inputs: [")
    before, rest = _split(rest, "], Outputs: [")
    inputs, _, constants = before.partition("], Constants: [")  # ShapeHostToDevice has none
    outputs, rest = ("", rest) if rest.startswith("], ") else _split(rest, "}], ")  # names hold brackets
    facts, rest = _split(rest, "StreamId: ")
    _, metadata = _split(rest, "Metadata: ")
    weights = re.search(r'Weights: \{"Type": "(\w+)"', facts)
    tactic = re.search(r"TacticName: ([^,]*), ", facts)
    return EngineLayer(
        name=name,
        type=kind,
        inputs=_tensors_from_log(inputs),
        outputs=_tensors_from_log(outputs + "}"),
        onnx_nodes=_onnx_nodes(metadata),
        tactic=tactic[1] if tactic else "",
        weights=number_formats.dtype_of(weights[1] if weights else "") or _weights(_tensors_from_log(constants)),
    )


def _split(text: str, at: str) -> tuple[str, str]:
    before, found, after = text.partition(at)
    if not found:
        raise _AnotherFormError
    return before, after


def _tensors_from_log(text: str) -> tuple[EngineTensor, ...]:
    found = []
    for entry in text.split("{ Name: ")[1:]:
        one = _LOG_TENSOR.match(entry)
        if one is None:
            raise _AnotherFormError
        shape, strides, order = (_numbers(one[group]) for group in (2, 3, 4))
        combined = one["combined"]
        kind = (number_formats.dtype_of(one["dtype"]), one["format"]) if combined is None else _kind(combined)
        found.append(_tensor(one["name"], shape, kind, strides, order))
    return tuple(found)


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(int(number) for number in (text or "").split(",") if number)


def _tensor(
    name: str, shape: tuple[int, ...], kind: tuple[str, str], strides: tuple[int, ...], order: tuple[int, ...]
) -> EngineTensor:
    """Make a tensor of what either source says: the kind is its data type, and TensorRT's words for its format."""
    dtype, words = kind
    if strides and len(strides) == len(shape):
        layout = memory_format.of_strides(shape, strides, order if len(order) == len(shape) else ())
    else:
        layout, strides = memory_format.of_words(words, shape), ()
    return EngineTensor(name, shape, dtype, layout, strides)


def _kind(combined: str) -> tuple[str, str]:
    """Split "Row major linear FP16 format" into type and format; "Half" is a type alone."""
    words = combined.split()
    types = [word for word in words if word.lower() in number_formats.BY_NAME]
    layout = " ".join(word for word in words if word not in types)
    return (number_formats.dtype_of(types[0]) if types else combined), layout


def _weights(constants: tuple[EngineTensor, ...]) -> str:
    """Return the type of the largest constant. One number alone is the scale of a quantized input."""
    sizes = {math.prod(constant.shape): constant.dtype for constant in reversed(constants)}
    return sizes[max(sizes)] if max(sizes, default=1) > 1 else ""


def memory_from_log(messages: list[str]) -> dict[str, int]:
    """Read activation and weights memory, in bytes, from the messages of a build."""
    found = {}
    for name, label in (("activation_bytes", "Total Activation Memory"), ("weights_bytes", "Total Weights Memory")):
        sizes = [int(m[1]) for text in messages if (m := re.match(rf"{label}: (\d+) bytes", text))]
        if sizes:
            found[name] = max(sizes)  # activations are listed once for each profile
    return found


def layers_from_inspector(text: str) -> tuple[EngineLayer, ...]:
    """Read the layers from the engine inspector's JSON, in the form of TensorRT 8.6 and 10 and in that of 11 and RTX.

    TensorRT to 10 gives one field ``Format/Datatype`` for each tensor, later ones give ``Datatype`` and ``Format``.
    That of 8.6 names no ONNX nodes.
    """
    return tuple(
        EngineLayer(
            name=layer["Name"],
            type=layer["LayerType"],
            inputs=_tensors_from_inspector(layer["Inputs"]),
            outputs=_tensors_from_inspector(layer["Outputs"]),
            onnx_nodes=_onnx_nodes(layer.get("Metadata", "")),
            tactic=layer.get("TacticName", ""),
            weights=number_formats.dtype_of(layer.get("Weights", {}).get("Type", ""))
            or _weights(_tensors_from_inspector(layer.get("Constants", []))),
        )
        for layer in json.loads(text).get("Layers", [])
        if isinstance(layer, dict)  # below detailed verbosity, a layer is only its name
    )


def with_formats(layers: Sequence[EngineLayer], told: Sequence[EngineLayer]) -> tuple[EngineLayer, ...]:
    """Return layers with the memory formats that another report of the same engine tells, where they have none.

    Names, shapes and all else stay: with an execution context, an inspector tells the sizes of one call.
    """
    if len(layers) != len(told):
        return tuple(layers)

    def filled(mine: tuple[EngineTensor, ...], theirs: tuple[EngineTensor, ...]) -> tuple[EngineTensor, ...]:
        known = {tensor.name: tensor.format for tensor in theirs}
        unknown = memory_format.UNKNOWN
        return tuple(
            replace(one, format=known.get(one.name, unknown)) if one.format == unknown else one for one in mine
        )

    return tuple(
        replace(one, inputs=filled(one.inputs, other.inputs), outputs=filled(one.outputs, other.outputs))
        for one, other in zip(layers, told, strict=True)
    )


def _tensors_from_inspector(tensors: list[dict[str, Any]]) -> tuple[EngineTensor, ...]:
    return tuple(_tensor_from_inspector(tensor) for tensor in tensors)


def _tensor_from_inspector(tensor: dict[str, Any]) -> EngineTensor:
    combined = tensor.get("Format/Datatype")
    if combined is None:
        kind = number_formats.dtype_of(tensor["Datatype"]), tensor.get("Format", "")
    else:
        kind = _kind(combined)
    strides, order = (tuple(tensor.get(key, ())) for key in ("Strides", "StrideOrder"))
    return _tensor(tensor["Name"], tuple(tensor["Dimensions"]), kind, strides, order)
