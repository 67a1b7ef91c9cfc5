"""Lesson 03, inference on a GPU: what `by_hand` costs, and what TensorRT says to mistakes."""

import functools
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tutorial_utils import engine
from tutorial_utils.base.errors import CourseError
from tutorial_utils.engine import BuildOptions, Profile
from tutorial_utils.engine.tensorrt import IS_RTX, MessageLog, checked, trt
from tutorial_utils.lessons.lesson03 import by_hand
from tutorial_utils.measure import quality, timing
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.model import data, export, onnx_file
from tutorial_utils.runners.cuda_graph import cuda_driver

BATCH = 64  # the largest that the profiles allow
QUICK_PROFILE = engine.Profile.batch("x", data.IMAGE_SHAPE, opt=BATCH, max=BATCH)
RESNET_PROFILE = engine.Profile.batch("x", (3, 224, 224), opt=8, max=BATCH)
LANES = 3
MODELS = ("quick-fp32", "quick-fp16", "resnet50-fp16")
METHOD = (
    "the functions of tutorial_utils/lessons/lesson03/by_hand.py; quick classifier on 64 test images, ResNet-50 "
    "FP16 with random weights at 224x224 for clocks and capture; warm-up until steady, then rounds in which the "
    "candidates take turns; host clock, copies included, unless named otherwise"
)
_CLOCK_CALLS = 50
_TOP_K_SHAPE = (4, 100)


@dataclass(frozen=True)
class Inference:
    """What the experiment found. Errors are relative; times without a `Measurement` are milliseconds."""

    tensors: dict[str, list]  # mode, type and shape of each tensor of the engine
    agreement: dict[str, dict[str, float]]  # by precision and way to run: the largest error of a logit
    mistakes: list[dict[str, str]]  # "what" was done wrong, what the call "returned", and TensorRT's "message"
    top_k: dict[str, Any]  # "k", "shapes", whether the values are "right"; "message" where the engine refuses
    once: dict[str, float]  # loading the plan, making the context, the first call
    per_call: dict[str, timing.Measurement]  # what is made once, `TensorRTRunner`, everything made in every call
    graph: dict[str, timing.Measurement]  # of "calls" and of a CUDA "graph"
    lanes: dict[str, timing.Measurement]  # of `LANES` batches on "1 stream" and more
    clocks: dict[str, float]  # what three clocks say of one call
    capture: dict[str, Any]  # "status" of a capture with cuda-python, and its "relative_error" where it worked
    capture_times: dict[str, timing.Measurement]  # of "calls" and the captured "graph"; empty where it failed


def read(data: Mapping[str, Any]) -> Inference:
    """Return what `measure` found."""
    capture = dict(data["capture"])
    times = {name: timing.from_plain(data[name]) for name in ("per_call", "graph", "lanes")}
    return Inference(**{**data, **times, "capture": capture}, capture_times=timing.from_plain(capture.pop("times", {})))


def measure(models: Mapping[str, Path], seconds: float = 0.3) -> dict[str, Any]:
    """Run the experiment on this machine's GPU, each candidate for about so many seconds; return what `read` takes.

    Raises:
        BackendUnavailableError: TensorRT engines can't run here, or cuda-python, which captures graphs, is missing.
    """
    if not IS_RTX:
        cuda_driver()  # better missed before the first build than after it
    images = data.load("digits", "test").images[:BATCH]
    quick_options, resnet_options = (engine.BuildOptions(profiles=(one,)) for one in (QUICK_PROFILE, RESNET_PROFILE))
    quick = {name: engine.build(models[f"quick-{name}"], quick_options) for name in ("fp32", "fp16")}
    resnet = engine.build(models["resnet50-fp16"], resnet_options)
    with by_hand.primary_context():
        return {
            "tensors": by_hand.tensors(by_hand.load(quick["fp32"].plan, MessageLog())),
            "agreement": {name: _agreement(built, models["quick-fp32"], images) for name, built in quick.items()},
            "mistakes": _mistakes(quick["fp32"].plan),
            "top_k": _top_k(),
            **_costs(quick["fp16"], images, seconds),
            "clocks": _clocks(resnet),
            "capture": _capture(resnet, seconds),  # last: a failed capture may leave the context in error
        }


