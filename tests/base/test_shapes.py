"""The rule by which shapes fit."""

import pytest

from tutorial_utils.base import shapes


@pytest.mark.parametrize(
    ("shape", "declared", "expected"),
    [
        ((8, 3, 32), (-1, 3, 32), True),
        ((8, 3, 32), (0, 3, 0), True),
        ((8, 3, 32), (8, 3, 32), True),
        ((), (), True),
        ((8, 3, 16), (-1, 3, 32), False),
        ((8, 3), (-1, 3, 32), False),
        ((8, 3, 32, 1), (-1, 3, 32), False),
    ],
)
def test_fits(shape, declared, expected):
    assert shapes.fits(shape, declared) is expected


def test_in_order_looks_at_every_dimension():
    assert shapes.in_order((1, 3), (4, 3), (8, 3))
    assert not shapes.in_order((1, 3), (4, 4), (8, 3))
    assert not shapes.in_order((2, 3), (1, 3))
