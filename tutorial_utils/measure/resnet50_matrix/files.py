"""What every cell starts from: ResNet-50 as an ONNX file in each precision, images, and the logits that are right."""

from pathlib import Path

import numpy as np
from blake3 import blake3

from tutorial_utils.base import onnx_session, paths, sealed_files
from tutorial_utils.model import onnx_file, precisions
from tutorial_utils.model.networks import EXPORT_RECIPE
from tutorial_utils.model.precisions import PRECISIONS

CALIBRATION_IMAGES = 128


class Files:
    """Files that are made from one FP32 file of ResNet-50, once, and kept in the cache.

    Args:
        fp32: Its path; the input ``x`` is ``[N, 3, H, W]``. What is made of it takes images of any size.

    Attributes:
        folder: Where they are kept, calibration caches among them.
    """

    def __init__(self, fp32: Path):
        hasher = blake3(str(EXPORT_RECIPE).encode())
        sealed_files.add(hasher, Path(fp32))
        self.folder = paths.cache_dir("resnet50_matrix", hasher.hexdigest(length=8))
        self._fp32 = self.folder / "resnet50-fp32.onnx"
        with sealed_files.filling([self._fp32], self.folder / "lock") as missing:
            if missing:
                onnx_file.save(onnx_file.open_image_size(onnx_file.load(fp32)), self._fp32)

    def onnx(self, precision: str, size: int) -> Path:
        """Return the file in a precision of `precisions.PRECISIONS`. INT8 and FP8 are calibrated for an image size."""
        if precision == "fp32":
            return self._fp32
        made = {name: self.folder / f"resnet50-{name}.onnx" for name in ("fp16", "bf16")}
        made |= {name: self.folder / f"resnet50-{size}-{name}.onnx" for name in ("int8", "fp8")}
        wanted = {name: made[name] for name in (*PRECISIONS[precision].made_from, precision) if name != "fp32"}
        with sealed_files.filling(wanted.values(), self.folder / "lock") as missing:
            if missing:
                precisions.write({"fp32": self._fp32, **wanted}, self.calibration_images(size))
        return made[precision]

    def calibration_images(self, size: int) -> np.ndarray:
        """Return images of the kind that is measured with, but others: float32 ``[N, 3, size, size]``."""
        return np.random.default_rng(1).standard_normal((CALIBRATION_IMAGES, 3, size, size), dtype=np.float32)

    def calibration_cache(self, shape: tuple[int, ...]) -> Path:
        """Return where TensorRT's calibrator keeps what it found at a shape."""
        return self.folder / f"calibration-{'x'.join(map(str, shape))}.cache"

    def images(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the images that are measured with: normally distributed numbers, float32."""
        return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

    def reference(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the logits ``[N, 10]`` of these images from ONNX Runtime in FP32 on the CPU."""
        path = self.folder / f"logits-{'x'.join(map(str, shape))}.npy"
        with sealed_files.filling([path], self.folder / "lock") as missing:
            if missing:
                (logits,) = onnx_session.new_session(self._fp32).run(None, {"x": self.images(shape)})
                with paths.replacing(path) as temporary:
                    np.save(temporary, logits)
        return np.load(path)
