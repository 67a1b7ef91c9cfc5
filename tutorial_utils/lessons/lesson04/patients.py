"""The two patients of lesson 04: the text detector and the transformer, each sound, and with a fault that FP16 shows.

Both compute in FP32 what they did before. The detector has a power of two moved between two layers, the transformer one
in its residual stream.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tutorial_utils.base import paths
from tutorial_utils.debug import residual_stream, scaling
from tutorial_utils.lessons.lesson04 import text_detection
from tutorial_utils.model import data, networks, onnx_file

INPUT_SIZE = (192, 384)  # of the detector, in pixels
STREAM_FACTOR = 2.0**13
SENTENCES = 64  # in a draw
Draw = Callable[[int], dict[str, np.ndarray]]
Agreement = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Patient:
    """A network with what is needed to judge it.

    Attributes:
        name: "detector" or "transformer".
        sound, overflowing: Its FP32 files. The second overflows in FP16.
        feeds: Draws inputs by a seed.
        agreement: Takes an output and the right one, and returns the fraction of the task's answers that agree, 0 to 1.
    """

    name: str
    sound: Path
    overflowing: Path
    feeds: Draw
    agreement: Agreement


def detector() -> Patient:
    """Return PP-OCRv4's text detector. A draw is one view of the printed page; its answers are text boxes."""
    sound = text_detection.prepare()
    path = paths.cache_dir("lesson04", "patients") / "detector-overflowing.onnx"
    onnx_file.save(scaling.move_scale(onnx_file.load(sound), *scaling.PLANTED), path)
    return Patient("detector", sound, path, lambda seed: {"x": views(1, seed)}, boxes_agree)


def transformer() -> Patient:
    """Return the transformer encoder. A draw is 64 test sentences; its answers are their classes."""
    sound = networks.transformer(("fp32",))["fp32"]
    path = paths.cache_dir("lesson04", "patients") / "transformer-overflowing.onnx"
    onnx_file.save(residual_stream.scale(onnx_file.load(sound), STREAM_FACTOR), path)
    return Patient("transformer", sound, path, lambda seed: {"ids": sentences(seed)}, predictions_agree)


def views(count: int, seed: int) -> np.ndarray:
    """Return views of the printed page, each with another cut-out and brightness: float32 ``[count, 3, 192, 384]``."""
    random, page = np.random.default_rng(seed), text_detection.page()
    found = []
    for _ in range(count):
        height, width = (round(size * random.uniform(0.6, 1)) for size in page.shape[:2])
        top, left = (
            random.integers(whole - size + 1) for whole, size in zip(page.shape, (height, width), strict=False)
        )
        cut = page[top : top + height, left : left + width] * random.uniform(0.7, 1.0)
        found.append(text_detection.preprocess(np.rint(cut).astype(np.uint8), *INPUT_SIZE))
    return np.concatenate(found)


def sentences(seed: int) -> np.ndarray:
    """Return test sentences of the digits drawn at random: int64 ``[64, 17]``."""
    inputs = data.load("digit_sentences", "test").inputs
    return inputs[np.random.default_rng(seed).choice(len(inputs), SENTENCES, replace=False)]


def boxes_agree(found: np.ndarray, right: np.ndarray) -> float:
    """Return the fraction of text boxes that both outputs have, each edge within a pixel, of those that either has.

    Both are probabilities, ``[N, 1, height, width]``. NaN counts as no text.
    """
    same = either = 0
    for one, other in zip(found, right, strict=True):
        left = text_detection.boxes(other)
        boxes = text_detection.boxes(one)
        either += len(left) + len(boxes)
        for box in boxes:
            match = next((known for known in left if np.abs(np.subtract(box, known)).max() <= 1), None)
            if match:
                left.remove(match)
                same += 1
    return same / (either - same) if either else 1.0


def predictions_agree(found: np.ndarray, right: np.ndarray) -> float:
    """Return the fraction of sentences with the same class in both logits ``[N, C]``. NaN is no answer."""
    finite = np.isfinite(found).all(axis=1)
    return float(np.mean(finite & (found.argmax(axis=1) == right.argmax(axis=1))))
