"""Inputs that TensorRT reads as shapes, in the TensorRT runner, without a GPU: PyCUDA and the engine are stand-ins.

test_tensorrt_runner.py runs such a network on a GPU.
"""

import ctypes
import importlib
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tutorial_utils.base.errors import InputError

trt = pytest.importorskip("tensorrt_rtx")
FLOAT, INT64 = trt.DataType.FLOAT, trt.DataType.INT64
TYPES = {"x": FLOAT, "start": INT64, "y": FLOAT}


class Engine:
    """Of a network that cuts y = x[start:] out of x, float32 of shape [8]; start, from 0 to 6, lies on the host."""

    num_io_tensors = 3
    get_tensor_name = staticmethod(list(TYPES).__getitem__)
    get_tensor_dtype = staticmethod(TYPES.__getitem__)
    get_tensor_shape = staticmethod({"x": (8,), "start": (1,), "y": (-1,)}.__getitem__)
    get_tensor_profile_shape = staticmethod(lambda name, profile: [(8,) if name == "x" else ()] * 3)
    get_tensor_profile_values = staticmethod(lambda profile, name: [[0], [3], [6]])
    is_shape_inference_io = staticmethod(lambda name: name == "start")

    def get_tensor_mode(self, name):
        return trt.TensorIOMode.OUTPUT if name == "y" else trt.TensorIOMode.INPUT

    def get_tensor_location(self, name):
        return trt.TensorLocation.HOST if name == "start" else trt.TensorLocation.DEVICE


class Context:
    """Its execution context, which reads `start` where the runner told it to, and keeps every address."""

    def __init__(self):
        self.addresses = {}

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def set_input_shape(self, name, shape):
        return tuple(shape) == Engine.get_tensor_shape(name)

    def infer_shapes(self):
        return [] if "start" in self.addresses else ["start"]

    def get_tensor_shape(self, name):
        start = ctypes.c_int64.from_address(self.addresses["start"]).value
        return (8 - start,) if name == "y" else Engine.get_tensor_shape(name)

    def execute_async_v3(self, stream):
        return True


@pytest.fixture
def runner(monkeypatch):
    driver, package = ModuleType("pycuda.driver"), ModuleType("pycuda")
    context = SimpleNamespace(push=lambda: None, detach=lambda: None)
    driver.init, driver.Error = lambda: None, RuntimeError
    driver.Device = lambda index: SimpleNamespace(retain_primary_context=lambda: context)
    driver.Context = SimpleNamespace(pop=lambda: None)
    driver.Stream = lambda: SimpleNamespace(handle=0, synchronize=lambda: None)
    driver.mem_alloc = lambda size: 4096 + size  # an address
    driver.pagelocked_empty = np.zeros
    driver.copied = []
    driver.memcpy_htod_async = lambda device, host, stream: driver.copied.append(host)
    driver.memcpy_dtoh_async = lambda host, device, stream: driver.copied.append(host)
    package.driver = driver
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    name = "tutorial_utils.runners.tensorrt"
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    monkeypatch.setattr(module.TensorRTRunner, "_load", lambda self, engine: Engine())
    monkeypatch.setattr(module.TensorRTRunner, "_create_context", lambda *_: Context())
    yield module.TensorRTRunner(b"plan")
    sys.modules.pop(name, None)


def feeds(start):
    return {"x": np.arange(8, dtype=np.float32), "start": np.array([start])}


def test_values_are_read_on_the_host_and_decide_about_the_outputs(runner):
    assert runner.device.keys() == {"x", "y"}
    assert (runner.inputs["start"].shape, runner.inputs["start"].dtype) == ((1,), np.int64)
    for start in (6, 0, 3):  # buffers are made for 6, where y has 2 elements: they have to grow
        assert runner.infer(feeds(start))["y"].shape == (8 - start,)
        assert runner.host["start"].tolist() == [start]
    assert {array.shape for array in sys.modules["pycuda.driver"].copied} == {(8,), (2,), (5,)}, "start is not copied"


@pytest.mark.parametrize("start", [-1, 7])
def test_values_outside_of_the_profile(start, runner):
    runner.infer(feeds(2))
    with pytest.raises(InputError, match=rf"start has the values \[{start}\], but the engine takes \[0\] to \[6\]"):
        runner.infer(feeds(start))
    assert runner.infer(feeds(2))["y"].shape == (6,)
