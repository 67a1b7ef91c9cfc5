"""Arrays for calibration, checked against a model's inputs and cut into what it is fed step by step."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from tutorial_utils.base import shapes
from tutorial_utils.base.errors import CalibrationError
from tutorial_utils.model import onnx_file

Arrays = np.ndarray | Mapping[str, np.ndarray] | None
Feed = dict[str, np.ndarray]  # what one run of the model takes, by input name


def feeds(model: onnx.ModelProto, images: Arrays, batch_size: int) -> list[Feed]:
    """Return what the model is fed in each step of a calibration. The steps have equal shapes.

    Args:
        model: The model. Weights that it lists among its inputs need no arrays.
        images: An array for a model with one input, or arrays by input name, each in its input's type. Their shapes are
            those of the inputs, with the samples along the first dimension; arrays of different lengths make one step
            as they are. For inputs whose first dimension isn't the batch, all arrays have one dimension more in
            front, along which the steps lie.
        batch_size: The most samples in one step; a model with a static batch takes its own.

    Raises:
        CalibrationError: There are no samples, or they don't fit the model's inputs.
    """
    inputs = {value.name: value for value in onnx_file.inputs(model.graph)}
    arrays = _by_name(list(inputs), images)
    in_front = [_has_steps_in_front(value, arrays[name]) for name, value in inputs.items()]
    if any(in_front):
        return _one_by_one(arrays, all(in_front))
    lengths = {array.shape[:1] for array in arrays.values()}
    batches = {_shape(value)[0] for value in inputs.values() if _shape(value)} - {0, -1}  # static ones
    count = lengths.pop()[0] if len(lengths) == 1 and lengths != {()} else None
    if count and len(batches) <= 1 and count % max(batches, default=1) == 0:
        # Equal batches, the largest: ONNX Runtime stacks activations in entropy calibration.
        batch = max(batches, default=max(size for size in range(1, batch_size + 1) if count % size == 0))
        return [{name: array[at : at + batch] for name, array in arrays.items()} for at in range(0, count, batch)]
    for name, value in inputs.items():
        if not shapes.fits(arrays[name].shape, _shape(value)):
            size = _shape(value)[0]
            raise CalibrationError(
                f"The input {name} takes batches of exactly {size}, and {len(arrays[name])} images don't fill them.",
                f"Pass a multiple of {size} images.",
            )
    return [dict(arrays)]


def _one_by_one(arrays: Mapping[str, np.ndarray], all_in_front: bool) -> list[Feed]:
    """Return the steps that lie along the first dimension of all arrays."""
    lengths = {array.shape[:1] for array in arrays.values()}
    if len(lengths) > 1 or not all_in_front:
        raise CalibrationError(
            "The calibration arrays don't have the same number of steps in front: "
            f"{', '.join(f'{name} {array.shape}' for name, array in arrays.items())}.",
            "Stack the steps of each input along a new first dimension, with np.stack.",
        )
    return [{name: np.asarray(array[i]) for name, array in arrays.items()} for i in range(lengths.pop()[0])]


def _by_name(names: list[str], images: Arrays) -> Mapping[str, np.ndarray]:
    """Return the arrays by input name, one for each input."""
    if images is not None and not isinstance(images, Mapping):
        images = np.asarray(images)
        if len(names) > 1:
            raise CalibrationError(
                f"The model has {len(names)} inputs ({', '.join(names)}), and one calibration array was given.",
                "Pass a mapping of arrays by input name.",
            )
        images = dict.fromkeys(names, images)
    images = {name: np.asarray(array) for name, array in (images or {}).items()}
    if not images or any(array.shape[:1] == (0,) for array in images.values()):
        raise CalibrationError(
            "INT8 needs calibration images and got none.",
            "Pass some hundred training images, for example data.calibration_images(...).",
        )
    if images.keys() != set(names):
        given = ", ".join(map(str, images))
        raise CalibrationError(
            f"The calibration arrays are named {given}, and the model's inputs {', '.join(names)}.",
            "Give one array for each input, by its name.",
        )
    return dict(images)


def _has_steps_in_front(value: onnx.ValueInfoProto, array: np.ndarray) -> bool:
    """Return whether an array has one dimension more than its input, if it fits it at all."""
    if not value.type.HasField("tensor_type"):
        kind = (value.type.WhichOneof("value") or "value without a type").removesuffix("_type")
        raise CalibrationError(f"The input {value.name} is a {kind}.", "Quantize a model whose inputs are tensors.")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return False
    shape, dtype = _shape(value), helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    in_front = array.ndim == len(shape) + 1 and shapes.fits(array.shape[1:], shape)
    fits = in_front or (array.ndim == len(shape) and shapes.fits(array.shape[1:], shape[1:]))
    if not fits or array.dtype != dtype or (dtype.kind == "f" and not np.isfinite(array).all()):
        wanted = ", ".join(str(size if size > 0 else "any") for size in shape)
        raise CalibrationError(
            f"The calibration images ({array.dtype}, shape {array.shape}) don't fit the input {value.name} "
            f"({'finite ' if dtype.kind == 'f' else ''}{dtype}, shape [{wanted}]).",
            "Preprocess them exactly as for inference.",
        )
    return in_front


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]  # 0, in older files -1, where it is dynamic
