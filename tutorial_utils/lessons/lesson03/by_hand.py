"""Lesson 03: an engine run by hand with PyCUDA, one step a function. The lesson shows these functions as they ran.

`checked` returns what a TensorRT call returned; where that means failure, it raises with TensorRT's own words.

The order matters: primary context, engine, execution context, input shapes, then buffers and their addresses, then
copies and the engine on one stream. `runners.tensorrt` is the same in the course's calling convention.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutorial_utils.base.errors import BackendUnavailableError, InputError, PlanError
from tutorial_utils.engine.tensorrt import IS_RTX, MessageLog, checked, trt

try:
    import pycuda.driver as cuda
except ImportError:  # not installed, or no CUDA driver for it to load: the lesson still shows this file
    cuda = None


@contextlib.contextmanager
def primary_context(device: int = 0) -> Iterator[None]:
    """Make the context current that Paddle, ONNX Runtime and PyTorch use too, and let go of it at the end."""
    cuda.init()
    context = cuda.Device(device).retain_primary_context()
    context.push()
    try:
        yield
    finally:
        cuda.Context.pop()  # a context that is still pushed when Python ends aborts the process
        context.detach()


def load(plan: bytes, log: MessageLog) -> "trt.ICudaEngine":
    """Load a plan. The engine keeps its runtime alive."""
    return checked(trt.Runtime(log).deserialize_cuda_engine(plan), log)


def tensors(engine: "trt.ICudaEngine") -> dict[str, tuple[str, str, tuple[int, ...]]]:
    """Return mode, data type and shape of every input and output by name. Their order is no contract."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    return {
        name: (engine.get_tensor_mode(name).name, engine.get_tensor_dtype(name).name,
               tuple(engine.get_tensor_shape(name)))
        for name in names
    }  # fmt: skip


def new_context(engine: "trt.ICudaEngine", log: MessageLog, *, cuda_graph: bool = False) -> "trt.IExecutionContext":
    """Create an execution context: it holds the activations, and TensorRT-RTX compiles its kernels for this GPU."""
    if not cuda_graph:
        return checked(engine.create_execution_context(), log)
    if not IS_RTX:
        raise BackendUnavailableError("Only TensorRT-RTX captures by itself.", "Use `capture` with TensorRT.")
    config = engine.create_runtime_config()
    config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return checked(engine.create_execution_context(config), log)


@dataclass
class Buffer:
    """The memory of one tensor: page-locked on the host, and on the GPU."""

    host: np.ndarray
    device: "cuda.DeviceAllocation"


def allocate(
    engine: "trt.ICudaEngine", context: "trt.IExecutionContext", shapes: Mapping[str, tuple[int, ...]], log: MessageLog
) -> dict[str, Buffer]:
    """Set the input shapes, ask for those of the outputs, and give every tensor its memory."""
    for name, shape in shapes.items():
        checked(context.set_input_shape(name, shape), log)  # False outside the profile
    unknown = context.infer_shapes()  # the names of tensors whose shape is still open: must be empty
    if unknown:
        raise InputError(f"The shape of {', '.join(unknown)} is unknown.", "Set all inputs, or use an allocator.")
    buffers = {}
    for name in tensors(engine):
        dtype = trt.nptype(engine.get_tensor_dtype(name))
        host = cuda.pagelocked_empty(tuple(context.get_tensor_shape(name)), dtype)
        buffers[name] = Buffer(host, cuda.mem_alloc(host.nbytes))
        checked(context.set_tensor_address(name, int(buffers[name].device)), log)
    return buffers


@dataclass
class Lane:
    """What one caller needs for itself: an execution context, a stream and buffers. The engine can be shared."""

    context: "trt.IExecutionContext"
    stream: "cuda.Stream"
    buffers: dict[str, Buffer]
    log: MessageLog
    graph: Any = None  # of `capture`; TensorRT-RTX keeps its own


def make_lane(
    engine: "trt.ICudaEngine", shapes: Mapping[str, tuple[int, ...]], log: MessageLog, *, cuda_graph: bool = False
) -> Lane:
    """Make everything that is made once."""
    context = new_context(engine, log, cuda_graph=cuda_graph and IS_RTX)
    lane = Lane(context, cuda.Stream(), allocate(engine, context, shapes, log), log)
    if cuda_graph and not IS_RTX:
        lane.graph = capture(lane)
    return lane


def start(lane: Lane, feeds: Mapping[str, np.ndarray]) -> None:
    """Enqueue copies and engine. Nothing waits here: the buffers belong to the stream until `finish`."""
    for name, array in feeds.items():
        lane.buffers[name].host[...] = array
        cuda.memcpy_htod_async(lane.buffers[name].device, lane.buffers[name].host, lane.stream)
    if lane.graph is None:
        checked(lane.context.execute_async_v3(lane.stream.handle), lane.log)
    else:
        launch(lane.graph, lane)
    for name in lane.buffers.keys() - feeds.keys():
        cuda.memcpy_dtoh_async(lane.buffers[name].host, lane.buffers[name].device, lane.stream)


