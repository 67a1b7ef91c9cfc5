"""What the article's second program does, with the calls of TensorRT 10, and with what a call needs made once.

The steps have the order of `article_engine`, to be compared with it line by line. All of these calls are in 8.6, too.
The types of the engine are asked for by flags, as in the article: TensorRT 11 and RTX have none, and take a strongly
typed network from an FP16 file instead, as the rest of the course does. By hand:

    python article_engine_today.py build MODEL.onnx MODEL.engine PRECISION     # fp32, fp16 or int8
    python article_engine_today.py infer MODEL.engine IMAGES.npy LOGITS.npy

Each prints a line of JSON. What TensorRT warns of goes to stderr.
"""

import functools
import json
import sys
import time

import numpy as np
import pycuda.driver as cuda
import tensorrt as trt


def build_engine(onnx_path: str, engine_path: str, precision: str = "fp32", workspace: int = 1 << 30) -> bool:
    """Build an engine for 1 to 64 images and write it to a file; False means failure."""
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    explicit_batch = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)  # 10 ignores it: it has no other kind
    network = builder.create_network(explicit_batch)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    if precision != "fp32":
        config.set_flag({"fp16": trt.BuilderFlag.FP16, "int8": trt.BuilderFlag.INT8}[precision])

    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(onnx_path):
        for error in range(parser.num_errors):
            print(parser.get_error(error), file=sys.stderr)
        return False

    profile = builder.create_optimization_profile()
    profile.set_shape("x", min=(1, 3, 32, 32), opt=(32, 3, 32, 32), max=(64, 3, 32, 32))
    config.add_optimization_profile(profile)

    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return False
    with open(engine_path, "wb") as file:
        file.write(plan)
    return True


def load_engine(engine_path: str) -> trt.ICudaEngine:
    """Read an engine from its file. It keeps its runtime alive."""
    with open(engine_path, "rb") as file:
        return trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(file.read())


class Inference:
    """Context, stream and buffers for calls of so many images, made once: the article makes them anew in each call."""

    def __init__(self, engine: trt.ICudaEngine, batch_size: int = 64):
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        (input_name,) = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        (output_name,) = [name for name in names if name != input_name]
        self.context = context = engine.create_execution_context()
        self.stream = cuda.Stream()
        context.set_input_shape(input_name, (batch_size, 3, 32, 32))
        self.h_input = cuda.pagelocked_empty((batch_size, 3, 32, 32), np.float32)
        self.h_output = cuda.pagelocked_empty(tuple(context.get_tensor_shape(output_name)), np.float32)
        self.d_input, self.d_output = cuda.mem_alloc(self.h_input.nbytes), cuda.mem_alloc(self.h_output.nbytes)
        context.set_tensor_address(input_name, int(self.d_input))
        context.set_tensor_address(output_name, int(self.d_output))

    def infer(self, images: np.ndarray) -> np.ndarray:
        """Map images to logits ``[64, 10]``, which the next call overwrites."""
        self.h_input[...] = images
        cuda.memcpy_htod_async(self.d_input, self.h_input, self.stream)
        if not self.context.execute_async_v3(self.stream.handle):
            raise RuntimeError("TensorRT refused the call.")
        cuda.memcpy_dtoh_async(self.h_output, self.d_output, self.stream)
        self.stream.synchronize()
        return self.h_output

    def engine_times(self, calls: int) -> list[float]:
        """Return the milliseconds of the engine alone in each call, by CUDA events, without copies."""
        begin, end, times = cuda.Event(), cuda.Event(), []
        for _ in range(calls):
            begin.record(self.stream)
            self.context.execute_async_v3(self.stream.handle)
            end.record(self.stream)
            end.synchronize()
            times.append(begin.time_till(end))
        return times


if __name__ == "__main__":
    import pycuda.autoinit  # noqa: F401 - a CUDA context for this process alone; lesson 03b shares the primary one

    from tutorial_utils.measure import timing

    step, *arguments = sys.argv[1:]
    started = time.perf_counter()
    if step == "build":
        built = build_engine(*arguments)
        print(json.dumps({"built": built, "seconds": round(time.perf_counter() - started, 2)}))
    else:
        engine_path, images_path, logits_path = arguments
        engine, images = load_engine(engine_path), np.load(images_path)
        started = time.perf_counter()
        inference = Inference(engine)
        ready = time.perf_counter()
        logits = inference.infer(images)
        called = time.perf_counter()
        np.save(logits_path, logits)
        warm = timing.measure(functools.partial(inference.infer, images), batch=len(images), max_calls=200)
        alone = timing.measure_on_device(inference.engine_times, batch=len(images), max_calls=200)
        times = {"prepare_ms": round(1e3 * (ready - started), 3), "first_ms": round(1e3 * (called - ready), 3)}
        print(json.dumps({**times, "warm": warm.to_dict(), "engine": alone.to_dict()}))
