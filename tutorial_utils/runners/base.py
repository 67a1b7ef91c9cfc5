"""The calling convention that all runners share, and the check of inputs before any library sees them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tutorial_utils.base import shapes
from tutorial_utils.base.errors import InputError

Arrays = dict[str, np.ndarray]
T = TypeVar("T")
_MOST_THREADS = 1024


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a model.

    Attributes:
        shape: Its shape, with -1 for a dimension that may vary; None where the backend doesn't tell.
        min_shape, max_shape: Those of the optimization profile; None where every size goes.
        empty: Whether a dimension that may vary may also be 0; where there is a profile, that says it.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...] | None = None
    min_shape: tuple[int, ...] | None = None
    max_shape: tuple[int, ...] | None = None
    empty: bool = False

    def check(self, array: np.ndarray) -> None:
        """Raise InputError for an array that is not of this type and shape: what was given, and what is allowed."""
        if not isinstance(array, np.ndarray) or array.dtype != self.dtype:
            given = array.dtype if isinstance(array, np.ndarray) else f"a {type(array).__name__} and no array"
            raise InputError(
                f"The input {self.name} is {given}, but the model takes {self.dtype}.",
                f"Convert it: np.asarray(values, dtype={'object' if self.dtype == object else f'np.{self.dtype}'}).",
            )
        if self.shape is None:
            return
        fits = shapes.fits(array.shape, self.shape, zero_is_open=False)
        if fits and self.max_shape:
            fits = shapes.in_order(self.min_shape, array.shape, self.max_shape)
        elif fits and not self.empty:
            fits = all(size or not declared for size, declared in zip(array.shape, self.shape, strict=True))
        if not fits:
            raise InputError(
                f"The input {self.name} has the shape {array.shape}, but the model takes {self._allowed()}.",
                "Reshape or split the batch, or build the engine with a wider profile."
                if self.max_shape
                else "Bring the array into that shape.",
            )

    def _allowed(self) -> str:
        if self.max_shape and self.min_shape != self.max_shape:
            return f"{self.min_shape} to {self.max_shape}"
        return "(" + ", ".join("any" if size < 0 else str(size) for size in self.shape) + ")"


def check_threads(threads: int | None) -> None:
    """Raise InputError for a number of threads that no library can have."""
    if threads is not None and (type(threads) is not int or not 1 <= threads <= _MOST_THREADS):
        raise InputError(
            f"{threads!r} threads were asked for.",
            f"Give a number from 1 to {_MOST_THREADS:,}, or None for one per core.",
        )


class Runner(ABC):
    """A model that is ready to run on one backend.

    ::

        with OnnxRuntimeRunner("model.onnx") as runner:
            outputs = runner.infer({"x": batch})

    `infer` returns when the outputs are in host memory; what it takes includes every copy. A runner serves one thread.

    Attributes:
        backend: The backend and device, as tables show it.
        inputs: The model's inputs by name.
        outputs: The model's outputs by name.
    """

    backend: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    _accepted: list[tuple] | None = None  # kinds of arrays that the last call brought

    def infer(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Run the model once on one array for each input, by name; return the outputs by name, as arrays of their own.

        Raises:
            InputError: A name, data type or shape doesn't fit the model.
        """
        self.check(feeds)
        return self._infer(feeds)

    def check(self, feeds: Mapping[str, np.ndarray]) -> None:
        """Raise the error of `infer` for feeds that don't fit. What fitted in the last call is not looked at again."""
        if not isinstance(feeds, Mapping):
            raise InputError(
                f"The inputs given are a {type(feeds).__name__}, and a runner takes arrays by name.",
                f"Pass a dictionary: {{{next(iter(self.inputs), 'x')!r}: array}}.",
            )
        given = [
            (name, type(array), getattr(array, "dtype", None), getattr(array, "shape", None))
            for name, array in feeds.items()
        ]
        if given == self._accepted:
            return
        if feeds.keys() != self.inputs.keys():
            names = ", ".join(map(str, feeds))
            raise InputError(
                f"The inputs given are {names or 'none'}, but the model takes {', '.join(self.inputs)}.",
                "Pass one array for each input of the model, under its name.",
            )
        for name, spec in self.inputs.items():
            spec.check(feeds[name])
        self._accepted = given

    @abstractmethod
    def _infer(self, feeds: Mapping[str, np.ndarray]) -> Arrays: ...

    def close(self) -> None:  # noqa: B027 - most backends free their memory with the object
        """Free what the runner holds. It can't be used afterwards."""

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
