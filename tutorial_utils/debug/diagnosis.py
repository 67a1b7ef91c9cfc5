"""Why a model goes wrong in a low precision, and which few nodes to keep from it: `python -m tutorial_utils debug`.

The low-precision file is made and run on the CPU with every rounding written down. If its outputs err more than its
data type and depth allow, `faults` says which nodes are to blame. Those are kept in FP32, more are added until the
outputs are right, and each that isn't needed is taken away again. What is proposed is therefore what was measured.
"""

import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils.base import child_process
from tutorial_utils.base.errors import InputError, ModelFileError, PrecisionError
from tutorial_utils.debug import faults, model_inputs, rounding, tensor_errors
from tutorial_utils.debug.faults import Fault, Precision
from tutorial_utils.inspection import input_shapes
from tutorial_utils.model import half_precision, onnx_file, quantization
from tutorial_utils.model.number_formats import FP16
from tutorial_utils.runners.base import TensorSpec

_QUANTIZED = quantization.OPERATORS
_BOUNDED = ("HardSigmoid", "Sigmoid", "Softmax")
_ROUNDS = 4  # in which the set of kept nodes grows by what is before it
_LARGEST_SET = 64  # nodes, tried where no single one is to blame
# Normalizations kept in FP32 for what ONNX Runtime doesn't show: by default ONNX lets them add up in FP32, as it
# and TensorRT do. Where there are more of them, the whole stream is large, and they are only told.
_UNSEEN = 3
# A node that errs by more than this times what is allowed stands out. In INT8 it loses most of its input: it is a fault
# where outputs are within their wide tolerance too, if their error is at least halved without it.
_GROSS = 8
_TRIALS = 60  # conversions at most, to make the set small
_ADDED_UP = 2  # how often the tolerance may be passed, where no node stands out: rounding adds up to more than usual
_HEADROOM = 2  # a tensor of an FP16 file is near the largest number from that number over this on
_DIFFERENT_CHOICES = 0.02  # share of the elements of an integer output that may differ
_BF16 = (
    "No CPU computes in BF16. What is stored was rounded to BF16, weights and every tensor; sums are those of FP32, as "
    "in tensor cores."
)
Nodes = frozenset[str]  # names
Errors = dict[str, tuple[float, float]]  # of each output the error, and what is allowed


@dataclass(frozen=True)
class Output:
    """An output in the low precision, or a part that a Concat joins to one. Errors are relative L2, against FP32."""

    name: str
    error: float
    allowed: float  # `tensor_errors.tolerance` at its depth
    mended: float | None = None  # the error of the mended file
    part_of: str | None = None  # the output that it is a part of


