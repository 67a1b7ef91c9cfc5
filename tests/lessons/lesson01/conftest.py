"""Stand-ins for what needs a GPU: a runner whose times are made up, PyCUDA's calls, and PyTorch."""

import contextlib
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest

from tutorial_utils.base.flavour import installed_flavour


class Runner:
    """A `TensorRTRunner` that runs nothing: a call takes 2 ms, as a CUDA graph 1 ms, and each layer 0.25 ms."""

    refuse_graph = False
    layers = ()

    def __init__(self, engine, *, cuda_graph=False):
        if cuda_graph and Runner.refuse_graph:
            from tutorial_utils.base.errors import BackendUnavailableError

            raise BackendUnavailableError("It can't be captured.", "Leave it.")
        self.ms = 1.0 if cuda_graph else 2.0
        self.context = SimpleNamespace(profiler=None)
        self.fed = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self):
        pass

    def device_times(self, feeds, calls):
        self.fed = feeds
        return np.full(calls, self.ms)

    def event_times(self, calls):
        for name in Runner.layers * bool(self.context.profiler):
            for _ in range(calls):
                self.context.profiler.report_layer_time(name, 0.25)
        return np.full(calls, self.ms)


@pytest.fixture
def runner(monkeypatch):
    """Put the stand-in and a PyCUDA that notes its launches in the place of the module of the runner."""
    launches = []
    kernels = {
        name: SimpleNamespace(
            prepare=lambda _, name=name: kernels[name],
            prepared_async_call=lambda grid, block, stream, *given, name=name: launches.append((name, *given)),
        )
        for name in ("empty", "spin")
    }
    cuda = MagicMock()
    cuda.module_from_buffer.return_value.get_function.side_effect = kernels.get
    cuda.Event.return_value.time_till.return_value = 1.0
    cuda.pagelocked_empty.side_effect = np.empty
    cuda.launches = launches
    monkeypatch.setattr(Runner, "refuse_graph", False)
    monkeypatch.setattr(Runner, "layers", ())
    module = SimpleNamespace(TensorRTRunner=Runner, cuda=cuda, primary_context=contextlib.nullcontext)
    monkeypatch.setitem(sys.modules, "tutorial_utils.runners.tensorrt", module)
    return module


@pytest.fixture
def torch():
    """A PyTorch that takes every call."""
    return MagicMock()


@pytest.fixture
def any_tensorrt():
    """Skip the test where there is no TensorRT to import."""
    if installed_flavour() is None:
        pytest.skip("no TensorRT is installed")


@pytest.fixture
def rtx():
    """Skip the test where another TensorRT than that which builds without a GPU is installed."""
    if installed_flavour() != "tensorrt_rtx":
        pytest.skip("TensorRT-RTX builds this, and it isn't the TensorRT of these tests")
