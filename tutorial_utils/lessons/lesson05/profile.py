"""Lesson 05, time: what each layer of an engine takes by TensorRT's profiler, beside what the whole engine takes.

The same run keeps the engine inspector's JSON, so that the report read from the build log can be compared with it on a
machine without a GPU.
"""

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils import engine
from tutorial_utils.engine.tensorrt import LayerTimes, checked, trt
from tutorial_utils.measure.experiment import Experiment

METHOD = (
    "Each engine runs on one stream, input copied once. Engine: CUDA events around a call, median of the calls without "
    "profiler. Layers: IProfiler, median of each layer over as many calls of the same engine with the profiler attached"
)
# Name, ONNX file, shape of one image, batch.
CASES = (
    ("quick FP32, batch 64", "quick-fp32", (3, 32, 32), 64),
    ("ResNet-50 FP32, batch 1", "resnet50-fp32", (3, 224, 224), 1),
    ("ResNet-50 FP16, batch 1", "resnet50-fp16", (3, 224, 224), 1),
    ("ResNet-50 FP16, batch 64", "resnet50-fp16", (3, 224, 224), 64),
)
# The engine whose inspector text is kept: lesson and tests build the same one without a GPU.
INSPECTED = "ResNet-50 FP16, batch 1"


def options(sample: tuple[int, ...], batch: int) -> engine.BuildOptions:
    """Return how the engines of this experiment are built: for one batch, for the targets that TensorRT chooses."""
    return engine.BuildOptions(profiles=(engine.Profile.batch("x", sample, opt=batch, max=batch),))


@dataclass(frozen=True)
class Profile:
    """What TensorRT's profiler and inspector say of an engine."""

    engine_ms: float  # median of a call without the profiler, by CUDA events
    profiled_ms: float  # the same with the profiler
    layers: dict[str, float]  # median milliseconds of each layer by name, in order of execution
    calls: dict[str, int]  # how often each layer was timed
    inspector: dict[str, Any] | None = None  # the engine inspector's JSON; None where it wasn't kept


def profile(onnx_path: Path, sample: tuple[int, ...], batch: int, calls: int = 100) -> Profile:
    """Run an engine on this machine's GPU with and without TensorRT's profiler: so many calls, a tenth to warm up.

    The model's one input, x, is a batch of samples.
    """
    from tutorial_utils.runners.tensorrt import TensorRTRunner, primary_context

    built = engine.build(onnx_path, options(sample, batch), progress=False)
    feeds = {"x": np.random.default_rng(0).standard_normal((batch, *sample), dtype=np.float32)}
    with primary_context(), TensorRTRunner(built) as runner:
        runner.device_times(feeds, calls // 10)
        alone = runner.event_times(calls)
        times = LayerTimes()
        runner.context.profiler = times
        runner.event_times(calls // 10)
        times.milliseconds.clear()
        profiled = np.concatenate([runner.event_times(1) for _ in range(calls)])
        inspector = checked(runner.engine.create_engine_inspector(), runner.log)
        inspector.execution_context = runner.context
        text = checked(inspector.get_engine_information(trt.LayerInformationFormat.JSON), runner.log)
        del inspector
    return Profile(
        engine_ms=float(np.median(alone)),
        profiled_ms=float(np.median(profiled)),
        layers={name: statistics.median(values) for name, values in times.milliseconds.items()},
        calls={name: len(values) for name, values in times.milliseconds.items()},
        inspector=json.loads(text),
    )


def measure(models: Mapping[str, Path]) -> dict[str, Any]:
    """Profile the engines of all `CASES`; return the fields of `Profile` of each."""
    engines = {}
    for name, stem, sample, batch in CASES:
        engines[name] = asdict(profile(models[stem], sample, batch))
        if name != INSPECTED:
            del engines[name]["inspector"]
    return {"engines": engines}


EXPERIMENT = Experiment(
    name="lesson05_layers",
    title="Time of each layer of an engine",
    method=METHOD,
    measure=measure,
    read=lambda data: {name: Profile(**values) for name, values in data["engines"].items()},
    models=tuple(sorted({f"{stem}.onnx" for _, stem, _, _ in CASES})),
)
