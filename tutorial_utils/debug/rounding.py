"""A model whose every rounding is written down, for a CPU that would compute FP16 and BF16 in FP32 without a word.

ONNX Runtime has hardly any FP16 operators on a CPU, and leaves out the casts between neighbours, so that a value beyond
65,504 lives on. Casts of the model's own it keeps: `with_rounding` adds them. `with_given_inputs` cuts the nodes apart,
which shows the error that each makes by itself.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils.base.errors import PrecisionError
from tutorial_utils.model import onnx_file

_FLOAT = TensorProto.FLOAT
_STORED = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_BF16_OPSET = 13  # the first whose Cast knows BF16
_NARROW = set(_STORED.values())
_SMALL = 1024  # bytes of weights that shape inference may read: shapes and axes
_DTYPES = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
# Inputs that are parameters and not data: from which position on. ONNX wants most of them in FP32, and rounding the
# scale of a Resize changes the shape of its output.
_PARAMETERS = {
    "DequantizeLinear": 1, "NonMaxSuppression": 0, "QuantizeLinear": 1, "Range": 0, "Resize": 1, "RoiAlign": 1,
    "Upsample": 1,
}  # fmt: skip


def with_rounding(model: onnx.ModelProto, stored_as: Literal["fp16", "bf16"] | None = None) -> onnx.ModelProto:
    """Return an FP32 model that rounds as a GPU does that runs each node of a model with FP16 tensors by itself.

    Tensor cores add up in FP32 and store the result in FP16. So does the returned model: its operators compute in FP32,
    and each result that the model declares as FP16 or BF16 is cast there and back; with ``stored_as``, every FP32
    weight and tensor is taken for one of that format, but for parameters such as the scales of Resize. An engine that
    fuses nodes stores, and rounds, fewer tensors. Outputs become FP32. The bodies of If, Loop and Scan round as well.

    Raises:
        PrecisionError: The format is unknown, or ONNX can't raise an opset below 13 to the first that has BF16.
    """
    if stored_as is not None and stored_as not in _STORED:
        raise PrecisionError(f"Tensors can't be rounded to {stored_as!r}.", f"Choose one of {', '.join(_STORED)}.")
    if stored_as == "bf16":
        model = _raised(model)
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    renamed = {}
    casts = []
    types = _types(model)
    for value in rounded.graph.input:
        if types[0].get(value.name) in _NARROW:
            renamed[value.name] = f"{value.name}/fp32"
            casts.append(helper.make_node("Cast", [value.name], [renamed[value.name]], to=_FLOAT))
    for node in rounded.graph.node:
        _read(node, renamed)
    _round(rounded.graph, iter(types), stored_as)
    for cast in reversed(casts):
        rounded.graph.node.insert(0, cast)
    return rounded


def _raised(model: onnx.ModelProto) -> onnx.ModelProto:
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), _BF16_OPSET)
    if opset >= _BF16_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, _BF16_OPSET)
    except Exception as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise PrecisionError(
            f"BF16 needs opset {_BF16_OPSET}, and onnx can't raise opset {opset} to it: {reason}.",
            f"Export the model with opset {_BF16_OPSET} or later.",
        ) from error


def _round(graph: onnx.GraphProto, all_types: Iterator[Mapping[str, int]], stored_as: str | None) -> None:
    """Round in place what a graph and its bodies compute; the types are those of `_types`."""
    types = next(all_types)
    exempt = {
        name for node in graph.node if node.op_type in _PARAMETERS for name in node.input[_PARAMETERS[node.op_type] :]
    }
    if stored_as:
        narrow = {name: _STORED[stored_as] for name, kind in types.items() if kind == _FLOAT and name not in exempt}
    else:
        narrow = {name: kind for name, kind in types.items() if kind in _NARROW}
    formats = {number: name for name, number in _STORED.items()}
    for weight in graph.initializer:
        if weight.name in narrow:
            values = stored(onnx_file.array_of(weight).astype(np.float32), formats[narrow[weight.name]])
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    nodes = []
    for node in graph.node:
        _widen(node)
        for body in onnx_file.subgraphs(node):
            _widen_values(body.input)
            _round(body, all_types, stored_as)
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in narrow:
                node.output[index] = f"{name}/exact"
                nodes.append(helper.make_node("Cast", [f"{name}/exact"], [f"{name}/rounded"], to=narrow[name]))
                nodes.append(helper.make_node("Cast", [f"{name}/rounded"], [name], to=_FLOAT))
    onnx_file.replace_nodes(graph, nodes)
    del graph.value_info[:]
    _widen_values(graph.output)


def with_given_inputs(model: onnx.ModelProto, ranks: Mapping[str, int]) -> onnx.ModelProto:
    """Return a copy whose nodes read FP32 tensors from inputs of the model, ``NAME/given``, and not from each other.

    What comes out of a node then differs from an exact run by what this node alone makes of what it is given. Tensors
    come with their ranks.
    """
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    given = {}
    for node in cut.graph.node:
        for index, name in enumerate(node.input):
            if name in ranks:
                node.input[index] = f"{name}/given"
                given[f"{name}/given"] = [None] * ranks[name]
    del cut.graph.value_info[:]
    cut.graph.input.extend(helper.make_tensor_value_info(name, _FLOAT, shape) for name, shape in given.items())
    return cut


def stored(values: np.ndarray, precision: str) -> np.ndarray:
    """Return values as a precision stores them, as float32. INT8 files store FP32 between their layers."""
    if precision not in _DTYPES:
        return values
    with np.errstate(over="ignore"):
        return values.astype(_DTYPES[precision]).astype(np.float32)


def _types(model: onnx.ModelProto) -> list[dict[str, int]]:
    """Return for each graph, as `onnx_file.graphs` gives them, the element types of its tensors and those outside.

    They are what ONNX can tell; behind foreign operators, a guess.
    """
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    bare.graph.input.extend(model.graph.input)
    bare.graph.node.extend(model.graph.node)
    bare.graph.output.extend(model.graph.output)
    bare.graph.value_info.extend(model.graph.value_info)
    declared = {value.name for value in model.graph.input}
    for weight in model.graph.initializer:  # of a large one type and shape alone: Protobuf ends at 2 GB
        if len(weight.raw_data) <= _SMALL:
            bare.graph.initializer.append(weight)
        elif weight.name not in declared:
            bare.graph.input.append(helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    inferred = onnx_file.with_shapes(bare).graph
    weights = {weight.name: weight.data_type for weight in model.graph.initializer}
    return list(_types_of(inferred, weights))


def _types_of(graph: onnx.GraphProto, outside: Mapping[str, int]) -> Iterator[dict[str, int]]:
    types = {**outside, **{weight.name: weight.data_type for weight in graph.initializer}}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.elem_type:
            types[value.name] = value.type.tensor_type.elem_type
    for node in graph.node:  # in topological order
        if node.domain in ("", "ai.onnx") or list(onnx_file.subgraphs(node)):
            continue
        kind = next((types[name] for name in node.input if types.get(name) in (_FLOAT, *_NARROW)), None)
        for name in node.output[:1] if kind else ():
            types.setdefault(name, kind)
    yield types
    for node in graph.node:
        for body in onnx_file.subgraphs(node):
            yield from _types_of(body, types)


def _read(node: onnx.NodeProto, names: dict[str, str]) -> None:
    """Let a node, and its bodies, read tensors by other names."""
    outside = onnx_file.captured(node)
    node.input[:] = [names.get(name, name) for name in node.input]
    for body in onnx_file.subgraphs(node):
        for one in body.node:
            _read(one, {name: new for name, new in names.items() if name in outside})
        for value in body.output:
            if value.name in outside:
                value.name = names.get(value.name, value.name)


def _widen(node: onnx.NodeProto) -> None:
    """Let casts and constants give FP32, and those of bodies; the rounding follows, as after every other node."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _NARROW:
            attribute.i = _FLOAT
        elif attribute.type == onnx.AttributeProto.TENSOR:
            _widen_tensor(attribute.t)
    for body in onnx_file.subgraphs(node):
        for tensor in body.initializer:
            _widen_tensor(tensor)


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _NARROW:
        tensor.CopyFrom(numpy_helper.from_array(onnx_file.array_of(tensor).astype(np.float32), tensor.name))


def _widen_values(values: Iterable[onnx.ValueInfoProto]) -> None:
    for value in values:
        if value.type.tensor_type.elem_type in _NARROW:
            value.type.tensor_type.elem_type = _FLOAT
