"""Inputs that TensorRT reads as shapes, in the TensorRT runner, without a GPU: PyCUDA and the engine are stand-ins.

test_tensorrt_runner.py runs such a network on a GPU.
"""

import ctypes
import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from tutorial_utils.base.errors import BackendUnavailableError, InputError, PlanError

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

    def get_tensor_shape(self, name):
        start = ctypes.c_int64.from_address(self.addresses["start"]).value
        return (8 - start,) if name == "y" else Engine.get_tensor_shape(name)

    def execute_async_v3(self, stream):
        return True


class Memory(int):
    """Memory on the GPU: its address."""

    def free(self):
        pass


@pytest.fixture
def module(monkeypatch):
    driver, package = ModuleType("pycuda.driver"), ModuleType("pycuda")
    driver.retained, driver.stream_flags = [], []
    context = SimpleNamespace(push=lambda: None)
    driver.init, driver.Error = lambda: None, RuntimeError
    driver.Device = lambda index: SimpleNamespace(retain_primary_context=lambda: driver.retained.append(1) or context)
    driver.Context = SimpleNamespace(pop=lambda: None)
    stream = SimpleNamespace(handle=0, synchronize=lambda: None)
    driver.Stream = lambda flags=0: driver.stream_flags.append(flags) or stream
    driver.mem_alloc = lambda size: Memory(4096 + size)
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
    yield module
    sys.modules.pop(name, None)


@pytest.fixture
def runner(module):
    return module.TensorRTRunner(b"plan")


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


def test_the_primary_context_is_retained_once_and_never_detached(module):
    """PyCUDA's `detach` leaves a primary context that isn't current on the thread's stack: its stand-in has none."""
    for _ in range(2):
        with module.primary_context(), module.TensorRTRunner(b"plan") as runner:
            runner.infer(feeds(2))
    assert sys.modules["pycuda.driver"].retained == [1]


def test_the_stream_does_not_wait_for_the_default_stream(runner):
    assert sys.modules["pycuda.driver"].stream_flags == [1]


@pytest.mark.parametrize(
    "given",
    [
        {"x": np.zeros(8, np.float32)},
        {"x": np.zeros(8), "start": np.array([2])},
        {"x": np.zeros(1, np.float32), "start": np.array([2])},
        {"x": np.zeros(8, np.float32), "start": np.array([2]), "y": np.zeros(6, np.float32)},
    ],
    ids=["forgotten", "float64", "to broadcast", "an output"],
)
def test_steps_are_checked_as_whole_calls_are(given, runner):
    runner.infer(feeds(2))
    with pytest.raises(InputError):
        runner.fill(given)
    assert runner.host["x"].tolist() == list(range(8)), "nothing was written"


def test_inputs_that_contradict_each_other_are_told_from_outputs_that_depend_on_data(runner, monkeypatch):
    """TensorRT 10.6 ends the process in `infer_shapes` then, so nobody may ask it."""
    monkeypatch.setattr(Context, "infer_shapes", lambda self: pytest.fail("asked"), raising=False)
    message = "Dimensions with name n must be equal"

    def contradicted(self, name):
        runner.log.log(trt.ILogger.ERROR, message)
        return (-1,)

    answer = Context.get_tensor_shape
    monkeypatch.setattr(Context, "get_tensor_shape", contradicted)
    with pytest.raises(InputError, match=rf"don't fit each other: {message}\."):
        runner.infer(feeds(3))
    monkeypatch.setattr(Context, "get_tensor_shape", lambda self, name: (-1,))
    with pytest.raises(InputError, match="The shape of y depends on the values"):
        runner.infer(feeds(3))
    monkeypatch.setattr(Context, "get_tensor_shape", answer)
    assert runner.infer(feeds(3))["y"].shape == (5,)


class Graph:
    """Stands in for `CudaGraph`, and keeps what became of each."""

    made: ClassVar[list] = []

    def __init__(self, enqueue, stream):
        enqueue()
        self.launches, self.closed = 0, False
        self.made.append(self)

    def launch(self):
        self.launches += 1

    def close(self):
        self.closed = True


@pytest.fixture
def graph_runner(module, monkeypatch):
    """A runner of data-centre TensorRT that captures graphs."""
    monkeypatch.setattr(Graph, "made", [])
    monkeypatch.setattr(module, "IS_RTX", False)
    monkeypatch.setattr(module, "CudaGraph", Graph)
    monkeypatch.setattr(module, "cuda_driver", lambda: None)
    return module.TensorRTRunner(b"plan", cuda_graph=True)


def test_a_graph_is_captured_anew_for_other_values_and_the_old_one_is_freed(graph_runner):
    with graph_runner as runner:
        for start in (6, 6, 6, 3, 3, 6):
            assert runner.infer(feeds(start))["y"].shape == (8 - start,)
        assert [graph.launches for graph in Graph.made] == [2, 1, 0]
        assert [graph.closed for graph in Graph.made] == [True, True, False]
    assert all(graph.closed for graph in Graph.made)


@pytest.mark.parametrize("answers", [[False], [True, False]], ids=["the call", "its capture"])
def test_after_a_refused_call_nothing_is_replayed(answers, graph_runner, monkeypatch):
    with graph_runner as runner:
        runner.infer(feeds(6))
        replies = iter(answers)
        monkeypatch.setattr(Context, "execute_async_v3", lambda self, stream: next(replies))
        with pytest.raises((PlanError, BackendUnavailableError), match="TensorRT can't run"):
            runner.infer(feeds(3))
        assert [graph.closed for graph in Graph.made] == [True]
        assert runner._graph is None
