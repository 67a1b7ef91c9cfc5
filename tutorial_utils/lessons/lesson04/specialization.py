"""Lesson 04: results that move while an engine runs, because TensorRT-RTX replaces kernels in the background.

An engine for dynamic shapes starts with kernels for any shape. With the strategy LAZY, the default, kernels for the
shape in use are compiled meanwhile and take over when they are ready; EAGER waits for them, NONE does without.
"""

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils import engine
from tutorial_utils.base import onnx_session
from tutorial_utils.engine.tensorrt import trt
from tutorial_utils.measure.experiment import Experiment

STRATEGIES = ("LAZY", "EAGER", "NONE")
SECONDS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
SHAPE, BATCH = (3, 32, 32), 64
METHOD = (
    "Quick classifier FP32 with a dynamic batch up to 64, a new context for each strategy, the same 64 random "
    "images in one call after the other; error: largest absolute difference from ONNX Runtime on the CPU, over the "
    "largest output, of the first call that ends so many seconds after the first one began"
)


@dataclass(frozen=True)
class Calls:
    """An engine called again and again: its error, and the calls made by then, after so many seconds."""

    strategy: str
    seconds: list[float]
    errors: list[float]
    calls: list[int]


def measure(onnx_path: Path) -> list[dict[str, Any]]:
    """Call an engine of the quick classifier many times with each strategy; return the fields of its `Calls`.

    Raises:
        BackendUnavailableError: PyCUDA can't be imported, or this TensorRT is no TensorRT-RTX.
    """
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    images = np.random.default_rng(0).standard_normal((BATCH, *SHAPE), dtype=np.float32)
    options = engine.BuildOptions(profiles=(engine.Profile.batch("x", SHAPE, opt=BATCH, max=BATCH),))
    built = engine.build(onnx_path, options, progress=False)
    (expected,) = onnx_session.new_session(onnx_path).run(None, {"x": images})
    rows = []
    for strategy in STRATEGIES:
        with TensorRTRunner(built, configure=functools.partial(specialize, strategy)) as runner:
            errors, calls, made, start = [], [], 0, time.perf_counter()
            while len(errors) < len(SECONDS):
                (outputs,) = runner.infer({"x": images}).values()
                made += 1
                if time.perf_counter() - start >= SECONDS[len(errors)]:
                    errors.append(float(np.abs(outputs - expected).max() / np.abs(expected).max()))
                    calls.append(made)
        rows.append({"strategy": strategy, "errors": errors, "calls": calls})
    return rows


def specialize(strategy: str, config: "trt.IRuntimeConfig") -> None:
    """Choose how kernels for the shape in use come about: one of `STRATEGIES`. A hook for `TensorRTRunner`."""
    kind = trt.DynamicShapesKernelSpecializationStrategy
    config.dynamic_shapes_kernel_specialization_strategy = getattr(kind, strategy)


EXPERIMENT = Experiment(
    name="lesson04_specialization",
    title="An engine whose kernels are replaced while it runs",
    method=METHOD,
    measure=lambda models: {"seconds": list(SECONDS), "rows": measure(models["quick-fp32"])},
    read=lambda data: [Calls(seconds=data["seconds"], **row) for row in data["rows"]],
    models=("quick-fp32.onnx",),
)
