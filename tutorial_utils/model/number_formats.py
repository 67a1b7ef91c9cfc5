"""The number formats of GPUs, in one table: sizes, limits, and what TensorRT calls them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class NumberFormat:
    """A number format, by what matters for rounding to it."""

    name: str
    dtype: str  # what reports of engines and file names call it: "fp16"
    bits: int  # in memory; TF32 is stored as FP32, in 32 bits
    fraction_bits: int  # after the binary point of the mantissa: they give the resolution
    smallest_normal: float  # below this, the resolution is lost bit by bit ("subnormal" numbers)
    largest: float  # that is finite
    alias: str = ""  # another name that TensorRT gives it, in lower case

    @property
    def epsilon(self) -> float:
        """The distance from 1 to the next larger number. Rounding errs by half of it at most."""
        return 2.0**-self.fraction_bits

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
        """Round to the nearest number of the format, ties to even: float64 of the same shape, whatever that is.

        What is too large becomes infinite; a real engine saturates INT8 and FP8 instead. One unit of the format stands
        for the scale: ``scale * round(values / scale)``.
        """
        scaled = np.asarray(values, np.float64) / scale
        step = self.step(np.abs(scaled))
        rounded = np.rint(scaled / step) * step
        return np.where(np.abs(rounded) > self.largest, np.copysign(np.inf, scaled), rounded) * scale


def _integer(dtype: str, bits: int, sign: bool = True) -> NumberFormat:
    """An integer is a format whose step is 1 everywhere. Small ones are used with a scale."""
    above = bits - sign
    return NumberFormat(dtype.upper(), dtype, bits, above, 2.0**above, 2.0**above - 1)


# NVIDIA's TF32 and BF16 have FP32's exponent, FP16 is IEEE 754's, E4M3 is that of https://arxiv.org/abs/2209.05433,
# FP4 is E2M1 of https://arxiv.org/abs/2310.10537.
FP32 = NumberFormat("FP32", "fp32", 32, 23, 2.0**-126, (2 - 2.0**-23) * 2.0**127, "float")
TF32 = NumberFormat("TF32", "tf32", 32, 10, 2.0**-126, (2 - 2.0**-10) * 2.0**127)
BF16 = NumberFormat("BF16", "bf16", 16, 7, 2.0**-126, (2 - 2.0**-7) * 2.0**127, "bfloat16")
FP16 = NumberFormat("FP16", "fp16", 16, 10, 2.0**-14, 65504.0, "half")
FP8 = NumberFormat("FP8 E4M3", "fp8", 8, 3, 2.0**-6, 448.0)
FP4 = NumberFormat("FP4 E2M1", "fp4", 4, 1, 1.0, 6.0)
INT8 = _integer("int8", 8)
BOOL = NumberFormat("BOOL", "bool", 8, 1, 2.0, 1.0)
OTHERS = (_integer("int4", 4), _integer("int32", 32), _integer("int64", 64), _integer("uint8", 8, sign=False), BOOL)

FORMATS = (FP32, TF32, BF16, FP16, FP8, INT8)  # those that the lessons compare
BY_NAME = {name: one for one in (*FORMATS, FP4, *OTHERS) for name in (one.dtype, one.alias) if name}


def dtype_of(name: str) -> str:
    """Return what the course calls a data type of TensorRT, which writes "Half" or "FP16"; others in lower case."""
    known = BY_NAME.get(name.lower())
    return known.dtype if known else name.lower()
