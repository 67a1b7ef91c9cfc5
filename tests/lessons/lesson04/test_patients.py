"""The patients of lesson 04: their inputs, and what agrees in their answers."""

import numpy as np
import pytest

from tutorial_utils.lessons.lesson04 import patients


def plane(*boxes):
    """Return a detector's output with text in these boxes (x0, y0, x1, y1)."""
    values = np.zeros((1, 32, 64), np.float32)
    for x0, y0, x1, y1 in boxes:
        values[0, y0:y1, x0:x1] = 0.9
    return values


def test_boxes_agree_to_a_pixel():
    right = np.stack([plane((2, 2, 20, 8), (2, 16, 20, 24)), plane((4, 4, 30, 10))])
    assert patients.boxes_agree(right, right) == 1
    moved = np.stack([plane((3, 2, 21, 8), (2, 16, 20, 24)), plane((4, 4, 30, 10))])
    assert patients.boxes_agree(moved, right) == 1
    far = np.stack([plane((5, 2, 23, 8), (2, 16, 20, 24)), plane((4, 4, 30, 10))])
    assert patients.boxes_agree(far, right) == 2 / 4, "one of three is lost, and a new one is there"
    assert patients.boxes_agree(np.full_like(right, np.nan), right) == 0
    assert patients.boxes_agree(np.zeros_like(right), np.zeros_like(right)) == 1


def test_nan_is_no_prediction():
    right = np.eye(4, 10, dtype=np.float32)
    found = right.copy()
    found[0] = np.nan  # argmax would say 0, which is right
    found[1, 1], found[1, 2] = 0, 1
    assert patients.predictions_agree(found, right) == 0.5


def test_views_follow_the_seed():
    pytest.importorskip("skimage")
    first, again, other = patients.views(2, 0), patients.views(2, 0), patients.views(2, 1)
    assert first.shape == (2, 3, *patients.INPUT_SIZE)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, other)


def test_sentences_follow_the_seed():
    assert patients.sentences(3).shape == (patients.SENTENCES, 17)
    np.testing.assert_array_equal(patients.sentences(3), patients.sentences(3))
