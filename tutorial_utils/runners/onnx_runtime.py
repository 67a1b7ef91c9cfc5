"""ONNX Runtime on the CPU or, with its CUDA provider, on a GPU."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import BackendUnavailableError, InputError
from tutorial_utils.model import weight_files
from tutorial_utils.runners.base import Arrays, Runner, TensorSpec, check_threads

if TYPE_CHECKING:
    import onnxruntime

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeRunner(Runner):
    """Runs an ONNX model with ONNX Runtime.

    Args:
        onnx_path: The model.
        device: "cpu" or "cuda".
        threads: Threads within an operator on the CPU; None for one for each core.
        optimize: Whether ONNX Runtime optimizes the graph (fuses nodes) before it runs.

    Attributes:
        session: ONNX Runtime's own session.

    Raises:
        ModelFileError: The model is missing or ONNX Runtime can't load it, or its weights lie outside of its folder.
        UnsupportedOperatorError: ONNX Runtime has no operator of that name, or not for that data type.
        BackendUnavailableError: CUDA was asked for and can't be used.
        InputError: There is no such device or number of threads, or an input or output is a sequence, a map or an
            optional value.
    """

    def __init__(
        self,
        onnx_path: str | Path,
        *,
        device: Literal["cpu", "cuda"] = "cpu",
        threads: int | None = None,
        optimize: bool = True,
    ):
        if not isinstance(device, str) or device not in _PROVIDERS:
            raise InputError(f"ONNX Runtime has no device {device!r} here.", f"Choose one of {', '.join(_PROVIDERS)}.")
        check_threads(threads)
        provider = _PROVIDERS[device]
        weight_files.named_by(onnx_path)
        self.session = onnx_session.open_model(onnx_path, providers=[provider], threads=threads, optimize=optimize)
        if self.session.get_providers()[0] != provider:  # ONNX Runtime falls back to the CPU with no error
            raise BackendUnavailableError(
                "ONNX Runtime can't use CUDA on this machine.",
                "Install onnxruntime-gpu for your CUDA version; `python -m tutorial_utils doctor` says more.",
            )
        self.backend = f"ONNX Runtime {'CUDA' if device == 'cuda' else 'CPU'}"
        self.inputs = {value.name: _spec(value) for value in self.session.get_inputs()}
        if not all(spec.shape for spec in self.inputs.values()):  # what declares no shape looks like a scalar here
            for value in onnx.load(onnx_path, load_external_data=False).graph.input:
                if value.name in self.inputs and not value.type.tensor_type.HasField("shape"):
                    self.inputs[value.name] = replace(self.inputs[value.name], shape=None)
        self.outputs = {value.name: _spec(value) for value in self.session.get_outputs()}

    def _infer(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        return dict(zip(self.outputs, onnx_session.run(self.session, feeds), strict=True))


def _spec(value: "onnxruntime.NodeArg") -> TensorSpec:
    if not value.type.startswith("tensor("):
        raise InputError(
            f"{value.name} is no tensor, but {value.type}, and a runner takes and returns arrays.",
            "Call ONNX Runtime itself: `base.onnx_session.open_model(path).run(None, feeds)`.",
        )
    element = value.type.removeprefix("tensor(").removesuffix(")")  # "tensor(float16)"
    onnx_name = {"float": "FLOAT", "double": "DOUBLE"}.get(element, element.upper())
    dtype = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(onnx_name))
    return TensorSpec(
        value.name, dtype, tuple(size if isinstance(size, int) else -1 for size in value.shape), empty=True
    )