@dataclass(frozen=True)
class Point:
    """A tensor in the low precision and, where the mended file has it, in that."""

    tensor: str
    error: float
    allowed: float
    mended: float | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What was found, what is proposed, and what that was measured to do."""

    model: str  # name of the file
    precision: Precision
    inputs: str  # where they come from, and their shapes
    verdict: str  # "healthy", "mended" or "not mended"
    outputs: tuple[Output, ...]
    first: str | None  # the first tensor that errs more than it may and that the outputs suffer from
    faults: tuple[Fault, ...]  # that the outputs suffer from, in the order of computation; then what isn't measured
    benign: tuple[Fault, ...]  # what looks like a fault, and nodes after it take away
    kept: dict[str, str]  # nodes to keep in FP32, with their operators
    nodes: int  # of the model
    written: str | None  # the file
    notes: tuple[str, ...]
    curve: tuple["Point", ...]  # every tensor, in the order of computation
    seconds: float


def diagnose(
    onnx_path: Path, precision: Precision, inputs: Path | None, seed: int, target: Path, write_healthy: bool = False
) -> Diagnosis:
    """Find the faults of a model in a precision, mend them, and write the mended file.

    Args:
        onnx_path: The FP32 model.
        precision: What to convert it to.
        inputs: An .npz file with one array for each input, or None to draw them. They also calibrate INT8.
        seed: For drawing them.
        target: Where to write the file, if there is something to mend and it succeeds.
        write_healthy: Whether to write the low-precision file there also when there is nothing to mend.

    Raises:
        CourseError: The model or the inputs can't be read, don't fit each other, or the model can't be converted.
    """
    began = time.monotonic()
    if seed < 0:
        raise InputError(f"The seed is {seed}.", "Give 0 or a positive number.")
    if target.exists() and onnx_path.exists() and target.samefile(onnx_path):
        raise InputError(f"{target} is the model itself.", "Name another file for the low-precision model.")
    with tempfile.TemporaryDirectory() as folder:
        case = _Case(onnx_path, precision, Path(folder))
        case.run_exactly(inputs, seed)
        before = case.errors(())
        found, kept = faults.Found((), ()), frozenset()
        if precision != "bf16" or _share(before) > 1:
            found, kept = case.mend(before)
        after = case.errors(kept)
        verdict = "not mended" if _share(after) > case.goal else "mended" if kept else "healthy"
        curve = case.curve(kept)
        if precision == "fp16" and verdict != "not mended":
            case.note_headroom(kept)
        written = target if verdict == "mended" or (verdict == "healthy" and write_healthy) else None
        if written:
            case.low(kept, written)
    operators = case.operators
    return Diagnosis(
        model=onnx_path.name, precision=precision, inputs=case.inputs, verdict=verdict,
        outputs=tuple(
            Output(name, error, allowed, after[name][0] if kept else None, case.parts.get(name))
            for name, (error, allowed) in before.items()
        ),
        first=found.faults[0].tensor if found.faults else None,
        faults=found.faults, benign=found.benign, kept={name: operators[name] for name in operators if name in kept},
        nodes=len(operators), written=written and str(written), notes=tuple(case.notes), curve=curve,
        seconds=round(time.monotonic() - began, 1),
    )  # fmt: skip


def in_another_process(onnx_path: Path, *arguments: Any, **options: Any) -> Diagnosis:
    """Call `diagnose` where the end of the process, by ONNX Runtime or for want of memory, ends no other.

    Raises:
        ModelFileError: The process died.
        CourseError: What `diagnose` raises.
    """
    try:
        return child_process.run(diagnose, onnx_path, *arguments, **options)
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise ModelFileError(
            f"The process that ran {onnx_path.name} died (exit status {error.returncode}): {last[0].rstrip('.')}.",
            "Where memory ran out (-9), give smaller inputs with --inputs; otherwise the model ends ONNX Runtime.",
        ) from error


def _gross(found: faults.Found) -> tuple[Fault, ...]:
    return tuple(fault for fault in found.faults if fault.measured and fault.error > _GROSS * fault.allowed)


def _share(errors: Errors) -> float:
    """Return the worst error of an output over what is allowed: above 1, the model is wrong."""
    return max((error / allowed for error, allowed in errors.values()), default=0.0)


class _Case:
    """A model with one set of inputs: its exact run, and its conversions with some nodes kept in FP32."""

    def __init__(self, onnx_path: Path, precision: Precision, folder: Path):
        self._name, self._precision, self._folder = onnx_path.name, precision, folder
        self.model = onnx_file.load(onnx_path)
        onnx_file.require_fp32(self.model, onnx_path.name)
        nodes = [node for graph in onnx_file.graphs(self.model.graph) for node in graph.node]
        self.operators = {node.name: node.op_type for node in nodes}  # in the order of computation
        self.notes = [_BF16] if precision == "bf16" else []
        self.goal = 1.0  # for the worst error of an output, over what is allowed
        self._source = onnx_path
        self._quantizable = {node.name for node in self.model.graph.node if node.op_type in _QUANTIZED}
        self.parts: dict[str, str] = {}  # of outputs, and what they are parts of
        bounded = [node for node in self.model.graph.node if node.op_type in _BOUNDED]
        self._probabilities = {name for node in bounded for name in node.output}  # of which 1e-9 is none
        self._runs: dict[frozenset[str], Errors] = {}
        self._unquantized: set[frozenset[str]] = set()  # of these, those that leave nothing in INT8
        self._before: Errors = {}  # of every tensor, when none is kept

    def run_exactly(self, inputs: Path | None, seed: int) -> None:
        """Run the FP32 model on the inputs and keep every tensor."""
        specs = model_inputs.specs(self.model)
        if inputs:
            self.feeds = model_inputs.read(inputs, self.model, specs)
            values = tensor_errors.all_outputs(self._source, self.feeds)
            origin = f"from {inputs.name}"
        else:
            self.feeds, values = self._draw(specs, seed)
            origin = f"drawn at random (seed {seed}); real inputs are better: --inputs FILE.npz"
        self._values = {**self.feeds, **values}
        shapes = ", ".join(f"{name} {input_shapes.text(array.shape)}" for name, array in self.feeds.items())
        self.inputs = f"{shapes}, {origin}"
        counted = _QUANTIZED if self._precision == "int8" else None
        self._depths = tensor_errors.depths(self.model, counted)
        names = [value.name for value in self.model.graph.output if self._values.get(value.name, np.zeros(0)).size]
        self._judged = [name for name in names if np.issubdtype(self._values[name].dtype, np.floating)] or names
        joined = {part: name for name in self._judged for part in tensor_errors.joined(self.model, name)}
        is_number = {name for name, array in self._values.items() if array.dtype == np.float32 and array.size}
        self.parts = {part: name for part, name in joined.items() if part in is_number - set(self._judged)}
        self._judged += self.parts
        if wrong := [name for name in self._judged if np.isnan(self._values[name].astype(np.float64)).any()]:
            raise InputError(
                f"{self._name} gives NaN in FP32 already, in its output {wrong[0]}, with these inputs.",
                "Give real inputs with --inputs FILE.npz; if they give NaN too, the FP32 model is what is wrong.",
            )

    def _draw(self, specs: Mapping[str, TensorSpec], seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        errors = []
        for feeds in model_inputs.draw(self.model, specs, seed):
            try:
                return feeds, tensor_errors.all_outputs(self._source, feeds)
            except InputError as error:
                errors.append(error)
        cause = f"No random inputs were found that {self._name} accepts. {errors[0].cause}"
        raise InputError(cause, "Give inputs with --inputs FILE.npz.") from errors[0]

    def low(self, keep: Iterable[str], target: Path | None = None) -> Path:
        """Convert the model but for some nodes, into a temporary file or another, and return it."""
        target = target or self._folder / self._name
        if self._precision == "int8":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what isn't quantized: it is the same each time
                return quantization.to_int8(self._source, target, self.feeds, exclude=keep)
        convert = half_precision.to_fp16 if self._precision == "fp16" else half_precision.to_bf16
        return convert(self._source, target, keep_fp32=keep)

    def errors(self, keep: Iterable[str]) -> Errors:
        """Return the error of each output when these nodes stay in FP32, and what is allowed. Runs are remembered."""
        key = frozenset(keep)
        if key not in self._runs:
            found = self._run(key, self._judged) if key else self._run(key, tensor_errors.tensor_names(self.model))
            errors = {name: self._judge(name, values) for name, values in found.items()}
            self._before = self._before if key else errors
            self._runs[key] = {name: errors[name] for name in self._judged if name in errors}
        return self._runs[key]

    def _run(self, keep: frozenset[str], tensors: Iterable[str]) -> dict[str, np.ndarray]:
        """Return tensors of the low-precision file, or of what it would be if its weights had room in FP16."""
        try:
            model = rounding.with_rounding(onnx_file.load(self.low(keep)))
        except PrecisionError as error:
            if self._precision == "int8" and keep >= self._quantizable:  # all is exact
                self._unquantized.add(keep)
                return {name: self._values[name] for name in self._judged}
            weights = tensor_errors.constants(self.model).values()
            if self._precision == "int8" or not any(np.abs(one).max(initial=0) > FP16.largest for one in weights):
                raise
            if error.cause not in self.notes:
                self.notes.append(error.cause)
            model = rounding.with_rounding(self.model, self._precision)
        written = {name for node in model.graph.node for name in node.output}
        return tensor_errors.run(model, self.feeds, self._name, [name for name in tensors if name in written])

    def _judge(self, name: str, found: np.ndarray) -> tuple[float, float]:
        exact = self._values[name]
        if not np.issubdtype(exact.dtype, np.floating):  # classes or a decision: how many of them differ
            return 1.0 - np.mean(exact == found if exact.shape == found.shape else 0.0), _DIFFERENT_CHOICES
        floor = FP16.smallest_normal if name in self._probabilities else 0.0
        allowed = tensor_errors.tolerance(self._precision, self._depths.get(name, 1))
        return faults.relative_error(exact, found, floor), allowed

    def mend(self, before: Errors) -> tuple[faults.Found, Nodes]:
        """Return the faults that the outputs suffer from, and the nodes to keep in FP32: enough, and none too many.

        Where the outputs don't become right, the set with the smallest errors that was seen, and all faults.
        """
        in_int8 = self._precision == "int8"
        low = onnx_file.load(self.low(())) if in_int8 else rounding.with_rounding(self.model, self._precision)
        search = faults.Search(self.model, self._values, low, self._precision)
        found = self._without_many_unseen(search.faults())
        unseen = tuple(fault for fault in found.faults if not fault.measured)
        certain = frozenset(fault.node for fault in unseen)
        if _share(before) <= 1:
            return self._hidden(found, unseen, before)
        to_blame = frozenset(name for fault in found.faults for name in fault.nodes)
        if not _gross(found) and 1 < _share(self.errors(to_blame)) <= _ADDED_UP:
            self.goal = _ADDED_UP
            note = "Rounding adds up to somewhat more than allowed: that no node stands out was taken for right."
            self.notes.append(note)
        for kept in self._growing_sets(search, found, to_blame):
            if _share(self.errors(kept | certain)) <= self.goal:
                kept = self._pruned(kept | certain, certain)
                if kept in self._unquantized:
                    break
                suffered = [fault for fault in found.faults if fault.node in kept or fault.op == "input"]
                suffered = suffered or [search.within(fault, kept) for fault in found.faults if kept & set(fault.nodes)]
                suffered = sorted(suffered, key=lambda fault: not fault.measured) or search.largest(kept)
                return faults.Found(tuple(suffered), found.benign), kept
        runs = self._runs.keys() - self._unquantized
        return found, min(runs, key=lambda kept: (_share(self._runs[kept]), len(kept)))

    def _without_many_unseen(self, found: faults.Found) -> faults.Found:
        """Return what was found; where ONNX Runtime doesn't show much of it, that is told in a note and left out."""
        unseen = [fault.node for fault in found.faults if not fault.measured]
        if len(unseen) <= _UNSEEN:
            return found
        told = "Squares inside these pass FP16's range, and have to be added up in FP32"
        self.notes.append(f"{told}: {', '.join(unseen)}.")
        return faults.Found(tuple(fault for fault in found.faults if fault.measured), found.benign)

    def _hidden(self, found: faults.Found, unseen: tuple[Fault, ...], before: Errors) -> tuple[faults.Found, Nodes]:
        """Return as `mend` does what right outputs hide: few faults whose mending helps INT8, or what isn't seen."""
        gross = _gross(found)
        lossy = frozenset(name for fault in gross for name in fault.nodes)
        few = self._precision == "int8" and 1 <= len(gross) <= _UNSEEN
        if few and _share(self.errors(lossy)) < _share(before) / 2:
            return faults.Found(gross, found.benign), lossy
        return faults.Found(unseen, found.benign), frozenset(fault.node for fault in unseen)

    def _growing_sets(self, search: faults.Search, found: faults.Found, kept: Nodes) -> Iterator[Nodes]:
        """Yield the nodes to blame, then those before them as well, then the nodes with the largest errors."""
        for _ in range(_ROUNDS):
            yield kept
            kept |= search.before(kept) if self._precision != "int8" else frozenset()
        yield kept | {name for fault in found.benign for name in search.touching([fault.tensor])}
        count = 1
        while count <= _LARGEST_SET:
            yield kept | set(search.worst(count))
            count *= 2

    def _pruned(self, kept: Nodes, certain: Nodes) -> Nodes:
        """Take away halves, quarters and at last single nodes, as long as the outputs stay right."""
        order = [name for name in self.operators if name in kept - certain]
        size, trials = max(1, len(order) // 2), 0
        while True:
            start, longest = 0, len(order)
            while start < len(order) and trials < _TRIALS:
                fewer = order[:start] + order[start + size :]
                trials += 1
                if _share(self.errors(certain | set(fewer))) <= self.goal:
                    order = fewer
                else:
                    start += size
            if trials == _TRIALS:
                self.notes.append(f"After {_TRIALS} trials the search for a smaller set of nodes was given up.")
            if trials == _TRIALS or (size == 1 and len(order) == longest):
                return certain | set(order)
            size = max(1, size // 2)

    def note_headroom(self, kept: frozenset[str]) -> None:
        """Say which tensor of the FP16 file comes near the largest number: with other inputs, it may pass it."""
        nodes = [node for node in self.model.graph.node if node.name not in kept]
        in_fp16 = {name for node in nodes for name in (*node.input, *node.output)}
        values = {name: one for name, one in self._values.items() if name in in_fp16}  # in an order of its own
        peaks = {name: np.abs(one).max(initial=0) for name, one in values.items() if one.dtype == np.float32}
        close = {name: peak for name, peak in peaks.items() if FP16.largest / _HEADROOM < peak <= FP16.largest}
        if close:
            worst = max(close, key=close.__getitem__)
            others = f", and so may {len(close) - 1} more" if len(close) > 1 else ""
            self.notes.append(
                f"{worst} reaches {close[worst]:,.0f} with these inputs, and FP16 ends at {FP16.largest:,.0f}: "
                f"with others it may pass that{others}. Give inputs with the largest values that you expect."
            )

    def curve(self, kept: frozenset[str]) -> tuple[Point, ...]:
        """Return the error of every tensor of numbers, without and with the nodes that are kept."""
        after = self._run(kept, self._before) if kept else {}
        return tuple(
            Point(name, *errors, self._judge(name, after[name])[0] if name in after else None)
            for name, errors in self._before.items()
            if np.issubdtype(self._values[name].dtype, np.floating)
        )
