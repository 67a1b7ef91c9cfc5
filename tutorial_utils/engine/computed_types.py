"""Which data type each layer of an engine computes in, and what says so: what was asked for is no proof.

Three things can say it. Most kernels of convolutions and matrix products carry it in the name of their tactic, after
NVIDIA's own convention, which is the only one to tell TF32 from FP32. Where the name says nothing, the types of the
operands do, of those that the report names: of an LSTM's kernels TensorRT-RTX names the weights alone. Of all other
kernels, the types of the tensors are known, and nothing about the arithmetic within.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tutorial_utils.engine.layers import EngineLayer
from tutorial_utils.model import number_formats

CONVOLUTION, PRODUCT, ATTENTION = "convolution", "matrix product", "fused attention"
OPAQUE = "closed subgraph"  # of TensorRT 8, whose inspector shows what Myelin compiled as one layer
UNKNOWN = "unknown"
FP32_OR_TF32 = "fp32 or tf32"  # both read FP32, and here nothing tells which of them it is
BY_TACTIC, BY_OPERANDS, BY_TENSORS, BY_NOTHING = "tactic name", "operand types", "tensor types", "nothing"

# Kernels that TensorRT generates are called after what they compute: __myl_CorrMulAddRelu_myl0_4.
_GENERATED = re.compile(r"__myl_([A-Za-z]+)_myl\d+_\d+$")

# Forms of the 14,617 names that TensorRT 10.6's libraries hold; 97 % of them say what is multiplied.
# sm80_xmma_fprop_implicit_gemm_i8f32_i8i32_f32_...: what is read and written, multiplied and summed, and the epilogue.
_TYPE = "(tf32|bf16|f16|f32|i8|i32|e4m3)"
_XMMA = re.compile(rf"_{_TYPE}{_TYPE}_{_TYPE}{_TYPE}?_{_TYPE}(?:_|$)")
# volta_fp32_icudnn_int8x4_..., ampere_sgemm_...: what is written, the letter of BLAS for what is summed (single, half,
# integer), and what is read where that is another type. A number at the letter is the size of a tensor core's step.
_BLAS = re.compile(r"_(s|h|i)(\d*)(?:cudnn|gemm)(?:_winograd)?(?:_(fp16|int8)(?:x\d)?(?=_))?")
_FUSED = re.compile(r"_fused_conv_act_(fp32|fp16|int8)_")
_NAMES = {"f16": "fp16", "f32": "fp32", "i8": "int8", "i32": "int32", "e4m3": "fp8", "s": "fp32", "h": "fp16"}


@dataclass(frozen=True)
class ComputedType:
    """A kernel of an engine: what it does, the data type it does it in, and what says so.

    Attributes:
        layer: Name of the layer.
        operation: CONVOLUTION, PRODUCT, ATTENTION, OPAQUE, or "" for everything else.
        dtype: Such as "fp16" or "tf32"; FP32_OR_TF32 or UNKNOWN where nothing decides it. Of other kernels, the
            floating-point type of their tensors.
        evidence: BY_TACTIC, BY_OPERANDS, BY_TENSORS or BY_NOTHING.
        detail: What it was read from: the tactic's name, or the types.
    """

    layer: str
    operation: str
    dtype: str
    evidence: str
    detail: str


def generated_operations(layer: EngineLayer) -> tuple[str, ...]:
    """Return what a generated kernel computes, by TensorRT's abbreviations in its name; empty for other layers."""
    generated = _GENERATED.match(layer.name)
    return tuple(re.findall("[A-Z][a-z]*", generated[1])) if generated else ()


def operation(layer: EngineLayer) -> str:
    """Return whether a layer is a CONVOLUTION, PRODUCT, ATTENTION in one kernel, or OPAQUE subgraph; else ""."""
    words, layer_type = set(generated_operations(layer)), layer.type.lower()
    if not layer.is_kernel:
        return ""
    if layer_type == "myelin":
        return OPAQUE
    if "_mha_" in f"{layer.name}_{layer.tactic}_":
        return ATTENTION
    if words & {"Corr", "Deco"} or "corr" in layer_type or "conv" in layer_type:
        return CONVOLUTION
    return PRODUCT if "Fc" in words or "gemm" in layer_type or "matrixmultiply" in layer_type else ""


