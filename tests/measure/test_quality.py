"""Metrics: values worked out by hand. Input that would give a wrong number stands in bad_input/of_measure.py."""

import numpy as np
import pytest

from tutorial_utils.measure import quality

LOGITS = np.array([[2.0, 1, 0], [0, 3, 1], [5, 1, 1], [1, 2, 0]], np.float32)  # answers 0, 1, 0, 1


def test_classification_metrics_by_hand():
    result = quality.classification_metrics(np.array([0, 1, 1, 2]), LOGITS)
    assert result.accuracy == 0.5
    assert result.precision == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)  # class 2 was never predicted: 0, not undefined
    assert result.recall == pytest.approx((1 + 1 / 2 + 0) / 3)


def test_agreement():
    assert quality.agreement(LOGITS, LOGITS * 2) == 1
    assert quality.agreement(LOGITS, LOGITS[[1, 1, 2, 3]]) == 0.75


def test_relative_error_and_sqnr_by_hand():
    reference = np.array([[3.0, -4.0]])
    actual = np.array([[3.0, -3.9]])
    assert quality.relative_error(actual, reference) == pytest.approx(0.1 / 4)
    assert quality.sqnr_db(actual, reference) == pytest.approx(10 * np.log10(25 / 0.01))
    assert quality.relative_error(reference, reference) == 0
    assert quality.sqnr_db(reference, reference) == np.inf


def test_errors_of_half_precision_outputs_do_not_overflow():
    reference = np.array([300.0, -60000.0], np.float16)
    assert quality.relative_error(-reference, reference) == 2
    assert quality.sqnr_db(-reference, reference) == pytest.approx(-20 * np.log10(2))


def test_accuracy_interval_against_the_formula():
    z = 1.959963984540054
    share, total = 0.95, 100
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / (1 + z**2 / total)
    assert quality.accuracy_interval(95, 100) == pytest.approx((centre - half, centre + half))
    low, high = quality.accuracy_interval(600, 600)
    assert 0.99 < low < high == 1