def _agreement(built: engine.Engine, reference: Path, images: np.ndarray) -> dict[str, float]:
    """Compare every way to run an engine with the runner, and the runner with ONNX Runtime's FP32 on the CPU."""
    from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    feeds = {"x": images}
    with OnnxRuntimeRunner(reference) as runner:
        (wanted,) = runner.infer(feeds).values()
    with TensorRTRunner(built) as runner:
        (expected,) = runner.infer(feeds).values()
    log = MessageLog()
    loaded = by_hand.load(built.plan, log)
    lanes = [by_hand.make_lane(loaded, {"x": images.shape}, log) for _ in range(LANES)]
    graph_lane = by_hand.make_lane(loaded, {"x": images.shape}, log, cuda_graph=True)
    ways = {
        "by hand": [by_hand.infer(lanes[0], feeds)],
        "lanes": by_hand.infer_on_lanes(lanes, feeds),
        "cuda_graph": [by_hand.infer(graph_lane, feeds) for _ in range(3)],  # the first calls capture
        "allocator": [by_hand.infer_with_allocator(loaded, feeds, log)],
    }
    for lane in (*lanes, graph_lane):
        by_hand.close(lane)
    errors = {}
    for name, results in ways.items():
        logits = [next(iter(outputs.values())) for outputs in results]
        errors[f"{name} against TensorRTRunner"] = max(quality.relative_error(one, expected) for one in logits)
    return {**errors, "TensorRTRunner against ONNX Runtime FP32": quality.relative_error(expected, wanted)}


def _mistakes(plan: bytes) -> list[dict[str, str]]:
    """Make mistakes on purpose, each with an engine and a context of its own, and keep what TensorRT answers."""
    stream = by_hand.cuda.Stream()
    tensors = by_hand.tensors(by_hand.load(plan, MessageLog()))
    output = next(name for name, (mode, *_) in tensors.items() if mode == "OUTPUT")
    good, too_large = (BATCH, *data.IMAGE_SHAPE), (BATCH + 1, *data.IMAGE_SHAPE)
    attempts: dict[str, Callable[[Any], Any]] = {
        "shape outside the profile": lambda context: context.set_input_shape("x", too_large),
        "shape of another rank": lambda context: context.set_input_shape("x", good[1:]),
        "shape of an unknown input": lambda context: context.set_input_shape("image", good),
        "address of an unknown tensor": lambda context: context.set_tensor_address("image", 0),
        "output shape before the input's": lambda context: tuple(context.get_tensor_shape(output)),
        "inputs without a shape": lambda context: list(context.infer_shapes()),
        "run without a shape": lambda context: context.execute_async_v3(stream.handle),
        "run without addresses": lambda context: (
            context.set_input_shape("x", good) and context.execute_async_v3(stream.handle)
        ),
    }
    rows = [_attempt(what, plan, call) for what, call in attempts.items()]
    log = MessageLog()
    cut = trt.Runtime(log).deserialize_cuda_engine(plan[: len(plan) // 2])
    return [*rows, {"what": "half a plan", "returned": repr(cut), "message": log.last_errors()}]


def _attempt(what: str, plan: bytes, call: Callable[[Any], Any]) -> dict[str, str]:
    log = MessageLog()
    context = by_hand.new_context(by_hand.load(plan, log), log)
    log.messages.clear()
    return {"what": what, "returned": repr(call(context)), "message": log.last_errors()}


def save_top_k(path: Path) -> Path:
    """Write a model whose output shape follows the value of an input: the k largest numbers of each row."""
    rows, columns = _TOP_K_SHAPE
    text = f"""<ir_version: 8, opset_import: ["": {export.OPSET}]>
        top_k (float[{rows}, {columns}] x, int64[1] k) => (float[{rows}, k] values, int64[{rows}, k] indices) {{
            values, indices = TopK <axis = 1> (x, k)
        }}"""
    return onnx_file.save(onnx.parser.parse_model(text), path)


def build_top_k(path: Path) -> engine.Engine:
    """Build the model of `save_top_k` for 1 to 10 numbers. The profile ranges over values of k, not over its shape."""
    profile = Profile.of().with_values({"k": ((1,), (5,), (10,))})
    return engine.build(path, BuildOptions(profile), use_cache=False)


def _top_k() -> dict[str, Any]:
    x = np.random.default_rng(0).permutation(np.prod(_TOP_K_SHAPE)).reshape(_TOP_K_SHAPE).astype(np.float32)
    k = 3
    with tempfile.TemporaryDirectory() as folder:
        plan = build_top_k(save_top_k(Path(folder) / "top_k.onnx")).plan
    log = MessageLog()
    try:
        outputs = by_hand.infer_with_allocator(by_hand.load(plan, log), {"x": x, "k": np.array([k])}, log)
    except CourseError as error:
        return {"k": k, "right": False, "message": error.cause}
    shapes = {name: array.shape for name, array in outputs.items()}
    return {"k": k, "shapes": shapes, "right": bool(np.array_equal(outputs["values"], -np.sort(-x, axis=1)[:, :k]))}


def _costs(built: engine.Engine, images: np.ndarray, seconds: float) -> dict[str, Any]:
    """Time what is paid once, what is paid when it is paid in every call, CUDA graphs, and several streams."""
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    feeds, shapes, log = {"x": images}, {"x": images.shape}, MessageLog()
    times = [time.perf_counter()]
    loaded = by_hand.load(built.plan, log)
    times.append(time.perf_counter())
    lane = by_hand.make_lane(loaded, shapes, log)
    times.append(time.perf_counter())
    by_hand.infer(lane, feeds)
    times.append(time.perf_counter())
    once = dict(zip(("load", "context", "first call"), np.round(1000 * np.diff(times), 2).tolist(), strict=True))
    lanes = [lane, *(by_hand.make_lane(loaded, shapes, log) for _ in range(LANES - 1))]
    graph_lane = by_hand.make_lane(loaded, shapes, log, cuda_graph=True)
    on_lane, on_graph_lane = (functools.partial(by_hand.infer, one, feeds) for one in (lane, graph_lane))
    on_streams = {
        "1 stream": lambda: [by_hand.infer(lane, feeds) for _ in range(LANES)],
        f"{LANES} streams": functools.partial(by_hand.infer_on_lanes, lanes, feeds),
    }
    in_turn = functools.partial(timing.measure_in_turn, batch=len(images), seconds=seconds, max_calls=200)
    with TensorRTRunner(built) as runner:
        from_scratch = functools.partial(by_hand.infer_from_scratch, loaded, feeds, log)
        on_runner = functools.partial(runner.infer, feeds)
        per_call = in_turn({"made once": on_lane, "TensorRTRunner": on_runner, "made in every call": from_scratch})
    graph = in_turn({"calls": on_lane, "graph": on_graph_lane})
    streams = in_turn(on_streams, batch=LANES * len(images))
    for one in (*lanes, graph_lane):
        by_hand.close(one)
    return {
        "once": once,
        "per_call": timing.to_plain(per_call),
        "graph": timing.to_plain(graph),
        "lanes": timing.to_plain(streams),
    }


def _resnet_lane(built: engine.Engine, batch: int) -> by_hand.Lane:
    log = MessageLog()
    lane = by_hand.make_lane(by_hand.load(built.plan, log), {"x": (batch, 3, 224, 224)}, log)
    images = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), dtype=np.float32)
    by_hand.infer(lane, {"x": images})
    return lane


