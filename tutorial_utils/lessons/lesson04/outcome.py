"""Lesson 04: what a variant of the text detection network answers, judged by the sound network's answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tutorial_utils.debug import tensor_errors
from tutorial_utils.lessons.lesson04 import text_detection
from tutorial_utils.model import onnx_file

Box = tuple[int, int, int, int]


def same_boxes(found: Sequence[Box], expected: Sequence[Box]) -> bool:
    """Return whether two lists of boxes have the same length, and no edge is more than a pixel off."""
    return len(found) == len(expected) and bool(np.all(np.abs(np.subtract(found, expected)) <= 1))


@dataclass(frozen=True)
class Outcome:
    """What a variant of the text detection network answers."""

    finite: bool  # every number of the output
    rel_l2: float  # relative L2 error of the output against the sound FP32 network; infinite if it isn't finite
    boxes: int  # how many text boxes were found
    boxes_kept: bool  # whether they are those of the sound FP32 network, to within a pixel


def judge(
    onnx_path: str | Path,
    feeds: Mapping[str, np.ndarray],
    expected: np.ndarray,
    stored_as: Literal["fp16", "bf16"] | None = None,
) -> Outcome:
    """Run a variant as a GPU rounds it (`tensor_errors.with_rounding`) and compare its answer with the sound one.

    Args:
        onnx_path: The variant.
        feeds: Its input.
        expected: What the sound network computes in FP32, ``[1, 1, height, width]``.
        stored_as: Store all tensors of an FP32 file in this format; otherwise in those that the file says.
    """
    output = onnx_file.load(onnx_path).graph.output[0].name
    values = tensor_errors.all_outputs(onnx_path, feeds, stored_as)[output]
    row = tensor_errors.compare({output: expected}, {output: values}).loc[output]
    boxes = text_detection.boxes(values)
    return Outcome(
        finite=bool(np.isfinite(values).all()),
        rel_l2=float(row["rel_l2"]),
        boxes=len(boxes),
        boxes_kept=same_boxes(boxes, text_detection.boxes(expected)),
    )
