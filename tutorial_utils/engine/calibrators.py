"""INT8 calibrators of data-centre TensorRT up to 10: images in, a table with one scale for each tensor out.

::

    calibrator = EntropyCalibrator("model.onnx", {"x": images}, batch_size=32, cache_file="model.calibration")

    def configure(network, config):
        config.int8_calibrator = calibrator

    build("model.onnx", BuildOptions([profile], strongly_typed=False, flags=("int8", "fp16")), configure=configure)

TensorRT deprecated them in 10.1, and 11 and TensorRT-RTX have none: there scales stand in the ONNX file
(`model.quantization`). A table holds names of tensors and nothing of the model that it was made for. So a record is
kept beside it, and a table of another model, other images or another TensorRT is refused.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import onnx
from onnx import helper

from tutorial_utils.base import paths, shapes
from tutorial_utils.base.errors import BackendUnavailableError, CalibrationError, CourseError, first_line
from tutorial_utils.engine.builder_flags import weak_typing_refused
from tutorial_utils.engine.cache import model_hash
from tutorial_utils.engine.tensorrt import trt
from tutorial_utils.model import onnx_file

_ENTROPY: Any = getattr(trt, "IInt8EntropyCalibrator2", object)  # missing in 11 and RTX: refused when it is used
_MIN_MAX: Any = getattr(trt, "IInt8MinMaxCalibrator", object)


class Calibrator:
    """What both calibrators share: images by batches on the GPU, and the table's file.

    Args:
        onnx_path: The model that is calibrated.
        images: One array for each input by its name, in the input's type, shape [N, ...]: some hundred samples,
            preprocessed as for inference.
        batch_size: Samples that TensorRT takes at a time, and so the batch at which it calibrates, whatever the
            profile's best is. Images that don't fill a last batch are left out, with a warning.
        cache_file: Where the table is kept, and read instead of calibrating again; "<cache_file>.json" is its record.

    Raises:
        CalibrationError: The images don't fit the model's inputs, aren't finite or don't fill a batch; or the file
            holds no whole table of this model, these images and this TensorRT.
        ModelFileError: The model can't be read.
        PrecisionError: This TensorRT doesn't calibrate.
    """

    algorithm = ""  # as tables name it

    def __init__(
        self,
        onnx_path: str | Path,
        images: Mapping[str, np.ndarray],
        batch_size: int,
        *,
        cache_file: str | Path | None = None,
    ):
        if not hasattr(trt, "IInt8Calibrator"):
            raise weak_typing_refused("calibrators")
        super().__init__()  # TensorRT's part
        self._images = _checked_images(Path(onnx_path), images, batch_size)
        self.batch_size = batch_size
        self.cache_file = None if cache_file is None else Path(cache_file)
        self._record_file = Path(f"{cache_file}.json")
        self.failure: CourseError | None = None  # of a batch: TensorRT lets no exception through
        self._position = 0
        self._context: Any = None  # with memory in it, while TensorRT calibrates
        self._device: dict[str, Any] = {}
        self.model = model_hash(Path(onnx_path))  # the build compares it with the model that it is given
        self._record = {
            "model": self.model,
            "images": _hash(self._images),
            "batch_size": batch_size,
            "tensorrt": trt.__version__,
            "algorithm": self.algorithm,
        }
        self._table = self._read_table()

    @property
    def batch_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of a batch of each input by name."""
        return {name: (self.batch_size, *array.shape[1:]) for name, array in self._images.items()}

    def get_batch_size(self) -> int:
        """Return the number of samples in a batch (called by TensorRT)."""
        return self.batch_size

    def get_batch(self, names: list[str]) -> list[int] | None:
        """Copy the next batch to the GPU and return its addresses, or None after the last (called by TensorRT)."""
        try:
            return self._next_batch(names)
        except Exception as error:
            self.failure = BackendUnavailableError(
                f"The calibration images can't be copied to the GPU: {first_line(error)}.",
                "Calibration needs PyCUDA and memory for one batch; `python -m tutorial_utils doctor` says more.",
            )
            return None

    def _next_batch(self, names: list[str]) -> list[int] | None:
        import pycuda.driver as cuda

        end = self._position + self.batch_size
        batch = {name: array[self._position : end] for name, array in self._images.items()}
        if self._context is None:
            cuda.init()
            self._context = cuda.Device(0).retain_primary_context()  # TensorRT builds in it, too
        self._context.push()
        try:
            if not all(len(array) == self.batch_size for array in batch.values()):
                self._device.clear()
                return None
            for name, array in batch.items():
                if name not in self._device:
                    self._device[name] = cuda.mem_alloc(array.nbytes)
                cuda.memcpy_htod(self._device[name], np.ascontiguousarray(array))
        finally:
            cuda.Context.pop()
        self._position += self.batch_size
        return [int(self._device[name]) for name in names]

    def read_calibration_cache(self) -> bytes | None:
        """Return the table of an earlier calibration, or None to calibrate (called by TensorRT)."""
        self._position, self.failure = 0, None
        return self._table

    def write_calibration_cache(self, cache: Any) -> None:
        """Keep the table (called by TensorRT)."""
        self._table = bytes(cache)
        if self.cache_file is None:
            return
        record = self._record | {"table": blake3.blake3(self._table).hexdigest()}
        try:
            self._record_file.unlink(missing_ok=True)  # until it is there again, the table counts as unknown
            with paths.replacing(self.cache_file) as temporary:
                temporary.write_bytes(self._table)
            with paths.replacing(self._record_file) as temporary:
                temporary.write_text(json.dumps(record, indent=1))
        except OSError as error:
            warnings.warn(f"The calibration table {self.cache_file} can't be written: {error}.", stacklevel=2)

    def _read_table(self) -> bytes | None:
        if self.cache_file is None or not self.cache_file.exists():
            return None
        try:
            table = self.cache_file.read_bytes()
        except OSError as error:
            raise _refused(self.cache_file, f"can't be read: {error.strerror or error}") from error
        try:
            record = json.loads(self._record_file.read_bytes())
        except (OSError, ValueError):
            record = None
        if reason := _wrong_with(table, record, self._record):
            raise _refused(self.cache_file, reason)
        return table