def _clocks(built: engine.Engine) -> dict[str, float]:
    """Time the same engine call with three clocks: medians in milliseconds, copies excluded."""
    lane = _resnet_lane(built, BATCH)
    by_hand.event_times(lane, 10)
    enqueued, waited = [], []
    for _ in range(_CLOCK_CALLS):
        begin = time.perf_counter()
        checked(lane.context.execute_async_v3(lane.stream.handle), lane.log)
        enqueued.append(time.perf_counter() - begin)
        lane.stream.synchronize()
        waited.append(time.perf_counter() - begin)
    times = {
        "enqueue only": 1000 * np.median(enqueued),
        "enqueue and wait": 1000 * np.median(waited),
        "CUDA events": np.median(by_hand.event_times(lane, _CLOCK_CALLS)),
    }
    by_hand.close(lane)
    return {name: round(float(ms), 4) for name, ms in times.items()}


def _capture(built: engine.Engine, seconds: float) -> dict[str, Any]:
    """Capture a call with cuda-python, where that is installed, and compare outputs and times with plain calls."""
    if find_spec("cuda") is None or find_spec("cuda.bindings") is None:
        return {"status": "cuda-python is not installed"}
    lane = _resnet_lane(built, 1)
    expected = _output(lane, lambda: checked(lane.context.execute_async_v3(lane.stream.handle), lane.log))
    try:
        graph = by_hand.capture(lane)
        captured = _output(lane, functools.partial(by_hand.launch, graph, lane))
        calls = {
            "calls": lambda: (lane.context.execute_async_v3(lane.stream.handle), lane.stream.synchronize()),
            "graph": lambda: (by_hand.launch(graph, lane), lane.stream.synchronize()),
        }
        times = timing.measure_in_turn(calls, seconds=seconds, max_calls=200)
    except Exception as error:  # whatever CUDA or its binding raise: the recording says so
        return {"status": f"{type(error).__name__}: {getattr(error, 'cause', error)}"}
    by_hand.close(lane)
    return {
        "status": "captured",
        "relative_error": quality.relative_error(captured, expected),
        "times": timing.to_plain(times),
    }


def _output(lane: by_hand.Lane, run: Callable[[], Any]) -> np.ndarray:
    """Clear the output on the GPU, run, and return it: an output left from an earlier call would prove nothing."""
    (buffer,) = (buffer for name, buffer in lane.buffers.items() if name != "x")
    by_hand.cuda.memset_d8_async(buffer.device, 0, buffer.host.nbytes, lane.stream)
    run()
    by_hand.cuda.memcpy_dtoh_async(buffer.host, buffer.device, lane.stream)
    lane.stream.synchronize()
    return buffer.host.copy()


EXPERIMENT = Experiment(
    name="lesson03_inference",
    title="An engine run by hand with PyCUDA: mistakes, costs, streams, CUDA graphs and clocks",
    method=METHOD,
    measure=measure,
    read=read,
    models=tuple(f"{name}.onnx" for name in MODELS),
)
