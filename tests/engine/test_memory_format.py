"""How tensors lie in memory, by name: strides as TensorRT-RTX prints them, and words of TensorRT 8.6 and 10."""

import itertools

import numpy as np
import pytest

from tutorial_utils.engine import memory_format


@pytest.mark.parametrize(
    ("shape", "strides", "name"),
    [
        ((1, 3, 224, 224), (150528, 50176, 224, 1), "NCHW"),
        ((1, 4, 224, 224), (200704, 1, 896, 4), "NHWC"),
        ((-1, 16, 16, 16), (4096, 1, 256, 16), "NHWC"),
        ((1, 1024, 196), (200704, 1, 1024), "NHWC"),  # TensorRT-RTX: "(Transposed)", and "(NHWC)" elsewhere
        ((1, 64, 8, 8, 8), (32768, 1, 4096, 512, 64), "NDHWC"),
        ((1, 64, 8, 8, 8), (32768, 512, 64, 8, 1), "NCDHW"),
        ((1, 2048, 1, 1), (2048, 1, 1, 1), "vector"),
        ((1, 2048, 1, 1), (2048, 1, 2048, 2048), "vector"),
        ((10,), (1,), "vector"),
        ((), (), "vector"),
        ((64, 2048, 1, 1), (2048, 1, 2048, 2048), "row major"),  # of an image of one pixel, both are the same
        ((2048, 10), (10, 1), "row major"),
        ((2048, 10), (1, 2048), "column major"),
        ((8, 16, 64), (1024, 64, 1), "row major"),
        ((1, 3, 8, 8), (512, 1, 64, 8), "NHWC, channels padded to 8"),
        ((1, 3, 8, 8), (256, 1, 32, 4), "NHWC, channels padded to 4"),
        ((1, 64, 8, 8), (16384, 1, 2048, 256), "NHWC, channels 256 apart"),  # a quarter of what a Concat joins
        ((5, 10), (16, 1), "row major, rows padded to 16"),
    ],
)
def test_named_by_strides(shape, strides, name):
    assert memory_format.of_strides(shape, strides) == name


@pytest.mark.parametrize(
    ("shape", "strides", "order", "name"),
    [
        ((-1, -1), (-1, 1), (1, 0), "row major"),
        ((-1, -1, 64), (-1, 64, 1), (2, 1, 0), "row major"),
        ((-1, -1, 16), (16, -1, 1), (1, 2, 0), "axes 1, 0, 2"),  # heads of an attention side by side
        ((-1, 16, -1), (16, 1, -1), (1, 0, 2), "axes 2, 0, 1"),
        ((-1, 1, 1, -1), (-1, -1, -1, 1), (3, 2, 1, 0), "row major"),
        ((-1, 8, -1, -1), (-1, 1, -1, 8), (3, 0, 2, 1), "NHWC"),
        ((-1, -1, 64), (-1, 64, 1), (), "row major"),
    ],
)
def test_the_order_decides_where_strides_depend_on_the_input(shape, strides, order, name):
    assert memory_format.of_strides(shape, strides, order) == name


@pytest.mark.parametrize("axes", [*itertools.permutations(range(3))])
def test_the_order_follows_from_strides(axes):
    shape = (4, 5, 6)
    moved = np.zeros([shape[axis] for axis in axes], np.int8).transpose(np.argsort(axes))
    name = memory_format.of_strides(shape, moved.strides)
    known = {(0, 1, 2): "row major", (0, 2, 1): "NHWC"}
    assert name == known.get(axes, f"axes {', '.join(map(str, axes))}")


@pytest.mark.parametrize(
    ("words", "shape", "name"),
    [
        ("(Linear) Row major linear format", (1, 3, 8, 8), "NCHW"),
        ("(Linear) Row major linear format", (8, 8), "row major"),
        ("Row major linear", (1, 3, 8, 8), "NCHW"),
        ("(NHWC) Channel major format", (1, 3, 8, 8), "NHWC"),
        ("(Transposed) Transposed format", (1, 8, 16), "Transposed"),
        ("Channel major format where channel % 8 == 0", (1, 3, 8, 8), "NHWC, channels padded to a multiple of 8"),
        ("Channel major format where channel % 8 == 0", (1, 64, 8, 8), "NHWC"),
        ("Channel major format where channel % 8 == 0", (1, -1, 8, 8), "NHWC, channels padded to a multiple of 8"),
        ("Channel major format where channel % 4 == 0.", (1, 3, 8, 8), "NHWC, channels padded to a multiple of 4"),
        ("Thirty-two wide channel vectorized row major format", (1, 32, 8, 8), "NC/32HW32"),
        ("Two wide channel vectorized row major format.", (1, 2, 8, 8), "NC/2HW2"),
        ("Format not available due to dynamic shapes", (4,), "unknown"),
        ("N/A due to dynamic shapes", (-1, 3, 8, 8), "unknown"),
        ("", (1, 3, 8, 8), "unknown"),
    ],
)
def test_named_by_words(words, shape, name):
    assert memory_format.of_words(words, shape) == name


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (((1, 1024, 196), (200704, 1, 1024)), ((1, 1024, 14, 14), (200704, 1, 14336, 1024)), True),
        (((1, 1024, 196), (200704, 1, 1024)), ((1, 1024, 14, 14), (200704, 196, 14, 1)), False),
        (((4, 6), (6, 1)), ((2, 12), (12, 1)), True),
        (((4, 6), (6, 1)), ((3, 8), (8, 1)), False),  # the same bytes, which this doesn't see; never the other way
        (((4, 6), (6, 1)), ((24,), (1,)), True),
        (((4, 6), (1, 4)), ((24,), (1,)), False),
        (((4, 6), (8, 1)), ((24,), (1,)), False),
        (((4, 1, 6), (6, 99, 1)), ((4, 6), (6, 1)), True),
        (((4, 6), (6, 1)), ((4, 5), (5, 1)), False),
        (((-1, 6), (6, 1)), ((-1, 6), (6, 1)), False),
        (((4, 6), ()), ((4, 6), ()), False),
        (((), ()), ((1,), (1,)), True),
    ],
)
def test_same_bytes(one, other, same):
    assert memory_format.same_bytes(*one, *other) is same
