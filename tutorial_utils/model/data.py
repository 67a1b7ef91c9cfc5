"""Inputs and labels in one form: handwritten digits as images or as sentences. They come with scikit-learn."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tutorial_utils.base.errors import CalibrationError, DataError

IMAGE_SHAPE = (3, 32, 32)
DIGITS_TEST_IMAGES = 600
# The digits as sentences. The ids after these two are words: 2x2 pixels in so many shades each.
PADDING, CLS = 0, 1
SHADES = 3
VOCABULARY = 2 + SHADES**4
LONGEST_SENTENCE = 1 + 16


@dataclass(frozen=True)
class Dataset:
    """Labelled inputs in the form that every later step takes.

    Attributes:
        inputs: Images, float32 ``[N, 3, 32, 32]`` in [-1, 1]; or sentences, int64 ids ``[N, L]`` padded with 0.
            C-contiguous.
        labels: int64 ``[N]``, indices into ``class_names``.
    """

    name: str
    inputs: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    @property
    def images(self) -> np.ndarray:
        """The inputs, by the name that they have where they are images."""
        return self.inputs

    def __len__(self) -> int:
        return len(self.labels)


def load(name: str = "digits", split: Literal["train", "test"] = "train") -> Dataset:
    """Load one split of a dataset.

    Args:
        name: ``"digits"``: scikit-learn's 1,797 handwritten digits, shipped with it (1,197 to train, 600 to test).
            ``"digit_sentences"``: the same digits as sentences (5,985 to train, 600 to test).
        split: ``"train"`` or ``"test"``.

    Returns:
        The inputs and labels, in the same order on every call.

    Raises:
        DataError: Name or split is unknown.
    """
    loaders = {"digits": _load_digits, "digit_sentences": _load_digit_sentences}
    if name not in loaders:
        raise DataError(f"There is no dataset {name!r}.", f"Choose one of {', '.join(map(repr, loaders))}.")
    if split not in ("train", "test"):
        raise DataError(f"There is no split {split!r}.", "Choose 'train' or 'test'.")
    return loaders[name](split)


def calibration_images(dataset: Dataset, count: int = 500) -> np.ndarray:
    """Draw a class-balanced random subset for INT8 calibration, the same one at each call.

    Args:
        dataset: Training images: a model calibrated with test images would be judged by images that it has seen.
        count: Number of images. Where it is no multiple of the number of classes, some classes give one image more.

    Returns:
        As many of the dataset's inputs, in random order, so that every batch holds a mix of classes.

    Raises:
        CalibrationError: ``count`` is below 1, or a class has too few images for a balanced subset.
    """
    if count < 1:
        raise CalibrationError(f"{count} calibration images were asked for.", "Ask for at least 1; 500 are usual.")
    random = np.random.default_rng(0)
    classes = len(dataset.class_names)
    share, extra = divmod(count, classes)
    chosen = []
    for position, label in enumerate(random.permutation(classes)):
        wanted = share + (position < extra)
        candidates = np.flatnonzero(dataset.labels == label)
        if len(candidates) < wanted:
            raise CalibrationError(
                f"{count} class-balanced images need {wanted} of class {dataset.class_names[label]!r}, "
                f"but {dataset.name} has {len(candidates)}.",
                f"Ask for at most {classes * np.bincount(dataset.labels, minlength=classes).min()} images.",
            )
        chosen.append(random.choice(candidates, wanted, replace=False))
    return dataset.inputs[random.permutation(np.concatenate(chosen))]


def _load_digits(split: str) -> Dataset:
    from scipy import ndimage

    pixels, labels, names = _digits(split)
    # 8x8 to 32x32, bilinear with half-pixel centres (what image libraries do by default), then gray to three channels.
    gray = ndimage.zoom(pixels, (1, 4, 4), order=1, mode="nearest", grid_mode=True)
    images = np.repeat(gray[:, np.newaxis], 3, axis=1).astype(np.float32) / 8 - 1  # 0..16 to -1..1
    return Dataset("digits", images, labels, names)


def _load_digit_sentences(split: str) -> Dataset:
    """Write down each digit as [CLS] and words, column by column from the left: 2x2 pixels are a word.

    A sentence ends with its last word that has ink. Few digits are too few for a transformer: to train with, each
    stands here also moved by one pixel to each of the four sides.
    """
    from scipy import ndimage

    pixels, labels, names = _digits(split)
    moves = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)] if split == "train" else [(0, 0)]
    pixels = np.concatenate([ndimage.shift(pixels, (0, *move), order=0) for move in moves])
    shades = (pixels * SHADES // 17).astype(np.int64)  # of 0..16
    words = shades.reshape(-1, 4, 2, 4, 2).transpose(0, 3, 1, 2, 4).reshape(-1, 16, 4) @ SHADES ** np.arange(4)
    not_ended = np.cumsum(words[:, ::-1], axis=1)[:, ::-1] > 0
    ids = np.where(not_ended, CLS + 1 + words, PADDING)
    return Dataset("digit_sentences", np.insert(ids, 0, CLS, axis=1), np.tile(labels, len(moves)), names)


def _digits(split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return scikit-learn's digits: ``[N, 8, 8]`` in 0..16, their labels, and the names of the classes."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    every = np.arange(len(digits.target))
    train, test = train_test_split(every, test_size=DIGITS_TEST_IMAGES, stratify=digits.target, random_state=0)
    chosen = train if split == "train" else test
    return digits.images[chosen], digits.target[chosen].astype(np.int64), tuple(map(str, digits.target_names))
