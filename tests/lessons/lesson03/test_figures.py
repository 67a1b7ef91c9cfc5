"""The figures of lesson 03: their text twins hold every number, and their descriptions name what matters."""

import pictures
import pytest

from tutorial_utils.lessons.lesson03 import figures
from tutorial_utils.lessons.lesson03.resnet50 import ResnetRow
from tutorial_utils.measure.timing import Measurement


def timed(ms, batch=64):
    return Measurement(((ms, ms), (ms, 2 * ms)), 10 * ms, 11, True, batch)


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