class EntropyCalibrator(Calibrator, _ENTROPY):
    """Chooses the scale of each tensor that keeps most of the information in its histogram. See `Calibrator`."""

    algorithm = "EntropyCalibration2"


class MinMaxCalibrator(Calibrator, _MIN_MAX):
    """Takes the largest magnitude of each tensor as the end of its range. See `Calibrator`."""

    algorithm = "MinMaxCalibration"


def _wrong_with(table: bytes, record: Any, wanted: Mapping[str, Any]) -> str:
    """Return why a table isn't used, or "" for one that is right."""
    if not isinstance(record, dict) or not record:
        return "has no record of its own beside it, so it can't be told what it was made for"
    if blake3.blake3(table).hexdigest() != record.get("table"):
        return "was cut short or altered: its checksum is wrong"
    for name, made in (("tensorrt", "by TensorRT"), ("algorithm", "by"), ("batch_size", "with batches of")):
        if record.get(name) != wanted[name]:
            return f"was made {made} {record.get(name)}, not {wanted[name]}"
    if record.get("model") != wanted["model"]:
        return "was made for another model: its names may be the same, its ranges are not"
    return "" if record.get("images") == wanted["images"] else "was made with other images"


def _refused(path: Path, reason: str) -> CalibrationError:
    return CalibrationError(
        f"The calibration table {path.name} {reason}.", "Delete it to calibrate again, or give another cache_file."
    )


def _checked_images(onnx_path: Path, images: Mapping[str, np.ndarray], batch_size: int) -> dict[str, np.ndarray]:
    """Return the images by input name, if they fit the model and fill a batch."""
    if type(batch_size) is not int:
        raise CalibrationError(f"The batch_size is {batch_size!r}.", "Give an int.")
    if not isinstance(images, Mapping) or not all(isinstance(array, np.ndarray) for array in images.values()):
        raise CalibrationError(
            "The calibration images are no NumPy arrays by input name.", 'Pass a dictionary such as {"x": images}.'
        )
    inputs = {value.name: value for value in onnx_file.inputs(onnx_file.load(onnx_path, external_data=False).graph)}
    if images.keys() != inputs.keys():
        raise CalibrationError(
            f"The calibration arrays are named {', '.join(images) or 'nothing'}, and the model's inputs "
            f"{', '.join(inputs)}.",
            "Give one array for each input, by its name.",
        )
    for name, array in images.items():
        _check(name, array, inputs[name].type.tensor_type, batch_size)
    counts = {name: len(array) for name, array in images.items()}
    if len(set(counts.values())) > 1:
        raise CalibrationError(
            f"The calibration arrays differ in length: {', '.join(f'{n} of {name}' for name, n in counts.items())}.",
            "Give as many samples for each input.",
        )
    count = min(counts.values())
    if batch_size < 1 or count < batch_size:
        raise CalibrationError(
            f"{count} calibration images don't fill one batch of {batch_size}, so TensorRT would see none of them.",
            "Pass some hundred images, or a smaller batch_size.",
        )
    if rest := count % batch_size:
        warnings.warn(f"The last {rest} of {count} images don't fill a batch of {batch_size}: left out.", stacklevel=3)
    return dict(images)


def _check(name: str, array: np.ndarray, declared: onnx.TypeProto.Tensor, batch_size: int) -> None:
    shape = [dim.dim_value for dim in declared.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(declared.elem_type)
    batch = (batch_size, *array.shape[1:])
    if array.dtype != dtype or not shapes.fits(batch, shape):
        wanted = ", ".join(str(size if size > 0 else "any") for size in shape)
        raise CalibrationError(
            f"Batches of {batch_size} of the calibration images ({array.dtype}, shape {array.shape}) don't fit the "
            f"input {name} ({dtype}, shape [{wanted}]).",
            "Preprocess them exactly as for inference.",
        )
    if dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        bad = int((~finite).reshape(len(array), -1).any(axis=1).sum())
        raise CalibrationError(
            f"{bad} of {len(array)} calibration images for {name} hold NaN or infinity, which no range can contain.",
            "Look at how they are made: a division by a standard deviation of 0, or a damaged file.",
        )


def _hash(arrays: Mapping[str, np.ndarray]) -> str:
    hasher = blake3.blake3()
    for name, array in sorted(arrays.items()):
        hasher.update(f"{name} {array.shape} {array.dtype} ".encode())
        hasher.update(np.ascontiguousarray(array).view(np.uint8).data)
    return hasher.hexdigest()
