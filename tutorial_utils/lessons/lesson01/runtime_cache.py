"""Lesson 01, the runtime cache of TensorRT-RTX: what it saves between a plan in memory and the first result.

TensorRT-RTX compiles kernels for the GPU at hand when a context is created, and during the first calls. A runtime cache
keeps what was compiled, for the next process.
"""

import functools
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils import engine
from tutorial_utils.base import child_process, flavour
from tutorial_utils.base.errors import BuildError, PlanError
from tutorial_utils.measure import quality, rows
from tutorial_utils.measure.experiment import Experiment

# By ONNX file: shape of one image. The plans are those of `lesson01_plans`.
MODELS = {"quick-fp32": (3, 32, 32), "resnet50-fp16": (3, 224, 224)}
BATCH = 64
STARTS = 5
_MORE_SECONDS = 3.0  # for what TensorRT-RTX compiles beside the first calls
STEPS = ("deserialize", "cache", "context", "first call")
# How a process starts: with no runtime cache, with an empty one, or with what an earlier process kept. The driver keeps
# some compiled code, too, in a cache of its own: the second way leaves that out.
_NO_DRIVER_CACHE = "none, driver cache off"
WAYS = ("none", _NO_DRIVER_CACHE, "empty", "filled")
METHOD = (
    f"each start in a process of its own, with the host clock, CUDA started before: from a plan in memory (profile: "
    f"batch 1 to {BATCH}) to the result of a first call of {BATCH} images that are on the GPU; {STARTS} starts of each "
    f"way, one after another, after one that isn't counted. filled: what that one had compiled after calls of "
    f"{_MORE_SECONDS:.0f} s, serialized at its end. driver cache off: CUDA_CACHE_DISABLE=1"
)


@dataclass(frozen=True)
class Started:
    """What one process saw.

    Attributes:
        ms: Milliseconds of each of the `STEPS`; "cache" is making the runtime cache, and reading bytes into it.
        accepted: Whether TensorRT-RTX accepted the bytes; False where there were none.
        kept: Bytes of the runtime cache after the first call; empty without one.
        kept_later: The same after more calls, where there were any.
        output: Of the first call, ``[BATCH, classes]``.
    """

    ms: tuple[float, ...]
    accepted: bool
    kept: bytes
    kept_later: bytes
    output: np.ndarray


def start(plan: bytes, images: np.ndarray, cache: bytes | None, more_seconds: float = 0.0) -> Started:
    """Go from a plan to the first result, and time the steps. Call it in a fresh process.

    Args:
        plan: Of an engine of TensorRT-RTX with one input and one output.
        images: float32 ``[BATCH, ...]``.
        cache: What an earlier process kept; b"" for an empty runtime cache, None for none at all.
        more_seconds: How long to go on calling before the cache is kept a second time; 0 doesn't.

    Raises:
        PlanError, BuildError: TensorRT-RTX refuses a step.
        BackendUnavailableError: There is no GPU.
    """
    from tutorial_utils.runners.tensorrt import primary_context

    with primary_context():
        return _steps(plan, images, cache, more_seconds)  # what it makes ends with it, while CUDA's context is current


def _steps(plan: bytes, images: np.ndarray, cache: bytes | None, more_seconds: float) -> Started:
    from tutorial_utils.engine.tensorrt import IS_RTX, MessageLog, checked, trt
    from tutorial_utils.runners.tensorrt import cuda

    log, accepted, config, kept = MessageLog(), False, None, None
    runtime = trt.Runtime(log)
    times = [time.perf_counter()]
    loaded = checked(runtime.deserialize_cuda_engine(plan), log, PlanError, "TensorRT-RTX can't load the plan")
    times.append(time.perf_counter())
    if IS_RTX and cache is not None:  # TensorRT has none, and `measure` requires TensorRT-RTX
        config = checked(loaded.create_runtime_config(), log, BuildError, "There is no runtime configuration")
        kept = checked(config.create_runtime_cache(), log, BuildError, "There is no runtime cache")
        accepted = bool(cache) and bool(kept.deserialize(cache))
        checked(config.set_runtime_cache(kept), log, BuildError, "TensorRT-RTX refuses the runtime cache")
    times.append(time.perf_counter())
    given = () if config is None else (config,)
    context = checked(loaded.create_execution_context(*given), log, BuildError, "TensorRT-RTX can't create a context")
    times.append(time.perf_counter())

    source, target = (loaded.get_tensor_name(i) for i in range(2))
    checked(context.set_input_shape(source, images.shape), log)
    output = np.empty(tuple(context.get_tensor_shape(target)), trt.nptype(loaded.get_tensor_dtype(target)))
    images = np.ascontiguousarray(images, trt.nptype(loaded.get_tensor_dtype(source)))
    stream, memory = cuda.Stream(), {source: cuda.to_device(images), target: cuda.mem_alloc(output.nbytes)}
    for name, one in memory.items():
        checked(context.set_tensor_address(name, int(one)), log)
    begin = time.perf_counter()
    checked(context.execute_async_v3(stream.handle), log)
    stream.synchronize()
    end = time.perf_counter()
    cuda.memcpy_dtoh(output, memory[target])

    first, later = b"", b""
    if kept is not None:
        first = bytes(checked(kept.serialize(), log))
    if kept is not None and more_seconds:
        while time.perf_counter() < end + more_seconds:
            checked(context.execute_async_v3(stream.handle), log)
            stream.synchronize()
        later = bytes(checked(kept.serialize(), log))
    del context, given, config, kept, loaded, runtime  # in this order: what is made of another thing goes first
    steps = (*(after - before for before, after in pairwise(times)), end - begin)
    return Started(tuple(1000 * step for step in steps), accepted, first, later, output)


