"""Lessons 03b and 03c: the program in their cells, measured on a GPU. `program_cells` takes it out of them."""

import functools
import os
import subprocess
import textwrap
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tutorial_utils import plotting
from tutorial_utils.base import child_process, onnx_session, paths
from tutorial_utils.base.errors import LessonError
from tutorial_utils.lessons.lesson03 import program_cells
from tutorial_utils.measure import quality, timing
from tutorial_utils.measure.experiment import Experiment

MODEL = "quick-fp16"  # its input and output are FP32
SHAPE = (64, 3, 32, 32)
BATCHES = (1, 7, 64)
THREADS, CALLS = 4, 200
THREADS_BATCH = 512  # the GPU takes longer for it than the host for its launches, so that calls can overlap
STAGES = (1000, 1000, 1000)  # calls, after 100
TOLERANCE = 0.01  # of the largest logit: FP16 computes no better, other images differ by more
METHOD = (
    f"the program of lessons 03b and 03c, taken from their cells; quick classifier, FP16 inside, random "
    f"input of {'x'.join(map(str, SHAPE))}; warm-up until steady, then rounds in which the candidates "
    "take turns; host clock, from numpy array to numpy array unless named otherwise"
)


@dataclass(frozen=True)
class OneProgram:
    """What the experiment found.

    Attributes:
        agreement: Largest relative error against ONNX Runtime's FP32 on the CPU, by way to run and batch.
        growth: By way to run, memory in use after so many "calls" in all: "device_bytes", "host_bytes".
        threads: By way to use contexts: "calls" that came back, how many were "right", "seconds", and "errors"; or a
            "message" where the process died.
        runner: Calls of the program's session and of `TensorRTRunner`, plain and as a CUDA "graph".
        copies: A call with the data on the "host", and with the data on the "GPU".
        formats: A call with images whose channels are neighbours, as image files have them, by what the engine takes.
    """

    agreement: dict[str, dict[str, float]]
    growth: dict[str, dict[str, list[int]]]
    threads: dict[str, dict[str, Any]]
    runner: dict[str, timing.Measurement]
    copies: dict[str, timing.Measurement]
    formats: dict[str, timing.Measurement]

    def calls_as_text(self) -> str:
        """Say whether calls are right, how long they take beside the runner's, and what memory they leave in use."""
        lines = []
        for way, errors in self.agreement.items():
            runner, session = (self.runner[f"{name}, {way}"] for name in ("TensorRTRunner", "Session"))
            lines += [
                f"{way}: errors up to {max(errors.values()):.1e} of the largest logit",
                f"    runner {runner.median_ms:.3f} ms, session {session.median_ms:.3f} ms",
                f"    session against runner: {timing.compare(runner, session).verdict}",
            ]
            for side in ("device", "host"):
                in_use = zip(self.growth[way]["calls"], self.growth[way][f"{side}_bytes"], strict=True)
                stages = ", ".join(f"{used / 2**20:,.0f} MiB after {calls:,} calls" for calls, used in in_use)
                lines.append(f"    in use, {side}: {stages}")
        return "\n".join(lines)

    def threads_as_text(self) -> str:
        """Say for each way to use contexts how many answers were right, and how many calls a second there were."""
        lines = []
        for way, one in self.threads.items():
            if "calls" in one:
                rate = one["calls"] / one["seconds"]
                lines.append(f"{way}: {one['right']} of {one['calls']} answers right, {rate:,.0f} calls a second")
                lines += [f"    {error}" for error in one["errors"][:1]]
            else:
                lines.append(f"{way}: {one['message']}")
        return "\n".join(lines)


def read(data: Mapping[str, Any]) -> OneProgram:
    """Return what `measure` found."""
    return OneProgram(**{**data, **{name: timing.from_plain(data[name]) for name in ("runner", "copies", "formats")}})


def measure(models: Mapping[str, Path], seconds: float = 1.0) -> dict[str, Any]:
    """Run the experiment on this machine's GPU, each candidate for about so many seconds; return what `read` takes.

    Raises:
        BackendUnavailableError: TensorRT engines can't run here.
    """
    program = program_cells.load()
    plan = program.build_engine(models[MODEL], paths.cache_dir("lesson03b") / MODEL, profiles=[profile()])
    engine = program.load_engine(plan)
    return {
        "agreement": agreement(program, engine, models[MODEL]),
        "growth": {way: growth(program, engine, graph=way == "graph") for way in ("calls", "graph")},
        "threads": {way: shared(way, plan) for way in WAYS},
        "runner": timing.to_plain(against_runner(program, engine, plan.read_bytes(), seconds)),
        "copies": timing.to_plain(copies(program, engine, seconds)),
        "formats": timing.to_plain(formats(program, engine, models[MODEL], seconds)),
    }


def profile() -> dict[str, tuple]:
    """Return the profile of the engine that is measured."""
    return {"x": ((1, *SHAPE[1:]), SHAPE, (THREADS_BATCH, *SHAPE[1:]))}


