"""The article's second program: an engine from an ONNX file with the calls of TensorRT 8.6, and one call of it.

These are its calls with its arguments, in its order, so that the two can be compared line by line. TensorRT 10 has
`infer`'s calls, and not all of those of `build_engine`: see `article_engine_today`. Needs PyCUDA; `article` runs it.
By hand:

    python article_engine.py build MODEL.onnx MODEL.engine PRECISION     # fp32, fp16 or int8
    python article_engine.py infer MODEL.engine IMAGES.npy LOGITS.npy

Each prints a line of JSON. What TensorRT and Python warn of goes to stderr.
"""

import functools
import json
import sys
import time

import numpy as np
import pycuda.driver as cuda
import tensorrt as trt


def build_engine(
    onnx_path: str, engine_path: str, precision: str = "fp32", max_workspace_size: int = 1 << 30
) -> trt.ICudaEngine | None:
    """Build an engine for 1 to 64 images and write it to a file; None means failure."""
    logger = trt.Logger(trt.Logger.WARNING)
    explicit_batch = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    with (
        trt.Builder(logger) as builder,
        builder.create_network(explicit_batch) as network,
        trt.OnnxParser(network, logger) as parser,
    ):
        builder.max_batch_size = 64
        config = builder.create_builder_config()
        config.max_workspace_size = max_workspace_size
        if precision == "fp16" and builder.platform_has_fast_fp16:
            config.set_flag(trt.BuilderFlag.FP16)
        elif precision == "int8" and builder.platform_has_fast_int8:
            config.set_flag(trt.BuilderFlag.INT8)  # and no calibrator: in the article, that line is a comment

        with open(onnx_path, "rb") as model:
            if not parser.parse(model.read()):
                for error in range(parser.num_errors):
                    print(parser.get_error(error), file=sys.stderr)
                return None

        profile = builder.create_optimization_profile()
        profile.set_shape("x", min=(1, 3, 32, 32), opt=(32, 3, 32, 32), max=(64, 3, 32, 32))
        config.add_optimization_profile(profile)

        engine = builder.build_engine(network, config)
        if engine is None:
            return None
        with open(engine_path, "wb") as file:
            file.write(engine.serialize())
        return engine


def load_engine(engine_path: str) -> trt.ICudaEngine:
    """Read an engine from its file."""
    logger = trt.Logger(trt.Logger.WARNING)
    with open(engine_path, "rb") as file, trt.Runtime(logger) as runtime:
        return runtime.deserialize_cuda_engine(file.read())


def infer(engine: trt.ICudaEngine, input_data: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """Map images to logits ``[64, 10]``, with a context, a stream and buffers that are made anew in each call."""
    with engine.create_execution_context() as context:
        stream = cuda.Stream()
        h_output = cuda.pagelocked_empty((batch_size, 10), dtype=np.float32)
        d_input = cuda.mem_alloc(input_data.nbytes)
        d_output = cuda.mem_alloc(h_output.nbytes)

        input_name, output_name = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        context.set_input_shape(input_name, (batch_size, 3, 32, 32))
        cuda.memcpy_htod_async(d_input, input_data, stream)
        context.set_tensor_address(input_name, int(d_input))
        context.set_tensor_address(output_name, int(d_output))

        context.execute_async_v3(stream.handle)
        cuda.memcpy_dtoh_async(h_output, d_output, stream)
        stream.synchronize()
        return h_output.reshape(input_data.shape[0], -1)


if __name__ == "__main__":
    import pycuda.autoinit  # noqa: F401 - the article's way to make a CUDA context

    step, *arguments = sys.argv[1:]
    started = time.perf_counter()
    if step == "build":
        built = build_engine(*arguments)
        print(json.dumps({"built": built is not None, "seconds": round(time.perf_counter() - started, 2)}))
    else:
        engine_path, images_path, logits_path = arguments
        engine, images = load_engine(engine_path), np.load(images_path)
        started = time.perf_counter()
        logits = infer(engine, images)
        first_ms = 1e3 * (time.perf_counter() - started)
        np.save(logits_path, logits)

        from tutorial_utils.measure import timing  # the article's program ends above

        warm = timing.measure(functools.partial(infer, engine, images), batch=len(images), max_calls=100)
        print(json.dumps({"first_ms": round(first_ms, 3), "warm": warm.to_dict()}))
