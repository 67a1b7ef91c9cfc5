"""Every error that the package raises on purpose: what went wrong, what to do about it, and where to read more."""

import re


class CourseError(Exception):
    """Base of the package's errors. Each class has a row of its name in TROUBLESHOOTING.md, where its message leads.

    The cause is a sentence: what was given or found, and why it can't be used. The remedy says what to do about it.
    Where the cause quotes a library's sentence with its full stop, there is no second one.
    """

    def __init__(self, cause: str, remedy: str):
        cause = re.sub(r"(?<!\.)([.!?])\.(?=\s|$)", r"\1", cause)
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.cause} Remedy: {self.remedy} See TROUBLESHOOTING.md#{type(self).__name__.lower()}."


def first_line(error: Exception) -> str:
    """Return what another library's exception says first, without a full stop; where that is nothing, its class."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return text.partition("returned while running ")[2] or text  # ONNX Runtime's codes stand before


class BackendUnavailableError(CourseError):
    """This machine can't run what was asked for: a library, a driver or a GPU is missing or doesn't fit."""


class DataError(CourseError):
    """A dataset or weights could not be had: unknown name, damaged file, weights of another network."""


class ModelFileError(CourseError):
    """A model file is missing, cut short or not what its name says."""


class UnsupportedOperatorError(CourseError):
    """The model holds an operator that paddle2onnx or TensorRT can't convert, or ONNX Runtime can't run."""


class ExportError(CourseError):
    """Paddle's model could not be converted to ONNX, or the result doesn't agree with it."""


class PrecisionError(CourseError):
    """An unknown precision, or one that the model or the target can't have."""


class CalibrationError(CourseError):
    """INT8 calibration has no images, or images that don't fit the model."""


class ProfileError(CourseError):
    """An optimization profile is inconsistent or doesn't fit the model's inputs."""


class BuildError(CourseError):
    """TensorRT refused to build the engine. The cause ends with TensorRT's own last messages."""


class TargetError(BuildError):
    """A GPU that TensorRT can't build for."""


class CacheError(CourseError):
    """The engine cache can't be read or written."""


class PlanError(CourseError):
    """A serialized engine (plan) can't be loaded: cut short, altered, or made for another TensorRT or GPU."""


class InputError(CourseError):
    """What was handed to a runner doesn't fit the model: a name, data type, rank or dimension."""


class RecordingError(CourseError):
    """A recording is missing, or lacks the stamp that says where its numbers come from."""


class LessonError(CourseError):
    """A lesson failed to run, or a notebook is not in the form in which notebooks are committed."""
