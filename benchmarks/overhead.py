"""What a runner adds to a call of its library, and whether two timers agree: what `make bench` prints.

``python -m benchmarks.overhead 64x3x32x32 model.onnx [more.onnx ...]`` runs the pair that needs a GPU alone, on ONNX
files with an input "x" of that shape: also on a machine that has neither Paddle nor the course's models.
"""

import os
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.ratio import Ratio, in_turn, stamp, table
from tutorial_utils import engine
from tutorial_utils.machine import capabilities

SHAPES = {"quick classifier": (1, 3, 32, 32), "ResNet-50": (1, 3, 224, 224)}
GPU_BOUND = {"at_most": 1.02, "within_us": 15}


def onnx_runtime_call(name: str, model: Path, *, calls: int, at_most: float | None) -> Ratio:
    """A runner's call against ONNX Runtime's own, on the same session: another one's threads would disturb it."""
    from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

    feeds = {"x": _images(SHAPES[name])}
    with OnnxRuntimeRunner(model) as runner:
        runner.infer(feeds)
        times = in_turn(lambda: runner.infer(feeds), lambda: runner.session.run(None, feeds), rounds=41, calls=calls)
    return Ratio(f"runner / ONNX Runtime: {name}, batch 1", **times, at_most=at_most)


def timers(resnet: Path) -> Ratio:
    """The median of `timing.measure` against Polygraphy's runner with a clock around each call."""
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
    from polygraphy.logger import G_LOGGER

    from tutorial_utils.measure import timing
    from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

    feeds, calls = {"x": _images(SHAPES["ResNet-50"])}, 15
    ours, theirs = [], []
    session = SessionFromOnnx(str(resnet))
    with G_LOGGER.verbosity(G_LOGGER.ERROR), OnnxRuntimeRunner(resnet) as runner, OnnxrtRunner(session) as polygraphy:

        def measure_ours() -> None:
            ours.append(timing.measure(lambda: runner.infer(feeds), max_calls=calls).median_ms)

        def measure_theirs() -> None:
            for _ in range(5):
                polygraphy.infer(feeds)
            times = []
            for _ in range(calls):
                start = time.perf_counter()
                polygraphy.infer(feeds)
                times.append(time.perf_counter() - start)
            theirs.append(1000 * statistics.median(times))

        in_turn(measure_ours, measure_theirs, rounds=7)
    name = "timing.measure / Polygraphy's runner and a clock: ResNet-50"
    return Ratio(name, tuple(ours), tuple(theirs), at_most=1.03, at_least=0.97)


def tensorrt_call(model: Path, shape: tuple[int, ...]) -> Ratio:
    """A TensorRT runner's call against the same steps by hand with PyCUDA, on one engine; or why that isn't run."""
    gpu = capabilities.probe().tensorrt_run
    label = f"runner / PyCUDA by hand: {Path(model).stem}, {'x'.join(map(str, shape))}"
    if not gpu.available:
        return Ratio(label, **GPU_BOUND, not_run=gpu.reason)
    return Ratio(label, **_tensorrt_in_turn(model, shape), **GPU_BOUND)


def _tensorrt_in_turn(model: Path, shape: tuple[int, ...]) -> dict[str, tuple[float, ...]]:
    import pycuda.driver as cuda

    from tutorial_utils.runners.tensorrt import TensorRTRunner, primary_context

    images = _images(shape)
    profile = engine.Profile.batch("x", shape[1:], opt=shape[0], max=shape[0])
    built = engine.build(model, engine.BuildOptions(profiles=(profile,)))
    with primary_context(), TensorRTRunner(built) as runner:
        # The same buffers for both: two engines, each in its own place of the GPU's memory, differ by more than calls.
        runner.infer({"x": images})
        (output,) = runner.outputs
        host, device, context, stream = runner.host, runner.device, runner.context, runner.stream

        def by_hand() -> np.ndarray:
            host["x"][...] = images
            cuda.memcpy_htod_async(device["x"], host["x"], stream)
            assert context.execute_async_v3(stream.handle)
            cuda.memcpy_dtoh_async(host[output], device[output], stream)
            stream.synchronize()
            return host[output].copy()

        for _ in range(20):  # kernels are loaded, clocks rise
            runner.infer({"x": images}), by_hand()
        return in_turn(lambda: runner.infer({"x": images}), by_hand, rounds=41, calls=100)


def _images(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def all_pairs() -> Iterable[Ratio]:
    """Measure every pair on the course's models. Of the quick classifier, the microseconds count."""
    from tutorial_utils.model import networks

    models = {"quick classifier": networks.quick()["fp32"], "ResNet-50": networks.resnet50()["fp32"]}
    yield onnx_runtime_call("quick classifier", models["quick classifier"], calls=100, at_most=None)
    yield onnx_runtime_call("ResNet-50", models["ResNet-50"], calls=1, at_most=1.02)
    yield timers(models["ResNet-50"])
    for name, model in models.items():
        yield tensorrt_call(model, SHAPES[name])


def main(arguments: list[str]) -> None:
    """Print the table of all pairs, or of the pair on a GPU for a shape and ONNX files."""
    load = [os.getloadavg()[0]]
    if arguments:
        shape = tuple(map(int, arguments[0].split("x")))
        ratios = [tensorrt_call(Path(model), shape) for model in arguments[1:]]
    else:
        ratios = list(all_pairs())
    load.append(os.getloadavg()[0])
    print(f"{table(ratios)}\n\n{stamp(capabilities.probe().machine(), load)}")


if __name__ == "__main__":
    main(sys.argv[1:])
