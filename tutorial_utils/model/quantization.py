"""FP32 ONNX to its INT8 and FP8 variants: activations' ranges from calibration with ONNX Runtime, and Q/DQ by `qdq`."""

import contextlib
import io
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, get_args

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import CalibrationError, CourseError, PrecisionError, first_line
from tutorial_utils.model import onnx_file
from tutorial_utils.model.converting import calibration_inputs, qdq
from tutorial_utils.model.converting.calibration_inputs import Arrays, Feed
from tutorial_utils.model.number_formats import FP8, INT8

CalibrationMethod = Literal["minmax", "entropy", "percentile"]
OPERATORS = qdq.OPERATORS  # whose inputs are quantized

FUSED = "/MatMulAddFusion"  # what ONNX Runtime adds to the name of a MatMul that it makes one node with an Add
_INT8_OPSET = 13  # the first in which DequantizeLinear knows scales per channel
_FP8_OPSET = 19  # the first in which QuantizeLinear knows FP8
_IR_VERSION = 7  # of opset 13
_LARGE_ERROR = 0.5  # relative, of the answers: rounding to 8 bits makes a few percent where it does well
# Operators of quantized models, ONNX's and ONNX Runtime's, begin with one of these.
_OF_QUANTIZED = (
    "Quantize",
    "Dequantize",
    "DynamicQuantize",
    "QLinear",
    "QGemm",
    "ConvInteger",
    "MatMulI",
    "MatMulNBits",
)


def to_int8(
    onnx_path: str | Path,
    target_path: str | Path,
    images: Arrays,
    *,
    method: CalibrationMethod = "minmax",
    per_channel: bool = True,
    batch_size: int = 64,
    exclude: Iterable[str] = (),
) -> Path:
    """Quantize the inputs and weights of convolutions and matrix products to INT8, with ranges from real images.

    The result holds QuantizeLinear and DequantizeLinear nodes (Q/DQ), in the form that TensorRT accepts: symmetric, so
    without zero points; weights per output channel; biases not quantized; activations quantized at the inputs of a
    layer only, so that TensorRT can fuse what follows the layer. `coverage` reads what was quantized. A warning
    tells what wasn't and isn't named in ``exclude``, and answers that are far from FP32's.

    Args:
        onnx_path: The FP32 model. An opset below 13 becomes 13.
        target_path: Where to write the quantized model. It is returned.
        images: Calibration images, float32, shape ``[N, ...]`` as the model's input; or arrays by input name, as
            `calibration_inputs.feeds` takes them.
        method: How ranges are chosen from the values seen. All but ``"minmax"`` hold what the layers read and write, of
            all images, in memory at once.
        per_channel: One scale for each output channel of a weight, instead of one for the whole weight.
        batch_size: The most images in one calibration step; a model with a static batch takes its own.
        exclude: Names of nodes that stay in FP32 and read FP32.

    Raises:
        CalibrationError: There are no images, they don't fit the model's inputs, or the method is unknown.
        PrecisionError: The model can't be quantized, or nothing in it; a weight is NaN; or it lacks a node named in
            ``exclude``.
    """
    if method not in get_args(CalibrationMethod):
        known = ", ".join(get_args(CalibrationMethod))
        raise CalibrationError(f"There is no calibration method {method!r}.", f"Choose one of {known}.")
    if type(batch_size) is not int or batch_size < 1:
        raise CalibrationError(f"The batch_size is {batch_size!r}.", "Give the images of one step: an int from 1 on.")
    name = Path(onnx_path).name
    model = onnx_file.load(onnx_path)
    _require_exact(model, name)
    feeds = calibration_inputs.feeds(model, images, batch_size)
    excluded = onnx_file.names_in(exclude)
    onnx_file.require_nodes(excluded, model, name)
    excluded |= {f"{node}{FUSED}" for node in excluded}
    with _own_errors(name):
        exact = _run(model, feeds[0], name)
        model = _prepared(model)
        if _relative_error(_run(model, feeds[0], name), exact) > 1e-3:
            raise PrecisionError(
                f"{name} gives other answers in opset {_INT8_OPSET} with its constants folded.",
                f"Export it with opset {_INT8_OPSET} or later.",
            )
        nodes, left = qdq.choose(model.graph, excluded)
        largest = _largest_magnitudes(model, nodes, feeds, method, name) if nodes else {}
        ranged = largest.keys() | {weight.name for weight in model.graph.initializer}
        left += [(node.op_type, "no finite range was seen") for node in nodes if not ranged.issuperset(node.input[:2])]
        nodes = [node for node in nodes if ranged.issuperset(node.input[:2])]
        found = qdq.Coverage.of(nodes, left)
        if not nodes:
            why = found.left_out() or f"it has no {', '.join(qdq.OPERATORS)}"
            raise PrecisionError(f"Nothing in {name} can be quantized to INT8: {why}.", "Convert it to FP16 or BF16.")
        qdq.quantize(model.graph, nodes, largest, INT8, per_channel=per_channel, exact=excluded)
        error = _relative_error(_run(model, feeds[0], name), exact)
    if error > _LARGE_ERROR:
        warnings.warn(f"INT8 changes the answers of {name} by {error:.0%} on its own calibration images.", stacklevel=2)
    if any(reason not in (qdq.EXCLUDED, qdq.NO_FORM) for _, reason in left):
        warnings.warn(f"{name} is not quantized throughout. {found}.", stacklevel=2)
    found.write(model)
    return onnx_file.save(model, target_path)


