"""Lesson 02: the article's way of timing, one call of a fresh predictor, beside warm calls taken in turn."""

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils.base import child_process
from tutorial_utils.measure import timing
from tutorial_utils.measure.timing import Measurement

Choices = Sequence[tuple[str, Mapping[str, Any]]]  # name and keyword arguments of `PaddleRunner`, in order


@dataclass(frozen=True)
class ColdCall:
    """Times of one fresh predictor, by the host's clock, copies included."""

    name: str
    first_ms: float  # the first call: all that the article timed
    warm: Measurement  # calls in turn with the other predictors, after all of them were made and called once


def in_fresh_process(model_path: Path, params_path: Path, images: np.ndarray, choices: Choices) -> list[ColdCall]:
    """Time configurations in a new process, as a script would: cold one after the other, then warm in turn.

    They are made and called in the order of the choices, on one batch of images, float32 ``[N, 3, H, W]``.
    """
    return child_process.run(_cold_then_warm, model_path, params_path, images, list(choices))


def _cold_then_warm(model_path: Path, params_path: Path, images: np.ndarray, choices: Choices) -> list[ColdCall]:
    from tutorial_utils.runners.paddle import PaddleRunner  # in the new process: the import is no part of any time

    cold, calls = {}, {}
    for name, options in choices:
        call = functools.partial(PaddleRunner(model_path, params_path, **options).infer, {"x": images})
        created = time.perf_counter()
        call()
        cold[name] = 1e3 * (time.perf_counter() - created)
        calls[name] = call
    warm = timing.measure_in_turn(calls, batch=len(images), seconds=1.0)
    return [ColdCall(name, cold[name], warm[name]) for name in calls]
