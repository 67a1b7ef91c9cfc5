"""How a tensor lies in memory, by name: from its strides where TensorRT gives them, and else from its own words.

TensorRT's words alone mislead. For tensors of the same strides TensorRT-RTX writes "(NHWC)" at one layer and
"(Transposed)" at the next, and it calls a matrix of one column "Transposed", which lies in memory as any other does.
"""

import math
import re
from collections.abc import Sequence

# The axes of a tensor by their letters, for ranks that images and volumes have.
_LETTERS = {4: "NCHW", 5: "NCDHW"}
ROWS, COLUMNS, VECTOR, UNKNOWN = "row major", "column major", "vector", "unknown"
CHANNELS_LAST = "NHWC"
_PADDED_TO = (4, 8, 16, 32)  # multiples of channels that TensorRT's formats have

# What TensorRT 8.6 and 10 write in place of strides: https://docs.nvidia.com/deeplearning/tensorrt, "I/O formats".
_COUNTS = {"two": 2, "four": 4, "eight": 8, "sixteen": 16, "thirty-two": 32}
_PADDED = re.compile(r"channel major.* where channel % (\d+) == 0", re.IGNORECASE)
_VECTORIZED = re.compile(rf"({'|'.join(_COUNTS)}) wide channel vectorized row major", re.IGNORECASE)


def of_strides(shape: Sequence[int], strides: Sequence[int], order: Sequence[int] = ()) -> str:
    """Name the order of a tensor's elements in memory, and padding between them.

    Args:
        shape: Its size along each axis; -1 where that depends on the input.
        strides: Elements from one to the next along each axis; -1 where that depends on the input.
        order: For each axis how far it is from the fastest one, which has 0: TensorRT's "StrideOrder". It decides
            where strides of -1 leave that open.

    Returns:
        "NCHW", "NHWC" and the same for volumes; "NHWC" also for three axes, of which the second is the fastest, as in
        an image whose height and width are one axis; "row major", "column major"; "vector" where at most one axis is
        longer than 1, so that there is no order; else such as "axes 1, 0, 2", the slowest first. Behind a comma,
        what lies between: "NHWC, channels padded to 4", or "NHWC, channels 256 apart" in a part of a larger tensor.
    """
    speeds = order or _order_of(strides)
    long = [axis for axis in range(len(shape)) if shape[axis] != 1]  # where an axis of size 1 stands changes no byte
    slowest_first = sorted(long, key=lambda axis: -speeds[axis])
    if len(long) < 2:
        return VECTOR
    if slowest_first == long:
        name = _LETTERS.get(len(shape), ROWS) if len(long) > 2 else ROWS
    elif slowest_first == [*(axis for axis in long if axis != 1), 1] and len(shape) > 2:
        letters = _LETTERS.get(len(shape), "NCHW")
        name = letters[0] + letters[2:] + "C"
    elif len(shape) == 2:
        name = COLUMNS
    else:
        name = f"axes {', '.join(map(str, slowest_first))}"
    last, before = slowest_first[-1], slowest_first[-2]
    length, distance = shape[last], strides[before]
    if strides[last] != 1 or not 0 < length < distance:
        return name
    what = "channels" if name.endswith("C") else "rows"
    if any(-(-length // multiple) * multiple == distance for multiple in _PADDED_TO):
        return f"{name}, {what} padded to {distance}"
    return f"{name}, {what} {distance} apart"  # a part of a larger tensor


def _order_of(strides: Sequence[int]) -> list[int]:
    """Return for each axis how far it is from the fastest; strides that depend on the input are taken for long ones."""
    fastest_first = sorted(range(len(strides)), key=lambda axis: (strides[axis] < 0, strides[axis]))
    return [fastest_first.index(axis) for axis in range(len(strides))]


def of_words(text: str, shape: Sequence[int]) -> str:
    """Name a memory format by TensorRT's words for it, such as "(NHWC) Channel major format", for a tensor's shape.

    "Transposed" and others that say too little stay as TensorRT writes them, without the word "format".
    """
    words = " ".join(text.replace(".", " ").split())
    if vectors := _VECTORIZED.search(words):
        count = _COUNTS[vectors[1].lower()]
        return f"NC/{count}HW{count}"
    if padded := _PADDED.search(words):
        multiple, channels = int(padded[1]), shape[1] if len(shape) > 1 else 0
        whole = channels > 0 and channels % multiple == 0
        return CHANNELS_LAST if whole else f"{CHANNELS_LAST}, channels padded to a multiple of {multiple}"
    if short := re.match(r"\((\w+)\)", words):
        words = short[1]
    if words.lower().startswith(("row major linear", "linear")):
        return _LETTERS.get(len(shape), ROWS)
    if words.lower().startswith(("channel major", "nhwc")):
        return CHANNELS_LAST
    known = words and not words.startswith(("Format not available", "N/A"))  # of tensors whose shape is computed
    return words.removesuffix(" format") if known else UNKNOWN


def same_bytes(
    shape: Sequence[int], strides: Sequence[int], other_shape: Sequence[int], other_strides: Sequence[int]
) -> bool:
    """Say whether a tensor and a reshape of it have each element at the same place in memory.

    False also where a size or a stride isn't known.
    """
    if min((*shape, *strides, *other_shape, *other_strides, 1)) < 0 or len(shape) != len(strides):
        return False
    if math.prod(shape) != math.prod(other_shape) or len(other_shape) != len(other_strides):
        return False
    pairs = [[(size, step) for size, step in zip(*one, strict=True) if size > 1]
             for one in ((shape, strides), (other_shape, other_strides))]  # fmt: skip
    first, second = pairs
    while first and second:  # from the last axes on, split the longer of the two
        (size, step), (other_size, other_step) = first.pop(), second.pop()
        if step != other_step:
            return False
        common = min(size, other_size)
        if size % common or other_size % common:
            return False
        if size > common:
            first.append((size // common, step * common))
        if other_size > common:
            second.append((other_size // common, step * common))
    return not first and not second