def coverage(onnx_path: str | Path) -> qdq.Coverage:
    """Return what `to_int8` or `to_fp8` quantized in a file that it wrote, and what not.

    Raises:
        PrecisionError: Neither of them wrote it.
    """
    found = qdq.Coverage.read(onnx_file.load(onnx_path))
    if found is None:
        raise PrecisionError(
            f"{Path(onnx_path).name} doesn't say what is quantized in it.", "Pass a file that to_int8 or to_fp8 wrote."
        )
    return found


def to_fp8(fp32_path: str | Path, int8_path: str | Path, target_path: str | Path, *, per_channel: bool = False) -> Path:
    """Write the FP8 (E4M3) variant of a model: what is quantized in its INT8 variant, with the other 8-bit type.

    The calibrated range of each activation stays.

    Args:
        fp32_path: The FP32 model, for the weights.
        int8_path: What `to_int8` made of it, for the activations' ranges.
        target_path: Where to write the FP8 model. It is returned.
        per_channel: One scale for each output channel of a weight, instead of one for the whole weight.

    Raises:
        PrecisionError: The second model is not the INT8 variant of the first.
    """
    name = Path(fp32_path).name
    model, int8, found = onnx_file.load(fp32_path), onnx_file.load(int8_path), coverage(int8_path)
    constants = {tensor.name: tensor for tensor in int8.graph.initializer}
    scales = {node.input[0]: constants[node.input[1]] for node in int8.graph.node if node.op_type == "QuantizeLinear"}
    largest = {tensor: INT8.largest * float(numpy_helper.to_array(scale)) for tensor, scale in scales.items()}
    dequantized = {node.output[0] for node in int8.graph.node if node.op_type == "DequantizeLinear"}
    quantized = {node.name for node in int8.graph.node if dequantized.issuperset(node.input[:2])}
    with _own_errors(name):
        model = _with_types(_raised(_prepared(model), _FP8_OPSET))
        exact = {node.name for node in model.graph.node if node.op_type in qdq.OPERATORS} - quantized
        nodes, _ = qdq.choose(model.graph, exact)
        weights = {weight.name for weight in model.graph.initializer if f"{weight.name}_quantized" in constants}
        if not nodes or not all((largest.keys() | weights).issuperset(node.input[:2]) for node in nodes):
            raise PrecisionError(
                f"{Path(int8_path).name} is not the INT8 variant of {name}.",
                "Pass the model and what to_int8 made of it.",
            )
        qdq.quantize(model.graph, nodes, largest, FP8, per_channel=per_channel, exact=exact)
    found.write(model)
    return onnx_file.save(model, target_path)


