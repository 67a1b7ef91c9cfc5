"""Lesson 01, hardware targets: the same model in five data types, built for every GPU that TensorRT-RTX knows."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils import engine
from tutorial_utils.base import child_process
from tutorial_utils.base.errors import CourseError
from tutorial_utils.model import onnx_export

_BF16_OPSET = 22  # the first in which ONNX allows BF16 for convolutions
_AT_ONCE = 2


@dataclass(frozen=True)
class Attempt:
    """What came of one build.

    Attributes:
        model: Name of the ONNX file, without its ending.
        targets: The compute capabilities that were asked for; empty for TensorRT-RTX's default.
        plan_bytes: Size of the plan, or None if TensorRT refused.
        kernels: Kernels of the engine, or None if TensorRT refused.
        reason: TensorRT's reason for a refusal, or "".
    """

    model: str
    targets: tuple[str, ...]
    plan_bytes: int | None = None
    kernels: int | None = None
    reason: str = ""

    @property
    def built(self) -> bool:
        """Whether there is an engine."""
        return self.plan_bytes is not None


def attempt(onnx_path: Path, profile: engine.Profile, targets: tuple[str, ...]) -> Attempt:
    """Build an engine for the targets, or say why TensorRT refuses.

    A failed build can change later ones in the same process: call this once per process, as `attempts` does.
    """
    options = engine.BuildOptions(profiles=(profile,), compute_capabilities=targets)
    try:
        report = engine.build(onnx_path, options, progress=False).report
    except CourseError as error:
        return Attempt(onnx_path.stem, targets, reason=_reason(error))
    return Attempt(onnx_path.stem, targets, report.plan_bytes, len(report.kernels))


def _reason(error: CourseError) -> str:
    """Return the sentence of TensorRT's message that names the cause, without its source file and call stack."""
    found = re.search(r"(Cannot compile .*?)\.? In compileGraph", error.cause)
    return found[1] if found else error.cause


def attempts(cases: Sequence[tuple[Path, tuple[str, ...]]], profile: engine.Profile) -> list[Attempt]:
    """Build every case in a fresh process, so that no failed build can touch another.

    Args:
        cases: ONNX file and compute capabilities of each build.
        profile: The optimization profile of all.

    Returns:
        What came of each case, in order.
    """
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(lambda case: child_process.run(attempt, case[0], profile, case[1]), cases))


def to_bf16(fp16_path: Path, target_path: Path) -> Path:
    """Write the BF16 variant of a model that `onnx_export.to_fp16` made: the same graph, with the other half type.

    BF16 has the range of FP32 and 8 bits of resolution. A weight that FP16 had rounded is rounded again, which doesn't
    matter for the question whether an engine can be built.
    """
    model = onnx_export.load(fp16_path)
    del model.graph.value_info[:]  # they name the old type
    model = onnx.version_converter.convert_version(model, _BF16_OPSET)
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(weight).astype(np.float32).astype(ml_dtypes.bfloat16)
            weight.CopyFrom(
                helper.make_tensor(weight.name, TensorProto.BFLOAT16, weight.dims, values.tobytes(), raw=True)
            )
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
    del model.graph.value_info[:]
    return onnx_export.save(model, target_path)
