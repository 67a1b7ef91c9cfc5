"""What rounding to a number format loses, and the figures about precision."""

import numpy as np
import pictures
import pytest

from tutorial_utils.lessons.lesson01 import precision as figures
from tutorial_utils.lessons.lesson01 import rounding
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model import number_formats as formats


def test_loss_counts_overflow_and_underflow():
    loss = rounding.loss(np.array([0.0, 1e-9, 1.0, 1e5, -1e6]), formats.FP16)
    assert (loss.overflow, loss.underflow) == (2, 1)
    assert np.isnan(loss.sqnr_db)
    exact = rounding.loss(np.array([0.5, -2.0]), formats.FP8)
    assert (exact.overflow, exact.underflow, exact.sqnr_db) == (0, 0, np.inf)


def test_a_scale_brings_the_largest_value_into_range():
    values = np.array([0.001, -3000.0])
    assert rounding.loss(values, formats.FP8).overflow == 1
    assert rounding.loss(values, formats.FP8, rounding.scale_for(values, formats.FP8)).overflow == 0


def test_range_figure_lists_every_format():
    picture = figures.draw_range_and_resolution({"weights": np.array([0.1, 0.0, -2.0])})
    assert [line.split("  ")[0].strip() for line in picture.text.splitlines()] == [one.name for one in formats.FORMATS]
    assert "histograms of the magnitudes of weights" in picture.alt
    top, bottom = pictures.drawn(picture)
    assert len(pictures.lines(top)) == len(formats.FORMATS)
    assert sum(pictures.heights(bottom)) == pytest.approx(100)


def test_figures_of_gpu_measurements_say_their_numbers():
    rows = [figures.Tf32Row("MatMul", flag, 3e-4, None) for flag in (True, False)]
    errors = figures.draw_tf32_errors(rows)
    assert errors.text.splitlines()[1] == "MatMul, TF32 flag cleared  error 3.0e-04"
    (axes,) = pictures.drawn(errors)
    assert pictures.marks(axes) == [(3e-4, 0), (3e-4, 1)]
    times = {"FP16": {8: Measurement(((2.0,),) * 10, 2.0, 1, True, 8)}}
    by_batch = figures.draw_batch_times(times)
    assert "2.000 ms,    4,000 images/s" in by_batch.text
    (axes,) = pictures.drawn(by_batch)
    assert pictures.heights(axes) == [0.25]  # milliseconds for an image
