"""A TensorRT runner's call against the same steps by hand: rows of `make bench`, and a program of its own.

``python -m benchmarks.tensorrt_runner 64x3x32x32 model.onnx [more.onnx ...]`` runs the pair on ONNX files, each with an
input "x" of that shape: also on a machine that has neither Paddle nor the course's models. It prints the table.
"""

import os
import sys
from pathlib import Path

import numpy as np

from benchmarks.ratio import Ratio, in_turn, stamp, table
from tutorial_utils import engine
from tutorial_utils.machine import capabilities

BOUND = {"at_most": 1.02, "within_us": 15}


def pair(model: Path, shape: tuple[int, ...]) -> Ratio:
    """Time both sides on one engine, or say why that can't be done here."""
    gpu = capabilities.probe().tensorrt_run
    label = f"runner / PyCUDA by hand: {Path(model).stem}, {'x'.join(map(str, shape))}"
    if not gpu.available:
        return Ratio(label, **BOUND, not_run=gpu.reason)
    return Ratio(label, **_in_turn(model, shape), **BOUND)


def _in_turn(model: Path, shape: tuple[int, ...]) -> dict[str, tuple[float, ...]]:
    import pycuda.driver as cuda

    from tutorial_utils.runners.tensorrt import TensorRTRunner, primary_context

    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
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


def main(shape: str, *models: str) -> None:
    """Print the pair's table for ONNX files and an input shape such as 64x3x32x32."""
    load = [os.getloadavg()[0]]
    ratios = [pair(Path(model), tuple(map(int, shape.split("x")))) for model in models]
    load.append(os.getloadavg()[0])
    print(f"{table(ratios)}\n\n{stamp(capabilities.probe().machine(), load)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
