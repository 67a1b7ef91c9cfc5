"""What a layer of an engine has to do at least: multiply-adds and bytes, from the ONNX nodes that were fused into it.

The engine says which nodes a layer holds, and the ONNX graph which tensors these nodes read and write. A fused layer
moves only what goes in and comes out of it, each tensor once, and its weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import helper

from tutorial_utils.engine import EngineLayer, computed_types
from tutorial_utils.model import number_formats, onnx_file


@dataclass(frozen=True)
class Work:
    """What a layer has to do: multiply-adds of convolutions and matrix products, and bytes read and written."""

    multiply_adds: int
    bytes: int


def at_shape(onnx_path: str | Path, shape: Sequence[int], target_path: str | Path) -> Path:
    """Write a copy of a model with one input, whose shape is this one, and with the shapes of all tensors."""
    model = onnx_file.load(onnx_path)
    (given,) = model.graph.input
    del given.type.tensor_type.shape.dim[:]
    given.type.tensor_type.shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=size) for size in shape)
    del model.graph.value_info[:]  # shapes with dimensions that are unknown
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    return onnx_file.save(onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True), target_path)


def of_layers(graph: onnx.GraphProto, layers: Sequence[EngineLayer]) -> list[Work]:
    """Return the work of each layer of an engine that was built from a graph whose shapes are all known."""
    nodes = {node.name: node for node in graph.node}
    tensors = _tensors(graph)
    counts = {name: multiply_adds(node, tensors) for name, node in nodes.items()}
    owners = _owners(layers)
    found = []
    for position, layer in enumerate(layers):
        mine = [nodes[name] for name in layer.onnx_nodes if name in nodes]
        moved = _bytes_of_nodes(graph, mine, tensors) if mine else _bytes_of_tensors(layer)
        computed = sum(counts[node.name] for node in mine if owners[node.name] == position)
        found.append(Work(computed, moved if layer.is_kernel and layer.type != "NoOp" else 0))
    return found


def multiply_adds(node: onnx.NodeProto, tensors: dict[str, tuple[tuple[int, ...], int]]) -> int:
    """Return the multiply-adds of a convolution or matrix product, padding included; 0 for all other operators.

    Args:
        node: The node.
        tensors: Shape and bytes of an element of each tensor, by name.
    """
    if node.op_type not in ("Conv", "MatMul", "Gemm"):
        return 0
    outputs = math.prod(tensors[node.output[0]][0])
    if node.op_type == "Conv":  # the weights are [channels out, channels in of a group, height, width]
        return outputs * math.prod(tensors[node.input[1]][0][1:])
    return outputs * tensors[node.input[0]][0][-1]


def _owners(layers: Sequence[EngineLayer]) -> dict[str, int]:
    """Return for each ONNX node the layer that multiplies for it: several may name a node whose work is split."""
    owners: dict[str, int] = {}
    for wanted in (True, False):
        for position, layer in enumerate(layers):
            if bool(computed_types.operation(layer)) == wanted:
                for name in layer.onnx_nodes:
                    owners.setdefault(name, position)
    return owners


def _tensors(graph: onnx.GraphProto) -> dict[str, tuple[tuple[int, ...], int]]:
    found = {one.name: (tuple(one.dims), _itemsize(one.data_type)) for one in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
        if tensor.HasField("shape") and min(dims, default=0) >= 0:
            found[value.name] = (tuple(dims), _itemsize(tensor.elem_type))
    return found


def _itemsize(data_type: int) -> int:
    return helper.tensor_dtype_to_np_dtype(data_type).itemsize


def _bytes_of_nodes(
    graph: onnx.GraphProto, mine: list[onnx.NodeProto], tensors: dict[str, tuple[tuple[int, ...], int]]
) -> int:
    inside = {node.name for node in mine}
    folded = any(node.op_type == "Conv" for node in mine)  # then batch norm's weights are in those of the convolution
    written = {name for node in mine for name in node.output if name}
    statistics = {name for node in mine if folded and node.op_type == "BatchNormalization" for name in node.input[1:]}
    read = {name for node in mine for name in node.input if name} - written - statistics
    leaving = {value.name for value in graph.output}
    leaving |= {name for node in graph.node if node.name not in inside for name in node.input}
    shares: dict[str, float] = {}
    for node in mine:
        for name in node.input:
            shares[name] = max(shares.get(name, 0.0), _share_read(node, name))
    sizes = {name: math.prod(tensors[name][0]) * tensors[name][1] for name in read | (written & leaving)}
    return round(sum(size * (shares[name] if name in read else 1.0) for name, size in sizes.items()))


def _share_read(node: onnx.NodeProto, name: str) -> float:
    """Return which share of a tensor a node reads: a convolution whose stride is beyond its kernel skips pixels."""
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if node.op_type != "Conv" or name != node.input[0] or not {"strides", "kernel_shape"} <= attributes.keys():
        return 1.0
    pairs = zip(attributes["kernel_shape"], attributes["strides"], strict=True)
    return math.prod(min(1.0, kernel / stride) for kernel, stride in pairs)


def _bytes_of_tensors(layer: EngineLayer) -> int:
    """Return the bytes of a layer that holds no node of the graph, as those that only change a format."""
    tensors = {tensor.name: tensor for tensor in (*layer.inputs, *layer.outputs)}
    return sum(
        math.prod(tensor.shape) * number_formats.BY_NAME[tensor.dtype].bits // 8
        for tensor in tensors.values()
        if tensor.dtype in number_formats.BY_NAME and min(tensor.shape, default=0) >= 0
    )
