"""Build ResNet-50's engine and write its plan, as a whole process: ``python -m benchmarks.build_engine ONNX PLAN``."""

import sys
from pathlib import Path

from tutorial_utils import engine
from tutorial_utils.base import flavour

SHAPE, BATCHES = (3, 224, 224), {"min": 1, "opt": 8, "max": 64}
TARGETS = ("8.9",) if flavour.installed_flavour() == "tensorrt_rtx" else ()  # TensorRT builds for the GPU at hand


def options() -> engine.BuildOptions:
    """Return the profile and target that both sides build."""
    return engine.BuildOptions([engine.Profile.batch("x", SHAPE, **BATCHES)], compute_capabilities=TARGETS)


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(engine.build(sys.argv[1], options(), use_cache=False).plan)
