"""The experiment: the rows of the matrix by name, and how they are read back."""

import functools

from tutorial_utils.measure import on_stream, rows
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.resnet50_matrix import cells
from tutorial_utils.measure.resnet50_matrix.cells import STACKS
from tutorial_utils.measure.resnet50_matrix.measuring import METHOD, measure_cell, measure_reference

EXPERIMENT = Experiment(
    name="resnet50_matrix",
    title="ResNet-50 in every library and precision at three shapes",
    method=METHOD,
    rows={
        **{cells.reference_name(stack): functools.partial(measure_reference, stack) for stack in STACKS},
        **{cell.name: functools.partial(measure_cell, cell) for cell in cells.cells()},
    },
    read=lambda data: cells.matrix(rows.read(data)),
    models=("resnet50-fp32.onnx",),
    needs_tensorrt=False,  # of the stacks, one has no TensorRT that this package loads
    libraries=on_stream.libraries,
)
