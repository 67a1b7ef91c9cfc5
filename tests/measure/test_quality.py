"""Metrics: values worked out by hand, and input that would give a wrong number."""

import numpy as np
import pytest

from tutorial_utils.base.errors import InputError
from tutorial_utils.measure import quality

LOGITS = np.array([[2.0, 1, 0], [0, 3, 1], [5, 1, 1], [1, 2, 0]], np.float32)  # answers 0, 1, 0, 1


def test_classification_metrics_by_hand():
    result = quality.classification_metrics(np.array([0, 1, 1, 2]), LOGITS)
    assert result.accuracy == 0.5
    assert result.precision == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)  # class 2 was never predicted: 0, not undefined
    assert result.recall == pytest.approx((1 + 1 / 2 + 0) / 3)


@pytest.mark.parametrize(
    ("labels", "logits", "named"),
    [
        ([0, 1, 1], LOGITS, r"shape \[3\]"),
        ([[0], [1], [1], [2]], LOGITS, r"shape \[4, 1\]"),
        ([0.0, 1.0, 1.0, 2.0], LOGITS, "float64"),
        ([0, 1, 1, 3], LOGITS, "from 0 to 3"),
        ([0, 1, 1, -1], LOGITS, "from -1 to 1"),
        ([0, 1, 1, 2], LOGITS[:, 0], r"logits has shape \[4\]"),
        ([], np.empty((0, 3)), r"logits has shape \[0, 3\]"),
        ([0, 1, 1, 2], np.where(LOGITS == 5, np.nan, LOGITS), "1 values that are NaN"),
        ([0, 1, 1, 2], np.where(LOGITS == 5, np.inf, LOGITS), "1 values that are NaN or infinite"),
    ],
)
def test_classification_metrics_refuses(labels, logits, named):
    with pytest.raises(InputError, match=named):
        quality.classification_metrics(np.array(labels), logits)


def test_agreement():
    assert quality.agreement(LOGITS, LOGITS * 2) == 1
    assert quality.agreement(LOGITS, LOGITS[[1, 1, 2, 3]]) == 0.75
    with pytest.raises(InputError, match=r"\[4, 3\] and \[3, 3\]"):
        quality.agreement(LOGITS, LOGITS[:3])
    with pytest.raises(InputError, match="b holds 12 values"):
        quality.agreement(LOGITS, np.full_like(LOGITS, np.nan))


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


@pytest.mark.parametrize("measure", [quality.relative_error, quality.sqnr_db])
@pytest.mark.parametrize(
    ("actual", "reference", "named"),
    [
        ([1.0, 2.0], [1.0], r"\[2\] and \[1\]"),
        ([1.0, np.nan], [1.0, 2.0], "actual holds 1"),
        ([1.0, 2.0], [1.0, np.inf], "reference holds 1"),
        ([1.0, 2.0], [0.0, 0.0], "zero everywhere"),
        ([], [], "empty"),
    ],
)
def test_errors_refuse(measure, actual, reference, named):
    with pytest.raises(InputError, match=named):
        measure(np.array(actual), np.array(reference))


def test_accuracy_interval_against_the_formula():
    z = 1.959963984540054
    share, total = 0.95, 100
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / (1 + z**2 / total)
    assert quality.accuracy_interval(95, 100) == pytest.approx((centre - half, centre + half))
    low, high = quality.accuracy_interval(600, 600)
    assert 0.99 < low < high == 1
    assert quality.accuracy_interval(95, 100, confidence=0.99)[0] < centre - half


@pytest.mark.parametrize(("correct", "total", "confidence"), [(5, 4, 0.95), (-1, 4, 0.95), (0, 0, 0.95), (3, 4, 95)])
def test_accuracy_interval_refuses(correct, total, confidence):
    with pytest.raises(InputError):
        quality.accuracy_interval(correct, total, confidence)
