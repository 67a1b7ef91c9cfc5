"""What a 16-bit file is worth: is it finite, does it keep the answers of the FP32 file, what stays in FP32?"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from tutorial_utils.debug import faults, tensor_errors
from tutorial_utils.model import onnx_file

_WIDE = {TensorProto.FLOAT, TensorProto.DOUBLE}
_BETWEEN = {"Cast", "Constant", "Identity"}  # they compute nothing


@dataclass(frozen=True)
class Measured:
    """What became of a model, with some inputs."""

    finite: bool  # whether all numbers of the outputs are
    kept: float  # share of the answers, the largest number of each row, that are the FP32 file's; NaN is no answer
    error: float  # of the first output, relative L2 against the FP32 file; infinite if it isn't finite
    in_fp32: tuple[str, ...]  # nodes that compute in FP32, by name
    in_fp16: int  # how many compute in FP16
    in_bf16: int

    def __str__(self) -> str:
        state = "finite" if self.finite else "not finite"
        return f"{state}, {self.kept:.0%} of the answers kept, {len(self.in_fp32)} nodes in FP32"


def measure(low_path: str | Path, fp32_path: str | Path, feeds: dict[str, np.ndarray]) -> Measured:
    """Run both files on the CPU with every rounding of the first written down, and compare their first outputs.

    Raises:
        ModelFileError: A file is missing, damaged, or ONNX Runtime can't load it.
        InputError: The feeds don't fit.
    """
    low = onnx_file.load(low_path)
    name = onnx_file.load(fp32_path).graph.output[0].name
    exact = tensor_errors.all_outputs(fp32_path, feeds)[name]
    found = tensor_errors.all_outputs(low_path, feeds)[low.graph.output[0].name]
    types = _types_by_node(low)
    return Measured(
        finite=bool(np.isfinite(found).all()),
        kept=_kept(exact, found) if found.shape == exact.shape else 0.0,
        error=faults.relative_error(exact, found),
        in_fp32=tuple(name for name, kinds in types.items() if kinds & _WIDE),
        in_fp16=sum(TensorProto.FLOAT16 in kinds for kinds in types.values()),
        in_bf16=sum(TensorProto.BFLOAT16 in kinds for kinds in types.values()),
    )


def _kept(exact: np.ndarray, found: np.ndarray) -> float:
    return float(np.mean((exact.argmax(-1) == found.argmax(-1)) & np.isfinite(found).all(-1)))


def _types_by_node(model: onnx.ModelProto) -> dict[str, set[int]]:
    """Return the element types that each node which computes reads and writes."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {one.name: one.type.tensor_type.elem_type for one in (*graph.input, *graph.value_info, *graph.output)}
    types |= {name: constant.data_type for name, constant in onnx_file.constants(graph).items()}
    nodes = [node for node in graph.node if node.op_type not in _BETWEEN]
    return {
        node.name or node.output[0]: {types.get(name, TensorProto.UNDEFINED) for name in (*node.input, *node.output)}
        for node in nodes
    }
