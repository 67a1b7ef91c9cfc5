"""A call captured as a CUDA graph with cuda-python: TensorRT-RTX captures by itself, TensorRT doesn't.

PyCUDA has no calls for it. Those of cuda-python raise nothing: each returns its status first, which is checked here.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.base.requirements import pip_install, requirement


def cuda_driver() -> ModuleType:
    """Return cuda-python's calls of the driver, `cuda.bindings.driver`.

    Raises:
        BackendUnavailableError: The package cuda-bindings is not installed.
    """
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise BackendUnavailableError(
            f"TensorRT captures no CUDA graph by itself, and cuda-python, which does, can't be imported: {error}.",
            f"Run `{pip_install(requirement('cuda_bindings'))}`, or leave cuda_graph out.",
        ) from error
    return driver


class CudaGraph:
    """What a call put on a stream, launched again as a whole: the same kernels, shapes and addresses each time.

    Args:
        enqueue: The call. It must have run once as it is: what happens only once must not be captured. What it raises
            comes through, and nothing is kept of the capture.
        stream: The handle of the stream, which can't be the default one.

    Raises:
        BackendUnavailableError: CUDA refuses the capture, as it does where the call waits for the GPU.
    """

    def __init__(self, enqueue: Callable[[], Any], stream: int):
        self._driver = cuda_driver()
        self._stream = self._driver.CUstream(stream)
        # Other threads may go on allocating memory meanwhile, which a capture in the global mode forbids.
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", self._stream, mode)
        try:
            enqueue()
        except BaseException:
            status, graph = self._driver.cuStreamEndCapture(self._stream)  # else the stream would take no other work
            if not status:
                self._driver.cuGraphDestroy(graph)
            raise
        graph = self._call("cuStreamEndCapture", self._stream)
        try:
            self._executable = self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)  # the executable graph has what it needs

    def launch(self) -> None:
        """Enqueue the graph on its stream."""
        self._call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Free the graph, while its CUDA context is current and nothing of it runs."""
        self._call("cuGraphExecDestroy", self._executable)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the driver, and return what it gave beside its status, or raise where that is none of success."""
        status, *values = getattr(self._driver, name)(*arguments)
        if status:
            reason = self._driver.cuGetErrorString(status)[1].decode()
            raise BackendUnavailableError(
                f"CUDA refused {name}: {reason} ({status.name}).",
                "Leave cuda_graph out: a call that waits for the GPU between its kernels can't be captured.",
            )
        return values[0] if values else None
