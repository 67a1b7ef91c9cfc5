"""Lesson 02: ResNet-50 in Paddle-TRT beside TensorRT's own loop on the same engine, and trials of what goes wrong."""

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils.base.errors import PlanError
from tutorial_utils.engine import computed_types
from tutorial_utils.lessons.lesson02 import trials
from tutorial_utils.lessons.lesson02.trials import Outcome
from tutorial_utils.measure import quality, rows, timing
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model.classifier import SavedModel
from tutorial_utils.runners import legacy_program, paddle_plan, paddle_tensorrt, paddle_tensorrt_build
from tutorial_utils.runners.paddle import PaddleRunner

SHAPE = (64, 3, 32, 32)
CALIBRATION_IMAGES = 128
PADDLE, SAME_COPIES, PINNED = "Paddle-TRT", "TensorRT, same copies", "TensorRT, pinned memory"
METHOD = (
    f"ResNet-50 with 10 classes, random weights, at {'x'.join(map(str, SHAPE))}, a static profile; Paddle's legacy "
    "way, the predictor made in a process of its own with an empty cache folder, then opened from it. Times: host "
    "clock from images in host memory to logits in host memory, warm-up until steady, then rounds in turn with "
    "TensorRT's own calls on the engine that Paddle kept, copied from and to ordinary memory as Paddle does, and "
    "through pinned memory. Error: of the largest logit, against Paddle on the CPU. INT8: quantized offline on the CPU "
    f"with {CALIBRATION_IMAGES} other images. Trials: the quick classifier with random weights, each in a process of "
    "its own, with Paddle's own calls"
)
ENGINES = {"FP32": "fp32", "FP16": "fp16", "INT8": "int8"}


@dataclass(frozen=True)
class PaddleEngine:
    """ResNet-50 in one precision.

    Attributes:
        make_s: Making the predictor, engine included, with an empty cache folder.
        open_s: Making it again, with the engine in the folder.
        times: Of `PADDLE`, `SAME_COPIES` and `PINNED`. The first call of `PADDLE` is that of the opened predictor.
        relative_error, agreement: Against Paddle on the CPU.
        subgraphs, whole: What Paddle's log says, see `OffloadLog`.
        computes_in: What the engine's convolutions and products compute in, by TensorRT's inspector.
        warnings: What TensorRT warned of in Paddle's log.
    """

    make_s: float
    open_s: float
    plan_bytes: int
    times: dict[str, Measurement]
    relative_error: float
    agreement: float
    subgraphs: tuple[int, ...]
    whole: bool
    computes_in: str
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "PaddleEngine":
        """Read it back from plain values."""
        lists = {name: tuple(values[name]) for name in ("subgraphs", "warnings")}
        return cls(**{**values, **lists, "times": timing.from_plain(values["times"])})


@dataclass(frozen=True)
class PaddleTensorRT:
    """What the experiment found.

    Attributes:
        engines: By the names of `ENGINES`, those that could be measured.
        outcomes: By the names of `trials.TRIALS`.
        reasons: Of what couldn't be measured.
    """

    engines: dict[str, PaddleEngine]
    outcomes: dict[str, Outcome]
    reasons: dict[str, str]


def read(data: Mapping[str, Any]) -> PaddleTensorRT:
    """Return the typed result of a recording's rows."""
    recorded = rows.read(data)
    found = {row.name: row.values for row in recorded if row.values is not None}
    return PaddleTensorRT(
        {name: PaddleEngine.of(found[f"resnet50/{name}"]) for name in ENGINES if f"resnet50/{name}" in found},
        {name: Outcome.of(found[f"trial/{name}"]) for name in trials.TRIALS if f"trial/{name}" in found},
        {row.name: row.reason for row in recorded if row.values is None},
    )


def program(precision: str) -> SavedModel:
    """Return ResNet-50 as ``.pdmodel``; for INT8 the quantized one."""
    if precision == "int8":
        return legacy_program.quantized("resnet50", images(CALIBRATION_IMAGES, seed=1))
    return legacy_program.untrained("resnet50")


def images(count: int = SHAPE[0], seed: int = 0) -> np.ndarray:
    """Return random images, float32 ``[count, 3, 32, 32]``."""
    return np.random.default_rng(seed).standard_normal((count, *SHAPE[1:]), dtype=np.float32)


def measure_engine(name: str, _: Mapping[str, Path], seconds: float = 1.0) -> dict[str, Any]:
    """Build and time one of `ENGINES`; return the fields of a `PaddleEngine` as plain values.

    Raises:
        CourseError: Paddle-TRT can't be used here, or refuses the program; or its engine computes something else alone.
    """
    paddle_tensorrt.require_tensorrt()
    precision = ENGINES[name]
    saved, feeds = program(precision), {"x": images()}
    reference = legacy_program.untrained("resnet50")
    with PaddleRunner(reference.model_path, reference.params_path, onednn=False) as on_cpu:
        (expected,) = on_cpu.infer(feeds).values()
    options = {"shapes": {"x": (SHAPE,) * 3}, "precision": precision, "inspector": True}
    built = paddle_tensorrt_build.cached(saved.model_path, saved.params_path, **options)
    started = time.perf_counter()
    with paddle_tensorrt_build.open_runner(saved.model_path, saved.params_path, **options) as runner:
        open_s = time.perf_counter() - started
        with paddle_plan.opened(built.folder, feeds["x"]) as plan:
            calls = {
                PADDLE: functools.partial(runner.infer, feeds),
                SAME_COPIES: functools.partial(plan.infer, feeds["x"]),
                PINNED: functools.partial(plan.infer_pinned, feeds["x"]),
            }
            times = timing.measure_in_turn(calls, batch=SHAPE[0], seconds=seconds)
            (logits,) = runner.infer(feeds).values()
            if quality.relative_error(plan.infer(feeds["x"]), logits) > 1e-3:
                raise PlanError("The loop on Paddle's engine gives other outputs than Paddle.", "Build it again.")
            return {
                "make_s": round(built.seconds, 2),
                "open_s": round(open_s, 2),
                "plan_bytes": plan.plan_bytes,
                "times": timing.to_plain(times),
                "relative_error": quality.relative_error(logits, expected),
                "agreement": quality.agreement(logits, expected),
                "subgraphs": built.log.subgraphs,
                "whole": built.log.whole,
                "computes_in": computed_types.line(plan.layers),
                "warnings": built.log.warnings,
            }


EXPERIMENT = Experiment(
    name="lesson02_paddle_tensorrt",
    title="ResNet-50 in Paddle-TRT beside TensorRT's own loop on its engines, and what becomes of careless predictors",
    method=METHOD,
    rows={
        **{f"resnet50/{name}": functools.partial(measure_engine, name) for name in ENGINES},
        **{f"trial/{name}": functools.partial(trials.measure, name) for name in trials.TRIALS},
    },
    read=read,
    needs_tensorrt=False,
)
