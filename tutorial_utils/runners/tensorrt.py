"""TensorRT engines through PyCUDA: the primary CUDA context, pinned buffers, one stream, one execution context.

Paddle, ONNX Runtime and PyTorch use a device's primary context too, so they live in the same process. It is pushed
while a method needs it and popped again: a context that is still pushed when Python ends aborts the process.
"""

import warnings
from collections.abc import Mapping

import numpy as np

from tutorial_utils.base.errors import BackendUnavailableError, BuildError, InputError, PlanError
from tutorial_utils.engine import Engine
from tutorial_utils.engine.tensorrt import IS_RTX, MessageLog, checked, trt
from tutorial_utils.runners.base import Arrays, Runner, TensorSpec

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


class TensorRTRunner(Runner):
    """Runs a serialized TensorRT engine on the GPU.

    Everything that costs time once is done here: loading the plan, creating the execution context (which TensorRT-RTX
    uses to compile kernels for this GPU), and allocating buffers for the largest shapes of the profile.

    Args:
        engine: The engine, or its plan as bytes. A cached engine that the runtime refuses is built again, once.
        profile: Index of the optimization profile to use.
        cuda_graph: Replay the engine as a CUDA graph (TensorRT-RTX captures it by itself).
        device: Index of the GPU.

    Raises:
        BackendUnavailableError: There is no GPU, or CUDA graphs were asked of a TensorRT that can't capture them.
        PlanError: The runtime refuses the plan: cut short, altered, or built by another version or for another GPU.
        InputError: There is no such profile, or the engine has an input or output that numpy can't hold.
    """

    def __init__(self, engine: Engine | bytes, *, profile: int = 0, cuda_graph: bool = False, device: int = 0):
        try:
            cuda.init()
            self._cuda_context = cuda.Device(device).retain_primary_context()
        except cuda.Error as error:
            raise BackendUnavailableError(
                f"CUDA can't be used: {error}.", "Run `python -m tutorial_utils doctor`."
            ) from error
        self.backend = "TensorRT-RTX" if IS_RTX else "TensorRT"
        self._log = MessageLog()
        with self._current():
            self._engine = self._load(engine)
            if not 0 <= profile < self._engine.num_optimization_profiles:
                raise InputError(
                    f"There is no profile {profile}: the engine has {self._engine.num_optimization_profiles}.",
                    "Count profiles from 0, in the order in which they were given to the build.",
                )
            self._stream = cuda.Stream()
            self._context = self._create_context(cuda_graph)
            if profile:
                checked(
                    self._context.set_optimization_profile_async(profile, self._stream.handle),
                    self._log, PlanError, f"TensorRT refuses the profile {profile}", "Build the engine again.",
                )  # fmt: skip
                self._stream.synchronize()
            self.inputs, self.outputs = self._read_specs(profile)
            self._host: dict[str, np.ndarray] = {}
            self._device: dict[str, cuda.DeviceAllocation] = {}
            self._views: dict[str, np.ndarray] = {}  # of the host buffers, in the shapes of the last call
            self._bound_shapes: dict[str, tuple[int, ...]] | None = None
            self._allocate()

    def _load(self, engine: Engine | bytes) -> "trt.ICudaEngine":
        runtime = trt.Runtime(self._log)
        plan = engine.plan if isinstance(engine, Engine) else engine
        loaded = runtime.deserialize_cuda_engine(plan) if plan else None
        if loaded is None and isinstance(engine, Engine) and engine.from_cache:
            warnings.warn("The runtime refuses the cached engine: building it again.", stacklevel=3)
            loaded = runtime.deserialize_cuda_engine(engine.rebuilt().plan)
        return checked(
            loaded, self._log, PlanError, "TensorRT can't load the engine",
            "Build it again on this machine, with the TensorRT version that runs it.",
        )  # fmt: skip

    def _create_context(self, cuda_graph: bool) -> "trt.IExecutionContext":
        if not cuda_graph:
            context = self._engine.create_execution_context()
        elif IS_RTX:
            config = checked(
                self._engine.create_runtime_config(), self._log, BuildError, "TensorRT gives no runtime configuration",
                "Leave cuda_graph out.",
            )  # fmt: skip
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = self._engine.create_execution_context(config)
        else:
            raise BackendUnavailableError(
                "This TensorRT doesn't capture CUDA graphs by itself.", "Leave cuda_graph out, or use TensorRT-RTX."
            )
        return checked(
            context, self._log, BuildError, "TensorRT can't create an execution context",
            "Free GPU memory: the context holds all activations of the largest profile.",
        )  # fmt: skip

    def _read_specs(self, profile: int) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
        inputs, outputs = {}, {}
        for name in (self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)):
            shape = tuple(self._engine.get_tensor_shape(name))
            if self._engine.get_tensor_location(name) == trt.TensorLocation.HOST:
                raise InputError(
                    f"{name} is a shape tensor: TensorRT reads it on the host, while it computes shapes.",
                    "Make that shape a constant of the model, or an input that is only data.",
                )
            try:
                dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
            except TypeError as error:
                raise InputError(
                    f"{name} is {self._engine.get_tensor_dtype(name)}, which numpy can't hold.",
                    "Cast inputs and outputs to FP32 or FP16 in the ONNX model.",
                ) from error
            if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                low, _, high = (tuple(s) for s in self._engine.get_tensor_profile_shape(name, profile))
                inputs[name] = TensorSpec(name, dtype, shape, low, high)
            else:
                outputs[name] = TensorSpec(name, dtype, shape)
        return inputs, outputs

    def _allocate(self) -> None:
        """Allocate a pinned host buffer and a device buffer for every input and output, at their largest size.

        From pageable memory, an asynchronous copy is not asynchronous, so the host side is page-locked.
        """
        for name, spec in self.inputs.items():
            self._set_shape(name, spec.max_shape)
        self._check_shapes_known()
        for name, spec in {**self.inputs, **self.outputs}.items():
            size = int(np.prod(self._context.get_tensor_shape(name)))
            self._host[name] = cuda.pagelocked_empty(max(size, 1), spec.dtype)
            self._device[name] = cuda.mem_alloc(self._host[name].nbytes)
            checked(
                self._context.set_tensor_address(name, int(self._device[name])),
                self._log, PlanError, f"TensorRT refuses the buffer of {name}", "Build the engine again.",
            )  # fmt: skip

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        checked(
            self._context.set_input_shape(name, shape),
            self._log, InputError, f"TensorRT refuses the shape {shape} of {name}", "Stay inside the profile.",
        )  # fmt: skip

    def _check_shapes_known(self) -> None:
        unknown = list(self._context.infer_shapes())
        unknown += [name for name in self.outputs if -1 in tuple(self._context.get_tensor_shape(name))]
        if unknown:
            raise InputError(
                f"The shape of {', '.join(unknown)} depends on the values of the data, not only on input shapes.",
                "Run this model with an output allocator: lesson 03 shows how.",
            )

    def _current(self) -> "_Current":
        if self._cuda_context is None:
            raise InputError("The runner is closed.", "Make a new one, or use it inside its `with` block.")
        return _Current(self._cuda_context)

    def _infer(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        with self._current():
            self._upload(feeds)
            self._enqueue()
            for name in self.outputs:
                cuda.memcpy_dtoh_async(self._views[name], self._device[name], self._stream)
            self._stream.synchronize()
            return {name: self._views[name].copy() for name in self.outputs}

    def _upload(self, feeds: Mapping[str, np.ndarray]) -> None:
        shapes = {name: array.shape for name, array in feeds.items()}
        if shapes != self._bound_shapes:  # a service mostly sends one shape: asking TensorRT each time would cost more
            self._bind(shapes)
        for name, array in feeds.items():
            self._views[name][...] = array  # into pinned memory, whatever the array's own layout is
            cuda.memcpy_htod_async(self._device[name], self._views[name], self._stream)

    def _bind(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Set the shapes of the inputs, and take views of the pinned buffers in the shapes of this call."""
        self._bound_shapes = None  # until all of them are accepted
        for name, shape in shapes.items():
            self._set_shape(name, shape)
        self._check_shapes_known()
        for name, buffer in self._host.items():
            shape = tuple(self._context.get_tensor_shape(name))
            self._views[name] = buffer[: int(np.prod(shape))].reshape(shape)
        self._bound_shapes = shapes

    def _enqueue(self) -> None:
        checked(
            self._context.execute_async_v3(self._stream.handle),
            self._log, PlanError, "TensorRT can't run the engine", "Build the engine again on this machine.",
        )  # fmt: skip

    def device_times(self, feeds: Mapping[str, np.ndarray], calls: int) -> np.ndarray:
        """Time the engine alone, without copies, by CUDA events around each call on the runner's stream.

        Args:
            feeds: Inputs, copied to the GPU once.
            calls: How many times to run.

        Returns:
            Milliseconds of each call, shape ``[calls]``.

        Raises:
            InputError: The feeds don't fit the model.
        """
        self.check(feeds)
        with self._current():
            self._upload(feeds)
            starts, ends = ([cuda.Event() for _ in range(calls)] for _ in range(2))
            for start, end in zip(starts, ends, strict=True):
                start.record(self._stream)
                self._enqueue()
                end.record(self._stream)
            self._stream.synchronize()
            return np.array([start.time_till(end) for start, end in zip(starts, ends, strict=True)])

    def close(self) -> None:
        """Free the engine, its buffers and its stream, and let go of the CUDA context."""
        if self._cuda_context is None:
            return
        with self._current():
            del self._context, self._engine
            for buffer in self._device.values():
                buffer.free()
            self._host.clear()
            self._views.clear()
            self._device.clear()
            self._stream = None
        self._cuda_context.detach()
        self._cuda_context = None