def measure(model: str, way: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """Start one model in one way several times; return the fields of `Starts` but for the names.

    Raises:
        BackendUnavailableError: This isn't TensorRT-RTX, or there is no GPU.
        PlanError: The first result is no number, or is the same for all images.
    """
    flavour.require("tensorrt_rtx")
    profile = engine.Profile.batch("x", MODELS[model], opt=BATCH, max=BATCH)
    plan = engine.build(models[model], engine.BuildOptions(profiles=(profile,)), progress=False).plan
    images = np.random.default_rng(0).standard_normal((BATCH, *MODELS[model])).astype(np.float32)
    without = way.startswith("none")
    before = _elsewhere(way, plan, images, None if without else b"", _MORE_SECONDS if way == "filled" else 0.0)
    if not np.isfinite(before.output).all() or np.ptp(before.output, axis=0).max() == 0:
        raise PlanError(f"The engine of {model} computes nothing that depends on the images.", "Compare its results.")
    cache = None if without else before.kept_later
    starts = [_elsewhere(way, plan, images, cache) for _ in range(STARTS)]
    return {
        "plan_bytes": len(plan),
        "starts": [[round(ms, 3) for ms in one.ms] for one in starts],
        "accepted": [one.accepted for one in starts],
        "cache_bytes": {"after the first call": len(before.kept), "later": len(before.kept_later)},
        "difference": max(quality.relative_error(one.output, before.output) for one in starts),
    }


def _elsewhere(way: str, plan: bytes, images: np.ndarray, cache: bytes | None, more_seconds: float = 0.0) -> Started:
    """Call `start` in a fresh process, without the driver's cache where the way says so."""
    changes = {"CUDA_CACHE_DISABLE": "1"} if way == _NO_DRIVER_CACHE else {}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        try:
            return child_process.run_with_log(log, changes, start, plan, images, cache, more_seconds)
        except subprocess.CalledProcessError as error:
            said = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise PlanError(
                f"A start ended with {child_process.ending(error.returncode)}: {'; '.join(said) or 'no message'}.",
                "The row stays without values.",
            ) from error


@dataclass(frozen=True)
class Starts:
    """Starts of one model in one way.

    Attributes:
        model, way: One of `MODELS` and of `WAYS`.
        plan_bytes: Of the plan.
        starts: Milliseconds of the `STEPS`, of each start.
        accepted: Whether the bytes that a start got were accepted; False where it got none.
        cache_bytes: Of the runtime cache that the process before them filled: "after the first call", and "later",
            where "filled" takes it. 0 where there is none.
        difference: Largest relative difference of a first result from that of the process before them.
    """

    model: str
    way: str
    plan_bytes: int
    starts: list[list[float]]
    accepted: list[bool]
    cache_bytes: dict[str, int]
    difference: float

    def ms(self, *steps: str) -> float:
        """Return the median over the starts of what some steps take together, or all of them: milliseconds."""
        chosen = [STEPS.index(step) for step in steps or STEPS]
        return statistics.median(sum(one[i] for i in chosen) for one in self.starts)

    @property
    def range_ms(self) -> tuple[float, float]:
        """Milliseconds of the fastest and of the slowest start."""
        totals = [sum(one) for one in self.starts]
        return min(totals), max(totals)

    def __str__(self) -> str:
        low, high = self.range_ms
        steps = ", ".join(f"{step} {self.ms(step):,.0f}" for step in STEPS if self.ms(step) >= 0.5)
        return f"{self.ms():5,.0f} ms ({low:,.0f} to {high:,.0f}): {steps}"


def read(data: Mapping[str, Any]) -> dict[str, Starts | str]:
    """Return the starts by the name of their row; of one that failed, the reason."""
    return {row.name: row.reason if row.values is None else _starts(row.name, row.values) for row in rows.read(data)}


def _starts(name: str, values: Mapping[str, Any]) -> Starts:
    measured = (values[field.name] for field in fields(Starts)[2:])  # the recording that ships holds one value more
    return Starts(*name.split("/"), *measured)


def told(found: Mapping[str, Starts | str]) -> str:
    """Return for each model what the cache saves, then a line for each way, also one that failed or isn't recorded."""
    lines = []
    for model in MODELS:
        ways = {way: found.get(f"{model}/{way}") or _missing(f"{model}/{way}") for way in WAYS}
        lines += [_saved(model, ways["none"], ways["filled"]), *(f"  {way:22} {one}" for way, one in ways.items())]
    return "\n".join(lines)


def _saved(model: str, none: Starts | str, filled: Starts | str) -> str:
    if isinstance(none, str) or isinstance(filled, str):
        return model
    plan, kept = (size / 1000 for size in (filled.plan_bytes, filled.cache_bytes["later"]))
    return f"{model}: plan {plan:,.0f} KB, cache {kept:,.0f} KB, {none.ms() / filled.ms():.0f} times as fast with it"


def _missing(name: str) -> str:
    return f'not recorded yet (`python -m tutorial_utils record lesson01_runtime_cache --rows "{name}"`)'


EXPERIMENT = Experiment(
    name="lesson01_runtime_cache",
    title="From a plan of TensorRT-RTX to the first result, with and without a runtime cache",
    method=METHOD,
    rows={f"{model}/{way}": functools.partial(measure, model, way) for model in MODELS for way in WAYS},
    read=read,
    models=tuple(f"{model}.onnx" for model in MODELS),
)
