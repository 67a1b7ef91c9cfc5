"""What 04c.1 and 04d.3 are checked with: an FP16 file, judged by what it gives, and by which nodes stay in FP32."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from tutorial_utils.base import paths
from tutorial_utils.base.errors import CourseError, first_line
from tutorial_utils.lessons.checking import DATA, Case, Mistake
from tutorial_utils.lessons.lesson04 import planted, repaired
from tutorial_utils.model import onnx_file

_GOOD = "a finite FP16 file that keeps the answers, with no more nodes in FP32 than allowed"
_KEPT = 0.98  # of the answers: where two are nearly equal, rounding may choose the other
_ERROR = 0.01  # relative L2 of the output
_NO_FILE = "a path, and no ONNX file there"
_SIGNATURE = "a file with other inputs or outputs"
_NOTHING_NARROW = "a file in which no node computes in FP16"
_BF16 = "a file with nodes in BF16"
_NOT_FINITE = "a file that gives Inf or NaN"
_CAST_BETWEEN = "a file that isn't finite, and casts to FP16 and back between two nodes in FP32"
_ZEROS = "a file that gives nothing but 0"
_OTHER_ANSWERS = "a finite file that gives other answers"
_THESE_ONLY = "a file that is right for these inputs alone"
_TOO_MANY = "a file that keeps the answers, with more nodes in FP32 than allowed"
_MESSAGES = {
    _NO_FILE: "There is no ONNX file at the path that you return: write the file to `target_path`.",
    _SIGNATURE: "Inputs and outputs of your file aren't those of the FP32 file, in name and type: callers would break.",
    _NOTHING_NARROW: "No node of your file computes in FP16. Convert it, then look at what few nodes need more.",
    _BF16: "Your file computes in BF16. That is finite, and has three bits less; FP16 was asked for.",
    _NOT_FINITE: (
        "Your file still gives Inf or NaN. A tensor stays in FP32 only if all nodes that write or read it do: which is "
        "the first in your file that isn't finite?"
    ),
    _OTHER_ANSWERS: (
        "Your file is finite, and its answers are others. What is cut off at 65,504, or lifted from 0, is finite and "
        "wrong."
    ),
    _THESE_ONLY: (
        "Your file is right for these inputs, and not for others of the same kind. Leave room between the largest "
        "value that you saw and 65,504."
    ),
}
_OF_REPAIR = {
    _CAST_BETWEEN: (
        "Between two nodes that stay in FP32, your file casts to FP16 and back: that is where a number overflows. Some "
        "converters write such casts; `half_precision.to_fp16` doesn't."
    ),
    _ZEROS: (
        "Your file gives 0 for everything: a square is still infinite, and what is divided by infinity becomes 0."
    ),
    _TOO_MANY: (
        "Your file keeps the answers, and more nodes than allowed compute in FP32. Some of them don't have to: take "
        "one after the other away, and measure."
    ),
}
_OF_RESCALING = {
    _ZEROS: "Your file still gives nothing but 0. Which product is below FP16's smallest number, 6e-8?",
    _TOO_MANY: (
        "Your file keeps the answers, by nodes in FP32. Here none may be: find a factor that the division takes out "
        "again."
    ),
}


def repair() -> list[Case]:
    """Return the cases of 04c.1, ``repair(fp32_path, feeds, most, target_path)``: mend an FP16 file."""
    attention, layernorm = planted.attention(101, minus=-1e9), planted.layernorm(102)
    return [
        _case(*_written(attention, "attention"), 2, _target("attention"), "an attention", _OF_REPAIR),
        _case(*_written(layernorm, "layernorm"), 2, _target("layernorm"), "a LayerNorm", _OF_REPAIR),
    ]


def repair_on_data(fp32_path: str, feeds: planted.Feeds, most: int, target_path: str) -> Case:
    """Return the case of the lesson's data."""
    return _case(fp32_path, feeds, most, target_path, DATA, _OF_REPAIR)


def rescale() -> list[Case]:
    """Return the cases of 04d.3, ``rescale(fp32_path, feeds, target_path)``: mend an underflow without FP32 nodes."""
    return [_rescaled(*_written(planted.underflow(103), "underflow"), _target("underflow"), "another network")]


