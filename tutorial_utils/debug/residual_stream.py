"""A transformer that computes the same in FP32 and overflows in FP16: its residual stream scaled by a power of two.

In a pre-norm transformer each layer adds to the residual stream and reads it through LayerNorm alone, which takes any
scale out again: nothing keeps training from making it large. T5's feed-forward outputs became so, and overflow in FP16
(https://github.com/huggingface/transformers/issues/5651). A factor above 1 makes such a model of a sound one; one below
1 mends it, as is done for T5 (https://github.com/NovelAI/t5, docs/float16.md).
"""

import numpy as np
import onnx
from onnx import numpy_helper

from tutorial_utils.base.errors import InputError

_NORM = "LayerNormalization"
# The inputs that an operator's output is proportional to, all of them together.
_PROPORTIONAL_TO = {
    "Add": slice(None), "Gather": slice(1), "Gemm": slice(1, None), "Identity": slice(1), "MatMul": slice(1, 2),
}  # fmt: skip


def scale(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """Return a copy of a pre-norm transformer with its residual stream times a power of two. Outputs are the same.

    The weights that write to the stream are multiplied by the factor, and each LayerNorm's epsilon by its square.

    Raises:
        InputError: The factor is not a power of two, or something beside LayerNorm reads the stream or its weights, as
            in a post-norm transformer.
    """
    if factor <= 0 or np.frexp(factor)[0] != 0.5:
        raise InputError(
            f"A factor of {factor} was given.", "Give a power of two: others change the digits of weights."
        )
    scaled = onnx.ModelProto()
    scaled.CopyFrom(model)
    weights = {weight.name: weight for weight in scaled.graph.initializer}
    for name in _residual_stream(scaled.graph) & weights.keys():
        values = numpy_helper.to_array(weights[name])
        weights[name].CopyFrom(numpy_helper.from_array(values * values.dtype.type(factor), name))
    for node in scaled.graph.node:
        if node.op_type == _NORM:
            given = [attribute for attribute in node.attribute if attribute.name == "epsilon"]
            (epsilon,) = given or [node.attribute.add(name="epsilon", type=onnx.AttributeProto.FLOAT, f=1e-5)]
            epsilon.f *= factor**2
    return scaled


def _residual_stream(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors of the residual stream, and the weights that write to it."""
    writers = {name: node for node in graph.node for name in node.output}
    stream: set[str] = set()
    waiting = [node.input[0] for node in graph.node if node.op_type == _NORM]
    while waiting:
        name = waiting.pop()
        if name not in stream:
            stream.add(name)
            waiting += _proportional_to(writers[name]) if name in writers else []
    fixed = stream & {value.name for value in (*graph.input, *graph.output)}
    for node in graph.node:
        written = not stream.isdisjoint(node.output)
        passed_on = _proportional_to(node) if written else node.input[: node.op_type == _NORM]
        if (written and not passed_on) or not stream.intersection(node.input) <= set(passed_on):
            fixed.add(node.name)
    if fixed or not stream:
        raise InputError(
            f"The residual stream can't be scaled: {', '.join(sorted(fixed)) or 'there is no LayerNormalization'}.",
            "Give a pre-norm transformer: what each layer adds is read through LayerNormalization alone.",
        )
    return stream


def _proportional_to(node: onnx.NodeProto) -> list[str]:
    return list(node.input[_PROPORTIONAL_TO.get(node.op_type, slice(0))])
