"""ONNX Runtime on the CPU or, with its CUDA provider, on a GPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime

from tutorial_utils.base.errors import BackendUnavailableError, InputError, ModelFileError
from tutorial_utils.runners.base import Arrays, Runner, TensorSpec

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_QUIET = 3  # errors only: warnings name graph details that a learner can't act on


class OnnxRuntimeRunner(Runner):
    """Runs an ONNX model with ONNX Runtime.

    Args:
        onnx_path: The model.
        device: "cpu" or "cuda".
        threads: Threads within an operator on the CPU; None for one for each core.
        optimize: Whether ONNX Runtime optimizes the graph (fuses nodes) before it runs.

    Raises:
        ModelFileError: The model is missing or ONNX Runtime can't load it.
        BackendUnavailableError: CUDA was asked for and can't be used.
        InputError: There is no such device.
    """

    def __init__(
        self,
        onnx_path: str | Path,
        *,
        device: Literal["cpu", "cuda"] = "cpu",
        threads: int | None = None,
        optimize: bool = True,
    ):
        if device not in _PROVIDERS:
            raise InputError(f"ONNX Runtime has no device {device!r} here.", f"Choose one of {', '.join(_PROVIDERS)}.")
        provider = _PROVIDERS[device]
        if device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # finds CUDA and cuDNN where pip put them
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET
        options.intra_op_num_threads = threads or 0
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(str(onnx_path), options, providers=[provider])
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise ModelFileError(
                f"ONNX Runtime can't load {Path(onnx_path).name}: {reason}.",
                "Check the path, or export the model again.",
            ) from error
        if self._session.get_providers()[0] != provider:  # ONNX Runtime falls back to the CPU with no error
            raise BackendUnavailableError(
                "ONNX Runtime can't use CUDA on this machine.",
                "Install onnxruntime-gpu for your CUDA version; `python -m tutorial_utils doctor` says more.",
            )
        self.backend = f"ONNX Runtime {'CUDA' if device == 'cuda' else 'CPU'}"
        self.inputs = {value.name: _spec(value) for value in self._session.get_inputs()}
        self.outputs = {value.name: _spec(value) for value in self._session.get_outputs()}

    def _infer(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        return dict(zip(self.outputs, self._session.run(None, dict(feeds)), strict=True))


def _spec(value: onnxruntime.NodeArg) -> TensorSpec:
    element = value.type.removeprefix("tensor(").removesuffix(")")  # "tensor(float16)"
    onnx_name = {"float": "FLOAT", "double": "DOUBLE"}.get(element, element.upper())
    dtype = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(onnx_name))
    return TensorSpec(value.name, dtype, tuple(size if isinstance(size, int) else -1 for size in value.shape))
