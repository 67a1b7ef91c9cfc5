"""QuantizeLinear and DequantizeLinear nodes (Q/DQ) in a graph: which nodes get them, and in which form.

The form is the one that TensorRT accepts: symmetric, so zero points are 0; biases not quantized; activations quantized
at the inputs of a layer only, so that TensorRT can fuse what follows the layer.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils.model import onnx_file
from tutorial_utils.model.number_formats import FP8, INT8, NumberFormat

# Operators whose inputs are quantized: those that TensorRT has INT8 tensor-core kernels for. (TensorRT-RTX 1.7 takes
# Q/DQ at ConvTranspose, too, but computes it in FP32.)
OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Other operators that multiply matrices. There is no such form of them.
_WITHOUT_FORM = (
    "LSTM", "GRU", "RNN", "Einsum", "Attention", "MultiHeadAttention", "FusedConv", "FusedGemm", "FusedMatMul",
)  # fmt: skip
EXCLUDED, NO_FORM = "named in exclude", "no Q/DQ form"  # reasons that are no surprise
_TYPES = {INT8: (TensorProto.INT8, np.int8), FP8: (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn)}
_METADATA = "tutorial_utils.quantization"


@dataclass(frozen=True)
class Coverage:
    """How much of a model is quantized. It is kept in the model's metadata.

    Attributes:
        quantized: Quantized nodes, counted by operator.
        left: Other nodes that multiply matrices, counted by operator and reason.
    """

    quantized: dict[str, int]
    left: dict[str, dict[str, int]]

    @classmethod
    def of(cls, quantized: Collection[onnx.NodeProto], left: Collection[tuple[str, str]]) -> "Coverage":
        """Count quantized nodes, and the others' operators and reasons."""
        reasons: dict[str, dict[str, int]] = {}
        for (operator, reason), count in sorted(Counter(left).items()):
            reasons.setdefault(operator, {})[reason] = count
        return cls(dict(sorted(Counter(node.op_type for node in quantized).items())), reasons)

    @classmethod
    def read(cls, model: onnx.ModelProto) -> "Coverage | None":
        """Return what `write` kept in a model, or None."""
        kept = {one.key: one.value for one in model.metadata_props}.get(_METADATA)
        return cls(**json.loads(kept)) if kept else None

    def write(self, model: onnx.ModelProto) -> None:
        """Keep it in a model."""
        model.metadata_props.add(key=_METADATA, value=json.dumps(asdict(self)))

    def left_out(self) -> str:
        """Return what isn't quantized and why: ``1 MatMul (named in exclude)``."""
        return ", ".join(f"{n} {operator} ({why})" for operator, whys in self.left.items() for why, n in whys.items())

    def __str__(self) -> str:
        """Return one line: ``quantized: 3 Conv, 1 MatMul; not quantized: 1 MatMul (named in exclude)``."""
        done = ", ".join(f"{count} {operator}" for operator, count in self.quantized.items()) or "nothing"
        return f"quantized: {done}" + (f"; not quantized: {self.left_out()}" if self.left else "")


def choose(graph: onnx.GraphProto, exclude: Collection[str]) -> tuple[list[onnx.NodeProto], list[tuple[str, str]]]:
    """Return the nodes to quantize; and the operator of each other node that multiplies matrices, with the reason.

    Args:
        graph: A graph with the types of its tensors.
        exclude: Names of nodes that stay as they are.
    """
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    types |= {weight.name: weight.data_type for weight in graph.initializer}
    chosen, left = [], []
    for node in graph.node:
        inner = [one for body in onnx_file.subgraphs(node) for each in onnx_file.graphs(body) for one in each.node]
        left += [(one.op_type, f"in a subgraph of {node.op_type}") for one in inner if one.op_type in OPERATORS]
        if node.op_type in _WITHOUT_FORM:
            left.append((node.op_type, NO_FORM))
        if node.op_type not in OPERATORS:
            continue
        others = {types.get(name, 0) for name in node.input[:2]} - {TensorProto.FLOAT}
        if node.name in exclude:
            left.append((node.op_type, EXCLUDED))
        elif others:
            left.append((node.op_type, f"its type is {TensorProto.DataType.Name(max(others))}"))
        else:
            chosen.append(node)
    return chosen, left


