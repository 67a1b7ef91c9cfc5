"""How good a model is, and how close an optimized model stays to its reference."""

from dataclasses import dataclass

import numpy as np

from tutorial_utils.base.errors import InputError


@dataclass(frozen=True)
class Metrics:
    """Quality of a classifier; precision and recall are unweighted means over the classes (macro average).

    Attributes:
        accuracy: Fraction of right answers, 0 to 1.
        precision: Of the images given a class, the fraction that belongs to it, 0 to 1.
        recall: Of the images of a class, the fraction that was given it, 0 to 1.
    """

    accuracy: float
    precision: float
    recall: float


def classification_metrics(labels: np.ndarray, logits: np.ndarray) -> Metrics:
    """Compare a classifier's outputs with the true labels.

    Args:
        labels: Integers ``[N]`` in 0 to C-1.
        logits: Numbers ``[N, C]``; the class with the highest is the answer.

    Returns:
        Accuracy, precision and recall. A class that was never predicted counts with precision 0.

    Raises:
        InputError: The shapes don't fit, a label is no class, or a logit is NaN or infinite.
    """
    from sklearn.metrics import precision_recall_fscore_support

    labels = _numbers("labels", labels)
    logits = _logits("logits", logits)
    if labels.ndim != 1 or len(labels) != len(logits) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels have shape {list(labels.shape)} and type {labels.dtype}, logits have shape {list(logits.shape)}.",
            f"Give one integer label per row of the logits: [{len(logits)}].",
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise InputError(
            f"labels go from {labels.min()} to {labels.max()}, but the logits have {logits.shape[1]} classes.",
            f"Give labels from 0 to {logits.shape[1] - 1}.",
        )
    predicted = logits.argmax(axis=1)
    precision, recall, _, _ = precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    return Metrics(float(np.mean(predicted == labels)), float(precision), float(recall))


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Return the fraction of images for which two models, with logits ``[N, C]`` each, choose the same class.

    Raises:
        InputError: The shapes differ or aren't ``[N, C]``, or a logit is NaN or infinite.
    """
    a, b = _logits("a", a), _logits("b", b)
    _require_same_shape(a, b)
    return float(np.mean(a.argmax(axis=1) == b.argmax(axis=1)))


def relative_error(actual: np.ndarray, reference: np.ndarray) -> float:
    """Return the largest difference, as a fraction of the largest magnitude of the reference.

    Dividing by one number for the whole array, unlike an element-wise relative error, doesn't blow up where the
    reference passes through zero. Both may have any shape, the same.

    Raises:
        InputError: The shapes differ, a value is NaN or infinite, or the reference is zero everywhere.
    """
    actual, reference = _comparable(actual, reference)
    return float(np.abs(actual - reference).max() / np.abs(reference).max())


def sqnr_db(actual: np.ndarray, reference: np.ndarray) -> float:
    """Return the signal-to-quantization-noise ratio: power of the reference over power of the difference, in decibels.

    20 dB is a noise of one tenth of the signal, 40 dB of one hundredth; equal arrays give infinity. Both may have any
    shape, the same.

    Raises:
        InputError: The shapes differ, a value is NaN or infinite, or the reference is zero everywhere.
    """
    actual, reference = _comparable(actual, reference)
    noise = np.sum((actual - reference) ** 2)
    return float(10 * np.log10(np.sum(reference**2) / noise)) if noise else float("inf")


def accuracy_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of an accuracy: how far it would move with other test images.

    Its bounds, 0 to 1, are those of Wilson's method, which also holds near 100 %
    (https://en.wikipedia.org/wiki/Binomial_proportion_confidence_interval#Wilson_score_interval).

    Args:
        correct: Number of right answers.
        total: Number of test images.

    Raises:
        InputError: ``correct`` isn't within 0 to ``total``, or ``total`` is 0.
    """
    from scipy.stats import binomtest

    try:
        counts = int(correct), int(total)
        are_counts = counts == (correct, total) and 0 <= correct <= total < 2**53 and total > 0
    except (TypeError, ValueError, OverflowError):
        are_counts = False
    if not are_counts:
        raise InputError(
            f"{correct} right answers of {total} were given.", "Give 0 to total right answers of at least one image."
        )
    interval = binomtest(*counts).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _logits(name: str, values: np.ndarray) -> np.ndarray:
    values = _numbers(name, values)
    if values.ndim != 2 or values.size == 0:
        raise InputError(f"{name} has shape {list(values.shape)}.", "Give logits [N, C] of at least one image.")
    _require_finite(name, values)
    return values


def _comparable(actual: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # float64: in FP16 the squares and the differences would overflow or vanish
    actual, reference = (
        _numbers(name, values).astype(np.float64) for name, values in (("actual", actual), ("reference", reference))
    )
    _require_same_shape(actual, reference)
    _require_finite("actual", actual)
    _require_finite("reference", reference)
    if not reference.any():
        raise InputError(
            "The reference is empty or zero everywhere: an error relative to it has no meaning.",
            "Check the input and the output name of the reference run.",
        )
    # A power of two, by which no digit changes: squares of the largest numbers overflow, those of the smallest vanish.
    _, exponent = np.frexp(np.abs(reference).max())
    return np.ldexp(actual, -exponent), np.ldexp(reference, -exponent)


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    try:
        array = np.asarray(values)
        is_real = array.dtype.kind in "biuf" or np.can_cast(array.dtype, np.float64)  # BF16 and FP8 are of kind "V"
    except ValueError:  # rows of different lengths
        is_real = False
    if not is_real:
        raise InputError(
            f"{name} is no array of real numbers.", "Give a NumPy array of numbers, in rows of one length."
        )
    return array


def _require_same_shape(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise InputError(
            f"The two arrays have the shapes {list(a.shape)} and {list(b.shape)}.",
            "Compare outputs of the same images and the same output tensor.",
        )


def _require_finite(name: str, values: np.ndarray) -> None:
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise InputError(
            f"{name} holds {bad} values that are NaN or infinite, of {values.size}.",
            "Look for an overflow: an FP16 layer beyond 65,504, or an engine that was given wrong input.",
        )
