"""Inputs and outputs that an export is verified with: drawn so that Paddle accepts them, and compared afterwards.

`paddle2onnx_worker` draws and runs Paddle, `export` compares: files in between keep Paddle out of the caller's process.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import ExportError, InputError
from tutorial_utils.model import paddle_program

if TYPE_CHECKING:
    import paddle

# Paddle and ONNX Runtime both compute in FP32, in another order: their outputs differ by rounding only.
TOLERANCE = 1e-4
# A value half-way between two INT8 numbers is rounded the other way where FP32 sums differ in their last bit, and the
# layers behind it carry that on. On a scanned page, the quantized ResNet-18 of benchmarks/legacy_models.md differs by
# 0.12 for one such value (19.499999 steps) of 16,384: with that one as Paddle rounds it, by 6e-7. Of 80 random images,
# 58 have no such value and differ by 1e-6 at most, the others by up to 0.06. The limit is twice the most that was seen.
QUANTIZED_TOLERANCE = 0.25
# Rounding turns an argmax or a comparison where two values are as good as equal: in few elements, of many.
TURNED = 1e-3
BATCH = 2  # of a dynamic first dimension: not 1, which would broadcast
# Sizes of the other dynamic dimensions, whether values are only positive, and how large they are, in the order in which
# they are tried. 64 is an image that strides of 32 divide; a short sentence fits a small table of positions. The
# longest, of a recording, is tried only where the others are refused.
ATTEMPTS = ((64, False, 1), (64, True, 1), (16, False, 1), (16, True, 1), (4, False, 1), (64, False, 10))
LONGEST = (1024, False, 1)
# An output that is nowhere larger shows nothing: a sigmoid, exact to 1e-7, that finds no text in noise gives 4e-6.
FAINT = 1e-3
# Inputs of PaddleDetection's detectors that aren't data: how an image was scaled, and how large it is then.
SIZES = {"scale_factor": 1, "im_shape": 64}
BY_HAND = "Give inputs that the model accepts as samples={name: array}, or skip the comparison with verify=False."

NO_HINT = "The conversion is at fault: export parts of the model to find the operator."


def of_paddle(
    predictor: "paddle.inference.Predictor", model: onnx.ModelProto, program: Path, given: dict[str, np.ndarray] | None
) -> dict[str, np.ndarray]:
    """Run Paddle; return inputs as ``in:NAME`` and outputs as ``out:0``, ``out:1``, ...

    Of the random inputs, the first is taken that Paddle accepts and that makes no NaN, and no empty or faint output;
    where there is none, the first that Paddle accepts.

    Args:
        predictor: The Paddle model.
        model: What it was converted to, whose inputs count.
        program: The Paddle model's program.
        given: Inputs by name; None to draw them.

    Raises:
        InputError: Names or data types of the given inputs aren't those of the model.
        ExportError: Paddle refuses the inputs; it says why.
    """
    if given is not None:
        _check(given, model)
    accepted, refusal = None, ""
    for attempt, feeds in enumerate([given] if given is not None else _drawn(model, _rows_of_tables(program))):
        if attempt == len(ATTEMPTS) and accepted:
            break
        try:
            outputs = _run(predictor, feeds)
        except Exception as error:  # Paddle raises RuntimeError, ValueError and its own types here
            refusal = refusal or paddle_program.reason(error)
            continue
        result = {f"in:{name}": value for name, value in feeds.items()}
        result |= {f"out:{index}": value for index, value in enumerate(outputs)}
        accepted = accepted or result
        if all(map(_tells, outputs)):
            return result
    if accepted is None:
        whose = "the samples" if given is not None else "the random inputs that the export is verified with"
        raise ExportError(f"Paddle itself refuses {whose}: {refusal}.", BY_HAND)
    return accepted


def save(samples: Mapping[str, np.ndarray], path: Path) -> None:
    """Write given inputs for `paddle2onnx_worker`.

    Raises:
        InputError: One holds no numbers, or NaN, with which nothing can be compared.
    """
    arrays = {name: np.asarray(value) for name, value in samples.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise InputError(f"The sample {name} is an array of {array.dtype}, not of numbers.", "Give numbers.")
        if np.isnan(array).any():
            raise InputError(
                f"The sample {name} holds NaN, which shows nothing.", "Give values as the model meets them."
            )
    np.savez(path, **arrays)


def _tells(output: np.ndarray) -> bool:
    if output.dtype.kind != "f" or not output.size:
        return bool(output.size)
    return bool(np.isfinite(output).all() and np.abs(output).max() > FAINT)


def _check(given: dict[str, np.ndarray], model: onnx.ModelProto) -> None:
    types = {
        value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        for value in model.graph.input
    }
    brought = {name: value.dtype for name, value in given.items()}
    if brought != types:
        listed = [", ".join(f"{name} ({kind})" for name, kind in some.items()) for some in (brought, types)]
        raise InputError(
            f"The samples are {listed[0] or 'none'}, but the model takes {listed[1]}.",
            "Give one array of that type for each input of the model, under its name.",
        )


def _rows_of_tables(program: Path) -> int:
    """Return a bound for ids: the rows of the smallest embedding, or 2 where there is none."""
    tables = [one.inputs[1][1][0] for one in paddle_program.operations(program) if one.name == "pd_op.embedding"]
    return min((rows for rows in tables if rows > 0), default=2)


def _drawn(model: onnx.ModelProto, rows: int):
    for length, positive, largest in (*ATTEMPTS, LONGEST):
        rng = np.random.default_rng(0)
        feeds = {}
        for value in model.graph.input:
            tensor_type = value.type.tensor_type
            sizes = [dim.dim_value or (length if axis else BATCH) for axis, dim in enumerate(tensor_type.shape.dim)]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor_type.elem_type)
            if value.name in SIZES:
                feeds[value.name] = np.full(sizes, SIZES[value.name], dtype)
            elif dtype.kind == "f":
                drawn = rng.random(sizes) if positive else rng.standard_normal(sizes)
                feeds[value.name] = (largest * drawn).astype(dtype)
            else:  # the second time ids are 0 and 1 only, as those of a mask
                high = 256 if dtype == np.uint8 else 2 if positive or dtype.kind == "b" else rows
                feeds[value.name] = rng.integers(0, high, sizes).astype(dtype)
        yield feeds


def _run(predictor: "paddle.inference.Predictor", feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    for name in predictor.get_input_names():
        predictor.get_input_handle(name).copy_from_cpu(np.ascontiguousarray(feeds[name]))
    predictor.run()
    return [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]


def compare(onnx_path: Path, samples_path: Path, hint: str) -> None:
    """Compare ONNX Runtime's outputs with Paddle's.

    Args:
        onnx_path: The model.
        samples_path: The arrays of `of_paddle`, as ``.npz``.
        hint: What paddle2onnx is known to convert wrong of the model, or nothing.

    Raises:
        ExportError: ONNX Runtime can't run the model, or an output differs by more than rounding.
    """
    with np.load(samples_path) as samples:
        feeds = {key.removeprefix("in:"): samples[key] for key in samples.files if key.startswith("in:")}
        expected = [samples[f"out:{i}"] for i in range(len(samples.files) - len(feeds))]
    remedy = hint or NO_HINT
    try:
        session = onnx_session.new_session(onnx_path)
        actual = session.run(None, feeds)
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        said = " ".join(str(error).split()).rstrip(".")
        raise ExportError(f"ONNX Runtime can't run what paddle2onnx made of the model: {said}.", remedy) from error
    operators = {node.op_type for node in onnx.load(onnx_path, load_external_data=False).graph.node}
    tolerance = QUANTIZED_TOLERANCE if "QuantizeLinear" in operators else TOLERANCE
    for output, found, wanted in zip(session.get_outputs(), map(np.asarray, actual), expected, strict=True):
        if "NonMaxSuppression" in operators and found.shape == wanted.shape and wanted.shape[1:] == (6,):
            # class, score and box of each detection: Paddle lists them by class, the exported model by score
            found, wanted = (rows[np.lexsort(rows.T[1::-1])] for rows in (found, wanted))
        if difference := _difference(found, wanted, tolerance):
            raise ExportError(f"{output.name} of {onnx_path.name} differs from Paddle's output{difference}.", remedy)


def _difference(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> str:
    """Say how two outputs differ, or nothing where they agree but for rounding."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return f": {found.dtype} of shape {found.shape} for {wanted.dtype} of shape {wanted.shape}"
    if wanted.dtype.kind != "f":
        share = np.mean(found != wanted) if wanted.size else 0
        return f" in {share:.2%} of its elements" if share > TURNED else ""
    odd = ~np.isfinite(wanted)
    if not np.array_equal(found[odd], wanted[odd], equal_nan=True):
        return " where that is NaN or infinite"
    largest = np.abs(wanted[~odd]).max(initial=np.finfo(np.float32).tiny)
    error = np.abs(found[~odd] - wanted[~odd]).max(initial=0) / largest
    return "" if error <= tolerance else f" by {error:.1e} of its largest value, of which {tolerance:.0e} is rounding"
