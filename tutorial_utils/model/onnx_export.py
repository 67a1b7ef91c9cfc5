"""Static Paddle model to ONNX, and from FP32 ONNX to its FP16 and INT8 variants.

TensorRT networks are strongly typed: the ONNX file decides which layer runs in which precision. So a precision is made
here, in the file, where ONNX Runtime can run it and Polygraphy can look at it, and not by a flag of the builder.
"""

import contextlib
import io
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx

from tutorial_utils.base import errors, onnx_session, paths
from tutorial_utils.base.errors import (
    CalibrationError,
    ExportError,
    ModelFileError,
    PrecisionError,
    UnsupportedOperatorError,
)

Precision = Literal["fp32", "fp16", "int8"]
CalibrationMethod = Literal["minmax", "entropy", "percentile"]

OPSET = 17
# Paddle and ONNX Runtime both compute in FP32, in another order: their outputs differ by rounding only.
EXPORT_TOLERANCE = 1e-4
WORKER_COURSE_ERROR = 3  # exit status of paddle2onnx_worker: the last line of stderr is an error of the course, as JSON
# glibc is to keep freed memory for the next copy of the weights, instead of asking the kernel for pages each time: a
# sixth of the time for ResNet-50, at the same peak. Other C libraries ignore the variables.
_KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
_LARGEST_FP16 = 65504.0
_FLOAT, _FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
# Operators whose inputs are quantized: those that TensorRT has INT8 tensor-core kernels for.
_QUANTIZED_OPERATORS = ["Conv", "Gemm", "MatMul"]


def export(
    model_path: str | Path, params_path: str | Path, onnx_path: str | Path, *, opset: int = OPSET, verify: bool = True
) -> Path:
    """Convert a static Paddle model to FP32 ONNX.

    The names of inputs and outputs stay as in the Paddle model, and a dynamic first dimension is called "batch".

    Args:
        model_path: The program that `paddle.jit.save` wrote (``.json``, or ``.pdmodel``).
        params_path: Its weights (``.pdiparams``).
        onnx_path: Where to write the model.
        opset: ONNX opset; 17 is the newest that all libraries of the course handle.
        verify: Compare ONNX Runtime's outputs with Paddle's on a random input.

    Returns:
        ``onnx_path``.

    Raises:
        ModelFileError: A file of the Paddle model is missing, or damaged.
        UnsupportedOperatorError: paddle2onnx can't convert an operator of the model.
        ExportError: The conversion failed in another way, or its result disagrees with Paddle.
    """
    model_path, params_path, onnx_path = Path(model_path), Path(params_path), Path(onnx_path)
    for path in (model_path, params_path):
        if not path.is_file() or path.stat().st_size == 0:
            raise ModelFileError(f"The Paddle model file {path} is missing or empty.", "Save the model again.")
    with _writing(onnx_path) as temporary:
        samples_path = temporary.with_name("samples.npz")
        _run_worker(model_path, params_path, temporary, opset, samples_path if verify else None)
        if verify:
            _compare_with_paddle(temporary, samples_path)
    return onnx_path


def _run_worker(model: Path, params: Path, onnx_path: Path, opset: int, samples: Path | None) -> None:
    """Let `paddle2onnx_worker` write the model and the samples, and raise what kept it from that."""
    root = str(Path(__file__).resolve().parents[2])
    arguments = [model, params, onnx_path, opset, *([samples] if samples else [])]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tutorial_utils.model.paddle2onnx_worker", *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, **_KEEP_MEMORY, "PYTHONPATH": os.pathsep.join([root, *sys.path]), "GLOG_minloglevel": "3"},
    )
    if done.returncode == 0:
        return
    if done.returncode == WORKER_COURSE_ERROR:
        name, cause, remedy = json.loads(done.stderr.splitlines()[-1])
        raise getattr(errors, name)(cause, remedy)
    log = done.stdout + done.stderr
    if "unsupported operators" in log or "is not supported" in log:
        operators = sorted(set(re.findall(r"(pd_op\.\w+)", log)))
        raise UnsupportedOperatorError(
            f"paddle2onnx can't convert {', '.join(operators) or 'an operator'} of {model.name}.",
            "Replace the operator in the model, or keep that part in Paddle (paddle2onnx lists what it supports).",
        )
    lines = [line.strip().rstrip(".") for line in log.splitlines() if line.strip()]
    raise ExportError(
        f"paddle2onnx failed on {model.name} (exit status {done.returncode}): {lines[-1] if lines else 'no message'}.",
        "Check that both files come from one `paddle.jit.save` of Paddle 3.",
    )


