"""ONNX Runtime and PyTorch called on one CUDA stream, with PyTorch's tensors as inputs and outputs, and CUDA events.

So their work can be timed on the GPU beside that of TensorRT, without copies. Needs PyTorch with a GPU.
"""

from collections.abc import Callable
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np

from tutorial_utils.base.errors import BackendUnavailableError

_LIBRARIES = {"PyTorch": "torch", "torchvision": "torchvision", "cuda-python": "cuda-bindings", "onnx": "onnx"}


def require_torch() -> ModuleType:
    """Import PyTorch, and see that torchvision and a GPU are there, too.

    Raises:
        BackendUnavailableError: One of the three is missing.
    """
    try:
        import torch
        import torchvision  # noqa: F401 - needed later: better missed before the first minute than after it
    except ImportError as error:
        raise BackendUnavailableError(
            f"PyTorch and torchvision are not installed: {error}.", "Install both where the recording is made."
        ) from error
    if not torch.cuda.is_available():
        raise BackendUnavailableError("PyTorch finds no GPU.", "Run this on a machine with an NVIDIA GPU.")
    return torch


def onnxruntime_call(session: Any, torch: ModuleType, images: Any) -> Callable[[], Any]:
    """Return a call of a session on PyTorch's tensors, which doesn't wait for the GPU.

    Args:
        session: ONNX Runtime's, of a classifier with the input ``x``, with the stream as its provider's
            ``user_compute_stream``.
        torch: PyTorch.
        images: Float32 tensor ``[N, 3, H, W]`` on the GPU.
    """
    import onnxruntime

    (output,) = session.get_outputs()
    logits = torch.empty((len(images), output.shape[1]), dtype=torch.float32, device="cuda")
    binding = session.io_binding()
    binding.bind_input("x", "cuda", 0, np.float32, tuple(images.shape), images.data_ptr())
    binding.bind_output(output.name, "cuda", 0, np.float32, tuple(logits.shape), logits.data_ptr())
    run_options = onnxruntime.RunOptions()  # the caller waits for the stream, as with the others
    run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def call() -> Any:
        session.run_with_iobinding(binding, run_options)
        return logits

    return call


def event_times(
    torch: ModuleType, stream: Any, call: Callable[[], Any], calls: int, *, wait: bool = False
) -> np.ndarray:
    """Return milliseconds between CUDA events before and after each call, shape ``[calls]``.

    Args:
        wait: Wait for the GPU after each call, so that the time holds what the GPU waits for the host. Otherwise the
            host runs ahead, and the time is the GPU's alone, unless the host is slower.
    """
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
    for begin, end in events:
        begin.record(stream)
        call()
        end.record(stream)
        if wait:
            stream.synchronize()
    stream.synchronize()
    return np.array([begin.elapsed_time(end) for begin, end in events])


def libraries() -> dict[str, str]:
    """Return the versions of those that the stamp of a machine doesn't have, as far as they are installed."""
    found = {}
    for name, package in _LIBRARIES.items():
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
