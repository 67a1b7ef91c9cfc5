"""FP32 ONNX to its 16-bit variants, FP16 and BF16.

TensorRT networks are strongly typed: the ONNX file decides which layer runs in which precision. So a precision is made
here, in the file, where ONNX Runtime can run it and Polygraphy can look at it, and not by a flag of the builder.
"""

import warnings
from collections.abc import Iterable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils.base.errors import PrecisionError
from tutorial_utils.model import onnx_file
from tutorial_utils.model.number_formats import FP16

_BF16_OPSET = 22  # the first in which ONNX allows BF16 for convolutions
_FLOAT, _FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def to_fp16(onnx_path: str | Path, target_path: str | Path, *, keep_fp32: Iterable[str] = ()) -> Path:
    """Convert weights and activations to FP16. Inputs and outputs stay FP32, so that callers need not change.

    Args:
        onnx_path: The FP32 model.
        target_path: Where to write the FP16 model. It is returned.
        keep_fp32: Names of nodes that go on computing in FP32, with casts around them: mixed precision.

    Raises:
        PrecisionError: The model can't be converted, has a weight beyond FP16's largest number, or lacks a node that is
            named in ``keep_fp32``.
    """
    model = onnx_file.load(onnx_path)
    onnx_file.require_fp32(model, Path(onnx_path).name)
    kept = sorted(set(keep_fp32))
    unknown = sorted(set(kept) - {node.name for node in model.graph.node})
    if unknown:
        raise PrecisionError(
            f"{Path(onnx_path).name} has no node {', '.join(unknown[:3])} that could be kept in FP32.",
            "Give names of nodes, not of tensors: node.name for node in model.graph.node.",
        )
    _require_weights_in_range(model, kept, Path(onnx_path).name)
    return onnx_file.save(_converted(model, kept, Path(onnx_path).name), target_path)


def _converted(model: onnx.ModelProto, kept: list[str], name: str) -> onnx.ModelProto:
    """Return the model in FP16. What is too large for it becomes its largest number."""
    from onnxconverter_common import float16

    try:
        with warnings.catch_warnings():
            # Weights below FP16's smallest number are rounded to it, with a warning for each: lesson 01 counts them.
            warnings.filterwarnings("ignore", message="the float32 number")
            converted = float16.convert_float_to_float16(
                model,
                max_finite_val=FP16.largest,  # its default is 10,000, to which it cuts larger weights without a word
                keep_io_types=True,
                node_block_list=kept,
            )
        if kept:
            _join_fp32_neighbours(converted)
        return converted
    except Exception as error:
        raise PrecisionError(
            f"{name} can't be converted to 16 bits: {error}.",
            "Convert the original FP32 model, not one that was converted or quantized before.",
        ) from error


def _require_weights_in_range(model: onnx.ModelProto, kept: list[str], name: str) -> None:
    converted = {tensor for node in model.graph.node if node.name not in kept for tensor in node.input}
    for weight_name, weight in _weights(model).items():
        if weight.data_type == _FLOAT and weight_name in converted:
            largest = float(np.abs(onnx.numpy_helper.to_array(weight)).max(initial=0))
            if largest > FP16.largest:
                raise PrecisionError(
                    f"The weight {weight_name} of {name} reaches {largest:,.0f}, and FP16 ends at {FP16.largest:,.0f}.",
                    "Fold batch norms into their convolutions, or keep the weight's node in FP32 (keep_fp32).",
                )


def _weights(model: onnx.ModelProto) -> dict[str, TensorProto]:
    """Return the weights by name, whether they are initializers or Constant nodes."""
    weights = {weight.name: weight for weight in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            weights[node.output[0]] = node.attribute[0].t
    return weights


def _join_fp32_neighbours(model: onnx.ModelProto) -> None:
    """Let neighbours that stay in FP32 hand each other FP32.

    The converter casts what each of them writes to FP16, and back to FP32 for the next. What is too large for FP16
    would overflow between the very nodes that were kept from it.
    """
    graph = model.graph
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    fp32 = {value.name for value in (*graph.input, *graph.value_info) if value.type.tensor_type.elem_type == _FLOAT}
    same = {}  # a tensor that went through FP16, and the one that it was before
    for name, node in casts.items():
        before = casts.get(node.input[0])
        if before and _target(before) == _FLOAT16 and _target(node) == _FLOAT and before.input[0] in fp32:
            node.input[0] = same[name] = before.input[0]
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for name, node in casts.items():
        if name not in used:
            graph.node.remove(node)


def _target(cast: onnx.NodeProto) -> int:
    return cast.attribute[0].i  # "to" is the one attribute of Cast before opset 19


def to_bf16(onnx_path: str | Path, target_path: str | Path) -> Path:
    """Convert weights and activations to BF16, which has the range of FP32 and 8 bits of resolution.

    The graph is that of `to_fp16` with the other half type: inputs and outputs stay FP32. ``target_path`` is returned.

    Raises:
        PrecisionError: The model can't be converted.
    """
    exact = onnx_file.load(onnx_path)
    onnx_file.require_fp32(exact, Path(onnx_path).name)
    weights = {name: numpy_helper.to_array(weight) for name, weight in _weights(exact).items()}
    model = _converted(exact, [], Path(onnx_path).name)
    del model.graph.value_info[:]  # they name the old type
    model = onnx.version_converter.convert_version(model, _BF16_OPSET)
    for name, weight in _weights(model).items():
        if weight.data_type == TensorProto.FLOAT16:
            values = weights[name].astype(ml_dtypes.bfloat16)
            weight.CopyFrom(
                helper.make_tensor(weight.name, TensorProto.BFLOAT16, weight.dims, values.tobytes(), raw=True)
            )
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
    del model.graph.value_info[:]
    return onnx_file.save(model, target_path)