def _compare_with_paddle(onnx_path: Path, samples_path: Path) -> None:
    session = onnx_session.new_session(onnx_path)
    with np.load(samples_path) as samples:
        feeds = {key.removeprefix("in:"): samples[key] for key in samples.files if key.startswith("in:")}
        expected = [samples[f"out:{i}"] for i in range(len(samples.files) - len(feeds))]
    for output, actual, wanted in zip(session.get_outputs(), session.run(None, feeds), expected, strict=True):
        error = np.abs(actual - wanted).max() / max(np.abs(wanted).max(), np.finfo(np.float32).tiny)
        if not error <= EXPORT_TOLERANCE:  # also catches NaN
            raise ExportError(
                f"{output.name} of {onnx_path.name} differs from Paddle's output by {error:.1e} of its largest value.",
                f"Up to {EXPORT_TOLERANCE:.0e} is rounding; more is a conversion fault: try another opset.",
            )


def to_precision(
    onnx_path: str | Path, precision: Precision, target_path: str | Path, images: np.ndarray | None = None
) -> Path:
    """Write the variant of an FP32 ONNX model in one precision. See `to_fp16` and `to_int8`.

    Raises:
        PrecisionError: The precision is unknown.
    """
    if precision == "fp32":
        return save(load(onnx_path), target_path)
    if precision == "fp16":
        return to_fp16(onnx_path, target_path)
    if precision == "int8":
        return to_int8(onnx_path, target_path, images)
    raise PrecisionError(f"There is no precision {precision!r}.", f"Choose one of {', '.join(get_args(Precision))}.")


def to_fp16(onnx_path: str | Path, target_path: str | Path, *, keep_fp32: Iterable[str] = ()) -> Path:
    """Convert weights and activations to FP16. Inputs and outputs stay FP32, so that callers need not change.

    Args:
        onnx_path: The FP32 model.
        target_path: Where to write the FP16 model.
        keep_fp32: Names of nodes that go on computing in FP32, with casts around them: mixed precision.

    Returns:
        ``target_path``.

    Raises:
        ModelFileError: The model is missing or damaged.
        PrecisionError: The model can't be converted, has a weight beyond FP16's largest number, or lacks a node that is
            named in ``keep_fp32``.
    """
    from onnxconverter_common import float16

    model = load(onnx_path)
    _require_fp32(model, Path(onnx_path).name)
    kept = sorted(set(keep_fp32))
    unknown = sorted(set(kept) - {node.name for node in model.graph.node})
    if unknown:
        raise PrecisionError(
            f"{Path(onnx_path).name} has no node {', '.join(unknown[:3])} that could be kept in FP32.",
            "Give names of nodes, not of tensors: node.name for node in model.graph.node.",
        )
    _require_weights_in_range(model, kept, Path(onnx_path).name)
    try:
        with warnings.catch_warnings():
            # Weights below FP16's smallest number are rounded to it, with a warning for each: lesson 01 counts them.
            warnings.filterwarnings("ignore", message="the float32 number")
            converted = float16.convert_float_to_float16(
                model,
                max_finite_val=_LARGEST_FP16,  # its default is 10,000, to which it cuts larger weights without a word
                keep_io_types=True,
                node_block_list=kept,
            )
        if kept:
            _join_fp32_neighbours(converted)
    except Exception as error:
        raise PrecisionError(
            f"{Path(onnx_path).name} can't be converted to FP16: {error}.",
            "Convert the original FP32 model, not one that was converted or quantized before.",
        ) from error
    return save(converted, target_path)


