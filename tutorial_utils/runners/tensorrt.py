"""TensorRT engines through PyCUDA: the primary CUDA context, pinned buffers, one stream, one execution context.

Paddle, ONNX Runtime and PyTorch use a device's primary context too, so they live in the same process. It is pushed
while a method needs it and popped again: a context that is still pushed when Python ends aborts the process. It is
retained once, and let go of when the process ends: PyCUDA's `detach` of a primary context that isn't current pushes it
on the thread's stack and leaves it there, and does nothing at all in a thread that didn't retain it.
"""

import contextlib
import functools
import warnings
from collections.abc import Iterator, Mapping
from typing import Union

import numpy as np

from tutorial_utils.base.errors import BackendUnavailableError, BuildError, CourseError, InputError, PlanError
from tutorial_utils.base.shapes import in_order
from tutorial_utils.engine import Engine
from tutorial_utils.engine.tensorrt import IS_RTX, MessageLog, checked, load_plan, trt
from tutorial_utils.runners.base import Arrays, Runner, TensorSpec
from tutorial_utils.runners.cuda_graph import CudaGraph, cuda_driver

try:
    import pycuda.driver as cuda
except ImportError as error:  # not installed, or no CUDA driver for it to load
    raise BackendUnavailableError(
        f"PyCUDA can't be imported: {error}.",
        "TensorRT engines run on a machine with an NVIDIA GPU and PyCUDA; `python -m tutorial_utils doctor` says more.",
    ) from error


class _Current:
    """A CUDA context that is current inside a `with` block: a class, since a generator takes a microsecond more."""

    def __init__(self, context: "cuda.Context"):
        self._context = context

    def __enter__(self) -> None:
        self._context.push()

    def __exit__(self, *_: object) -> None:
        cuda.Context.pop()


@functools.cache
def _retained_primary_context() -> "cuda.Context":
    try:
        cuda.init()
        return cuda.Device(0).retain_primary_context()
    except cuda.Error as error:
        raise BackendUnavailableError(
            f"CUDA can't be used: {error}.", "Run `python -m tutorial_utils doctor`."
        ) from error


@contextlib.contextmanager
def primary_context() -> Iterator[None]:
    """Make the first GPU's primary CUDA context current inside a `with` block.

    Raises:
        BackendUnavailableError: There is no GPU.
    """
    with _Current(_retained_primary_context()):
        yield


