"""What exercise 01e.1 is checked with: an engine with one more output, judged by which tensors its plan gives."""

import functools
from collections.abc import Iterable
from typing import Any

from tutorial_utils.base import paths
from tutorial_utils.engine import report
from tutorial_utils.lessons.checking import DATA, Case, Mistake
from tutorial_utils.lessons.lesson01.exercises_model import small_classifier
from tutorial_utils.model import onnx_file

_GOOD = "an engine that gives its own outputs and the tensor that was asked for, and no other"
_SILENT = "a plan, and a log that doesn't describe its kernels"
_WITHOUT_OWN = "an engine that lacks an output of the file"
_WITHOUT_TENSOR = "an engine that doesn't give the tensor"
_ANOTHER_TENSOR = "an engine that gives another tensor"
_MORE = "an engine that gives further tensors"
_MISTAKES = (
    Mistake(
        _SILENT,
        "Your log doesn't say which kernels the plan holds. Before the build, set the configuration's "
        "`profiling_verbosity` to DETAILED, and give builder, network and parser the log that you return.",
    ),
    Mistake(_WITHOUT_OWN, "Your engine lacks an output that the file has. Mark the tensor, and leave the others."),
    Mistake(
        _WITHOUT_TENSOR,
        "Your engine gives what it gave before: the tensor stays inside of a kernel. Which call of the network makes a "
        "tensor an output?",
    ),
    Mistake(
        _ANOTHER_TENSOR,
        "Your engine gives another tensor than that which was asked for. Compare the names of tensors: a layer's name "
        "is that of the ONNX node, and a tensor has one of its own.",
    ),
    Mistake(
        _MORE,
        "Your engine gives the tensor, and others that nobody asked for. Each of them has to be written to memory and "
        "can cost a fusion.",
    ),
)


def engine_with_output() -> list[Case]:
    """Return the cases of 01e.1, ``engine_with_output(onnx_path, tensor)``: build an engine that gives it, too."""
    path = str(onnx_file.save(small_classifier(), paths.cache_dir("lesson01") / "check-outputs.onnx"))
    return [
        _case(path, "norm0", "a tensor between a batch norm and its ReLU"),
        _case(path, "conv1", "a tensor between a convolution and its batch norm"),
    ]


def on_data(onnx_path: str, tensor: str) -> Case:
    """Return the case of the lesson's data."""
    return _case(onnx_path, tensor, DATA)


def _case(onnx_path: str, tensor: str, what: str) -> Case:
    return Case((onnx_path, tensor), _GOOD, what, _MISTAKES, judged=functools.partial(_verdict, onnx_path, tensor))


def _verdict(onnx_path: str, tensor: str, returned: Any) -> str:
    """Say which tensors an engine gives, beside those that it should."""
    from tutorial_utils.engine.tensorrt import MessageLog

    if not (isinstance(returned, (tuple, list)) and len(returned) == 2 and isinstance(returned[1], MessageLog)):
        return f"{type(returned).__name__} and not a plan and a MessageLog"
    plan, log = returned
    if plan is None:
        return f"no plan (TensorRT says: {log.last_errors(1)})"
    model = onnx_file.load(onnx_path)
    given = _outputs(bytes(plan), log.texts(), {name for node in model.graph.node for name in node.output})
    own = {value.name for value in model.graph.output}
    if not given:
        return _SILENT
    if not given >= own:
        return _WITHOUT_OWN
    if tensor not in given:
        return _ANOTHER_TENSOR if given > own else _WITHOUT_TENSOR
    return _MORE if given > {*own, tensor} else _GOOD


def _outputs(plan: bytes, messages: list[str], names: Iterable[str]) -> set[str]:
    """Return which of these tensors an engine gives. Without a GPU no plan can be loaded, and the log has to tell.

    In TensorRT-RTX's log the tensors between two kernels have other names than those of the file.
    """
    from tutorial_utils.engine.tensorrt import IS_RTX, MessageLog, load_plan, trt

    if IS_RTX:
        kernels = (layer for layer in report.layers_from_log(messages) if layer.is_kernel)
        return {tensor.name for kernel in kernels for tensor in kernel.outputs}.intersection(names)
    engine = load_plan(plan, MessageLog())
    found = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
    return {name for name in found if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT}