def _require_weights_in_range(model: onnx.ModelProto, kept: list[str], name: str) -> None:
    converted = {tensor for node in model.graph.node if node.name not in kept for tensor in node.input}
    weights = {weight.name: weight for weight in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            weights[node.output[0]] = node.attribute[0].t
    for weight_name, weight in weights.items():
        if weight.data_type == _FLOAT and weight_name in converted:
            largest = float(np.abs(onnx.numpy_helper.to_array(weight)).max(initial=0))
            if largest > _LARGEST_FP16:
                raise PrecisionError(
                    f"The weight {weight_name} of {name} reaches {largest:,.0f}, and FP16 ends at 65,504.",
                    "Fold batch norms into their convolutions, or keep the weight's node in FP32 (keep_fp32).",
                )


def _join_fp32_neighbours(model: onnx.ModelProto) -> None:
    """Let neighbours that stay in FP32 hand each other FP32.

    The converter casts what each of them writes to FP16, and back to FP32 for the next. What is too large for FP16
    would overflow between the very nodes that were kept from it.
    """
    graph = model.graph
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    fp32 = {value.name for value in (*graph.input, *graph.value_info) if value.type.tensor_type.elem_type == _FLOAT}
    same = {}  # a tensor that went through FP16, and the one that it was before
    for name, node in casts.items():
        before = casts.get(node.input[0])
        if before and _target(before) == _FLOAT16 and _target(node) == _FLOAT and before.input[0] in fp32:
            node.input[0] = same[name] = before.input[0]
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for name, node in casts.items():
        if name not in used:
            graph.node.remove(node)


def _target(cast: onnx.NodeProto) -> int:
    return cast.attribute[0].i  # "to" is the one attribute of Cast before opset 19


def to_int8(
    onnx_path: str | Path,
    target_path: str | Path,
    images: np.ndarray | None,
    *,
    method: CalibrationMethod = "minmax",
    per_channel: bool = True,
    batch_size: int = 64,
) -> Path:
    """Quantize the inputs and weights of convolutions and matrix products to INT8, with ranges from real images.

    The result holds QuantizeLinear and DequantizeLinear nodes (Q/DQ), in the form that TensorRT accepts: symmetric, so
    without zero points; weights per output channel; biases not quantized; activations quantized at the inputs of a
    layer only, so that TensorRT can fuse what follows the layer.

    Args:
        onnx_path: The FP32 model. It has one input.
        target_path: Where to write the quantized model.
        images: Calibration images, float32, shape ``[N, ...]`` as the model's input.
        method: How ranges are chosen from the values seen.
        per_channel: One scale for each output channel of a weight, instead of one for the whole weight.
        batch_size: The most images in one calibration step; a model with a static batch takes its own.

    Returns:
        ``target_path``.

    Raises:
        CalibrationError: There are no images, they don't fit the model's input, or the method is unknown.
        ModelFileError: The model is missing or damaged.
        PrecisionError: The model can't be quantized.
    """
    if method not in get_args(CalibrationMethod):
        known = ", ".join(get_args(CalibrationMethod))
        raise CalibrationError(f"There is no calibration method {method!r}.", f"Choose one of {known}.")
    model = load(onnx_path)
    name, static_batch = _check_calibration_images(model, images)
    _require_fp32(model, Path(onnx_path).name)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        try:
            reader = _ImageReader(name, images, static_batch or _even_batch(len(images), batch_size))
            result = _quantize(Path(onnx_path), Path(folder), reader, method, per_channel)
        except Exception as error:
            raise PrecisionError(
                f"{Path(onnx_path).name} can't be quantized: {error}.",
                "Quantize the original FP32 model, of opset 13 or later.",
            ) from error
    return save(result, target_path)


def _require_fp32(model: onnx.ModelProto, name: str) -> None:
    quantized = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if quantized or any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in model.graph.initializer):
        was = "quantized" if quantized else "converted to FP16"
        raise PrecisionError(f"{name} is {was} already.", "Start from the original FP32 model.")


