"""What exercise 01e.4 is checked with: an INT8 file for TensorRT, judged by its nodes and by its logits."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tutorial_utils.base import onnx_session, paths
from tutorial_utils.base.errors import ModelFileError, first_line
from tutorial_utils.lessons.checking import DATA, Case, Mistake
from tutorial_utils.lessons.lesson01.exercises_model import small_classifier
from tutorial_utils.measure import quality
from tutorial_utils.model import onnx_file, quantization

_GOOD = "an INT8 file in TensorRT's form, with logits as good as calibration can make them"
_LOSS_DB = 3  # below the reference: another method of calibration costs less, one scale per weight or noise more
_INTEGER_OPERATORS = "a file with ONNX Runtime's own integer operators"
_NOT_QUANTIZED = "a file in which nothing is quantized"
_ZERO_POINTS = "a file with zero points"
_BIASES = "a file with quantized biases"
_LAST_LAYER = "a file with another layer in INT8"
_OUTPUTS = "a file with quantized tensors that no convolution reads"
_FP32 = "a file with convolutions in FP32"
_PER_TENSOR = "a file with one scale for a whole weight"
_TOO_WIDE = "a file with ranges that are far too wide"
_CUT_OFF = "a file with ranges that cut off"
_NO_FILE = "a path, and no ONNX file there"
_MISTAKES = {
    _NO_FILE: "There is no ONNX file at the path that you return: let the quantizer write to `target_path`.",
    _INTEGER_OPERATORS: (
        "Your file has integer operators, such as QLinearConv or ConvInteger, which TensorRT refuses. It takes pairs "
        "of `QuantizeLinear` and `DequantizeLinear`: the static quantizer writes them in its format QDQ."
    ),
    _NOT_QUANTIZED: "Your file has no `QuantizeLinear`. Which file did the quantizer write?",
    _ZERO_POINTS: (
        "Your file has other integers than signed ones of 8 bits, or zero points that aren't 0. TensorRT refuses them: "
        "it takes INT8 with symmetric ranges, of activations and of weights."
    ),
    _BIASES: "Your file has biases of INT32. TensorRT refuses to dequantize these: leave biases as they are.",
    _LAST_LAYER: "You quantize the matrix product at the end, too. The task is to leave it in FP32.",
    _OUTPUTS: (
        "You quantize tensors that no convolution reads, such as what goes from a convolution to its ReLU. That rounds "
        "once more than it takes. The task is to quantize what convolutions read."
    ),
    _FP32: "At least one convolution reads FP32, from before or from its weights. All of them can take INT8.",
    _PER_TENSOR: "You give each weight a single scale. The channels of a weight differ: give each its own.",
    _TOO_WIDE: (
        "Your ranges are far wider than the activations, so most levels aren't used. What pixel values was the network "
        "trained with, and what do you feed while calibrating?"
    ),
    _CUT_OFF: (
        "The logits lose too much: your ranges cut off a part of the activations. Did the calibration see all photos, "
        "as the network takes them?"
    ),
}


def to_int8() -> list[Case]:
    """Return the cases of 01e.4, ``to_int8(onnx_path, photos, target_path)``: quantize the convolutions."""
    folder, photos = paths.cache_dir("lesson01"), _photos()
    model, target = folder / "check-int8-from.onnx", folder / "check-int8.onnx"
    return [_case(str(onnx_file.save(small_classifier(), model)), photos, str(target), "a model of three convolutions")]


def on_data(onnx_path: str, photos: np.ndarray, target_path: str) -> Case:
    """Return the case of the lesson's data."""
    return _case(onnx_path, photos, target_path, DATA)


def _case(onnx_path: str, photos: np.ndarray, target_path: str, what: str) -> Case:
    Path(target_path).unlink(missing_ok=True)  # what an earlier answer wrote is no answer
    mistakes = [Mistake(verdict, message) for verdict, message in _MISTAKES.items()]
    judged = functools.partial(_verdict, onnx_path, photos, target_path)
    return Case((onnx_path, photos, target_path), _GOOD, what, mistakes, judged=judged)