class TensorRTRunner(Runner):
    """Runs a serialized TensorRT engine on the first GPU, with the engine's first optimization profile.

    Everything that costs time once is done here: loading the plan, creating the execution context (which TensorRT-RTX
    uses to compile kernels for this GPU), and allocating buffers for the largest shapes of the profile.

    `infer` is five steps, which a schedule of its own can call one by one inside `with primary_context()`: `fill`,
    `copy_in`, `run`, `copy_out`, `results`. The first four don't wait for the GPU.

    Args:
        engine: The engine, or its plan as bytes. A cached engine that the runtime refuses is built again, once. Or
            another runner: both then share its loaded engine, each with a stream, a context and buffers of its own.
        cuda_graph: Replay the engine as a CUDA graph. TensorRT-RTX captures by itself. With TensorRT, a call in new
            shapes runs as it is and is then captured, and the calls after it replay that: one graph, of the last
            shapes, since NVIDIA advises a context for each graph. For shapes that alternate, take a runner for each.

    Attributes:
        engine: The loaded engine.
        context: Its execution context.
        stream: The CUDA stream of all copies and calls.
        host: Pinned memory of each input and output, by name, as an array in the shape of the last `fill`.
        device: Their memory on the GPU, by name; none for what TensorRT reads or writes on the host, as it does shapes.
        log: What TensorRT said while the engine was loaded and used.

    Raises:
        BackendUnavailableError: There is no GPU; or a CUDA graph was asked for, and cuda-python is not installed.
        PlanError: The runtime refuses the plan: cut short, altered, or built by another version or for another GPU.
        InputError: The engine has an input or output that numpy can't hold.
    """

    def __init__(self, engine: Union[Engine, bytes, "TensorRTRunner"], *, cuda_graph: bool = False):
        self._captures = cuda_graph and not IS_RTX
        if self._captures:
            cuda_driver()  # not installed: better said before anything is loaded
        self._cuda_context = _retained_primary_context()
        self.backend = "TensorRT-RTX" if IS_RTX else "TensorRT"
        self._graph: CudaGraph | None = None  # of the shapes that are bound
        self.log: MessageLog = engine.log if isinstance(engine, TensorRTRunner) else MessageLog()
        with self._current():
            self.engine: trt.ICudaEngine = engine.engine if isinstance(engine, TensorRTRunner) else self._load(engine)
            self.stream = cuda.Stream(1)  # CU_STREAM_NON_BLOCKING: work on the default stream doesn't hold it up
            self.context = self._create_context(cuda_graph)
            # Smallest, usual and largest values of inputs that are shapes.
            self._values: dict[str, list[list[int]]] = {}
            self.inputs, self.outputs = self._read_specs()
            self._buffers: dict[str, np.ndarray] = {}  # pinned, for the largest shapes
            self.host: dict[str, np.ndarray] = {}  # views of them
            self.device: dict[str, cuda.DeviceAllocation] = {}
            self._bound: tuple[dict[str, tuple[int, ...]], dict[str, list[int]]] | None = None
            self._allocate()

    def _load(self, engine: Engine | bytes) -> "trt.ICudaEngine":
        if not isinstance(engine, Engine):
            return load_plan(engine, self.log)
        host_code = "version_compatible" in engine.options.flags  # such a plan brings its own runtime
        try:
            return load_plan(engine.plan, self.log, host_code=host_code)
        except PlanError:
            if not engine.from_cache:
                raise
            warnings.warn("The runtime refuses the cached engine: building it again.", stacklevel=3)
            return load_plan(engine.rebuilt().plan, self.log, host_code=host_code)

    def _create_context(self, cuda_graph: bool) -> "trt.IExecutionContext":
        if IS_RTX and cuda_graph:
            config = checked(self.engine.create_runtime_config(), self.log)
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = self.engine.create_execution_context(config)
        else:
            context = self.engine.create_execution_context()
        return checked(
            context, self.log, BuildError, "TensorRT can't create an execution context",
            "Free GPU memory: the context holds all activations of the largest profile.",
        )  # fmt: skip

    def _read_specs(self) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
        inputs, outputs = {}, {}
        for name in (self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)):
            shape = tuple(self.engine.get_tensor_shape(name))
            try:
                dtype = np.dtype(trt.nptype(self.engine.get_tensor_dtype(name)))
            except TypeError as error:
                raise InputError(
                    f"{name} is {self.engine.get_tensor_dtype(name)}, which numpy can't hold.",
                    "Cast inputs and outputs to FP32 or FP16 in the ONNX model.",
                ) from error
            if self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                low, _, high = (tuple(s) for s in self.engine.get_tensor_profile_shape(name, 0))
                # The bindings call the two arguments the other way round: first comes the profile.
                values = (
                    self.engine.get_tensor_profile_values(0, name) if self.engine.is_shape_inference_io(name) else []
                )
                if values:
                    self._values[name] = values
                    low = high = shape  # a shape has a fixed number of sizes
                inputs[name] = TensorSpec(name, dtype, shape, low, high)
            else:
                outputs[name] = TensorSpec(name, dtype, shape)
        return inputs, outputs

    def _allocate(self) -> None:
        """Allocate a pinned host buffer and a device buffer for every input and output, at their largest size.

        From pageable memory, an asynchronous copy is not asynchronous, so the host side is page-locked.
        """
        for name, spec in self.inputs.items():
            self._add_buffer(name, spec, spec.max_shape or ())
        for name, (_, _, most) in self._values.items():
            self._buffers[name][: len(most)] = most
        self._set_input_shapes({name: spec.max_shape for name, spec in self.inputs.items()})
        for name, spec in self.outputs.items():
            self._add_buffer(name, spec, tuple(self.context.get_tensor_shape(name)))

    def _add_buffer(self, name: str, spec: TensorSpec, shape: tuple[int, ...]) -> None:
        """Allocate memory for a tensor. TensorRT reads and writes shapes on the host, everything else on the GPU."""
        self._buffers[name] = cuda.pagelocked_empty(max(int(np.prod(shape)), 1), spec.dtype)
        address = self._buffers[name].ctypes.data
        if self.engine.get_tensor_location(name) == trt.TensorLocation.DEVICE:
            self.device[name] = cuda.mem_alloc(self._buffers[name].nbytes)
            address = int(self.device[name])
        checked(self.context.set_tensor_address(name, address), self.log, failure=f"No buffer fits {name}")

    def _set_input_shapes(self, shapes: Mapping[str, tuple[int, ...] | None]) -> None:
        for name, shape in shapes.items():
            checked(self.context.set_input_shape(name, shape), self.log, InputError)
        logged = len(self.log.messages)
        sizes = {name: self.context.get_tensor_shape(name) for name in self.outputs}
        # Not asked by infer_shapes: where inputs contradict each other, that of TensorRT 10.6 ends the process.
        if any(severity <= int(trt.ILogger.Severity.ERROR) for severity, _ in self.log.messages[logged:]):
            raise InputError(
                f"The shapes of the inputs don't fit each other: {self.log.last_errors(1)}.",
                "Pass inputs that belong together, such as batches of one size.",
            )
        unknown = [name for name, one in sizes.items() if one.__len__() < 0 or -1 in tuple(one)]
        if unknown:
            raise InputError(
                f"The shape of {', '.join(unknown)} depends on the values of the data, not only on input shapes.",
                "Run this model with an output allocator: lesson 03b shows how.",
            )

    def _current(self) -> "_Current":
        if self._cuda_context is None:
            raise InputError("The runner is closed.", "Make a new one, or use it inside its `with` block.")
        return _Current(self._cuda_context)

    def _infer(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        with self._current():
            self._fill(feeds)
            self.copy_in()
            self.run()
            self.copy_out()
            return self.results()

    def fill(self, feeds: Mapping[str, np.ndarray]) -> None:
        """Copy inputs into pinned memory and set their shapes. Memory of an earlier call must not be in use any more.

        Raises:
            InputError: As for `infer`; or a value of an input that is a shape lies outside of the profile.
        """
        self.check(feeds)
        self._fill(feeds)

    def _fill(self, feeds: Mapping[str, np.ndarray]) -> None:
        shapes = {name: array.shape for name, array in feeds.items()}
        call = shapes, {name: feeds[name].ravel().tolist() for name in self._values}
        if call != self._bound:  # a service mostly sends one shape: asking TensorRT each time would cost more
            self._bind(*call)
        for name, array in feeds.items():
            self.host[name][...] = array  # whatever the array's own layout is

    def _bind(self, shapes: dict[str, tuple[int, ...]], values: dict[str, list[int]]) -> None:
        """Set shapes, and values that are shapes, and take views of the pinned buffers in the shapes of this call."""
        self._bound = None  # until all of them are accepted
        self._drop_graph()
        for name, given in values.items():
            low, _, high = self._values[name]
            if not in_order(low, given, high):
                raise InputError(
                    f"The input {name} has the values {given}, but the engine takes {low} to {high}.",
                    "Build the engine with a profile that gives it wider values.",
                )
            self._buffers[name][: len(given)] = given
        self._set_input_shapes(shapes)
        for name, spec in {**self.inputs, **self.outputs}.items():
            shape = tuple(self.context.get_tensor_shape(name))
            size = int(np.prod(shape))
            if size > self._buffers[name].size:  # an output may be largest at other values than the largest ones
                self._add_buffer(name, spec, shape)
            self.host[name] = self._buffers[name][:size].reshape(shape)
        self._bound = shapes, values

    def copy_in(self) -> None:
        """Enqueue the copies of the inputs from pinned memory to the GPU."""
        for name in self.inputs:
            if name in self.device:
                cuda.memcpy_htod_async(self.device[name], self.host[name], self.stream)

    def run(self) -> None:
        """Enqueue the engine, or its CUDA graph.

        Raises:
            BackendUnavailableError: The engine can't be captured as a CUDA graph.
            PlanError: TensorRT refuses the call.
        """
        if self._graph:
            self._graph.launch()
            return
        self._enqueue(PlanError, "TensorRT can't run the engine", "Its message says why.")
        if self._captures:
            self.stream.synchronize()  # a first run may prepare things on the GPU
            capture = functools.partial(
                self._enqueue, BackendUnavailableError,
                "TensorRT can't run this engine as a CUDA graph", "Leave cuda_graph out.",
            )  # fmt: skip
            self._graph = CudaGraph(capture, self.stream.handle)

    def _enqueue(self, error: type[CourseError], failure: str, remedy: str) -> None:
        checked(self.context.execute_async_v3(self.stream.handle), self.log, error, failure, remedy)

    def _drop_graph(self) -> None:
        if self._graph:
            self.stream.synchronize()
            self._graph.close()
            self._graph = None

    def copy_out(self) -> None:
        """Enqueue the copies of the outputs to pinned memory."""
        for name in self.outputs:
            if name in self.device:
                cuda.memcpy_dtoh_async(self.host[name], self.device[name], self.stream)

    def results(self) -> Arrays:
        """Wait for the stream, and return the outputs as arrays of their own."""
        self.stream.synchronize()
        return {name: self.host[name].copy() for name in self.outputs}

    def device_times(self, feeds: Mapping[str, np.ndarray], calls: int) -> np.ndarray:
        """Time the engine alone, without copies, by CUDA events around each call on the runner's stream.

        Calls are enqueued without waiting, as trtexec does. Where the host enqueues slower than the GPU runs, the GPU's
        waiting counts, and so does the microsecond that two events take themselves (measured: `lesson01.clock`).

        The feeds are checked, and copied to the GPU once. Returns milliseconds of each call, shape ``[calls]``.
        """
        with self._current():
            self.fill(feeds)
            self.copy_in()
            return self.event_times(calls)

    def event_times(self, calls: int) -> np.ndarray:
        """Do the same with the inputs that are on the GPU already: a step inside `with primary_context()`."""
        starts, ends = ([cuda.Event() for _ in range(calls)] for _ in range(2))
        for start, end in zip(starts, ends, strict=True):
            start.record(self.stream)
            self.run()
            end.record(self.stream)
        self.stream.synchronize()
        return np.array([start.time_till(end) for start, end in zip(starts, ends, strict=True)])

    def close(self) -> None:
        """Free the engine, its buffers and its stream."""
        if self._cuda_context is None:
            return
        with self._current():
            self._drop_graph()
            del self.context, self.engine
            for buffer in self.device.values():
                buffer.free()
            self.device.clear()
            self._buffers.clear()
            self.host.clear()
            self.stream = None
        self._cuda_context = None
