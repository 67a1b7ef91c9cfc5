"""Which step of a network reads and writes which tensor, and what follows: lifetimes, memory needed.

An ONNX graph (`from_onnx`) and a built engine (`from_report`) are brought into one form, so that the two can be
compared. Only activations count. Weights are left out on both sides: fused or not, each is read once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from tutorial_utils.base.errors import InputError, ModelFileError
from tutorial_utils.engine.report import BuildReport
from tutorial_utils.model import number_formats, onnx_file

# Operators whose output is the same bytes under another name or shape: running them copies nothing.
VIEWS = {"Identity", "Squeeze", "Unsqueeze", "Reshape", "Flatten"}


@dataclass(frozen=True)
class Step:
    """An ONNX node or an engine layer: what runs at once, with the activations that it reads and writes."""

    name: str
    operation: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True)
class Lifetime:
    """A tensor occupies its memory from the step that writes it to the last step that reads it, both included."""

    tensor: str
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Dataflow:
    """A network as steps in the order of execution."""

    steps: tuple[Step, ...]  # what runs, without views
    sizes: dict[str, int]  # bytes of each activation, by name
    inputs: tuple[str, ...]  # activations that the caller provides
    outputs: tuple[str, ...]  # activations that the caller receives

    def lifetimes(self) -> tuple[Lifetime, ...]:
        """Return the lifetimes of all tensors between steps, in the order in which they are written.

        Inputs and outputs of the network are not among them: they live in memory of the caller.
        """
        written = {name: index for index, step in enumerate(self.steps) for name in step.writes}
        last_read = {name: index for index, step in enumerate(self.steps) for name in step.reads}
        outputs = set(self.outputs)
        return tuple(
            Lifetime(name, self.sizes[name], first, last_read.get(name, first))
            for name, first in written.items()
            if name not in outputs
        )

    def live_bytes(self) -> np.ndarray:
        """Return the bytes that are occupied while each step runs, shape ``[steps]``."""
        live = np.zeros(len(self.steps), np.int64)
        for one in self.lifetimes():
            live[one.first : one.last + 1] += one.size
        return live

    @property
    def largest_live_set(self) -> int:
        """The least memory, in bytes, in which the steps can run in this order without computing in place."""
        return int(self.live_bytes().max(initial=0))

    @property
    def sum_of_tensors(self) -> int:
        """The memory, in bytes, that a place of its own for each tensor takes."""
        return sum(one.size for one in self.lifetimes())


def from_onnx(onnx_path: str | Path, batch: int) -> Dataflow:
    """Read the dataflow of an ONNX model, as it is before any fusion.

    All dynamic dimensions of its inputs are taken to be the batch.

    Raises:
        ModelFileError: The model is missing or damaged, or `onnx.shape_inference` can't find the shape of a tensor.
    """
    model = onnx_file.load(onnx_path)
    graph = _with_batch(model, batch).graph
    constants = {weight.name for weight in graph.initializer}
    same: dict[str, str] = {}  # a view to the tensor whose bytes it shows
    steps = []
    for node in graph.node:
        reads = [same.get(name, name) for name in node.input if name and name not in constants]
        if node.op_type == "Constant" or not reads:  # computed from weights alone: a weight itself
            constants.update(node.output)
        elif node.op_type in VIEWS:
            same[node.output[0]] = reads[0]
        else:
            steps.append(Step(node.name, node.op_type, _unique(reads), tuple(name for name in node.output if name)))
    sizes = _sizes(graph)
    used = {name for step in steps for name in step.reads + step.writes}
    unknown = sorted(used - sizes.keys())
    if unknown:
        raise ModelFileError(
            f"The shape of {', '.join(unknown[:3])} in {Path(onnx_path).name} can't be inferred.",
            "Fold constants first (`polygraphy surgeon sanitize --fold-constants`).",
        )
    inputs = tuple(value.name for value in graph.input if value.name not in constants)
    outputs = _unique(same.get(value.name, value.name) for value in graph.output)
    return Dataflow(tuple(steps), {name: sizes[name] for name in used}, inputs, outputs)


def _with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """Return the model with its dynamic dimensions set, and all shapes inferred from there."""
    if batch < 1:
        raise InputError(f"A batch of {batch} was asked for.", "Give a batch of 1 or more.")
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value") or dim.dim_value < 0:
                dim.dim_value = batch
    del model.graph.value_info[:]  # shapes with an unknown batch
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return onnx_file.with_shapes(model, data_prop=True)


def _sizes(graph: onnx.GraphProto) -> dict[str, int]:
    sizes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
        if tensor.HasField("shape") and min(dims, default=0) >= 0:
            sizes[value.name] = int(np.prod(dims)) * onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
    return sizes


def from_report(report: BuildReport, batch: int) -> Dataflow:
    """Read the dataflow of a built engine: its kernels, without the layers that only order streams.

    Every dimension of -1 is taken to be the batch.

    Raises:
        InputError: The report has no layers, or a data type of unknown size.
    """
    if not report.kernels:
        raise InputError("The report has no layers.", "Build without a hook that lowers profiling_verbosity.")
    tensors = [tensor for kernel in report.kernels for tensor in kernel.inputs + kernel.outputs]
    unknown = sorted({tensor.dtype for tensor in tensors} - number_formats.BY_NAME.keys())
    if unknown:
        raise InputError(f"The size of {', '.join(unknown)} is unknown.", "Add it to model/number_formats.py.")
    sizes = {}
    for tensor in tensors:
        elements = int(np.prod([batch if size < 0 else size for size in tensor.shape]))
        sizes[tensor.name] = elements * number_formats.BY_NAME[tensor.dtype].bits // 8
    steps = []
    for kernel in report.kernels:
        reads, writes = (_unique(tensor.name for tensor in side) for side in (kernel.inputs, kernel.outputs))
        steps.append(Step(kernel.name, kernel.type, reads, writes))
    read = dict.fromkeys(name for step in steps for name in step.reads)
    written = dict.fromkeys(name for step in steps for name in step.writes)
    inputs = tuple(name for name in read if name not in written)
    outputs = tuple(name for name in written if name not in read)
    return Dataflow(tuple(steps), sizes, inputs, outputs)


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
