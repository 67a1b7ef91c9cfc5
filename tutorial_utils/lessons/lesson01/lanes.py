"""Lesson 01, asynchrony: an engine on several CUDA streams at once. Needs a GPU and PyCUDA.

A lane is a stream with an execution context and buffers of its own, so that batches in different lanes don't wait for
each other: while one is computed, the next is copied in and the one before is copied out.
"""

import time

import numpy as np
import pycuda.driver as cuda

from tutorial_utils.base.errors import BackendUnavailableError, BuildError, InputError, PlanError
from tutorial_utils.engine.tensorrt import IS_RTX, MessageLog, checked, trt

STAGES = ("copy in", "engine", "copy out")


class Lane:
    """A stream, an execution context and buffers for an engine with one input and one output.

    Args:
        engine: The engine; lanes share it, and so its weights.
        log: The log of the runtime that loaded it.
        images: What this lane works on, float32 ``[N, ...]``, up to the largest batch of the profile.
        cuda_graph: Let TensorRT-RTX replay the engine as a CUDA graph.
    """

    def __init__(self, engine: "trt.ICudaEngine", log: MessageLog, images: np.ndarray, cuda_graph: bool):
        self._log = log
        self.stream = cuda.Stream()
        self._context = checked(
            _new_context(engine, cuda_graph), log, BuildError, "TensorRT can't create an execution context",
            "Free GPU memory: every lane holds all activations of the largest profile.",
        )  # fmt: skip
        self._input, self._output = _input_and_output(engine)
        # The same images twice: a copy from pageable memory goes through a buffer of the driver, and the host waits.
        self._pageable = images.copy()
        self._pinned = cuda.pagelocked_empty(images.shape, images.dtype)
        self._pinned[...] = images
        self._device_input = cuda.mem_alloc(images.nbytes)
        self.use(len(images))
        self._pinned_output = cuda.pagelocked_empty(tuple(self._context.get_tensor_shape(self._output)), np.float32)
        self._device_output = cuda.mem_alloc(self._pinned_output.nbytes)
        for name, buffer in ((self._input, self._device_input), (self._output, self._device_output)):
            checked(
                self._context.set_tensor_address(name, int(buffer)),
                log, PlanError, f"TensorRT refuses the buffer of {name}", "Build the engine again.",
            )  # fmt: skip

    def use(self, batch: int) -> None:
        """Work on the first images only."""
        self._batch = batch
        checked(
            self._context.set_input_shape(self._input, (batch, *self._pinned.shape[1:])),
            self._log, InputError, f"TensorRT refuses batch {batch}", "Stay inside the profile.",
        )  # fmt: skip

    def copy_in(self, pinned: bool = True) -> None:
        """Enqueue the copy of the images to the GPU."""
        images = self._pinned if pinned else self._pageable
        cuda.memcpy_htod_async(self._device_input, images[: self._batch], self.stream)

    def run(self) -> None:
        """Enqueue the engine."""
        checked(
            self._context.execute_async_v3(self.stream.handle),
            self._log, PlanError, "TensorRT can't run the engine", "Build the engine again on this machine.",
        )  # fmt: skip

    def copy_out(self) -> None:
        """Enqueue the copy of the logits to the host."""
        cuda.memcpy_dtoh_async(self._pinned_output[: self._batch], self._device_output, self.stream)

    def logits(self) -> np.ndarray:
        """Wait for the stream and return the last logits, float32 ``[batch, classes]``."""
        self.stream.synchronize()
        return self._pinned_output[: self._batch].copy()

    def close(self) -> None:
        """Free context, buffers and stream."""
        self._context = None
        self._device_input.free()
        self._device_output.free()
        self._pinned = self._pinned_output = self.stream = None


