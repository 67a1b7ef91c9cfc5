"""Lesson 01, low precision: what the number formats of GPUs can hold, and what they lose of given values."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class NumberFormat:
    """A number format, by what matters for rounding to it.

    Attributes:
        name: Its usual name.
        bits: Bits in memory. TF32 is stored as FP32, in 32 bits.
        fraction_bits: Bits after the binary point of the mantissa. They give the resolution.
        smallest_normal: Below this, the resolution is lost bit by bit ("subnormal" numbers).
        largest: Largest finite number.
    """

    name: str
    bits: int
    fraction_bits: int
    smallest_normal: float
    largest: float

    @property
    def smallest(self) -> float:
        """The smallest number above 0."""
        return self.smallest_normal * 2.0**-self.fraction_bits

    def step(self, magnitudes: np.ndarray) -> np.ndarray:
        """Return the distance between neighbouring numbers of the format at these magnitudes (positive or 0)."""
        magnitudes = np.maximum(np.asarray(magnitudes, np.float64), self.smallest_normal)
        powers = np.exp2(np.floor(np.log2(magnitudes)))  # of the binade that holds the magnitude
        return np.maximum(powers, self.smallest_normal) * 2.0**-self.fraction_bits

    def round(self, values: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """Round to the nearest number of the format, ties to even.

        Args:
            values: Numbers, any shape.
            scale: What one unit of the format stands for: ``scale * round(values / scale)``.

        Returns:
            float64 of the same shape. What is too large becomes infinite; a real engine saturates INT8 and FP8 instead.
        """
        scaled = np.asarray(values, np.float64) / scale
        step = self.step(np.abs(scaled))
        rounded = np.rint(scaled / step) * step
        return np.where(np.abs(rounded) > self.largest, np.copysign(np.inf, scaled), rounded) * scale


# NVIDIA's TF32 and BF16 have FP32's exponent, FP16 is IEEE 754's, E4M3 is that of https://arxiv.org/abs/2209.05433.
FP32 = NumberFormat("FP32", 32, 23, 2.0**-126, (2 - 2.0**-23) * 2.0**127)
TF32 = NumberFormat("TF32", 32, 10, 2.0**-126, (2 - 2.0**-10) * 2.0**127)
BF16 = NumberFormat("BF16", 16, 7, 2.0**-126, (2 - 2.0**-7) * 2.0**127)
FP16 = NumberFormat("FP16", 16, 10, 2.0**-14, 65504.0)
FP8 = NumberFormat("FP8 E4M3", 8, 3, 2.0**-6, 448.0)
# An integer is a format whose step is 1 everywhere. It is always used with a scale.
INT8 = NumberFormat("INT8", 8, 7, 128.0, 127.0)
FORMATS = (FP32, TF32, BF16, FP16, FP8, INT8)


@dataclass(frozen=True)
class Loss:
    """What rounding to a format does to a set of values.

    Attributes:
        overflow: Values that are too large for the format.
        underflow: Values other than 0 that become 0.
        sqnr_db: Power of the values over power of the rounding error, in decibels; NaN where a value overflows.
    """

    overflow: int
    underflow: int
    sqnr_db: float


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
