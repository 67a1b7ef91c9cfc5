"""The experiment: the rows of the matrix by name, and how they are read back."""

import functools
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from tutorial_utils.measure import rows
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.resnet50_matrix import cells, figure
from tutorial_utils.measure.resnet50_matrix.cells import STACKS, Matrix
from tutorial_utils.measure.resnet50_matrix.measuring import METHOD, measure_cell, measure_reference

_LIBRARIES = {"PyTorch": "torch", "torchvision": "torchvision", "cuda-python": "cuda-bindings", "onnx": "onnx"}


def read(data: Mapping[str, Any]) -> Matrix:
    """Return the matrix in the data of a recording."""
    return cells.matrix(rows.read(data))


def _libraries() -> dict[str, str]:
    """Return the versions of those that the stamp of a machine doesn't have, as far as they are installed."""
    found = {}
    for name, package in _LIBRARIES.items():
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


EXPERIMENT = Experiment(
    name="resnet50_matrix",
    title="ResNet-50 in every library and precision at three shapes",
    method=METHOD,
    rows={
        **{cells.reference_name(stack): functools.partial(measure_reference, stack) for stack in STACKS},
        **{cell.name: functools.partial(measure_cell, cell) for cell in cells.cells()},
    },
    read=read,
    draw=lambda measured: figure.draw(measured.result),
    models=("resnet50-fp32.onnx",),
    needs_tensorrt=False,  # of the stacks, one has no TensorRT that this package loads
    libraries=_libraries,
)