def rescale_on_data(fp32_path: str, feeds: planted.Feeds, target_path: str) -> Case:
    """Return the case of the lesson's data."""
    return _rescaled(fp32_path, feeds, target_path, DATA)


def _rescaled(fp32_path: str, feeds: planted.Feeds, target_path: str, what: str) -> Case:
    case = _case(fp32_path, feeds, 0, target_path, what, _OF_RESCALING)
    return dataclasses.replace(case, arguments=(fp32_path, feeds, target_path))


def _written(faulty: planted.Faulty, name: str) -> tuple[str, planted.Feeds]:
    path = onnx_file.save(faulty.model, paths.cache_dir("lesson04", "checks") / f"{name}.onnx")
    return str(path), faulty.feeds


def _target(name: str) -> str:
    return str(paths.cache_dir("lesson04", "checks") / f"{name}-answer.onnx")


def _case(
    fp32_path: str, feeds: planted.Feeds, most: int, target_path: str, what: str, messages: Mapping[str, str]
) -> Case:
    Path(target_path).unlink(missing_ok=True)  # what an earlier answer wrote is no answer
    mistakes = [Mistake(verdict, message) for verdict, message in (_MESSAGES | messages).items()]
    judged: Callable[[Any], str] = functools.partial(_verdict, fp32_path, feeds, most, target_path)
    arguments = (fp32_path, feeds, most, target_path)
    return Case(arguments, _GOOD, what, mistakes, judged=judged, objection=as_it_is(what))


def _verdict(fp32_path: str, feeds: planted.Feeds, most: int, target_path: str, returned: Any) -> str:
    """Say what a file is like: first its form, then what it gives, then what that costs."""
    if str(returned) != target_path:
        return not_the_path(returned)
    if not Path(target_path).exists():
        return _NO_FILE
    try:
        if _signature(target_path) != _signature(fp32_path):
            return _SIGNATURE
        found = repaired.measure(target_path, fp32_path, feeds)
        others = repaired.measure(target_path, fp32_path, _others(feeds))
    except CourseError as error:
        return cannot_run("file", error)
    if found.in_bf16:
        return _BF16
    if not found.in_fp16:
        return _NOTHING_NARROW
    if not found.finite:
        return _CAST_BETWEEN if _casts_back(target_path) else _NOT_FINITE
    if not _is_right(found):
        return _ZEROS if found.error == 1 else _OTHER_ANSWERS
    if not _is_right(others):
        return _THESE_ONLY
    return _GOOD if len(found.in_fp32) <= most else _TOO_MANY


def not_the_path(returned: Any) -> str:
    """Say that something else was returned than the path to write to."""
    return f"{type(returned).__name__}, and not `target_path`: write the file there, and return that path"


def cannot_run(what: str, error: Exception) -> str:
    """Say that ONNX Runtime refuses a file or model, and why, without what differs at each run."""
    cause = error.cause if isinstance(error, CourseError) else first_line(error)
    return f"a {what} that can't be run: {re.sub('.*failed:', '', cause).rstrip('.')}"


def as_it_is(what: str) -> Callable[[str | None], str | None]:
    """Return what tells the learner of a verdict that no mistake explains."""
    return lambda verdict: verdict and f"For {what}, your function returned {verdict}."


def _is_right(found: repaired.Measured) -> bool:
    return found.finite and found.kept >= _KEPT and found.error <= _ERROR


def _casts_back(path: str) -> bool:
    """Whether a file casts a tensor from FP32 to FP16 and from there to FP32."""
    casts = [node for node in onnx_file.load(path).graph.node if node.op_type == "Cast"]
    narrow = {node.output[0] for node in casts if node.attribute[0].i == TensorProto.FLOAT16}
    return any(node.input[0] in narrow and node.attribute[0].i == TensorProto.FLOAT for node in casts)


def _signature(path: str) -> list[tuple[str, int]]:
    graph = onnx_file.load(path).graph
    return [(value.name, value.type.tensor_type.elem_type) for value in (*graph.input, *graph.output)]


def _others(feeds: planted.Feeds) -> planted.Feeds:
    """Return other inputs of the same kind: numbers drawn with the mean and spread of these."""
    random = np.random.default_rng(0)
    return {
        name: np.float32(random.normal(one.mean(), one.std(), one.shape)) if one.dtype == np.float32 else one
        for name, one in feeds.items()
    }