def _quantize(
    onnx_path: Path, folder: Path, reader: "_ImageReader", method: CalibrationMethod, per_channel: bool
) -> onnx.ModelProto:
    """Calibrate and quantize with ONNX Runtime's parts.

    Its `quantize_static` is these same steps, but gives entropy calibration 128 bins for 128 levels, so that there is
    only one threshold to choose. The search takes time with the square of the bins: 512 are a compromise.
    """
    from onnxruntime.quantization import CalibrationMethod as Method
    from onnxruntime.quantization import QuantType, create_calibrator
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.shape_inference import quant_pre_process

    methods = {
        "minmax": (Method.MinMax, {}),
        "entropy": (Method.Entropy, {"num_bins": 512, "num_quantized_bins": 128}),
        "percentile": (Method.Percentile, {"num_bins": 2048, "percentile": 99.99}),
    }
    calibrate_method, options = methods[method]
    # Batch norms are folded into convolutions first: a Q/DQ pair between them would keep TensorRT from it.
    folded = folder / "folded.onnx"
    quant_pre_process(str(onnx_path), str(folded), skip_symbolic_shape=True)
    calibrator = create_calibrator(
        folded,
        _QUANTIZED_OPERATORS,
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=calibrate_method,
        extra_options={"symmetric": True, **options},
    )
    calibrator.collect_data(reader)
    quantizer = QDQQuantizer(
        onnx.load(folded),
        per_channel,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=calibrator.compute_data(),
        nodes_to_quantize=[],  # all of the operators below
        nodes_to_exclude=[],
        op_types_to_quantize=_QUANTIZED_OPERATORS,
        extra_options={
            "ActivationSymmetric": True,  # TensorRT refuses zero points other than 0
            "WeightSymmetric": True,
            "QuantizeBias": False,  # TensorRT refuses INT32 inputs of DequantizeLinear
            "OpTypesToExcludeOutputQuantization": _QUANTIZED_OPERATORS,
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def _check_calibration_images(model: onnx.ModelProto, images: np.ndarray | None) -> tuple[str, int]:
    """Return the name of the model's input, and its batch size or 0 for a dynamic one, if the images fit it."""
    value = model.graph.input[0]
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]  # 0 for a dynamic dimension
    if images is None or len(images) == 0:
        raise CalibrationError(
            "INT8 needs calibration images and got none.",
            "Pass some hundred training images, for example data.calibration_images(...).",
        )
    fits = images.ndim == len(shape) and all(
        want in (0, size) for want, size in zip(shape[1:], images.shape[1:], strict=True)
    )
    if fits and shape[0] and len(images) % shape[0]:
        raise CalibrationError(
            f"The input {value.name} takes batches of exactly {shape[0]}, and {len(images)} images don't fill them.",
            f"Pass a multiple of {shape[0]} images.",
        )
    if not fits or images.dtype != np.float32 or not np.isfinite(images).all():
        wanted = ", ".join(str(size or "any") for size in shape)
        raise CalibrationError(
            f"The calibration images ({images.dtype}, shape {images.shape}) don't fit the input {value.name} "
            f"(finite float32, shape [{wanted}]).",
            "Preprocess them exactly as for inference.",
        )
    return value.name, shape[0]


def _even_batch(images: int, most: int) -> int:
    """Return the largest size of equal batches: ONNX Runtime stacks activations in entropy calibration."""
    return max(size for size in range(1, most + 1) if images % size == 0)


class _ImageReader:
    """Hands calibration images to ONNX Runtime batch by batch (its CalibrationDataReader interface)."""

    def __init__(self, name: str, images: np.ndarray, batch_size: int):
        self._batches = iter([{name: batch} for batch in np.split(images, len(images) // batch_size)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what ONNX Runtime's quantizer logs and prints: calls for steps which were taken, and its progress."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def load(onnx_path: str | Path) -> onnx.ModelProto:
    """Read an ONNX model.

    Raises:
        ModelFileError: The file is missing, or is not an ONNX model.
    """
    path = Path(onnx_path)
    if not path.is_file():
        raise ModelFileError(f"There is no model {path}.", "Check the path, or export the model first.")
    try:
        model = onnx.load(path)
    except Exception as error:
        raise ModelFileError(f"{path.name} is not an ONNX model, or was cut short.", "Export it again.") from error
    if not model.graph.node:
        raise ModelFileError(f"{path.name} holds no operators.", "Export it again.")
    return model


def save(model: onnx.ModelProto, onnx_path: str | Path) -> Path:
    """Check a model with `onnx.checker` and write it, replacing an older file only when all went well.

    Raises:
        ExportError: The model is not valid ONNX, or the file can't be written.
    """
    path = Path(onnx_path)
    content = model.SerializeToString()  # once, for the check and the file
    try:
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path.name} would not be valid ONNX: {error}.", "Try another opset.") from error
    with _writing(path) as temporary:
        temporary.write_bytes(content)
    return path


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """Give a temporary path as `paths.replacing` does, for a model in a folder that may not exist yet."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with paths.replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise ExportError(
            f"{path} can't be written: {error.strerror or error}.", "Free some space, or choose a folder of your own."
        ) from error
