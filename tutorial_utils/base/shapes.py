"""Whether a shape fits what a model declares: one rule for runners, profiles, calibration images and commands."""

from collections.abc import Sequence


def fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    """Return whether a shape has the declared rank and sizes. A declared size of 0 or -1 is open: any size fits."""
    return len(shape) == len(declared) and all(
        wanted in (size, 0, -1) for size, wanted in zip(shape, declared, strict=True)
    )


def in_order(*shapes: Sequence[int]) -> bool:
    """Return whether in every dimension no size is larger than that of the next shape. All have the same rank."""
    return all(list(sizes) == sorted(sizes) for sizes in zip(*shapes, strict=True))
