"""Lesson 02: the same network in several configurations of Paddle, with its quality and honest times."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tutorial_utils.measure import quality, timing
from tutorial_utils.measure.deployment import Row
from tutorial_utils.model.data import Dataset

if TYPE_CHECKING:
    import pandas

Predict = Callable[[np.ndarray], np.ndarray]  # images [N, 3, H, W] to logits [N, classes]


def measure(
    configurations: Mapping[str, tuple[str, Predict]],
    dataset: Dataset,
    *,
    model_bytes: int,
    batch: int = 64,
    seconds: float = 1.0,
) -> list[Row]:
    """Run every configuration on all images for its quality, and time them in turn on one batch.

    A configuration has a name, a precision and a function. The first is the reference of agreement and error.
    """
    logits = {
        name: np.concatenate([predict(dataset.images[i : i + batch]) for i in range(0, len(dataset), batch)])
        for name, (_, predict) in configurations.items()
    }
    reference = next(iter(logits.values()))
    calls = {name: functools.partial(predict, dataset.images[:batch]) for name, (_, predict) in configurations.items()}
    times = timing.measure_in_turn(calls, batch=batch, seconds=seconds)
    return [
        Row(
            backend=name,
            precision=precision,
            quality=quality.classification_metrics(dataset.labels, logits[name]),
            agreement=quality.agreement(logits[name], reference),
            relative_error=quality.relative_error(logits[name], reference),
            latency=times[name],
            device_latency=None,
            model_bytes=model_bytes,
            engine_bytes=None,
            activation_bytes=None,
        )
        for name, (precision, _) in configurations.items()
    ]


def times_table(rows: Sequence[Row]) -> "pandas.DataFrame":
    """Return the times of all rows, with the speed-up over the first."""
    import pandas

    compared = [None, *(timing.compare(rows[0].latency, row.latency) for row in rows[1:])]
    lines = (
        {
            "configuration": row.backend,
            "type": row.precision.upper(),
            "median ms": f"{row.latency.median_ms:.2f}",
            "p99 ms": f"{row.latency.p99_ms:.2f}",
            "calls": row.latency.calls,
            "images/s": f"{row.latency.images_per_second:,.0f}",
            "speed-up (95 % interval)": f"{one.speedup:.2f}x ({one.low:.2f} to {one.high:.2f})" if one else "",
        }
        for row, one in zip(rows, compared, strict=True)
    )
    return pandas.DataFrame(lines).set_index(["configuration", "type"])


def quality_table(rows: Sequence[Row]) -> "pandas.DataFrame":
    """Return the quality of all rows; agreement and error are relative to the first."""
    import pandas

    lines = (
        {
            "configuration": row.backend,
            "type": row.precision.upper(),
            "accuracy %": f"{100 * row.quality.accuracy:.2f}",
            "macro precision %": f"{100 * row.quality.precision:.2f}",
            "macro recall %": f"{100 * row.quality.recall:.2f}",
            "same answer %": f"{100 * row.agreement:.2f}",
            "largest relative error": f"{row.relative_error:.1e}",
        }
        for row in rows
    )
    return pandas.DataFrame(lines).set_index(["configuration", "type"])