def _require_exact(model: onnx.ModelProto, name: str) -> None:
    """Raise PrecisionError for a model that isn't FP32, holds NaN, or is too large for protobuf."""
    onnx_file.require_fp32(model, name)
    operators = {node.op_type for graph in onnx_file.graphs(model.graph) for node in graph.node}
    found = sorted(operator for operator in operators if operator.startswith(_OF_QUANTIZED))
    if found:
        raise PrecisionError(f"{name} is quantized already: it has {', '.join(found)}.", "Start from the FP32 model.")
    for tensor_name, tensor in onnx_file.constants(model.graph).items():
        if tensor.data_type == onnx.TensorProto.FLOAT and np.isnan(onnx_file.array_of(tensor)).any():
            raise PrecisionError(
                f"The weight {tensor_name} holds NaN (not a number).", "Export the model again, from intact weights."
            )
    if (size := onnx_file.weight_bytes(model)) > onnx_file.LARGEST:
        raise PrecisionError(
            f"{name} holds {size / 2**30:.1f} GB of weights, and calibration takes 2 GB.", "Convert it to FP16 or BF16."
        )


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with an opset that knows scales per channel, batch norms folded, and the types of all tensors.

    A Q/DQ pair between a convolution and its batch norm would keep TensorRT from folding them. ONNX Runtime folds them,
    and makes constants initializers; a weight that is an input as well would be none to it.
    """
    onnx_file.fix_weights(model)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    return _with_types(onnx_file.folded(_raised(model, _INT8_OPSET)))


def _raised(model: onnx.ModelProto, lowest: int) -> onnx.ModelProto:
    """Return the model with the lowest opset that will do, or a later one that it has."""
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset >= lowest:
        return model
    try:
        return onnx.version_converter.convert_version(model, lowest)
    except Exception as error:
        raise PrecisionError(
            f"8 bits need opset {lowest}, and onnx can't raise opset {opset} to it: {first_line(error)}.",
            f"Export the model with opset {lowest} or later.",
        ) from error


def _with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its tensors' types. ONNX Runtime knows them behind its own operators, and onnx doesn't."""
    model = onnx.shape_inference.infer_shapes(model)
    known = {one.name for one in (*model.graph.input, *model.graph.value_info, *model.graph.initializer)}
    unknown = {name for node in model.graph.node if node.op_type in qdq.OPERATORS for name in node.input[:2]} - known
    for name, shape in onnx_file.float_tensors(model, unknown).items() if unknown else ():
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return model


def _largest_magnitudes(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], feeds: list[Feed], method: CalibrationMethod, name: str
) -> dict[str, float]:
    """Return the largest magnitude that isn't to be cut off, for each activation that has a finite one."""
    if method == "minmax":
        weights = {weight.name for weight in model.graph.initializer}
        read = dict.fromkeys(tensor for node in nodes for tensor in node.input[:2] if tensor not in weights)
        found = _extremes(model, list(read), feeds, name)
    else:
        found = _from_histograms(model, feeds, method, name)
    return {tensor: largest for tensor, largest in found.items() if np.isfinite(largest)}


