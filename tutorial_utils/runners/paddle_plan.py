"""The engine that Paddle-TRT left in its cache folder, run and looked at with TensorRT's own API.

Paddle keeps a serialized engine as TensorRT wrote it. So it can be inspected, and run without Paddle around it. Made
for the TensorRT 8.6 of the article's stack, which the rest of the package doesn't use; newer ones have the same calls.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils.base.errors import BackendUnavailableError, PlanError
from tutorial_utils.engine import EngineLayer
from tutorial_utils.engine.report import layers_from_inspector


class PaddlePlan:
    """An engine with one input and one output on a CUDA stream of its own, for one shape of the input.

    Attributes:
        layers: What it consists of; empty unless it was built with ``inspector=True``.
        plan_bytes: Its size.
    """

    def __init__(self, path: Path, images: np.ndarray):
        import pycuda.driver as cuda
        import tensorrt

        plan = path.read_bytes()
        self.plan_bytes = len(plan)
        logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        tensorrt.init_libnvinfer_plugins(logger, "")
        self._runtime = tensorrt.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise PlanError(f"TensorRT can't load {path.name}.", "Build the engine again.")
        text = self._engine.create_engine_inspector().get_engine_information(tensorrt.LayerInformationFormat.JSON)
        self.layers: tuple[EngineLayer, ...] = layers_from_inspector(text)
        self._cuda, self._stream = cuda, cuda.Stream()
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        modes = {name: self._engine.get_tensor_mode(name) for name in names}
        (input_name,) = (name for name, mode in modes.items() if mode == tensorrt.TensorIOMode.INPUT)
        (output_name,) = (name for name in names if name != input_name)
        self._context.set_input_shape(input_name, images.shape)
        output_shape = tuple(self._context.get_tensor_shape(output_name))
        self._pinned_in = cuda.pagelocked_empty(images.shape, np.float32)
        self._pinned_out = cuda.pagelocked_empty(output_shape, np.float32)
        self._device_in = cuda.mem_alloc(self._pinned_in.nbytes)
        self._device_out = cuda.mem_alloc(self._pinned_out.nbytes)
        self._context.set_tensor_address(input_name, int(self._device_in))
        self._context.set_tensor_address(output_name, int(self._device_out))

    def infer(self, images: np.ndarray) -> np.ndarray:
        """Run it as Paddle does: copies from and to ordinary memory, each of them waited for."""
        self._cuda.memcpy_htod(self._device_in, images)
        self._execute()
        self._stream.synchronize()
        logits = np.empty(self._pinned_out.shape, np.float32)
        self._cuda.memcpy_dtoh(logits, self._device_out)
        return logits

    def infer_pinned(self, images: np.ndarray) -> np.ndarray:
        """Run it as the course's own runner does: through pinned memory, waited for once."""
        self._pinned_in[...] = images
        self._cuda.memcpy_htod_async(self._device_in, self._pinned_in, self._stream)
        self._execute()
        self._cuda.memcpy_dtoh_async(self._pinned_out, self._device_out, self._stream)
        self._stream.synchronize()
        return self._pinned_out.copy()

    def device_times(self, calls: int) -> np.ndarray:
        """Return milliseconds of calls one after the other by CUDA events, without copies."""
        events = [[self._cuda.Event() for _ in range(2)] for _ in range(calls)]
        for begin, end in events:
            begin.record(self._stream)
            self._execute()
            end.record(self._stream)
        self._stream.synchronize()
        return np.array([end.time_since(begin) for begin, end in events])

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise PlanError("TensorRT can't run the engine.", "Build the engine again.")


@contextmanager
def opened(folder: Path, images: np.ndarray) -> Iterator[PaddlePlan]:
    """Give the one engine in a cache folder, on the CUDA context that Paddle uses too.

    Args:
        folder: `paddle_tensorrt_build.Built.folder`.
        images: Float32 ``[N, ...]``; their shape is that of all calls.

    Raises:
        BackendUnavailableError: TensorRT's Python package or PyCUDA is missing.
        PlanError: The folder holds no engine or several, or TensorRT can't load it.
    """
    found = sorted(folder.rglob("trt_serialized_*"))
    if len(found) != 1:
        raise PlanError(
            f"{folder.name} holds {len(found)} engines, and one is needed.",
            "Build with paddle_tensorrt_build.cached, the whole program in TensorRT.",
        )
    try:
        import pycuda.driver as cuda
        import tensorrt  # noqa: F401 - missed here rather than on the GPU
    except ImportError as error:
        raise BackendUnavailableError(f"{error}.", "Install PyCUDA and the TensorRT that Paddle loads.") from error
    cuda.init()
    context: Any = cuda.Device(0).retain_primary_context()
    context.push()
    try:
        yield PaddlePlan(found[0], images)
    finally:
        context.pop()
