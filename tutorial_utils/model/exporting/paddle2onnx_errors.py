"""Why paddle2onnx 2.1.0 failed, in its own words, and what it converts wrong; with remedies that were tried."""

import re
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tutorial_utils.base import child_process
from tutorial_utils.base.errors import CourseError, ExportError, UnsupportedOperatorError
from tutorial_utils.model import paddle_program

NOT_LISTED = "Not among the operators that paddle2onnx lists: "  # how the worker begins a line
# What the log says of a failure, the most telling first; its last line is seldom the reason.
_REASONS = (
    r"\[OP: .*", r"Due to the unsupported operators.*", r"Please set the opset_version to \d+", r"The Opset Version .*",
    r"(?<=Failed to convert PaddlePaddle model: ).*", r"\[ERROR\].*", r"^.*(?<=\w)Error: .*",
)  # fmt: skip
_REMEDIES = {
    r"Adaptive only support static": "Save the model with fixed sizes: an InputSpec without None for height and width.",
    r"softplus": "Leave its threshold at 20.",
    r"opset_version to (\d+)": r"Give opset=\1.",
    r"Opset Version must be": "Give opset=17, the newest that all libraries of the course handle.",
    r"dilations != 1, cannot support padding": "Give the padding as a number, dilation * (kernel - 1) / 2.",
    r"input with NHWC": "Make layers with data_format='NCHW', and transpose before the first and after the last.",
    r"impl_ pointer is null": "Give each operator its optional inputs too, such as deform_conv2d its mask (of ones).",
}
_OVER_ALL = (
    "A norm, distance or standard deviation over all axes gets the shape [1] for a scalar: write it with sum, mean and "
    "sqrt, as in (x * x).sum().sqrt()."
)
# Operators that are converted right in some forms only, as attributes tell; verification finds the others. Of a legacy
# program, attributes are not read.
_HINTS: dict[str, tuple[Callable[[dict[str, Any]], bool], str]] = {
    "pool2d": (
        lambda given: given.get("adaptive", True),
        "Adaptive pooling comes out right where the output size divides the input size: choose such a size.",
    ),
    "nearest_interp": (
        lambda given: True,
        "The nearest pixel is rounded otherwise in ONNX: resize by a whole factor, or bilinearly.",
    ),
    "rnn": (
        lambda given: given.get("num_layers", 2) > 1 or given["mode"].startswith("RNN"),
        "SimpleRNN gets lost, and so do the last states of a recurrent layer with num_layers > 1: use LSTM or GRU, and "
        "several layers of one each.",
    ),
    "max_pool2d_with_index": (lambda given: True, "return_mask=True gets lost: leave it out."),
    "p_norm": (lambda given: given.get("asvector", True), _OVER_ALL),
    "dist": (lambda given: True, _OVER_ALL),
    "numel": (lambda given: True, _OVER_ALL),
}
# Names of Paddle 3 whose older names paddle2onnx lists. Most others only gained a prefix or a version.
_OLDER = {
    "add": "elementwise_add", "subtract": "elementwise_sub", "multiply": "elementwise_mul", "divide": "elementwise_div",
    "maximum": "elementwise_max", "minimum": "elementwise_min", "remainder": "elementwise_mod", "arange": "range",
    "argmax": "arg_max", "argmin": "arg_min", "flatten": "flatten_contiguous_range", "grid_sample": "grid_sampler",
    "hardsigmoid": "hard_sigmoid", "hardswish": "hard_swish", "topk": "top_k_v2", "numel": "size",
    "floor_divide": "elementwise_floordiv", "nonzero": "where_index",
}  # fmt: skip

_BLOCKS = ("pd_op.if", "pd_op.while")  # converted, though not listed


def not_listed(program: Path, listed: Iterable[str]) -> list[str]:
    """Return the operators of a program that are not among those which paddle2onnx lists, under no name of theirs."""
    listed = set(listed)
    computing = {one.name for one in paddle_program.operations(program)} - {*paddle_program.BOOKKEEPING, *_BLOCKS}
    found = []
    for name in sorted(computing):
        plain = name.rpartition(".")[2].rstrip("_")
        if name.startswith("pd_op.") and not listed & {
            plain, f"{plain}_", f"{plain}2", f"{plain}_v2", f"reduce_{plain}", f"elementwise_{plain}", _OLDER.get(plain)
        }:  # fmt: skip
            found.append(name)
    return found


def of_log(log: str, status: int, program: Path) -> CourseError:
    """Return the error for a conversion that failed, from all that its process printed and its exit status."""
    if status == -signal.SIGKILL:  # what it printed before says nothing of that
        return ExportError(
            f"paddle2onnx was killed (SIGKILL) while it converted {program.name}: as a rule, memory ran out.",
            "Close other programs, or raise the memory limit of the container; `python -m tutorial_utils doctor` shows "
            "how much is free.",
        )
    lines = [re.sub(r"\x1b\[[\d;]*m|\[Paddle2ONNX\]", "", line).strip() for line in log.splitlines()]
    lines = [line for line in lines if line] or ["no message"]
    found = (re.search(pattern, line) for pattern in _REASONS for line in lines)
    reason = re.sub(r"^\[ERROR\]\s*", "", next((match[0] for match in found if match), lines[-1])).rstrip(".")
    if "unsupported operators" in reason:
        names = re.findall(re.escape(NOT_LISTED) + "(.+)", log)
        return UnsupportedOperatorError(
            f"paddle2onnx can't convert {names[0] if names else 'an operator'} of {program.name}.",
            "Write it with other operators, or keep that part of the model in Paddle.",
        )
    ended = f"ended by {child_process.ending(status)}" if status < 0 else f"exit status {status}"
    matches = ((re.search(pattern, reason), remedy) for pattern, remedy in _REMEDIES.items())
    remedy = next((match.expand(text) for match, text in matches if match), "")
    kind = UnsupportedOperatorError if reason.startswith("[OP:") else ExportError
    return kind(
        f"paddle2onnx can't convert {program.name} ({ended}): {reason}.",
        remedy or "Save the model again with the installed Paddle, or export parts of it to find the operator.",
    )


def hint(program: Path) -> str:
    """Return what may be wrong where an output differs: the remedies for operators that are not always right."""
    found = {}
    for one in paddle_program.operations(program):
        applies, text = _HINTS.get(one.name.removeprefix("pd_op."), (lambda given: False, ""))
        if applies(one.attributes):
            found[text] = None
    return " ".join(found)