class Lanes:
    """An engine and its lanes, in the device's primary context.

    Args:
        plan: The serialized engine, with one FP32 input and one FP32 output.
        images: The images of a batch, float32 ``[N, ...]``, N being the largest batch to run. Every lane has a copy.
        count: Number of lanes.
        cuda_graph: Let TensorRT-RTX replay the engine as a CUDA graph.

    Raises:
        BackendUnavailableError: There is no GPU, or this TensorRT doesn't capture CUDA graphs by itself.
        PlanError: The runtime refuses the plan.
    """

    def __init__(self, plan: bytes, images: np.ndarray, count: int, *, cuda_graph: bool = False):
        cuda.init()
        self._cuda_context = cuda.Device(0).retain_primary_context()
        self._cuda_context.push()
        self.lanes: list[Lane] = []
        log = MessageLog()
        try:
            self._engine = checked(
                trt.Runtime(log).deserialize_cuda_engine(plan), log, PlanError, "TensorRT can't load the engine",
                "Build it again on this machine, with the TensorRT version that runs it.",
            )  # fmt: skip
            for _ in range(count):
                self.lanes.append(Lane(self._engine, log, images, cuda_graph))
        except BaseException:
            self.close()  # a context that is still pushed when Python ends aborts the process
            raise

    def __enter__(self) -> "Lanes":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the lanes and the engine, and let go of the CUDA context."""
        for lane in self.lanes:
            lane.close()
        self._engine = None
        cuda.Context.pop()
        self._cuda_context.detach()

    def use(self, batch: int) -> None:
        """Let every lane work on the first images only."""
        for lane in self.lanes:
            lane.use(batch)

    def one_by_one(self, batches: int) -> None:
        """Run batches with a synchronization after every stage, as code does that was written step by step."""
        lane = self.lanes[0]
        for _ in range(batches):
            for stage in (lane.copy_in, lane.run, lane.copy_out):
                stage()
                lane.stream.synchronize()

    def on_streams(self, streams: int, batches: int, pinned: bool = True) -> None:
        """Run batches on several lanes in turn, and wait only for a lane that is used again."""
        for number in range(batches):
            lane = self.lanes[number % streams]
            lane.stream.synchronize()  # its last batch is complete, so its buffers are free
            lane.copy_in(pinned)
            lane.run()
            lane.copy_out()
        for lane in self.lanes[:streams]:
            lane.stream.synchronize()

    def copy_in(self, pinned: bool) -> None:
        """Copy one batch to the GPU and wait for it."""
        lane = self.lanes[0]
        lane.copy_in(pinned)
        lane.stream.synchronize()

    def stage_times(self, batches: int) -> dict[str, float]:
        """Time the stages of one lane, one batch after the other.

        Returns:
            Median milliseconds of each of `STAGES` by CUDA events, and of "enqueue": how long the host is busy with
            handing the engine to the GPU.
        """
        lane = self.lanes[0]
        times: dict[str, list[float]] = {name: [] for name in (*STAGES, "enqueue")}
        events = [cuda.Event() for _ in range(len(STAGES) + 1)]
        for _ in range(batches):
            events[0].record(lane.stream)
            lane.copy_in()
            events[1].record(lane.stream)
            start = time.perf_counter()
            lane.run()
            times["enqueue"].append(1000 * (time.perf_counter() - start))
            events[2].record(lane.stream)
            lane.copy_out()
            events[3].record(lane.stream)
            lane.stream.synchronize()
            for name, begin, end in zip(STAGES, events[:-1], events[1:], strict=True):
                times[name].append(begin.time_till(end))
        return {name: round(float(np.median(values)), 4) for name, values in times.items()}


def _new_context(engine: "trt.ICudaEngine", cuda_graph: bool) -> "trt.IExecutionContext":
    if not cuda_graph:
        return engine.create_execution_context()
    if not IS_RTX:
        raise BackendUnavailableError(
            "This TensorRT doesn't capture CUDA graphs by itself.", "Leave cuda_graph out, or use TensorRT-RTX."
        )
    config = engine.create_runtime_config()
    config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return engine.create_execution_context(config)


def _input_and_output(engine: "trt.ICudaEngine") -> tuple[str, str]:
    modes = {name: engine.get_tensor_mode(name) for name in map(engine.get_tensor_name, range(engine.num_io_tensors))}
    (input_name,) = (name for name, mode in modes.items() if mode == trt.TensorIOMode.INPUT)
    (output_name,) = (name for name, mode in modes.items() if mode == trt.TensorIOMode.OUTPUT)
    return input_name, output_name
