"""The engine that NVIDIA's programs are shown on: ResNet-50 in FP16, built for the size of image that the file has."""

from pathlib import Path

import onnx

from tutorial_utils import engine

MODEL = "resnet50-fp16"


def built(onnx_path: Path, batch: int) -> tuple[engine.Engine, tuple[int, ...]]:
    """Build the engine for one batch, or read it from the cache; return it and the shape of its input."""
    (value,) = onnx.load(onnx_path, load_external_data=False).graph.input
    shape = (batch, *(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]))
    profile = engine.Profile.of(**{value.name: (shape,) * 3})
    return engine.build(onnx_path, engine.BuildOptions(profiles=(profile,)), progress=False), shape
