"""A model's exact run on one set of inputs, and its conversions with some nodes kept in FP32, each judged against it.

Conversions run on the CPU with every rounding written down: see `rounding`.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tutorial_utils.base.errors import InputError, PrecisionError
from tutorial_utils.debug import faults, model_inputs, rounding, tensor_errors
from tutorial_utils.debug.faults import Precision
from tutorial_utils.inspection import input_shapes
from tutorial_utils.model import half_precision, onnx_file, quantization
from tutorial_utils.model.number_formats import FP16

_QUANTIZED = quantization.OPERATORS
_BOUNDED = ("HardSigmoid", "Sigmoid", "Softmax")
_DIFFERENT_CHOICES = 0.02  # share of the elements of an integer output that may differ
Nodes = frozenset[str]  # names
Errors = dict[str, tuple[float, float]]  # of each tensor the error, and what is allowed


def share(errors: Errors) -> float:
    """Return the worst error over what is allowed: above 1, the model is wrong."""
    return max((error / allowed for error, allowed in errors.values()), default=0.0)


@dataclass(frozen=True)
class Point:
    """A tensor in the low precision and, where the mended file has it, in that."""

    tensor: str
    error: float
    allowed: float
    mended: float | None


class Conversions:
    """A model in a precision, on one set of inputs.

    Args:
        onnx_path: The FP32 model.
        precision: What to convert it to.
        inputs: An .npz file with one array for each input, or None to draw them.
        seed: For drawing them.
        folder: Where conversions are written.

    Attributes:
        model: The FP32 model.
        operators: Of every node by name, in the order of computation.
        values: Every tensor of the exact run, and the inputs.
        inputs: Shapes of the inputs, and where they come from.
        parts: What a Concat joins to an output, by name, and which output that is. It is judged as outputs are.
        notes: What has to be told of a conversion.

    Raises:
        InputError: The inputs can't be read or don't fit the model, none can be drawn, or FP32 gives NaN with them.
        ModelFileError: The model can't be read or run.
    """

    def __init__(self, onnx_path: Path, precision: Precision, inputs: Path | None, seed: int, folder: Path):
        self._source, self._name, self._precision, self._folder = onnx_path, onnx_path.name, precision, folder
        self.model = onnx_file.load(onnx_path)
        onnx_file.require_fp32(self.model, onnx_path.name)
        nodes = [node for graph in onnx_file.graphs(self.model.graph) for node in graph.node]
        self.operators = {node.name: node.op_type for node in nodes}
        self.notes: list[str] = []
        self._quantizable = {node.name for node in self.model.graph.node if node.op_type in _QUANTIZED}
        self._depths = tensor_errors.depths(self.model, _QUANTIZED if precision == "int8" else None)
        bounded = [node for node in self.model.graph.node if node.op_type in _BOUNDED]
        self._probabilities = {name for node in bounded for name in node.output}  # of which 1e-9 is none
        self._feeds, exact, origin = self._run_exactly(inputs, seed)
        self.values = {**self._feeds, **exact}
        shapes = ", ".join(f"{name} {input_shapes.text(array.shape)}" for name, array in self._feeds.items())
        self.inputs = f"{shapes}, {origin}"
        self._judged, self.parts = self._outputs()
        if wrong := [name for name in self._judged if np.isnan(self.values[name].astype(np.float64)).any()]:
            raise InputError(
                f"{self._name} gives NaN in FP32 already, in its output {wrong[0]}, with these inputs.",
                "Give real inputs with --inputs FILE.npz; if they give NaN too, the FP32 model is what is wrong.",
            )
        self._unquantized: set[Nodes] = set()  # sets of kept nodes that leave nothing in INT8
        everything = self._run(frozenset(), tensor_errors.tensor_names(self.model))
        self._before = {name: self._judge(name, array) for name, array in everything.items()}
        self._seen: dict[Nodes, Errors] = {frozenset(): self._of_outputs(self._before)}

    def _run_exactly(self, inputs: Path | None, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], str]:
        """Return the inputs, every tensor of the FP32 model, and where the inputs come from."""
        specs = model_inputs.specs(self.model)
        if inputs:
            feeds = model_inputs.read(inputs, self.model, specs)
            return feeds, tensor_errors.all_outputs(self._source, feeds), f"from {inputs.name}"
        origin = f"drawn at random (seed {seed}); real inputs are better: --inputs FILE.npz"
        errors = []
        for feeds in model_inputs.draw(self.model, specs, seed):
            try:
                return feeds, tensor_errors.all_outputs(self._source, feeds), origin
            except InputError as error:
                errors.append(error)
        cause = f"No random inputs were found that {self._name} accepts. {errors[0].cause}"
        raise InputError(cause, "Give inputs with --inputs FILE.npz.") from errors[0]

    def _outputs(self) -> tuple[list[str], dict[str, str]]:
        """Return what is judged: outputs in floating point, or all where there is none; and `parts`, also by itself."""
        names = [value.name for value in self.model.graph.output if self.values.get(value.name, np.zeros(0)).size]
        judged = [name for name in names if np.issubdtype(self.values[name].dtype, np.floating)] or names
        joined = {part: name for name in judged for part in tensor_errors.joined(self.model, name)}
        is_number = {name for name, array in self.values.items() if array.dtype == np.float32 and array.size}
        parts = {part: name for part, name in joined.items() if part in is_number - set(judged)}
        return [*judged, *parts], parts

    def low(self, keep: Iterable[str], target: Path | None = None) -> Path:
        """Convert the model but for some nodes, into a temporary file or another, and return it."""
        target = target or self._folder / self._name
        if self._precision == "int8":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what isn't quantized: it is the same each time
                return quantization.to_int8(self._source, target, self._feeds, exclude=keep)
        convert = half_precision.to_fp16 if self._precision == "fp16" else half_precision.to_bf16
        return convert(self._source, target, keep_fp32=keep)

    def errors(self, keep: Iterable[str]) -> Errors:
        """Return the error of each output when these nodes stay in FP32, and what is allowed. Runs are remembered."""
        key = frozenset(keep)
        if key not in self._seen:
            found = self._run(key, self._judged)
            self._seen[key] = self._of_outputs({name: self._judge(name, array) for name, array in found.items()})
        return self._seen[key]

    def _of_outputs(self, errors: Errors) -> Errors:
        return {name: errors[name] for name in self._judged if name in errors}

    def best(self) -> Nodes:
        """Return the nodes with which the errors were smallest, of all that were tried and left some in INT8."""
        tried = self._seen.keys() - self._unquantized
        return min(tried, key=lambda kept: (share(self._seen[kept]), len(kept)))

    def is_unquantized(self, kept: Nodes) -> bool:
        """Whether nothing was left in INT8 when these nodes were kept."""
        return kept in self._unquantized

    def _run(self, keep: frozenset[str], tensors: Iterable[str]) -> dict[str, np.ndarray]:
        """Return tensors of the low-precision file, or of what it would be if its weights had room in FP16."""
        try:
            model = rounding.with_rounding(onnx_file.load(self.low(keep)))
        except PrecisionError as error:
            if self._precision == "int8" and keep >= self._quantizable:  # all is exact
                self._unquantized.add(keep)
                return {name: self.values[name] for name in self._judged}
            weights = tensor_errors.constants(self.model).values()
            if self._precision == "int8" or not any(np.abs(one).max(initial=0) > FP16.largest for one in weights):
                raise
            if error.cause not in self.notes:
                self.notes.append(error.cause)
            model = rounding.with_rounding(self.model, self._precision)
        written = {name for node in model.graph.node for name in node.output}
        return tensor_errors.run(model, self._feeds, self._name, [name for name in tensors if name in written])

    def _judge(self, name: str, found: np.ndarray) -> tuple[float, float]:
        exact = self.values[name]
        if not np.issubdtype(exact.dtype, np.floating):  # classes or a decision: how many of them differ
            return 1.0 - np.mean(exact == found if exact.shape == found.shape else 0.0), _DIFFERENT_CHOICES
        floor = FP16.smallest_normal if name in self._probabilities else 0.0
        allowed = tensor_errors.tolerance(self._precision, self._depths.get(name, 1))
        return faults.relative_error(exact, found, floor), allowed

    def search(self) -> faults.Search:
        """Return the search for the nodes that are to blame."""
        in_int8 = self._precision == "int8"
        low = onnx_file.load(self.low(())) if in_int8 else rounding.with_rounding(self.model, self._precision)
        return faults.Search(self.model, self.values, low, self._precision)

    def curve(self, kept: Nodes) -> tuple[Point, ...]:
        """Return the error of every tensor of numbers, without and with the nodes that are kept."""
        after = self._run(kept, self._before) if kept else {}
        return tuple(
            Point(name, *errors, self._judge(name, after[name])[0] if name in after else None)
            for name, errors in self._before.items()
            if np.issubdtype(self.values[name].dtype, np.floating)
        )
