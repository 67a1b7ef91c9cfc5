"""Lesson 01, calibration: quantize the same model in many ways, and judge each by its answers and its logits."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tutorial_utils.measure import deployment, quality
from tutorial_utils.model import quantization, tensors
from tutorial_utils.model.data import Dataset
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

_BATCH = 64


@dataclass(frozen=True)
class Calibrated:
    """A quantized model's quality.

    Attributes:
        accuracy: Fraction of right answers on the test images.
        sqnr_db: How far its logits are from the FP32 model's: signal over quantization noise in decibels.
        scales: Scale of each quantized activation, by tensor name.
    """

    accuracy: float
    sqnr_db: float
    scales: dict[str, float]

    def thresholds(self) -> dict[str, float]:
        """Return the largest magnitude of each activation that isn't cut off: 127 steps."""
        return {name: 127 * scale for name, scale in self.scales.items()}


class CalibrationTrial:
    """Quantizes one model with different calibrations and measures each on the same test images.

    Args:
        fp32_path: The FP32 model.
        test_set: Test images and labels.

    Attributes:
        reference_accuracy: Accuracy of the FP32 model.
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
        """Quantize with these calibration images and measure.

        Args:
            images: Calibration images, float32 ``[N, ...]`` as the model's input.
            method: How ranges are chosen, as for `quantization.to_int8`.
            per_channel: One scale for each output channel of a weight.

        Raises:
            CalibrationError: The images don't fit the model, or the method is unknown.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = quantization.to_int8(
                self._fp32_path, Path(folder) / "int8.onnx", images, method=method, per_channel=per_channel
            )
            scales = tensors.activation_scales(path)
            with OnnxRuntimeRunner(path) as runner:
                logits = deployment.predict(runner, self._test_set.images, _BATCH)
        return Calibrated(
            accuracy=quality.classification_metrics(self._test_set.labels, logits).accuracy,
            sqnr_db=quality.sqnr_db(logits, self._reference),
            scales=scales,
        )
