"""The precisions of the course, in one table: how the file of each is made, what it needs, and what it may lose."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tutorial_utils.model import half_precision, quantization


@dataclass(frozen=True)
class Precision:
    """One of the types that an ONNX file of a network may compute in.

    Attributes:
        name: What file names, rows and the code call it, such as "fp16".
        may_lose: Points of accuracy that the quick classifier may lose by it.
        make: Writes the file at a path, given the files by precision and calibration images. None for FP32, which the
            export writes.
        made_from: The precisions whose files it reads.
        compute_capability: Of the oldest GPU that has the type, or None where every GPU of the course has it.
        capability: The field of `Capabilities` that says whether TensorRT builds it, or None where it always does.
    """

    name: str
    may_lose: float
    make: Callable[[Mapping[str, Path], Path, np.ndarray | None], Path] | None = None
    made_from: tuple[str, ...] = ()
    compute_capability: tuple[int, int] | None = None
    capability: str | None = None

    def file_name(self, network: str) -> str:
        """Return the name of a network's file: "quick-fp16.onnx"."""
        return f"{network}-{self.name}.onnx"


# A precision stands after those that it is made from.
PRECISIONS = {
    one.name: one
    for one in (
        Precision("fp32", may_lose=0.1),
        Precision("fp16", 0.2, lambda files, to, _: half_precision.to_fp16(files["fp32"], to), ("fp32",)),
        Precision(
            "bf16", 1.0, lambda files, to, _: half_precision.to_bf16(files["fp32"], to), ("fp32",),
            compute_capability=(8, 0),
        ),
        Precision(
            "int8", 1.0, lambda files, to, images: quantization.to_int8(files["fp32"], to, images), ("fp32",),
            capability="tensorrt_int8",
        ),
        Precision(
            "fp8", 1.0, lambda files, to, _: quantization.to_fp8(files["fp32"], files["int8"], to),
            ("fp32", "int8"), compute_capability=(8, 9),
        ),
    )
}  # fmt: skip
DEPLOYED = ("fp32", "fp16", "bf16", "int8")  # those of the deployment table


def write(files: Mapping[str, Path], images: np.ndarray | None = None) -> None:
    """Write each file that isn't there yet, from the FP32 file, which is.

    Args:
        files: Paths by precision, with those that a wanted one is made from.
        images: Calibration images for INT8, float32 ``[N, ...]`` as the model's input.
    """
    for one in PRECISIONS.values():
        if one.make and one.name in files and not files[one.name].exists():
            one.make(files, files[one.name], images)
