"""Datasets: their form, their fixed split, and what calibration draws from them."""

import numpy as np
import pytest

from tutorial_utils.base.errors import CalibrationError
from tutorial_utils.model import data


def test_digits_have_the_form_that_every_step_takes():
    for split, count in (("train", 1197), ("test", 600)):
        digits = data.load("digits", split)
        assert len(digits) == count
        assert digits.images.shape == (count, 3, 32, 32)
        assert digits.images.dtype == np.float32
        assert digits.images.flags.c_contiguous
        assert (digits.images.min(), digits.images.max()) == (-1, 1)
        assert digits.labels.dtype == np.int64
        assert digits.class_names == tuple("0123456789")
        assert np.array_equal(digits.images[:, 0], digits.images[:, 2])


def test_digits_split_is_fixed_stratified_and_without_overlap():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    assert np.array_equal(test.images, data.load("digits", "test").images)
    shares = np.bincount(train.labels) / len(train) - np.bincount(test.labels) / len(test)
    assert np.abs(shares).max() < 0.005
    # scikit-learn's data set itself holds no picture twice
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}


def test_upsampling_keeps_the_picture_where_it_was():
    from sklearn.datasets import load_digits

    digits = data.load("digits", "test")
    shrunk = (digits.images[:, 0].reshape(-1, 8, 4, 8, 4).mean((2, 4)) + 1) * 8
    originals = load_digits().images
    for image, label in zip(shrunk[:20], digits.labels[:20], strict=True):
        nearest = np.abs(originals - image).sum((1, 2)).argmin()
        assert load_digits().target[nearest] == label
        assert np.corrcoef(originals[nearest].ravel(), image.ravel())[0, 1] > 0.97


def pictures_of(ids: np.ndarray) -> np.ndarray:
    """Read sentences back as pictures, [N, 8, 8], in the shades that they were written in."""
    words = np.maximum(ids[:, 1:] - 2, 0)
    pixels = words[..., np.newaxis] // data.SHADES ** np.arange(4) % data.SHADES
    return pixels.reshape(-1, 4, 4, 2, 2).transpose(0, 2, 3, 1, 4).reshape(-1, 8, 8)


def test_digit_sentences_say_what_the_images_show():
    from sklearn.datasets import load_digits

    test = data.load("digit_sentences", "test")
    assert np.array_equal(test.labels, data.load("digits", "test").labels)
    ids = test.inputs
    assert (ids.shape, ids.dtype) == ((600, data.LONGEST_SENTENCE), np.int64)
    assert ids.flags.c_contiguous
    assert (ids[:, 0] == data.CLS).all()
    assert 0 <= ids.min() <= ids.max() < data.VOCABULARY
    ended = ids == data.PADDING
    assert not (ended[:, :-1] & ~ended[:, 1:]).any()  # nothing follows the padding
    assert len(np.unique((~ended).sum(1))) >= 4  # lengths differ
    shades = {picture.tobytes() for picture in (load_digits().images * data.SHADES // 17).astype(np.int64)}
    assert {np.ascontiguousarray(picture).tobytes() for picture in pictures_of(ids)} <= shades


def test_digit_sentences_to_train_with_are_also_moved():
    train = data.load("digit_sentences", "train")
    assert train.inputs.shape == (5 * 1197, data.LONGEST_SENTENCE)
    assert np.array_equal(train.labels, np.tile(data.load("digits", "train").labels, 5))
    still, right, left, down, up = pictures_of(train.inputs).reshape(5, -1, 8, 8)
    assert np.array_equal(right[:, :, 1:], still[:, :, :-1])
    assert np.array_equal(left[:, :, :-1], still[:, :, 1:])
    assert np.array_equal(down[:, 1:], still[:, :-1])
    assert np.array_equal(up[:, :-1], still[:, 1:])
    assert not right[:, :, 0].any()
    assert not up[:, -1].any()


def test_calibration_images_are_balanced_and_reproducible():
    train = data.load("digits", "train")
    images = data.calibration_images(train, count=105)
    assert images.shape == (105, 3, 32, 32)
    assert images.dtype == np.float32
    label_of = {image.tobytes(): label for image, label in zip(train.images, train.labels, strict=True)}
    labels = [label_of[image.tobytes()] for image in images]
    assert sorted(np.bincount(labels)) == [10] * 5 + [11] * 5
    assert len({image.tobytes() for image in images}) == 105
    assert labels != sorted(labels)
    assert np.array_equal(images, data.calibration_images(train, count=105))


def test_the_most_images_that_an_error_offers_can_be_drawn():
    train = data.load("digits", "train")
    with pytest.raises(CalibrationError, match="need 200 of class") as caught:
        data.calibration_images(train, count=2000)
    most = int("".join(filter(str.isdigit, caught.value.remedy)))
    assert len(data.calibration_images(train, count=most)) == most