def finish(lane: Lane, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Wait for the stream; return copies of the outputs, since the next call overwrites the buffers."""
    lane.stream.synchronize()
    return {name: lane.buffers[name].host.copy() for name in lane.buffers.keys() - feeds.keys()}


def infer(lane: Lane, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run once, from numpy to numpy."""
    start(lane, feeds)
    return finish(lane, feeds)


def infer_on_lanes(lanes: list[Lane], feeds: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Run the same input on several streams at once."""
    for lane in lanes:
        start(lane, feeds)
    return [finish(lane, feeds) for lane in lanes]


def infer_from_scratch(engine: "trt.ICudaEngine", feeds: Mapping[str, np.ndarray], log: MessageLog) -> None:
    """Do in every call what belongs before the first one: context, stream and buffers."""
    lane = make_lane(engine, {name: array.shape for name, array in feeds.items()}, log)
    infer(lane, feeds)
    close(lane)


def close(lane: Lane) -> None:
    """Free a lane while its CUDA context is current."""
    for buffer in lane.buffers.values():
        buffer.device.free()
    del lane.graph, lane.context, lane.stream, lane.buffers


def event_times(lane: Lane, calls: int) -> np.ndarray:
    """Return the milliseconds of the engine alone for each call, by CUDA events on its stream."""
    starts, ends = ([cuda.Event() for _ in range(calls)] for _ in range(2))
    for begin, end in zip(starts, ends, strict=True):
        begin.record(lane.stream)
        checked(lane.context.execute_async_v3(lane.stream.handle), lane.log)
        end.record(lane.stream)
    lane.stream.synchronize()
    return np.array([begin.time_till(end) for begin, end in zip(starts, ends, strict=True)])


class OutputAllocator(trt.IOutputAllocator):
    """Gives TensorRT memory for an output when it asks, and remembers the shape that came out."""

    def __init__(self):
        trt.IOutputAllocator.__init__(self)
        self.memory: dict[str, cuda.DeviceAllocation] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._sizes: dict[str, int] = {}

    def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, stream: int) -> int:
        """Return the address of at least ``size`` bytes (called by TensorRT)."""
        if size > self._sizes.get(tensor_name, 0):
            self.memory[tensor_name] = cuda.mem_alloc(size)
            self._sizes[tensor_name] = size
        return int(self.memory[tensor_name])

    def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
        """Do the same for TensorRT before 10.1, which has no asynchronous form (called by TensorRT)."""
        return self.reallocate_output_async(tensor_name, memory, size, alignment, 0)

    def notify_shape(self, tensor_name: str, shape: "trt.Dims") -> None:
        """Take the shape that an output turned out to have (called by TensorRT)."""
        self.shapes[tensor_name] = tuple(shape)


def infer_with_allocator(
    engine: "trt.ICudaEngine", feeds: Mapping[str, np.ndarray], log: MessageLog
) -> dict[str, np.ndarray]:
    """Run an engine whose output shapes are not asked for beforehand: TensorRT tells them while it runs."""
    context, stream, allocator = new_context(engine, log), cuda.Stream(), OutputAllocator()
    device = {}
    for name, array in feeds.items():
        if engine.get_tensor_location(name) == trt.TensorLocation.HOST:  # a shape tensor: read on the host
            checked(context.set_tensor_address(name, array.ctypes.data), log)
            continue
        device[name] = cuda.to_device(np.ascontiguousarray(array))
        checked(context.set_input_shape(name, array.shape), log)
        checked(context.set_tensor_address(name, int(device[name])), log)
    outputs = [name for name, (mode, *_) in tensors(engine).items() if mode == "OUTPUT"]
    for name in outputs:
        checked(context.set_output_allocator(name, allocator), log)
    checked(context.execute_async_v3(stream.handle), log)
    stream.synchronize()
    results = {name: np.empty(allocator.shapes[name], trt.nptype(engine.get_tensor_dtype(name))) for name in outputs}
    for name, array in results.items():
        cuda.memcpy_dtoh(array, allocator.memory[name])
    for memory in (*device.values(), *allocator.memory.values()):
        memory.free()
    return results


def capture(lane: Lane) -> Any:
    """Record a call as a CUDA graph with cuda-python, as TensorRT needs it. PyCUDA has no such calls.

    Returns:
        The graph for ``cudart.cudaGraphLaunch(graph, stream)``. It holds shapes and addresses: capture again when one
        of them changes.
    """
    from cuda.bindings import runtime as cudart

    checked(lane.context.execute_async_v3(lane.stream.handle), lane.log)  # what happens only once must not be captured
    lane.stream.synchronize()
    mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    _good(cudart.cudaStreamBeginCapture(lane.stream.handle, mode))
    enqueued = lane.context.execute_async_v3(lane.stream.handle)
    captured = cudart.cudaStreamEndCapture(lane.stream.handle)  # also after a failure: it ends the capture
    checked(enqueued, lane.log)
    (graph,) = _good(captured)
    return _good(cudart.cudaGraphInstantiate(graph, 0))[0]


def launch(graph: Any, lane: Lane) -> None:
    """Enqueue a captured graph."""
    from cuda.bindings import runtime as cudart

    _good(cudart.cudaGraphLaunch(graph, lane.stream.handle))


def _good(result: tuple) -> tuple:
    """Return what a call of cuda-python gave beside its status: it raises nothing by itself."""
    status, *values = result
    if int(status) != 0:
        raise PlanError(f"CUDA refused a call of the capture: {status.name}.", "Look the status up in CUDA's manual.")
    return tuple(values)
