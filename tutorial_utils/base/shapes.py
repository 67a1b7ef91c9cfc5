"""Whether a shape fits what a model declares: one rule for runners, profiles, calibration images and commands."""

from collections.abc import Sequence


def fits(shape: Sequence[int], declared: Sequence[int], *, zero_is_open: bool = True) -> bool:
    """Return whether a shape has the declared rank and sizes. A declared size of -1 is open: any size fits.

    So is 0, which `dim_value` of an ONNX file is for an unknown size, unless it stands for an empty dimension here.
    """
    open_sizes = (0, -1) if zero_is_open else (-1,)
    return len(shape) == len(declared) and all(
        wanted == size or wanted in open_sizes for size, wanted in zip(shape, declared, strict=True)
    )


def in_order(*shapes: Sequence[int]) -> bool:
    """Return whether in every dimension no size is larger than that of the next shape. All have the same rank."""
    return all(list(sizes) == sorted(sizes) for sizes in zip(*shapes, strict=True))
