"""A stand-in for the GPU's libraries, to run the Python of lesson 03b's program where there is no GPU.

Nothing that it computes is ever shown. Its "device memory" is host memory, and its engine doubles what it is given.
"""

import ctypes
import math
from types import SimpleNamespace

import numpy as np


class Allocation:
    live = 0

    def __init__(self, size):
        self._memory = np.zeros(size + 256, np.uint8)
        self._address = self._memory.ctypes.data + -self._memory.ctypes.data % 256
        Allocation.live += 1

    def __int__(self):
        return self._address

    def free(self):
        assert self._memory is not None, "freed twice"
        self._memory = None
        Allocation.live -= 1

    def __del__(self):
        if self._memory is not None:
            self.free()


class Context:
    pushed = 0

    def push(self):
        Context.pushed += 1

    @staticmethod
    def pop():
        Context.pushed -= 1

    @staticmethod
    def synchronize():
        pass


class Stream:
    handle = 7

    def __init__(self, flags):
        assert flags == 1, "the stream waits for the default stream"

    def synchronize(self):
        pass


def _copy_in(memory, array, stream):
    assert array.flags.c_contiguous
    ctypes.memmove(int(memory), array.ctypes.data, array.nbytes)


def _copy_out(array, memory, stream=None):
    assert array.flags.c_contiguous
    ctypes.memmove(array.ctypes.data, int(memory), array.nbytes)


def cuda():
    return SimpleNamespace(
        init=lambda: None,
        Device=lambda number: SimpleNamespace(retain_primary_context=Context),
        Context=Context,
        Stream=Stream,
        MemoryError=MemoryError,
        pagelocked_empty=np.empty,
        mem_alloc=Allocation,
        memcpy_htod_async=_copy_in,
        memcpy_dtoh_async=_copy_out,
        memcpy_dtoh=_copy_out,
    )


class Driver:
    """cuda-python's calls, in their form: a tuple with the status first. ``refused`` names one that fails."""

    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)
    CUpointer_attribute = SimpleNamespace(CU_POINTER_ATTRIBUTE_MEMORY_TYPE=2)
    CUmemorytype = SimpleNamespace(CU_MEMORYTYPE_DEVICE=2)

    def __init__(self, refused=None):
        self.refused, self.called, self.graphs, self.work = refused, [], 0, None

    def CUstream(self, handle):  # noqa: N802 - the driver's name
        return handle

    def cuPointerGetAttribute(self, what, pointer):  # noqa: N802 - as above
        return 0, 2 if pointer % 256 == 0 else 1

    def __getattr__(self, name):
        def call(*arguments):
            self.called.append(name)
            if name == self.refused:
                return SimpleNamespace(name="CUDA_ERROR_UNKNOWN"), None
            made = {"cuStreamEndCapture": 1, "cuGraphInstantiate": 1, "cuGraphDestroy": -1, "cuGraphExecDestroy": -1}
            self.graphs += made.get(name, 0)
            return (0, name) if name in ("cuStreamEndCapture", "cuGraphInstantiate") else (0,)

        return call


class Engine:
    """Doubles each of its inputs: ``tensors`` has (smallest, usual, largest) shapes by name, ``open`` data's own."""

    def __init__(self, trt, tensors, dtype="FLOAT", open_shape=False, tensor_format="LINEAR"):
        self.trt, self.tensors, self.open_shape = trt, tensors, open_shape
        self.names = [*tensors, *(f"{name} doubled" for name in tensors)]
        self.dtype, self.format = getattr(trt.DataType, dtype), getattr(trt.TensorFormat, tensor_format)
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, number):
        return self.names[number]

    def get_tensor_mode(self, name):
        return self.trt.TensorIOMode.INPUT if name in self.tensors else self.trt.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name):
        return self.dtype

    def get_tensor_format(self, name, profile):
        return self.format if name in self.tensors else self.trt.TensorFormat.LINEAR

    def get_tensor_location(self, name):
        return self.trt.TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name, profile):
        return self.tensors[name]

    def create_runtime_config(self):
        return SimpleNamespace()

    def create_execution_context(self, *config):
        return ExecutionContext(self)


class ExecutionContext:
    def __init__(self, engine):
        self.engine, self.shapes, self.addresses, self.allocators = engine, {}, {}, {}

    def set_input_shape(self, name, shape):
        self.shapes[name] = self.shapes[f"{name} doubled"] = tuple(shape)
        return True

    def infer_shapes(self):
        return []

    def get_tensor_shape(self, name):
        return (-1,) if self.engine.open_shape else self.shapes[name]

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def set_output_allocator(self, name, allocator):
        self.allocators[name] = allocator
        return True

    def execute_async_v3(self, handle):
        for name in self.engine.tensors:
            size, output = math.prod(self.shapes[name]), f"{name} doubled"
            if output in self.allocators:
                allocator = self.allocators[output]
                self.addresses[output] = allocator.reallocate_output_async(output, 0, 4 * size, 256, handle)
                allocator.notify_shape(output, self.shapes[name])
            given, made = (
                np.ctypeslib.as_array((ctypes.c_float * size).from_address(self.addresses[one]))
                for one in (name, output)
            )
            made[:] = 2 * given
        return True
