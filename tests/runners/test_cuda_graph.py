"""What becomes of each answer of cuda-python while a graph is captured: with a driver that refuses, and without one."""

import sys
from enum import IntEnum
from types import ModuleType, SimpleNamespace

import pytest

from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.runners import cuda_graph
from tutorial_utils.runners.cuda_graph import CudaGraph

CALLS = ("cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphDestroy", "cuGraphLaunch")


class Status(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class Driver:
    """The calls of `cuda.bindings.driver` that are used, in its form: a tuple with the status first."""

    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)

    def __init__(self, refused=None):
        self.refused, self.called = refused, []

    def CUstream(self, handle):  # noqa: N802 - the driver's name
        return handle

    def cuGetErrorString(self, status):  # noqa: N802 - as above
        return Status.CUDA_SUCCESS, b"operation failed due to a previous error during capture"

    def __getattr__(self, name):
        def call(*arguments):
            self.called.append(name)
            status = Status.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED if name == self.refused else Status.CUDA_SUCCESS
            return (status, name) if name in ("cuStreamEndCapture", "cuGraphInstantiate") else (status,)

        return call


@pytest.fixture
def use(monkeypatch):
    def install(driver):
        monkeypatch.setattr(cuda_graph, "cuda_driver", lambda: driver)
        return driver

    return install


def test_a_graph_is_captured_launched_and_freed(use):
    driver = use(Driver())
    graph = CudaGraph(lambda: driver.called.append("the call"), 7)
    graph.launch()
    graph.close()
    assert driver.called == [CALLS[0], "the call", *CALLS[1:], "cuGraphExecDestroy"]


@pytest.mark.parametrize("refused", CALLS)
def test_every_status_is_looked_at(refused, use):
    use(Driver(refused))
    with pytest.raises(BackendUnavailableError) as caught:
        CudaGraph(lambda: None, 7).launch()
    assert caught.value.cause == (
        f"CUDA refused {refused}: operation failed due to a previous error during capture "
        "(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)."
    )


def test_a_graph_that_cannot_be_instantiated_is_freed(use):
    driver = use(Driver("cuGraphInstantiate"))
    with pytest.raises(BackendUnavailableError):
        CudaGraph(lambda: None, 7)
    assert driver.called[-1] == "cuGraphDestroy"


def test_a_refused_call_ends_the_capture_and_makes_no_graph(use):
    driver = use(Driver())

    def refuse():
        raise KeyError("TensorRT refused")

    with pytest.raises(KeyError):
        CudaGraph(refuse, 7)
    assert driver.called == ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphDestroy"]


@pytest.mark.parametrize("missing", ["cuda", "cuda.bindings"])
def test_without_cuda_python(missing, monkeypatch):
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None if name == missing else ModuleType(name))
    monkeypatch.delitem(sys.modules, "cuda.bindings.driver", raising=False)  # where it is installed and was imported
    with pytest.raises(BackendUnavailableError, match="captures no CUDA graph by itself") as caught:
        cuda_graph.cuda_driver()
    assert 'python -m pip install "cuda-bindings>=12.9,<13"' in caught.value.remedy
