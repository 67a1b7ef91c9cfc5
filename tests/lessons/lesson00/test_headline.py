"""Lesson 00's first picture shows what the recording of the matrix holds, and leaves out what it doesn't."""

import dataclasses

import pictures
import pytest

from tutorial_utils.lessons.lesson00 import headline
from tutorial_utils.measure.resnet50_matrix.cells import Cell
from tutorial_utils.measure.resnet50_matrix.matrix import EXPERIMENT


@pytest.fixture(scope="module")
def measured():
    return EXPERIMENT.recorded("a test")


def test_bars_are_the_recorded_times(measured):
    picture = headline.draw(measured)
    (axes,) = pictures.drawn(picture)
    rows = headline.rows(measured.result)
    assert [one.get_text() for one in axes.get_yticklabels()] == list(rows)
    ends = sorted({bar.get_width() for bar in axes.patches})
    assert ends == sorted({time.median for row in rows.values() for time in (row.host, row.device)})
    row = rows["TensorRT FP16"]
    assert f"TensorRT FP16 {'':18} {row.host.median:6.3f} ms" in picture.text
    factor = rows["ONNX Runtime CUDA FP32"].host.median / row.host.median
    assert f"{row.host.median:.2f} ms, {factor:.1f} times as fast" in [one.get_text() for one in axes.texts]


def test_a_cell_without_values_has_no_bar(measured):
    cells = {**measured.result.cells, Cell("tensorrt_typed", "fp16", headline.SHAPE): "It was not to be had."}
    less = dataclasses.replace(measured, result=dataclasses.replace(measured.result, cells=cells))
    assert set(headline.rows(measured.result)) - set(headline.rows(less.result)) == {"TensorRT FP16"}
    assert "TensorRT FP16" not in headline.draw(less).text
