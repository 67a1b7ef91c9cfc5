import sys

import numpy as np
import pictures
import pytest

from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.lessons.lesson01 import autotuning
from tutorial_utils.lessons.lesson01 import autotuning as figures
from tutorial_utils.measure.timing import Measurement


@pytest.mark.parametrize("shape", [autotuning.Shape(2, 3, 4, 6, 1), autotuning.Shape(2, 3, 4, 7, 5)], ids=str)
@pytest.mark.parametrize("algorithm", autotuning.ALGORITHMS)
def test_algorithms_compute_the_convolution_of_the_definition(shape, algorithm):
    image, weights = shape.arrays()
    margin = shape.kernel // 2
    padded = np.pad(image, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weights.shape[2:], axis=(2, 3))
    expected = np.einsum("nchwij,ocij->nohw", windows, weights)
    result = autotuning.cpu_calls(shape)[algorithm]()
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_multiply_adds():
    assert autotuning.Shape(2, 3, 4, 5, 3).multiply_adds == 2 * 3 * 4 * 25 * 9


def test_measure_cpu_times_every_algorithm_at_every_shape():
    shapes = [autotuning.Shape(1, 1, 1, 4, 1), autotuning.Shape(1, 1, 1, 4, 3)]
    measured = autotuning.measure_cpu(shapes, seconds=0.001)
    assert list(measured) == [str(shape) for shape in shapes]
    assert all(list(by_name) == list(autotuning.ALGORITHMS) for by_name in measured.values())


def test_medians_and_the_cost_of_a_fixed_choice():
    def measurement(milliseconds):
        return Measurement(((milliseconds,),) * 10, milliseconds, 1, True, 1)

    times = autotuning.medians(
        {
            "small": {"a": measurement(1.0), "b": measurement(4.0)},
            "large": {"a": measurement(9.0), "b": measurement(1.0)},
        }
    )
    assert times == {"small": {"a": 1.0, "b": 4.0}, "large": {"a": 9.0, "b": 1.0}}
    assert autotuning.fixed_choices(times) == pytest.approx({"a": 3.0, "b": 2.0})


def test_figure_names_the_winner_of_each_shape():
    picture = figures.draw_winners({"small": {"a": 1.0, "b": 4.0}, "large": {"a": 9.0, "b": 1.0}}, "a machine")
    assert "At small the fastest is a. At large the fastest is b." in picture.alt
    assert picture.text.splitlines()[1].startswith("large  fastest: b")
    (axes,) = pictures.drawn(picture)
    assert pictures.marks(axes) == [(1, 0), (9, 1), (4, 0), (1, 1)]  # times as long as the fastest, row


def test_recording_needs_pytorch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendUnavailableError, match="PyTorch is not installed"):
        autotuning.EXPERIMENT.record()
