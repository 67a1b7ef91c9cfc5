"""Remedies for an FP16 overflow that need no training, and what each of them does to the answers.

Three of them change the model file: keep nodes in FP32 (`touching` says which, `half_precision.to_fp16` keeps them),
clip the tensors that overflow, or scale them back with `scaling.move_scale` (`scale_for_headroom` says how far).
`judge` says what came of it, by a metric of the task.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from tutorial_utils.base.errors import InputError
from tutorial_utils.debug import tensor_errors
from tutorial_utils.debug.rounding import with_rounding
from tutorial_utils.model import onnx_file
from tutorial_utils.model.number_formats import FP16


def too_large(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the largest magnitude of each tensor of an FP32 run (`tensor_errors.all_outputs`) beyond FP16's range."""
    peaks = {name: float(np.abs(array).max(initial=0)) for name, array in values.items()}
    return {name: peak for name, peak in peaks.items() if not peak <= FP16.largest}  # NaN too


def touching(model: onnx.ModelProto, tensors: Iterable[str]) -> list[str]:
    """Return the names of the nodes that write or read one of these tensors.

    A tensor is stored in FP32 only if the node that writes it and those that read it all work in FP32.
    """
    wanted = onnx_file.names_in(tensors)
    return [node.name for node in model.graph.node if wanted & {*node.input, *node.output}]


def clip(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of an FP32 model with a Clip node after each of these tensors, to FP16's range.

    Raises:
        InputError: The model computes no tensor of such a name, or it is an output of the model.
    """
    wanted = onnx_file.names_in(tensors)
    inside = {name for node in model.graph.node for name in node.output} - {out.name for out in model.graph.output}
    if not wanted <= inside:
        raise InputError(
            f"{', '.join(sorted(wanted - inside))} can't be clipped: no tensor between two nodes has that name.",
            "Give names of tensors, such as remedies.too_large returns.",
        )
    clipped = onnx.ModelProto()
    clipped.CopyFrom(model)
    del clipped.graph.node[:]
    bounds = ("clip/min", "clip/max")
    for name, value in zip(bounds, (-FP16.largest, FP16.largest), strict=True):
        clipped.graph.initializer.append(helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [value]))
    for node in model.graph.node:
        added = clipped.graph.node.add()
        added.CopyFrom(node)
        added.input[:] = [f"{name}/clipped" if name in wanted else name for name in node.input]
        for name in filter(wanted.__contains__, node.output):
            clipped.graph.node.append(helper.make_node("Clip", [name, *bounds], [f"{name}/clipped"], f"{name}/clip"))
    return clipped


def scale_for_headroom(peak: float, headroom: float = 8) -> float:
    """Return the largest power of two, 1 at most, by which a tensor must be multiplied to stay in FP16's range.

    The peak is the largest magnitude that was seen, and the headroom how many times that other inputs may reach.

    Raises:
        InputError: The peak is not a positive number, or the headroom is below 1.
    """
    if not 0 < peak < np.inf or not 1 <= headroom < np.inf:
        raise InputError(
            f"A scale was asked for with a peak of {peak} and a headroom of {headroom}.",
            "Give a positive peak and a headroom of 1 or more.",
        )
    return min(1.0, float(2.0 ** np.floor(np.log2(FP16.largest / (headroom * peak)))))


@dataclass(frozen=True)
class Outcome:
    """What a variant of a model answers, judged by the FP32 model's answer.

    Attributes:
        finite: Fraction of the inputs whose output has no Inf or NaN, 0 to 1.
        rel_l2: Relative L2 error of the output; infinite where it isn't finite.
        task: What the metric of the task says.
    """

    finite: float
    rel_l2: float
    task: float


def judge(
    onnx_path: str | Path,
    feeds: Mapping[str, np.ndarray],
    expected: np.ndarray,
    metric: Callable[[np.ndarray, np.ndarray], float],
) -> Outcome:
    """Run a variant of a model as a GPU rounds it (`rounding.with_rounding`), and judge its first output.

    Args:
        onnx_path: The variant. Its inputs and outputs are FP32.
        feeds: One array for each input, by name.
        expected: What the FP32 model computes: the output, one row for each input of the batch.
        metric: Takes the output and the expected one, both with the same shape; returns a number of the task's own.

    Raises:
        InputError: The feeds don't fit the model, or the output has another shape than expected.
        ModelFileError: The model is missing, damaged, or ONNX Runtime can't load it.
    """
    model = onnx_file.load(onnx_path)
    name = model.graph.output[0].name
    found = tensor_errors.run(with_rounding(model), feeds, Path(onnx_path).name, [name])
    return judge_output(found[name], expected, metric)


def judge_output(found: np.ndarray, expected: np.ndarray, metric: Callable[[np.ndarray, np.ndarray], float]) -> Outcome:
    """Judge an output that something else computed, such as an engine. See `judge`.

    Raises:
        InputError: The two have different shapes.
    """
    if found.shape != expected.shape:
        raise InputError(
            f"The output has the shape {list(found.shape)}, and {list(expected.shape)} was expected.",
            "Run both models on the same inputs.",
        )
    finite = np.isfinite(found).reshape(len(found), -1).all(axis=1)
    error = tensor_errors.compare({"output": expected}, {"output": found}).loc["output", "rel_l2"]
    return Outcome(float(finite.mean()), float(error), float(metric(found, expected)))