def _extremes(model: onnx.ModelProto, tensors: list[str], feeds: list[Feed], name: str) -> dict[str, float]:
    """Return the largest magnitude of each tensor.

    It is NaN where all feeds give that. Of one feed with NaN among numbers, ONNX Runtime may give either.

    ONNX Runtime's MinMaxCalibrater finds the same, but looks through all nodes for each tensor: with 4,800 nodes that
    takes minutes, and `debug` asks for ranges again and again.
    """
    extended, wanted = onnx.ModelProto(), set(tensors)
    extended.CopyFrom(model)
    del extended.graph.node[:]
    outputs = {}

    def reduce(written: Iterable[str]) -> None:
        for tensor in wanted.intersection(written):
            outputs[tensor] = [f"{tensor}/{kind}" for kind in ("ReduceMin", "ReduceMax")]
            for one in outputs[tensor]:
                extended.graph.node.append(helper.make_node(one.rpartition("/")[2], [tensor], [one], one))
                extended.graph.output.append(onnx.ValueInfoProto(name=one))

    reduce(value.name for value in model.graph.input)
    for node in model.graph.node:
        extended.graph.node.append(node)
        reduce(node.output)
    session = onnx_session.new_session(extended.SerializeToString(), optimize=False)
    largest = dict.fromkeys(outputs, np.nan)
    for feed in feeds:
        with _input_errors(name):
            seen = iter(session.run([one for pair in outputs.values() for one in pair], feed))
        for tensor in outputs:
            extremes = np.abs([*next(seen).ravel(), *next(seen).ravel(), largest[tensor]])
            largest[tensor] = float(np.fmax.reduce(extremes))  # which passes over NaN
    return largest


def _from_histograms(
    model: onnx.ModelProto, feeds: list[Feed], method: CalibrationMethod, name: str
) -> dict[str, float]:
    """Return what ONNX Runtime chooses as the largest magnitude of each activation.

    It gets 128 bins for 128 levels in entropy calibration, so that there is only one threshold to choose. The search
    takes time with the square of the bins: 512 are a compromise.
    """
    from onnxruntime.quantization import calibrate

    make, options = {
        "entropy": (calibrate.EntropyCalibrater, {"num_bins": 512, "num_quantized_bins": 128}),
        "percentile": (calibrate.PercentileCalibrater, {"num_bins": 2048, "percentile": 99.99}),
    }[method]
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),  # it prints how far it is
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of ranges that aren't finite
        path, augmented = Path(folder, "model.onnx"), Path(folder, "augmented.onnx")
        onnx.save(model, path)
        calibrator = make(path, qdq.OPERATORS, str(augmented), symmetric=True, **options)
        calibrator.augment_graph()
        calibrator.infer_session = onnx_session.new_session(augmented, optimize=False)
        left = iter(feeds)
        with _input_errors(name):
            calibrator.collect_data(SimpleNamespace(get_next=lambda: next(left, None)))
        return {tensor: float(np.max(one.range_value[1])) for tensor, one in calibrator.compute_data().items()}


def _run(model: onnx.ModelProto, feed: Feed, name: str) -> list[np.ndarray]:
    session = onnx_session.new_session(model.SerializeToString())
    with _input_errors(name):
        return session.run(None, feed)


def _relative_error(answers: list[np.ndarray], exact: list[np.ndarray]) -> float:
    """Return the L2 norm of the difference over that of the exact answers, infinite where only these are finite."""
    pairs = [(one, right) for one, right in zip(answers, exact, strict=True) if right.dtype.kind == "f"]
    differences = [
        one[np.isfinite(right)] - right[np.isfinite(right)] for one, right in pairs if one.shape == right.shape
    ]
    norm = np.linalg.norm([np.linalg.norm(one.astype(np.float64)) for one in differences])
    size = np.linalg.norm([np.linalg.norm(right[np.isfinite(right)].astype(np.float64)) for _, right in pairs])
    return float(norm / max(size, 1e-6)) if np.isfinite(norm) else np.inf


@contextlib.contextmanager
def _own_errors(name: str) -> Iterator[None]:
    """Raise other libraries' exceptions, which have no common base class, as PrecisionError."""
    try:
        yield
    except CourseError:
        raise
    except Exception as error:
        raise PrecisionError(
            f"{name} can't be quantized: {first_line(error)}.", "Convert it to FP16 or BF16, or export it again."
        ) from error


@contextlib.contextmanager
def _input_errors(name: str) -> Iterator[None]:
    """Raise what goes wrong while a model runs as CalibrationError."""
    try:
        yield
    except Exception as error:
        raise CalibrationError(
            f"ONNX Runtime can't run {name} on the calibration images: {first_line(error)}.",
            "Pass what the model takes: ids within its vocabulary, sizes that its strides divide.",
        ) from error
