"""Lesson 01, serialization: loading plans on a GPU, and what is refused."""

import itertools
import statistics
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tutorial_utils import engine, plotting
from tutorial_utils.base import child_process
from tutorial_utils.measure.experiment import Experiment

METHOD = (
    "Each load in a process of its own, with the host clock: reading the plan from the cache (key and checksum "
    "included), deserializing it, creating an execution context, in which TensorRT-RTX compiles the kernels; "
    "medians of 3. Damaged plans: the runtime's own messages"
)
# ONNX file, shape of one image and largest batch.
CASES = (("quick-fp32", (3, 32, 32), 64), ("resnet50-fp16", (3, 224, 224), 64))
_REPEATS = 3
_COLOURS = {  # of the steps, in the order in which a program takes them
    "parse": plotting.RED,
    "build": plotting.BLUE,
    "read the plan": plotting.GREY,
    "deserialize": plotting.GREEN,
    "create context": plotting.ORANGE,
}


@dataclass(frozen=True)
class Load:
    """One load of a cached engine on a GPU: milliseconds of each step."""

    read_ms: float  # finding the plan in the cache, reading it and comparing its checksum
    deserialize_ms: float
    context_ms: float  # creating an execution context


def load(onnx_path: Path, options: engine.BuildOptions) -> Load:
    """Load a cached engine once, from the file to a context that can run. Call it in a fresh process."""
    from tutorial_utils.base.errors import BuildError, PlanError
    from tutorial_utils.engine.tensorrt import MessageLog, checked, trt
    from tutorial_utils.runners.tensorrt import primary_context

    with primary_context():
        log = MessageLog()
        runtime = trt.Runtime(log)
        times = [time.perf_counter()]
        built = engine.build(onnx_path, options, progress=False)
        times.append(time.perf_counter())
        loaded = runtime.deserialize_cuda_engine(built.plan)
        checked(loaded, log, PlanError, "TensorRT can't load the engine", "Build it again.")
        times.append(time.perf_counter())
        execution = loaded.create_execution_context()
        checked(execution, log, BuildError, "TensorRT can't create a context", "Free GPU memory.")
        times.append(time.perf_counter())
        del execution, loaded, runtime
    read, deserialize, create = (1000 * (after - before) for before, after in itertools.pairwise(times))
    return Load(read, deserialize, create)


def refusal(plan: bytes) -> str:
    """Return why this machine's runtime refuses a plan, or "loads". Call it in a fresh process.

    The context isn't created: what is asked is whether deserialization notices the damage.
    """
    from tutorial_utils.engine.tensorrt import MessageLog, trt
    from tutorial_utils.runners.tensorrt import primary_context

    log = MessageLog()
    with primary_context():
        refused = trt.Runtime(log).deserialize_cuda_engine(plan) is None
    return log.last_errors() if refused else "loads"


def damaged(plan: bytes) -> dict[str, bytes]:
    """Return copies of a plan of TensorRT-RTX, each damaged in one way, by what was done to it."""
    return {
        "untouched": plan,
        "another version in the header": _flipped(plan, 26),
        "one byte of the middle altered": _flipped(plan, len(plan) // 2),
    }


def _flipped(plan: bytes, position: int) -> bytes:
    return plan[:position] + bytes([plan[position] ^ 0xFF]) + plan[position + 1 :]


@dataclass(frozen=True)
class Start(Load):
    """The medians of several loads, and what came before them: reading the model and building the engine."""

    parse_ms: float
    build_ms: float


@dataclass(frozen=True)
class Plans:
    """What the experiment found: how models start, and what the runtime says to damaged plans, by what was done."""

    loads: dict[str, Start]
    refusals: dict[str, str]


def loads(built: engine.Engine) -> dict[str, float]:
    """Load a cached engine a few times, each in a fresh process, and return the fields of `Start`."""
    results = [asdict(child_process.run(load, built.onnx_path, built.options)) for _ in range(_REPEATS)]
    medians = {name: round(statistics.median(one[name] for one in results), 3) for name in results[0]}
    return {
        "parse_ms": round(1000 * built.report.parse_seconds, 3),
        "build_ms": round(1000 * built.report.build_seconds, 3),
        **medians,
    }


def refusals(plan: bytes) -> dict[str, str]:
    """Return what this machine's runtime says to each damaged copy of a plan."""
    answers = {}
    for what, copy in damaged(plan).items():
        try:
            answers[what] = child_process.run(refusal, copy)
        except subprocess.CalledProcessError:
            answers[what] = "the process died"
    return answers


def measure(models: Mapping[str, Path]) -> dict[str, Any]:
    """Load the engines of all `CASES`, and damaged plans of the first; return what `read` takes."""
    engines = {}
    for name, sample, batch in CASES:
        profile = engine.Profile.batch("x", sample, opt=batch, max=batch)
        engines[name] = engine.build(models[name], engine.BuildOptions(profiles=(profile,)))
    first, *_ = engines.values()
    return {"loads": {name: loads(one) for name, one in engines.items()}, "refusals": refusals(first.plan)}


def read(data: Mapping[str, Any]) -> Plans:
    """Return what `measure` found."""
    return Plans({name: Start(**values) for name, values in data["loads"].items()}, data["refusals"])


def starts(load: Start) -> dict[str, dict[str, float]]:
    """Return the milliseconds of each step to a context that can run: from the ONNX file, and from the plan."""
    both = {"deserialize": load.deserialize_ms, "create context": load.context_ms}
    return {
        "from ONNX": {"parse": load.parse_ms, "build": load.build_ms, **both},
        "from the plan": {"read the plan": load.read_ms, **both},
    }


def draw(found: Plans) -> plotting.Picture:
    """Draw the two ways of each model to a context as bars of their steps, on an axis that begins at 0."""
    rows = {(name, way): steps for name, one in found.loads.items() for way, steps in starts(one).items()}
    figure, axes = plotting.new_figure(1.0 + 0.5 * len(rows))
    begins = [0.0] * len(rows)
    for step, colour in _COLOURS.items():
        widths = [row.get(step, 0.0) for row in rows.values()]
        axes.barh(range(len(rows)), widths, left=begins, height=0.7, color=colour, label=step)
        begins = [begin + width for begin, width in zip(begins, widths, strict=True)]
    for position, end in enumerate(begins):
        axes.text(end, position, f" {end:,.0f} ms", va="center", fontsize=9)
    plotting.name_rows(axes, [f"{name}, {way}" for name, way in rows])
    axes.set_xlim(0, 1.12 * max(begins))
    axes.set_xlabel("milliseconds until the context is there")
    figure.legend(loc="outside upper left", ncols=5, frameon=False)
    lines = [
        f"{name}, {way}: {sum(row.values()):,.0f} ms ({', '.join(f'{step} {ms:,.1f}' for step, ms in row.items())})"
        for (name, way), row in rows.items()
    ]
    return plotting.Picture(figure, f"Time until a context is there. {'. '.join(lines)}.", "\n".join(lines))


EXPERIMENT = Experiment(
    name="lesson01_plans",
    title="Loading plans, and plans that are refused",
    method=METHOD,
    measure=measure,
    read=read,
    draw=lambda measured: draw(measured.result),
    models=tuple(f"{name}.onnx" for name, _, _ in CASES),
)
