"""Lesson 02: the article's question answered, from three recordings of one GPU: which way to run ResNet-50 is how fast.

`resnet50_matrix` has most of it. What `lesson02_article` and `lesson02_paddle_tensorrt` add: Paddle on the CPU and on
the GPU, and the engine of Paddle-TRT run by TensorRT 8.6 itself.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tutorial_utils import plotting
from tutorial_utils.lessons.lesson02.article import Predictor
from tutorial_utils.lessons.lesson02.paddle_engines import SAME_COPIES, PaddleEngine
from tutorial_utils.measure import recordings, timing
from tutorial_utils.measure.resnet50_matrix.cells import SHAPES, Cell, Interval, Matrix, Row

if TYPE_CHECKING:
    import pandas

NOT_MEASURED = "It was not measured."
_TO = "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}"
# Roads of the matrix: the stack whose reference row they are compared with, and the libraries there, each with the cell
# that INT8 is. Where there are two, the first one that was measured counts: files whose types TensorRT keeps, or flags.
_LIBRARIES = {
    "ONNX Runtime CUDA": ("tensorrt", {"onnxruntime_cuda": "int8_qdq"}),
    "ONNX Runtime CUDA NHWC": ("tensorrt", {"onnxruntime_nhwc": "int8_qdq"}),
    "ONNX Runtime TensorRT": ("tensorrt", {"onnxruntime_tensorrt": "int8_calibrated"}),
    "Paddle-TRT 2.6": ("article", {"paddle_tensorrt": "int8_calibrated"}),
    "TensorRT 10.6": ("tensorrt", {"tensorrt_typed": "int8_qdq", "tensorrt_flags": "int8_calibrated"}),
    "TensorRT-RTX 1.6": ("tensorrt_rtx", {"tensorrt_rtx": "int8_qdq"}),
}
_PRECISIONS = {"FP32": "fp32", "TF32": "tf32", "FP16": "fp16"}
# TensorRT 8.6 itself ran the engines of Paddle-TRT, those of `lesson02_paddle_tensorrt`.
_NO_FP32 = "With TF32 turned off, calls were timed inside Paddle only: see Paddle-TRT 2.6 FP32."
_NOT_LARGER = (
    "Whole calls were timed at 64x3x32x32 only. Their part on the GPU is the GPU ms of Paddle-TRT 2.6: for that, "
    "TensorRT 8.6 ran the same engine alone."
)
_ERROR = re.compile(r"(?<=the relative error is )[\d.e+-]+")  # in reasons of `resnet50_matrix`
_PADDLE_CPU, _PADDLE_GPU, _ENGINE = "Paddle 2.6, CPU", "Paddle 2.6, GPU", "TensorRT 8.6"
_ORDER = (
    *(_PADDLE_CPU, _PADDLE_GPU, "ONNX Runtime CUDA", "ONNX Runtime CUDA NHWC", "ONNX Runtime TensorRT"),
    *("Paddle-TRT 2.6", _ENGINE, "TensorRT 10.6", "TensorRT-RTX 1.6"),
)


@dataclass(frozen=True)
class Road:
    """One library in one precision. Times are of a call from array to array unless said otherwise, in milliseconds.

    Attributes:
        host: Warm calls; None where there are none, for a `reason`.
        speedup: Over the reference row of its stack, ONNX Runtime CUDA in FP32.
        graph_ms: As host, replayed as a CUDA graph.
        device_ms: On the GPU alone.
        device_graph_ms: On the GPU alone, replayed as a CUDA graph.
        first_ms: The first call of a fresh process. None also where other candidates ran in the process before.
        build_s: Seconds to make the engine, no kernel timings known; None where some were.
        error, agreement: Against the CPU.
    """

    library: str
    precision: str
    host: Interval | None = None
    speedup: float | None = None
    graph_ms: float | None = None
    device_ms: float | None = None
    device_graph_ms: float | None = None
    first_ms: float | None = None
    build_s: float | None = None
    error: float | None = None
    agreement: float | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """What figures call it."""
        return f"{self.library} {self.precision}"


def roads(
    matrix: Matrix,
    predictors: Iterable[Predictor],
    engines: Mapping[str, PaddleEngine],
) -> list[Road]:
    """Return all roads at the article's shape, 64 images of 3x32x32, with a reason where there is nothing to show.

    Args:
        matrix: Of `resnet50_matrix`.
        predictors: Of `lesson02_article`.
        engines: Of `lesson02_paddle_tensorrt`, by precision.
    """
    reference = matrix.references.get("article")
    by_name = {one.name: one for one in predictors}
    found = _of_matrix(matrix, SHAPES[0], matrix.references)
    found += [
        _predictor(name, by_name.get(key), reference) for name, key in ((_PADDLE_CPU, "cpu"), (_PADDLE_GPU, "gpu"))
    ]
    found += [_engine(name, engines.get(name), reference) for name in ("FP32", "FP16", "INT8")]
    found.append(Road(_ENGINE, "FP32", reason=_NO_FP32 if "FP32" in engines else NOT_MEASURED))
    return sorted(found, key=lambda road: _ORDER.index(road.library))


def larger(matrix: Matrix) -> dict[str, list[Road]]:
    """Return the matrix's roads at its shapes of 224x224, by "1x3x224x224" and "64x3x224x224".

    There the speed-up is over the one row of ONNX Runtime CUDA in FP32 that the shape has, for all stacks.
    """
    found = {}
    for shape in SHAPES[1:]:
        row = matrix.cells.get(Cell("onnxruntime_cuda", "fp32", shape))
        references = {stack: row for stack, _ in _LIBRARIES.values() if isinstance(row, Row)}
        engine = [Road(_ENGINE, precision, reason=_NOT_LARGER) for precision in (*_PRECISIONS, "INT8")]
        found["x".join(map(str, shape))] = _of_matrix(matrix, shape, references) + engine
    return found


def _of_matrix(matrix: Matrix, shape: tuple[int, ...], references: Mapping[str, Row]) -> list[Road]:
    """Return the roads of the matrix at a shape. Their speed-up is over the reference of their stack."""
    found = []
    for name, (stack, libraries) in _LIBRARIES.items():
        for precision in (*_PRECISIONS, "INT8"):
            cells = (Cell(library, _PRECISIONS.get(precision, int8), shape) for library, int8 in libraries.items())
            rows = [(cell, matrix.cells.get(cell, NOT_MEASURED)) for cell in cells]
            cell, row = next((one for one in rows if isinstance(one[1], Row)), rows[0])
            label = "INT8 Q/DQ" if cell.precision == "int8_qdq" else precision  # INT8 alone is calibrated
            if isinstance(row, str):
                found.append(Road(name, label, reason=row))
                continue
            found.append(_road(name, label, row, references.get(stack)))
    return found


def _road(name: str, precision: str, row: Row, reference: Row | None) -> Road:
    if row.is_wrong:
        return Road(
            name, precision, error=row.relative_error, reason="Its outputs are wrong, so its time says nothing."
        )
    build_s = None if row.build_cache == "rows before" else row.build_s
    return Road(
        name, precision, row.host, reference and reference.host.median / row.host.median,
        row.host_graph and row.host_graph.median, row.device and row.device.median, row.graph and row.graph.median,
        row.first_call_ms, build_s, row.relative_error, row.agreement,
    )  # fmt: skip


def _predictor(name: str, one: Predictor | None, reference: Row | None) -> Road:
    if one is None:
        return Road(name, "FP32", reason=NOT_MEASURED)
    if one.trouble or one.warm is None:
        return Road(name, "FP32", first_ms=one.first_ms, reason=f"In the article's program, {one.trouble}.")
    low, high = timing.median_interval(one.warm)
    ms = one.warm.median_ms
    host = Interval(ms, low, high, one.warm.p99_ms)
    # The CPU's predictor is what the others are compared with, so it has no error of its own.
    return Road(name, "FP32", host, reference and reference.host.median / ms, first_ms=one.first_ms)


def _engine(name: str, one: PaddleEngine | None, reference: Row | None) -> Road:
    precision = "TF32" if name == "FP32" else name  # which its engine is, by the inspector
    if one is None:
        return Road(_ENGINE, precision, reason=NOT_MEASURED)
    times = one.times[SAME_COPIES]
    host = Interval(times.median_ms, *timing.median_interval(times), times.p99_ms)
    return Road(
        _ENGINE, precision, host, reference and reference.host.median / times.median_ms, error=one.relative_error,
        agreement=one.agreement,
    )  # fmt: skip


def table(found: list[Road]) -> "pandas.DataFrame":
    """Return all roads that have times, with their speed-up."""
    import pandas

    lines = {
        (one.library, one.precision): {
            "ms": f"{one.host.median:.2f}",
            "95 % interval": f"{one.host.low:.2f} to {one.host.high:.2f}",
            "speed-up": _or_na(one.speedup, ".2g"),
            "as graph ms": _or_na(one.graph_ms, ".2f"),
            "GPU ms": _or_na(one.device_ms, ".2f"),
            "GPU, as graph ms": _or_na(one.device_graph_ms, ".2f"),
            "first call ms": _or_na(one.first_ms, ".0f" if (one.first_ms or 0) > 10 else ".1f"),
            "build s": _or_na(one.build_s, ".0f" if (one.build_s or 0) > 10 else ".1f"),
            "error %": _or_na(one.error and 100 * one.error, ".1g"),
            "same class %": _or_na(one.agreement and 100 * one.agreement, ".0f"),
        }
        for one in found
        if one.host
    }
    return pandas.DataFrame(lines).T


def table_of_shapes(by_shape: Mapping[str, list[Road]]) -> "pandas.DataFrame":
    """Return the roads that have a time, a line for each shape, in the columns in which one of them has a value."""
    import pandas

    lines = {
        (shape, one.library, one.precision): {
            "ms": _short(one.host.median),
            "95 % interval": _TO.join(map(_short, (one.host.low, one.host.high))),
            "speed-up": _or_na(one.speedup, ".2g"),
            "as graph ms": "n/a" if one.graph_ms is None else _short(one.graph_ms),
            "GPU ms": "n/a" if one.device_ms is None else _short(one.device_ms),
        }
        for shape, found in by_shape.items()
        for one in found
        if one.host
    }
    table = pandas.DataFrame(lines).T
    return table.loc[:, (table != "n/a").any()]


def missing(by_shape: Mapping[str, list[Road]]) -> str:
    """Return the roads without times, each reason once with the roads and the shapes that it is of.

    Reasons that differ in the relative error alone are one, with all errors: by shape, then by road.
    """
    shapes: dict[str, dict[str, list[str]]] = {}
    errors: dict[str, list[str]] = {}
    for shape, found in by_shape.items():
        for one in found:
            if one.host is None:
                reason = re.sub(r"resnet50-\d+-", "resnet50-", one.reason)  # a file for each size
                text = _ERROR.sub("{errors}", reason)
                errors.setdefault(text, []).extend(_ERROR.findall(reason))
                shapes.setdefault(text, {}).setdefault(one.name, []).append(shape)
    lines = []
    for text, of_roads in sorted(shapes.items(), key=lambda pair: pair[0] == NOT_MEASURED):
        reason = text.replace("{errors}", ", ".join(errors[text]))
        names: dict[str, list[str]] = {}
        for name, where in of_roads.items():
            names.setdefault(", ".join(where), []).append(name)
        what, told = ("not measured", []) if reason == NOT_MEASURED else ("n/a", [f"    {reason}"])
        lines += [f"{what} at {where}: {', '.join(named)}" for where, named in names.items()] + told
    return "\n".join(lines)


def draw(found: list[Road]) -> plotting.Picture:
    """Draw first and warm calls of all roads that have any, beside the article's figures."""
    published = _published()
    lines = [
        plotting.Calls(
            one.name, published.get(one.name), one.first_ms, one.host and one.host.median,
            "" if one.host else "wrong outputs" if "wrong outputs" in one.reason else "n/a",
        )
        for one in found
        if one.host or one.name in published
    ]  # fmt: skip
    axis_label = "milliseconds for 64 images of 3x32x32, copies included"
    return plotting.cold_and_warm(lines, axis_label, "published call (RTX Ada)")


def _published() -> dict[str, float]:
    """Return the first calls that the article published, in milliseconds, by the name of the road."""
    names = f"{_PADDLE_GPU} FP32", "Paddle-TRT 2.6 TF32", "Paddle-TRT 2.6 FP16"  # its FP32 was free to use TF32
    rows = recordings.load("article_paddle_trt").data["rows"]
    found = {name: 1000 * row["call_s"] for name, row in zip(names, rows, strict=True)}
    return {**found, f"{_ENGINE} FP16": 1000 * recordings.load("article_tensorrt").data["call_s"]}


def _short(ms: float) -> str:
    return format(ms, ".2f" if ms < 10 else ".1f")


def _or_na(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)