def images(batch: int = SHAPE[0], seed: int = 0) -> np.ndarray:
    """Return random images."""
    return np.random.default_rng(seed).standard_normal((batch, *SHAPE[1:]), dtype=np.float32)


def agreement(program: ModuleType, engine: Any, reference: Path) -> dict[str, dict[str, float]]:
    """Compare plain calls, and those of a graph, with ONNX Runtime on the CPU, at batches that alternate."""
    session = onnx_session.new_session(reference)
    found: dict[str, dict[str, float]] = {}
    for way in ("calls", "graph"):
        ours = program.Session(engine, graph=way == "graph")
        for batch in (*BATCHES, *reversed(BATCHES)):
            x = images(batch, seed=batch)
            (wanted,) = session.run(None, {"x": x})
            for _ in range(3):  # with a graph: plain, captured, replayed
                (logits,) = ours.infer({"x": x}).values()
                error = quality.relative_error(logits, wanted)
                errors = found.setdefault(way, {})
                errors[str(batch)] = max(error, errors.get(str(batch), 0.0))
        ours.close()
    return found


def growth(program: ModuleType, engine: Any, *, graph: bool) -> dict[str, list[int]]:
    """Return the memory of device and host that is in use before and after each stage of calls, with other batches."""
    ours = program.Session(engine, graph=graph)
    feeds = [{"x": images(batch)} for batch in BATCHES]
    found: dict[str, list[int]] = {"calls": [], "device_bytes": [], "host_bytes": []}
    for calls in (100, *STAGES):
        for number in range(calls):
            ours.infer(feeds[number % len(feeds)])
        with ours.mine:
            free, total = program.cuda.mem_get_info()
        found["calls"].append(calls + sum(found["calls"][-1:]))
        found["device_bytes"].append(total - free)
        found["host_bytes"].append(_resident())
    ours.close()
    return found


