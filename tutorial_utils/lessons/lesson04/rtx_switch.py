"""Lesson 04, Polygraphy from Python where it needs TensorRT.

Polygraphy decides when it is imported whether it uses TensorRT or TensorRT-RTX, so these functions run in a process of
their own (`fresh_process`), after ``POLYGRAPHY_USE_TENSORRT_RTX=1`` was set.
"""

import os
from collections.abc import Mapping
from pathlib import Path

Shape = tuple[int, ...]


def convert(onnx_path: str | Path, shapes: Mapping[str, tuple[Shape, Shape, Shape]]) -> bytes:
    """Build an engine for compute capability 8.9, as `polygraphy convert` does.

    Args:
        onnx_path: The model.
        shapes: For each dynamic input the smallest shape, the most frequent one and the largest.
    """
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
    from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxPath, Profile
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = G_LOGGER.ERROR
    profile = Profile()
    for name, (smallest, usual, largest) in shapes.items():
        profile.add(name, smallest, usual, largest)
    config = CreateConfigRTX(profiles=[profile], compute_capabilities=[(8, 9)])
    return bytes(EngineBytesFromNetwork(NetworkFromOnnxPath(str(onnx_path)), config)())


def which_tensorrt(before: str, after: str) -> tuple[bool, bool]:
    """Set the switch before and after the import of Polygraphy, and return whether TensorRT-RTX is used each time."""
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = before
    from polygraphy import config

    first = config.USE_TENSORRT_RTX
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = after
    from polygraphy import config as again

    return first, again.USE_TENSORRT_RTX
