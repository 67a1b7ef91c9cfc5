"""Lesson 01, asynchrony: copies and an engine overlapped on several streams, and what a CUDA graph saves."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils import engine
from tutorial_utils.machine import capabilities
from tutorial_utils.measure import quality, recordings, timing
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model import onnx_file

PROFILE = engine.Profile.batch("x", (3, 224, 224), opt=8, max=64)
BATCHES = (8, 32)
BATCHES_PER_RUN = 24
STREAMS = 3
METHOD = (
    "ResNet-50 FP16, random weights, FP32 inputs and outputs; images already in pinned memory unless 'pageable'; a run "
    f"is {BATCHES_PER_RUN} batches, host clock around it, all copies included; warm-up until steady, then 10 rounds in "
    "which the candidates take turns; stages: medians of CUDA events, one batch at a time, and of the host clock "
    "around the enqueue"
)
_STAGE_CALLS = 100


def measure(built: engine.Engine, seconds: float = 0.5) -> dict[str, Any]:
    """Run the experiment on this machine's GPU.

    Args:
        built: ResNet-50, with a profile up to the largest of `BATCHES`, and with batch 1.
        seconds: About how long to time each candidate.

    Returns:
        Plain values for a recording::

            {"overlap": [{"batch": 8, "bytes_in": ..., "bytes_out": ..., "stages_ms": {"copy in": ..., "engine": ...,
                          "copy out": ..., "enqueue": ...}, "stages_graph_ms": {the same, as a CUDA graph},
                          "batches_per_run": 24, "runs": {"one by one": Measurement, "1 stream": ..., ...}}, ...],
             "copies": {"bytes": ..., "pinned": Measurement, "pageable": Measurement},
             "cuda_graph": {"host": {"calls": Measurement, "graph": Measurement}, "device": {the same}},
             "relative_error": largest difference of a lane's logits from `TensorRTRunner`'s}

    Raises:
        BackendUnavailableError: TensorRT engines can't run here.
    """
    capabilities.require_tensorrt_run()
    from tutorial_utils.lessons.lesson01.lanes import Lanes  # imports PyCUDA
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    images = np.random.default_rng(0).standard_normal((max(BATCHES), 3, 224, 224), dtype=np.float32)
    with Lanes(built, images, STREAMS) as plain, Lanes(built, images, STREAMS, cuda_graph=True) as graphs:
        overlap = [_overlap(plain, graphs, images, batch, seconds) for batch in BATCHES]
        copies = timing.measure_in_turn(
            {name: functools.partial(plain.copy_in, name == "pinned") for name in ("pinned", "pageable")},
            batch=len(images),
            seconds=seconds,
        )
        logits = plain.logits() + graphs.logits()
    with TensorRTRunner(built) as calls, TensorRTRunner(built, cuda_graph=True) as graph:
        (expected,) = calls.infer({"x": images}).values()
        runners = {"calls": calls, "graph": graph}
        feeds = {"x": images[:1]}
        host = timing.measure_in_turn(
            {name: functools.partial(runner.infer, feeds) for name, runner in runners.items()}, seconds=seconds
        )
        device = {
            name: timing.measure_on_device(functools.partial(runner.device_times, feeds), seconds=seconds)
            for name, runner in runners.items()
        }
    return {
        "overlap": overlap,
        "copies": {"bytes": images.nbytes, **_plain(copies)},
        "cuda_graph": {"host": _plain(host), "device": _plain(device)},
        "relative_error": max(quality.relative_error(one, expected) for one in logits),
    }


def _overlap(plain: Any, graphs: Any, images: np.ndarray, batch: int, seconds: float) -> dict[str, Any]:
    """Time the orders of one batch size. ``plain`` and ``graphs`` are `lanes.Lanes`."""
    runs = {}
    for lanes, suffix in ((plain, ""), (graphs, ", CUDA graph")):
        lanes.use(batch)
        runs[f"one by one{suffix}"] = functools.partial(lanes.one_by_one, BATCHES_PER_RUN)
        for streams in range(1, STREAMS + 1):
            name = f"{streams} stream{'s' if streams > 1 else ''}{suffix}"
            runs[name] = functools.partial(lanes.on_streams, streams, BATCHES_PER_RUN)
    runs["2 streams, pageable"] = functools.partial(plain.on_streams, 2, BATCHES_PER_RUN, pinned=False)
    measured = timing.measure_in_turn(runs, batch=batch * BATCHES_PER_RUN, seconds=seconds)
    return {
        "batch": batch,
        "batches_per_run": BATCHES_PER_RUN,
        "bytes_in": images[:batch].nbytes,
        "bytes_out": plain.logits()[0].nbytes,
        "stages_ms": plain.stage_times(_STAGE_CALLS),
        "stages_graph_ms": graphs.stage_times(_STAGE_CALLS),
        "runs": _plain(measured),
    }


def _plain(measured: dict[str, Measurement]) -> dict[str, Any]:
    return {name: measurement.to_dict() for name, measurement in measured.items()}


def record(models: Path) -> Path:
    """Run the experiment on this machine's GPU and keep the result as a recording.

    Args:
        models: A folder with ``resnet50-fp16.onnx``.

    Returns:
        The file that was written.

    Raises:
        BackendUnavailableError: TensorRT engines can't run here.
        ModelFileError: The model is missing.
    """
    machine = capabilities.require_tensorrt_run()
    path = Path(models) / "resnet50-fp16.onnx"
    onnx_file.load(path)
    recording = recordings.new(
        title="Copies and an engine overlapped on CUDA streams, pinned and pageable memory, and CUDA graphs",
        method=METHOD,
        machine=machine.machine(),
        data=measure(engine.build(path, engine.BuildOptions(profiles=(PROFILE,)))),
    )
    return recordings.save(recording, recordings.FOLDER / "lesson01_async.json")
