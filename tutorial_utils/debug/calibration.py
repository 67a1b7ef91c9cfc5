"""Which calibration serves a model: quantize it in many ways, and judge each by its answers and its logits."""

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import numpy_helper

from tutorial_utils.measure import deployment, quality
from tutorial_utils.model import onnx_file, quantization
from tutorial_utils.model.data import Dataset
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

_BATCH = 64


@dataclass(frozen=True)
class Calibrated:
    """A quantized model: accuracy, 0 to 1; signal over noise of its logits in decibels; scale of each activation."""

    accuracy: float
    sqnr_db: float
    scales: dict[str, float]

    def thresholds(self) -> dict[str, float]:
        """Return the largest magnitude of each activation that isn't cut off: 127 steps."""
        return {name: 127 * scale for name, scale in self.scales.items()}


class CalibrationTrial:
    """Quantizes one FP32 model with different calibrations and measures each on the same test images.

    Attributes:
        reference_accuracy: Accuracy of the FP32 model, 0 to 1.
    """

    def __init__(self, fp32_path: Path, test_set: Dataset):
        self._fp32_path = fp32_path
        self._test_set = test_set
        with OnnxRuntimeRunner(fp32_path) as runner:
            self._reference = deployment.predict(runner, test_set.images, _BATCH)
        self.reference_accuracy = quality.classification_metrics(test_set.labels, self._reference).accuracy

    def run(
        self, images: np.ndarray, method: quantization.CalibrationMethod = "minmax", per_channel: bool = True
    ) -> Calibrated:
        """Quantize with these calibration images and measure. Arguments and errors are those of `to_int8`."""
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of answers that INT8 changes: by how much is what is measured here
            path = quantization.to_int8(
                self._fp32_path, Path(folder) / "int8.onnx", images, method=method, per_channel=per_channel
            )
            scales = activation_scales(path)
            with OnnxRuntimeRunner(path) as runner:
                logits = deployment.predict(runner, self._test_set.images, _BATCH)
        return Calibrated(
            accuracy=quality.classification_metrics(self._test_set.labels, logits).accuracy,
            sqnr_db=quality.sqnr_db(logits, self._reference),
            scales=scales,
        )


def activation_scales(onnx_path: str | Path) -> dict[str, float]:
    """Return the scale of each quantized activation, by the name of the tensor that goes into QuantizeLinear."""
    return {name: float(scale) for name, scale in _scales(onnx_path, "QuantizeLinear").items()}


def weight_scales(onnx_path: str | Path) -> dict[str, np.ndarray]:
    """Return the scales of each quantized weight: one number, or one for each output channel."""
    found = _scales(onnx_path, "DequantizeLinear").items()
    return {name.removesuffix("_quantized"): scale for name, scale in found if name.endswith("_quantized")}


def _scales(onnx_path: str | Path, operator: str) -> dict[str, np.ndarray]:
    graph = onnx_file.load(onnx_path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return {node.input[0]: constants[node.input[1]] for node in graph.node if node.op_type == operator}
