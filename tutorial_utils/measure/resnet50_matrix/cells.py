"""The cells of the matrix, what a library's module hands over to be measured, and what a measured cell consists of."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tutorial_utils.measure.rows import RecordedRow

# By the name in a row, the module that opens the library. Two libraries may share one.
LIBRARIES = {
    "tensorrt_flags": "tensorrt",
    "tensorrt_typed": "tensorrt",
    "tensorrt_rtx": "tensorrt",
    "paddle_tensorrt": "paddle_tensorrt",
    "onnxruntime_cuda": "onnxruntime",
    "onnxruntime_nhwc": "onnxruntime",
    "onnxruntime_tensorrt": "onnxruntime",
    "pytorch_eager": "pytorch",
    "pytorch_compiled": "pytorch",
}
PRECISIONS = {
    "fp32": "FP32",
    "tf32": "TF32",
    "fp16": "FP16",
    "bf16": "BF16",
    "int8_calibrated": "INT8 calibrated",
    "int8_qdq": "INT8 Q/DQ",
    "fp8": "FP8",
}
SHAPES = ((64, 3, 32, 32), (1, 3, 224, 224), (64, 3, 224, 224))  # the most wanted first
# NVIDIA's libraries read it when they start: 0 keeps TF32 from all of them. For those whose own setting has no effect.
TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"
STACKS = ("tensorrt", "tensorrt_rtx", "article")  # each has the reference row measured in its run
_REFERENCE = "reference"


@dataclass(frozen=True)
class Cell:
    """A library in a precision at a shape ``(N, 3, H, W)``."""

    library: str
    precision: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of its row."""
        return f"{self.library}/{self.precision}/{'x'.join(map(str, self.shape))}"


@dataclass(frozen=True)
class Candidate:
    """ResNet-50 in one library, ready to run.

    Attributes:
        infer: Takes images, float32 ``[N, 3, H, W]``, and returns logits ``[N, 10]``, both in host memory.
        device_times: Takes a number of calls, and returns the milliseconds of each by CUDA events, without copies.
        graph_times: The same of calls that are replayed as a CUDA graph.
        infer_graph: As `infer`, replayed as a CUDA graph.
        facts: The fields of a `Row` from ``build_s`` on, of those that this library has.
        reasons: Why others are missing, by field, ``device`` and ``graph`` among them.
    """

    infer: Callable[[np.ndarray], np.ndarray]
    device_times: Callable[[int], np.ndarray] | None = None
    graph_times: Callable[[int], np.ndarray] | None = None
    infer_graph: Callable[[np.ndarray], np.ndarray] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Interval:
    """Times of calls in milliseconds: their median with the ends of its 95 % interval, and the 99th percentile."""

    median: float
    low: float
    high: float
    p99: float


@dataclass(frozen=True)
class Row:
    """A measured cell.

    Attributes:
        host: From images in host memory to logits in host memory.
        device: By CUDA events, without copies.
        graph: The same, replayed as a CUDA graph.
        host_graph: As host, replayed as a CUDA graph. None also in rows that were measured before it was.
        first_call_ms: Of the first call, host to host, after the library was made ready.
        relative_error: Against ONNX Runtime in FP32 on the CPU, of the largest logit.
        agreement: Of the images, the fraction that gets the same class as there.
        gpu_before, gpu_after: What `gpu_state.read` says before and after the timing.
        build_s, rebuild_s: Seconds of a build, and of a second one with all kernel timings in the timing cache.
        build_cache: What the timing cache held in the first build: "empty". Or "rows before": some rows were measured
            when those of a shape shared one.
        plan_bytes: Size of the engine.
        in_type: Of the layers that multiply matrices, how many compute in the type that was asked for, and of how many.
        types: How many of them compute in each type.
        note: What else a reader must know.
        reasons: Why a field is None, by its name.
    """

    host: Interval
    device: Interval | None
    graph: Interval | None
    first_call_ms: float
    relative_error: float
    agreement: float
    gpu_before: dict[str, Any]
    gpu_after: dict[str, Any]
    build_s: float | None = None
    rebuild_s: float | None = None
    build_cache: str = ""
    plan_bytes: int | None = None
    in_type: tuple[int, int] | None = None
    types: dict[str, int] | None = None
    host_graph: Interval | None = None
    note: str = ""
    reasons: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Row":
        """Read a row's values back from a recording."""
        names = ("host", "device", "graph", "host_graph")
        times = {name: Interval(*values[name]) if values.get(name) else None for name in names}
        in_type = values.get("in_type")
        return cls(**{**values, **times, "in_type": in_type and tuple(in_type)})

    @property
    def is_wrong(self) -> bool:
        """Whether the logits have nothing to do with the right ones, so that the time is worth nothing."""
        return self.relative_error > 0.5


@dataclass(frozen=True)
class Matrix:
    """All cells that were measured, or tried.

    Attributes:
        cells: Each measured cell, or the reason why there is nothing to measure.
        references: The reference row of each stack that measured one.
    """

    cells: dict[Cell, Row | str]
    references: dict[str, Row]


def types_of(cell: Cell, types: Counter[str]) -> dict[str, Any]:
    """Return the fields ``types`` and ``in_type`` of a `Row` from how many layers compute in which type."""
    return {
        "types": {name.upper(): count for name, count in types.items()},
        "in_type": [types[cell.precision.partition("_")[0]], types.total()],
    }


def cells() -> list[Cell]:
    """Return all cells, in the order in which they are worth measuring."""
    return [Cell(library, precision, shape) for shape in SHAPES for library in LIBRARIES for precision in PRECISIONS]


def matrix(rows: list[RecordedRow]) -> Matrix:
    """Return the matrix of recorded rows."""
    by_name = {row.name: Row.of(row.values) if row.values is not None else row.reason for row in rows}
    named = {cell.name: cell for cell in cells()}
    references = {name.partition("/")[2]: row for name, row in by_name.items() if name.startswith(f"{_REFERENCE}/")}
    return Matrix({named[name]: row for name, row in by_name.items() if name in named}, references)


def reference_name(stack: str) -> str:
    """Return the name of a stack's reference row."""
    return f"{_REFERENCE}/{stack}"