def _resident() -> int:
    """Return the bytes of memory that this process holds: Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- threads ---------------------------------------------------------------------------------------------------------

WAYS = {  # the class of the program's sessions, and whether each has a context of its own
    "a context for each thread": ("Session", True),
    "one context, no lock": ("Sharing", False),
    "one context, calls locked until they are enqueued": ("LockedUntilEnqueued", False),
    "one context, calls locked until they are done": ("LockedUntilDone", False),
}


def shared(way: str, plan: Path) -> dict[str, Any]:
    """Have threads call at the same time, in a process of their own: some of these ways may end it."""
    try:
        return child_process.run(threads, way, plan)
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace").strip().splitlines()
        return {"message": f"{child_process.ending(error.returncode)}: {words[-1] if words else 'no message'}"}


def threads(way: str, plan: Path) -> dict[str, Any]:
    """Have each thread call with its own images, and compare every answer with the right one."""
    program = program_cells.load()
    engine = program.load_engine(plan)
    kind, own = WAYS[way]
    batches = [images(THREADS_BATCH, seed=number) for number in range(THREADS)]
    alone = program.Session(engine)
    wanted = [next(iter(alone.infer({"x": x}).values())) for x in batches]
    alone.close()
    sessions = [getattr(program, kind)(engine) for _ in range(THREADS)]
    for session, x in zip(sessions, batches, strict=True):
        session.infer({"x": x})
        if not own:
            session.context = sessions[0].context
    return in_threads(sessions, wanted)


def in_threads(sessions: Sequence[Any], wanted: Sequence[np.ndarray]) -> dict[str, Any]:
    """Run each session in a thread of its own, with the images that are in its memory; count the right answers.

    Filling that memory anew would keep the threads apart: numpy holds Python's global lock.
    """
    answers: list[list[np.ndarray]] = [[] for _ in sessions]
    errors: list[str] = []

    def work(session: Any, found: list[np.ndarray]) -> None:
        try:
            for _ in range(CALLS):
                with session.mine:
                    session.run()
                    found.append(session.outputs[0].array.copy())
        except RuntimeError as error:
            errors.append(" ".join(str(error).split()))

    workers = [threading.Thread(target=work, args=one) for one in zip(sessions, answers, strict=True)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - started
    pairs = [(one, logits) for found, logits in zip(answers, wanted, strict=True) for one in found]
    right = sum(quality.relative_error(one, logits) < TOLERANCE for one, logits in pairs)
    return {"calls": len(pairs), "right": right, "seconds": round(seconds, 4), "errors": errors}


# --- what a call costs -----------------------------------------------------------------------------------------------


def against_runner(program: ModuleType, engine: Any, plan: bytes, seconds: float) -> dict[str, timing.Measurement]:
    """Time the program's session and the package's runner in turn, on the same plan."""
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    feeds = {"x": images()}
    found = {}
    for way, graph in (("calls", False), ("graph", True)):
        ours = program.Session(engine, graph=graph)
        with TensorRTRunner(plan, cuda_graph=graph) as runner:
            pair = {f"Session, {way}": ours.infer, f"TensorRTRunner, {way}": runner.infer}
            calls = {name: functools.partial(infer, feeds) for name, infer in pair.items()}
            found |= timing.measure_in_turn(calls, batch=SHAPE[0], seconds=seconds, max_calls=2000)
        ours.close()
    return found


def copies(program: ModuleType, engine: Any, seconds: float) -> dict[str, timing.Measurement]:
    """Time a call from numpy to numpy, and one whose input and output stay on the GPU."""
    feeds = {"x": images()}
    ours, resident = program.Session(engine), program.Session(engine)
    with resident.mine:
        memory = program.cuda.to_device(feeds["x"])
        on_gpu = {"x": program.DeviceArray(int(memory), SHAPE, np.float32, owner=memory)}
    calls = {
        "host": functools.partial(ours.infer, feeds),
        "GPU": functools.partial(program.infer_on_gpu, resident, on_gpu),
    }
    found = timing.measure_in_turn(calls, batch=SHAPE[0], seconds=seconds, max_calls=2000)
    with resident.mine:
        memory.free()
    ours.close()
    resident.close()
    return found


def formats(program: ModuleType, engine: Any, model: Path, seconds: float) -> dict[str, timing.Measurement]:
    """Time a call with a batch as image files have it, height x width x channel, for engines that take it or don't."""
    pixels = np.ascontiguousarray(images().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    content, formats_of = model.read_bytes(), program.trt.TensorFormat
    sessions = {"FP32, NCHW": (program.Session(engine), np.float32)}
    ways = {
        "FP32, NHWC": (content, formats_of.HWC, np.float32),
        "FP16, NCHW": (program.with_half_input(content), formats_of.LINEAR, np.float16),
    }
    for name, (onnx_bytes, image_format, dtype) in ways.items():
        plan = program.build_for_images(onnx_bytes, SHAPE[0], image_format)
        built = program.checked(program.trt.Runtime(program.LOG).deserialize_cuda_engine(plan))
        sessions[name] = program.Session(built), dtype
    (wanted,) = sessions["FP32, NCHW"][0].infer({"x": pixels}).values()
    calls = {}
    for name, (session, dtype) in sessions.items():
        feeds = {"x": pixels.astype(dtype)}  # it keeps the order of the axes
        (found,) = session.infer(feeds).values()
        error = quality.relative_error(found, wanted)
        if error > TOLERANCE:
            raise LessonError(f"With {name}, the logits are {error:.2g} off.", "Wrong results aren't timed.")
        calls[name] = functools.partial(session.infer, feeds)
    measured = timing.measure_in_turn(calls, batch=SHAPE[0], seconds=seconds, max_calls=2000)
    for session, _ in sessions.values():
        session.close()
    return measured


def draw(result: OneProgram) -> plotting.Picture:
    """Draw what a call costs, in each way to bring the data, and which answers of threads are right."""
    figure, (left, right) = plotting.new_figure(3.2, ncols=2)
    lines = []
    bars = {f"data on the {name}": one for name, one in result.copies.items()}
    bars |= {f"NHWC images to {name}": one for name, one in result.formats.items()}
    for position, (name, one) in enumerate(bars.items()):
        colour = plotting.BLUE if name.startswith("data") else plotting.GREEN
        left.barh(position, one.median_ms, height=0.7, color=colour)
        plotting.note(left, f"{one.median_ms:.3f}", (one.median_ms, position), (4, 0))
        lines.append(f"{name:28} {one.median_ms:.3f} ms")
    plotting.name_rows(left, list(bars))
    left.set_xlim(right=1.25 * max(one.median_ms for one in bars.values()))
    left.set_xlabel("median milliseconds a call")
    shares = {}
    for position, (way, said) in enumerate(result.threads.items()):
        shares[way] = said["right"] / said["calls"] if said.get("calls") else 0.0
        right.barh(position, 100 * shares[way], height=0.7, color=plotting.ORANGE)
        plotting.note(
            right, f"{shares[way]:.0%}" if "calls" in said else "failed", (100 * shares[way], position), (4, 0)
        )
        lines.append(f"{way:52} {shares[way]:.1%} right")
    plotting.name_rows(right, [textwrap.fill(way, 24) for way in shares])
    right.set_xlim(0, 125)
    right.set_xlabel("right answers in %, four threads")
    words = "; ".join(" ".join(one.split()) for one in lines)
    alt = f"Milliseconds of a call, and right answers of {THREADS} threads: {words}."
    return plotting.Picture(figure, alt, "\n".join(lines))


EXPERIMENT = Experiment(
    name="lesson03_program",
    title="One program with PyCUDA: right in four threads, as fast as the package, and what copies and formats cost",
    method=METHOD,
    measure=measure,
    read=read,
    draw=lambda measured: draw(measured.result),
    models=(f"{MODEL}.onnx",),
)
