"""A convolution, and what TensorRT's builder found out about it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutorial_utils.engine import computed_types


@dataclass(frozen=True)
class Convolution:
    """One convolution whose output is as large as its input divided by the stride: odd kernel, "same" padding."""

    name: str
    batch: int
    channels_in: int
    channels_out: int
    size: int  # height and width of the image
    kernel: int  # and of the kernel
    stride: int = 1
    groups: int = 1

    @property
    def input(self) -> tuple[int, ...]:
        """Shape of the images."""
        return self.batch, self.channels_in, self.size, self.size

    @property
    def weights(self) -> tuple[int, ...]:
        """Shape of the weights."""
        return self.channels_out, self.channels_in // self.groups, self.kernel, self.kernel

    @property
    def output(self) -> tuple[int, ...]:
        """Shape of the result."""
        return self.batch, self.channels_out, -(-self.size // self.stride), -(-self.size // self.stride)

    @property
    def multiply_adds(self) -> int:
        """Multiplications of the definition, padding included."""
        return math.prod(self.output) * math.prod(self.weights[1:])

    def __str__(self) -> str:
        return (
            f"{self.name}, {self.channels_in} to {self.channels_out} channels, {self.batch} x {self.size}x{self.size}"
        )


@dataclass(frozen=True)
class Tactic:
    """A kernel that the builder timed: its name, the memory formats of what it reads and writes, and milliseconds."""

    name: str
    formats: str
    ms: float

    @property
    def computes_in(self) -> str:
        """The data type that its name says it multiplies in; "" where it says none."""
        return computed_types.of_tactic(self.name) or ""


@dataclass(frozen=True)
class Built:
    """A convolution in one precision.

    Attributes:
        convolution: The convolution.
        times: Milliseconds of all tactics that were timed, by the type that they multiply in ("" where none is known).
        named: The fastest tactic, the slowest, and the one that the engine has, if it was timed.
        chosen: Names of the kernels that the engine computes it with, by TensorRT's inspector.
        computed: The data types that these compute in.
        engine_ms: A call of the engine, with the layers that change formats.
    """

    convolution: Convolution
    times: dict[str, tuple[float, ...]]
    named: tuple[Tactic, ...]
    chosen: tuple[str, ...]
    computed: tuple[str, ...]
    engine_ms: float

    @classmethod
    def of(cls, convolution: Convolution, values: Mapping[str, Any]) -> "Built":
        """Read the values of a recording."""
        lists = {name: tuple(values[name]) for name in ("chosen", "computed")}
        lists["times"] = {name: tuple(ms) for name, ms in values["times"].items()}
        lists["named"] = tuple(Tactic(*one) for one in values["named"])
        return cls(convolution, **{**values, **lists})

    @property
    def count(self) -> int:
        """How many tactics were timed."""
        return sum(map(len, self.times.values()))

    @property
    def fastest(self) -> Tactic:
        """The fastest tactic of any format."""
        return min(self.named, key=lambda one: one.ms)

    @property
    def spread(self) -> float:
        """How many times as long the slowest tactic takes as the fastest."""
        return max(one.ms for one in self.named) / self.fastest.ms

    @property
    def flops(self) -> float:
        """Floating point operations per second of the fastest tactic."""
        return 2000 * self.convolution.multiply_adds / self.fastest.ms

    def is_chosen(self, tactic: Tactic) -> bool:
        """Whether the engine has this kernel."""
        return tactic.name in self.chosen


def summary(tactics: Sequence[Tactic], chosen: Sequence[str]) -> dict[str, Any]:
    """Return the fields ``times`` and ``named`` of a `Built` as plain values, without hundreds of names."""
    times: dict[str, list[float]] = {}
    for one in tactics:
        times.setdefault(one.computes_in, []).append(float(f"{one.ms:.4g}"))
    by_time = sorted(tactics, key=lambda one: one.ms)
    shown = {one.name: one for one in (*by_time[:1], *(one for one in by_time if one.name in chosen), *by_time[-1:])}
    return {"times": times, "named": [[one.name, one.formats, one.ms] for one in shown.values()]}
