"""Lesson 01, low precision: what rounding to a number format loses of given values."""

from dataclasses import dataclass

import numpy as np

from tutorial_utils.model.number_formats import NumberFormat


@dataclass(frozen=True)
class Loss:
    """What rounding to a format does to a set of values."""

    overflow: int  # values that are too large for the format
    underflow: int  # values other than 0 that become 0
    sqnr_db: float  # power of the values over power of the rounding error, in decibels; NaN where a value overflows


def loss(values: np.ndarray, number_format: NumberFormat, scale: float = 1.0) -> Loss:
    """Count what rounding to a format loses.

    Args:
        values: Finite numbers, any shape, not all 0.
        number_format: The format.
        scale: What one unit of the format stands for.
    """
    values = np.asarray(values, np.float64)
    rounded = number_format.round(values, scale)
    overflow = int(np.count_nonzero(np.isinf(rounded)))
    noise = np.nan if overflow else np.sum((rounded - values) ** 2)
    with np.errstate(divide="ignore"):  # no error at all is an infinite ratio
        sqnr = 10 * np.log10(np.sum(values**2) / noise)
    return Loss(overflow, int(np.count_nonzero((rounded == 0) & (values != 0))), float(sqnr))


def scale_for(values: np.ndarray, number_format: NumberFormat) -> float:
    """Return the scale at which the largest magnitude becomes the format's largest number."""
    return float(np.abs(values).max() / number_format.largest)