def _verdict(onnx_path: str, photos: np.ndarray, target_path: str, returned: Any) -> str:
    """Say what an INT8 file is like: first its form, then what it gives."""
    if str(returned) != target_path:
        return f"{type(returned).__name__} and not `target_path`"
    try:
        model = onnx_file.load(target_path)
    except ModelFileError:
        return _NO_FILE
    fault = next(_faults_of_form(model.graph), None)
    if fault is not None:
        return fault
    images = (photos / 127.5 - 1).astype(np.float32)
    best = _reference(Path(onnx_path), images)
    exact = _logits(onnx_path, images)
    try:
        given = _logits(target_path, images)
    except Exception as error:  # whatever ONNX Runtime raises for a file that somebody else wrote
        return f"a file that ONNX Runtime can't run ({first_line(error)})"
    lost = quality.sqnr_db(_logits(best, images), exact) - quality.sqnr_db(given, exact)
    if lost <= _LOSS_DB:
        return _GOOD
    wanted, found = _scales(onnx_file.load(best)), _scales(model)
    wider = np.median([found[name] / wanted[name] for name in wanted.keys() & found.keys()])
    return _TOO_WIDE if wider > 1 else _CUT_OFF


def _faults_of_form(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield what is wrong with the nodes of a file."""
    operators = {node.op_type for node in graph.node}
    constants = _constants(graph)
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    dequantizers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    others = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    if any(name.startswith(("QLinear", "QGemm", "DynamicQuantize")) or name.endswith("Integer") for name in operators):
        yield _INTEGER_OPERATORS
    if not quantizers:
        yield _NOT_QUANTIZED
    zeros = [constants[node.input[2]] for node in (*quantizers, *dequantizers.values()) if len(node.input) > 2]
    unsigned = any(len(node.input) < 3 for node in quantizers)  # ONNX's default
    if unsigned or any(np.any(zero) or zero.dtype not in (np.int8, np.int32) for zero in zeros):
        yield _ZERO_POINTS
    if any(zero.dtype == np.int32 for zero in zeros):
        yield _BIASES
    if any(dequantizers.keys() & set(node.input) for node in others):
        yield _LAST_LAYER
    read = {name for node in convolutions for name in node.input}
    if not all(read & _readable(node, graph) for node in quantizers):
        yield _OUTPUTS
    if any(not dequantizers.keys() >= set(node.input[:2]) for node in convolutions):
        yield _FP32
    if any(constants[dequantizers[node.input[1]].input[1]].size == 1 for node in convolutions):
        yield _PER_TENSOR


def _readable(quantizer: onnx.NodeProto, graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that stand for what a QuantizeLinear takes in: the outputs of its DequantizeLinear nodes."""
    return {node.output[0] for node in graph.node if quantizer.output[0] in node.input}


def _scales(model: onnx.ModelProto) -> dict[str, float]:
    """Return the scale of each quantized activation."""
    constants = _constants(model.graph)
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    return {node.input[0]: constants[node.input[1]].item() for node in quantizers if node.input[0] not in constants}


def _constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    return {name: onnx_file.array_of(tensor) for name, tensor in onnx_file.constants(graph).items()}


def _reference(onnx_path: Path, images: np.ndarray) -> Path:
    """Quantize the convolutions by the package, min-max and per channel."""
    last = [node.name for node in onnx_file.load(onnx_path).graph.node if node.op_type in ("MatMul", "Gemm")]
    target = paths.cache_dir("lesson01") / f"reference-{onnx_path.name}"
    return quantization.to_int8(onnx_path, target, images, exclude=last)


def _logits(path: str | Path, images: np.ndarray) -> np.ndarray:
    return onnx_session.new_session(path).run(None, {"x": images})[0]


def _photos() -> np.ndarray:
    """Return 64 photos, uint8, ``[64, 3, 32, 32]``, each brighter than the one before."""
    brightness = np.linspace(200, 255, 64).reshape(-1, 1, 1, 1)
    return (np.random.default_rng(0).uniform(0, 1, (64, 3, 32, 32)) * brightness).astype(np.uint8)