def quantize(
    graph: onnx.GraphProto,
    nodes: Collection[onnx.NodeProto],
    largest: Mapping[str, float],
    number_format: NumberFormat,
    *,
    per_channel: bool,
    exact: Collection[str] = (),
) -> None:
    """Give nodes of a graph Q/DQ at their inputs.

    Args:
        graph: The graph, which is changed. Its nodes are in topological order.
        nodes: The nodes.
        largest: The largest magnitude of each activation that they read.
        number_format: INT8 or FP8.
        per_channel: One scale for each output channel of a weight, instead of one for the whole weight.
        exact: Names of nodes that read activations as they are. All others read them quantized where these nodes do.
    """
    onnx_type, dtype = _TYPES[number_format]
    weights = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    taken = {*weights, *(name for node in graph.node for name in (node.name, *node.input, *node.output))}
    quantized = {node.name for node in nodes}
    before = list(graph.node)
    del graph.node[:]

    def fresh(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    def stored(name: str, values: np.ndarray, stored_type: int = TensorProto.FLOAT) -> str:
        name = fresh(name)
        graph.initializer.append(helper.make_tensor(name, stored_type, values.shape, values.tobytes(), raw=True))
        return name

    def add(operator: str, name: str, inputs: list[str], axis: int | None = None) -> str:
        """Add a node that is named after a tensor. Return its output."""
        output, node_name = fresh(f"{name}_{operator}_Output"), fresh(f"{name}_{operator}")
        graph.node.append(helper.make_node(operator, inputs, [output], node_name, axis=axis))
        return output

    def dequantized_activation(name: str) -> str:
        scale = _scale(largest[name], None, number_format)
        how = [stored(f"{name}_scale", scale), stored(f"{name}_zero_point", np.zeros((), dtype), onnx_type)]
        return add("DequantizeLinear", name, [add("QuantizeLinear", name, [name, *how]), *how])

    def dequantized_weight(name: str, axis: int | None) -> str:
        weight = weights[name]
        scale = _scale(weight, axis, number_format)
        along = scale if axis is None else scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
        levels = weight / along
        if number_format is INT8:
            levels = np.clip(np.rint(levels), -INT8.largest, INT8.largest)
        how = [stored(f"{name}_scale", scale), stored(f"{name}_zero_point", np.zeros(scale.shape, dtype), onnx_type)]
        source = stored(f"{name}_quantized", levels.astype(dtype), onnx_type)
        return add("DequantizeLinear", name, [source, *how], axis)

    activations = dict.fromkeys(name for node in nodes for name in node.input[:2] if name not in weights)
    for node in before:
        for position, name in enumerate(node.input):
            if name in activations and node.name not in exact:
                activations[name] = node.input[position] = activations[name] or dequantized_activation(name)
            elif name in weights and node.name in quantized and position < 2:
                axis = _channel_axis(node, position, weights[name].ndim) if per_channel else None
                node.input[position] = dequantized_weight(name, axis)
        graph.node.append(node)
    _drop_unused(graph)


def _channel_axis(node: onnx.NodeProto, position: int, rank: int) -> int | None:
    """Return the axis of a weight along which the output channels lie, or None for one scale for all.

    A grouped ConvTranspose has them along two axes. ONNX Runtime's fused MatMul takes one scale for a weight of three
    dimensions ("b zero point is not valid").
    """
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    if position == 0:
        return None
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attributes.get("group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if attributes.get("transB") else 1
    return 1 if rank == 2 else None


def _scale(values: np.ndarray | float, axis: int | None, number_format: NumberFormat) -> np.ndarray:
    """Return what one unit of the format stands for; 1 where all values are 0, since TensorRT refuses a scale of 0."""
    others = None if axis is None else tuple(i for i in range(np.ndim(values)) if i != axis)
    scale = np.asarray(np.abs(values).max(others) / number_format.largest, np.float32)
    return np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove weights that no node reads any more."""
    used = {name for inner in onnx_file.graphs(graph) for node in inner.node for name in node.input}
    used |= {value.name for inner in onnx_file.graphs(graph) for value in inner.output}
    kept = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
