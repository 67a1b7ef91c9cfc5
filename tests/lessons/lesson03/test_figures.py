"""The figures of lesson 03: their text twins hold every number, and their descriptions name what matters."""

import pictures
import pytest

from tutorial_utils.lessons.lesson03 import figures
from tutorial_utils.lessons.lesson03.resnet50 import ResnetRow
from tutorial_utils.measure.deployment import Row
from tutorial_utils.measure.quality import Metrics
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model.precisions import PRECISIONS


def timed(ms, batch=64):
    return Measurement(((ms, ms), (ms, 2 * ms)), 10 * ms, 11, True, batch)


def row(backend, precision, accuracy, ms):
    return Row(backend, precision, Metrics(accuracy, accuracy, accuracy), 1.0, 0.0, timed(ms), None, 1000, None, None)


def test_latency_and_accuracy():
    here = [row("Paddle CPU", "fp32", 0.99, 8.0), row("ONNX Runtime CPU", "int8", 0.985, 40.0)]
    picture = figures.latency_accuracy(
        [("here", here), ("a GPU, recorded", [row("TensorRT", "fp16", 0.99, 0.25)])], 600
    )
    lines = [line.split() for line in picture.text.splitlines()]
    assert lines[1] == ["ONNX", "Runtime", "CPU", "INT8", "40.000", "ms", "98.50", "%", "here"]
    assert len(lines) == 3
    assert "3 rows: medians from 0.25 to 40 ms, accuracies from 98.50 to 99.00 %" in picture.alt
    (axes,) = pictures.drawn(picture)
    medians, accuracies = (pictures.numbers(picture.text, unit) for unit in (r"([\d.]+) ms", r"([\d.]+) %"))
    assert pictures.marks(axes) == [pytest.approx(mark) for mark in zip(medians, accuracies, strict=True)]
    for (x, (low, high)), median, accuracy in zip(pictures.lines(axes), medians, accuracies, strict=True):
        assert x == [median, median]
        assert low < accuracy < high


def test_each_precision_has_a_marker_of_its_own():
    rows = [row("TensorRT", name, 0.99, ms) for ms, name in enumerate(PRECISIONS, 1)]
    (axes,) = figures.latency_accuracy([("here", rows)], 600).figure.axes
    markers = {line.get_xdata()[0]: line.get_marker() for line in axes.lines if len(line.get_xdata()) == 1}
    assert [markers[ms] for ms in range(1, len(rows) + 1)] == [one.marker for one in PRECISIONS.values()]
    assert len(set(markers.values())) == len(PRECISIONS)
    (axes,) = figures.latency_accuracy([("here", rows[:2])], 600).figure.axes
    assert [line.get_label() for line in axes.lines if line.get_label().upper() in ("FP32", "FP16", "BF16")] == [
        "FP32", "FP16",
    ]  # fmt: skip


@pytest.fixture
def resnet_rows():
    return [
        ResnetRow(library, "FP16", variant, batch, 1200.4, timed(ms, batch), timed(ms / 2, batch), 5e-4)
        for batch in (1, 64)
        for library, variant, ms in (("TensorRT", "", 0.5), ("TensorRT", "CUDA graph", 0.4), ("PyTorch eager", "", 4.0))
    ]


def test_resnet50(resnet_rows):
    picture = figures.resnet50(resnet_rows)
    lines = [line.split() for line in picture.text.splitlines()]
    assert len(lines) == 6
    assert lines[1] == [
        "batch",
        "1",
        "TensorRT",
        "FP16",
        "CUDA",
        "graph",
        "median",
        "0.400",
        "ms",
        "p99",
        "0.788",
        "ms",
    ]
    assert "batch 1: TensorRT FP16 CUDA graph with 0.40 ms; at batch 64: TensorRT FP16 CUDA graph" in picture.alt
    for axes, part in zip(pictures.drawn(picture), (slice(3), slice(3, 6)), strict=True):
        text = "\n".join(picture.text.splitlines()[part])
        medians, tails = (pictures.numbers(text, rf"{word} +([\d.]+) ms") for word in ("median", "p99"))
        assert pictures.widths(axes) == medians
        ends = [pytest.approx(ends, abs=5e-4) for ends in zip(medians, tails, strict=True)]
        assert [tuple(x) for x, _ in pictures.lines(axes)] == ends


def test_resnet50_table(resnet_rows):
    row = figures.resnet50_table(resnet_rows).loc[(64, "TensorRT FP16 CUDA graph")]
    assert row.tolist() == ["1200", "4.0", "0.400", "0.788", "0.200", "0.394", "160,000", "5e-04"]