def of_layer(layer: EngineLayer) -> ComputedType:
    """Return what a layer computes in."""
    what = operation(layer)
    if not what:
        floats = sorted({tensor.dtype for tensor in (*layer.inputs, *layer.outputs) if _is_computed_in(tensor.dtype)})
        dtype = floats[0] if len(floats) == 1 else UNKNOWN
        return ComputedType(layer.name, "", dtype, BY_TENSORS if floats else BY_NOTHING, " and ".join(floats))
    if what == OPAQUE:
        return ComputedType(layer.name, what, UNKNOWN, BY_NOTHING, "")
    if named := of_tactic(layer.tactic):
        return ComputedType(layer.name, what, named, BY_TACTIC, layer.tactic)
    read = [tensor.dtype for tensor in layer.inputs if _is_computed_in(tensor.dtype)]
    operands = [*read[:1], layer.weights] if layer.weights else read[:2]
    detail = " and ".join(operands)
    if len(set(operands)) != 1:
        return ComputedType(layer.name, what, UNKNOWN, BY_NOTHING, detail)
    dtype = FP32_OR_TF32 if operands[0] == "fp32" else operands[0]
    return ComputedType(layer.name, what, dtype, BY_OPERANDS, detail)


def _is_computed_in(dtype: str) -> bool:
    """Whether networks compute in a type: not an index, a condition, or TensorRT's reason for not knowing the type."""
    return dtype in {one.dtype for one in (*number_formats.FORMATS, number_formats.FP4)}


def of_tactic(name: str) -> str | None:
    """Return the data type that a tactic's name says its operands are multiplied in; None where it says none."""
    if found := _XMMA.search(name):
        first, second = found[1], found[3]
        rounded = first == "f32" and second == "tf32"  # read as FP32, and multiplied as TF32
        return _NAMES.get(second, second) if first == second or rounded else None
    if found := _FUSED.search(name):
        return found[1]
    if found := _BLAS.search(name):
        summed, step, read = found.groups()
        on_tensor_cores = summed == "s" and step  # single precision is what they sum in, not what they multiply in
        return read or (None if summed == "i" or on_tensor_cores else _NAMES[summed])
    return None


def counted(layers: Iterable[EngineLayer]) -> dict[str, Counter[str]]:
    """Return how many layers compute in which type, the most frequent first, by operation."""
    found = [one for one in map(of_layer, layers) if one.operation]
    operations = (CONVOLUTION, PRODUCT, ATTENTION, OPAQUE)
    by_operation = {what: Counter(one.dtype for one in found if one.operation == what) for what in operations}
    return {what: Counter(dict(types.most_common())) for what, types in by_operation.items() if types}


def totals(layers: Iterable[EngineLayer]) -> Counter[str]:
    """Return how many layers with an operation compute in which type."""
    return sum(counted(layers).values(), Counter())


def line(layers: Iterable[EngineLayer]) -> str:
    """Return in one line what an engine computes in: "40 of 54 convolutions compute in INT8, 13 in FP16, 1 in FP32"."""
    layers = tuple(layers)
    if not layers:
        return "not known: the report has no layers"
    parts = []
    for what, types in counted(layers).items():
        (first, most), *others = ((_shown(dtype), count) for dtype, count in types.items())
        rest = "".join(f", {count} {dtype}" for dtype, count in others)
        parts.append(f"{most} of {types.total()} {what}s compute {first}{rest}")
    if not parts:
        return "no convolution, matrix product or attention"
    evidence = Counter(one.evidence for one in map(of_layer, layers) if one.operation)
    return f"{'; '.join(parts)} (by {', '.join(f'{name}: {count}' for name, count in evidence.most_common())})"


def _shown(dtype: str) -> str:
    return "in an unknown type" if dtype == UNKNOWN else "in " + dtype.upper().replace(" OR ", " or ")


def table(layers: Iterable[EngineLayer]) -> str:
    """Return the convolutions, products and attentions as text: one line each with its type and what says so."""
    found = [one for one in map(of_layer, layers) if one.operation]
    widths = [max([len(getattr(one, name)) for one in found], default=0) for name in ("operation", "dtype", "evidence")]
    return "\n".join(
        f"{one.operation:{widths[0]}}  {one.dtype:{widths[1]}}  {one.evidence:{widths[2]}}  {one.layer}: {one.detail}"
        for one in found
    )
