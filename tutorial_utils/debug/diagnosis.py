"""Why a model goes wrong in a low precision, and which few nodes to keep from it: `python -m tutorial_utils debug`.

The low-precision file is made and run on the CPU with every rounding written down. If its outputs err more than its
data type and depth allow, `faults` says which nodes are to blame. Those are kept in FP32, more are added until the
outputs are right, and each that isn't needed is taken away again. What is proposed is therefore what was measured.
"""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils.base import child_process
from tutorial_utils.base.errors import InputError, ModelFileError
from tutorial_utils.debug import faults
from tutorial_utils.debug.conversions import Conversions, Nodes, Point, share
from tutorial_utils.debug.faults import Fault, Precision
from tutorial_utils.model.number_formats import FP16

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
_BF16 = (
    "No CPU computes in BF16. What is stored was rounded to BF16, weights and every tensor; sums are those of FP32, as "
    "in tensor cores."
)


@dataclass(frozen=True)
class Output:
    """An output in the low precision, or a part that a Concat joins to one. Errors are relative L2, against FP32."""

    name: str
    error: float
    allowed: float  # `tensor_errors.tolerance` at its depth
    mended: float | None = None  # the error of the mended file
    part_of: str | None = None  # the output that it is a part of


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
    curve: tuple[Point, ...]  # every tensor, in the order of computation
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
        case = Conversions(onnx_path, precision, inputs, seed, Path(folder))
        before = case.errors(())
        found, kept, goal = faults.Found((), ()), frozenset(), 1.0
        if precision == "bf16":
            case.notes.insert(0, _BF16)
        if precision != "bf16" or share(before) > 1:
            found, kept, goal = _mended(case, precision)
        after = case.errors(kept)
        verdict = "not mended" if share(after) > goal else "mended" if kept else "healthy"
        curve = case.curve(kept)
        if precision == "fp16" and verdict != "not mended":
            case.notes.extend(_headroom(case, kept))
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


def _mended(case: Conversions, precision: Precision) -> tuple[faults.Found, Nodes, float]:
    """Return the faults that the outputs suffer from, and the nodes to keep in FP32: enough, and none too many.

    The number is the share of what is allowed that the outputs may err by then. Where they don't become right, it is
    the set with the smallest errors that was seen, and all faults.
    """
    search, goal = case.search(), 1.0
    found = _without_many_unseen(search.faults(), case.notes)
    unseen = tuple(fault for fault in found.faults if not fault.measured)
    certain = frozenset(fault.node for fault in unseen)
    if share(case.errors(())) <= 1:
        return *_hidden(case, precision, found, unseen), goal
    to_blame = frozenset(name for fault in found.faults for name in fault.nodes)
    if not _gross(found) and 1 < share(case.errors(to_blame)) <= _ADDED_UP:
        goal = _ADDED_UP
        note = "Rounding adds up to somewhat more than allowed: that no node stands out was taken for right."
        case.notes.append(note)
    for kept in _growing_sets(search, precision, found, to_blame):
        if share(case.errors(kept | certain)) <= goal:
            kept = _pruned(case, kept | certain, certain, goal)
            if case.is_unquantized(kept):
                break
            suffered = [fault for fault in found.faults if fault.node in kept or fault.op == "input"]
            suffered = suffered or [search.within(fault, kept) for fault in found.faults if kept & set(fault.nodes)]
            suffered = sorted(suffered, key=lambda fault: not fault.measured) or search.largest(kept)
            return faults.Found(tuple(suffered), found.benign), kept, goal
    return found, case.best(), goal


def _without_many_unseen(found: faults.Found, notes: list[str]) -> faults.Found:
    """Return what was found; where ONNX Runtime doesn't show much of it, that is told in a note and left out."""
    unseen = [fault.node for fault in found.faults if not fault.measured]
    if len(unseen) <= _UNSEEN:
        return found
    told = "Squares inside these pass FP16's range, and have to be added up in FP32"
    notes.append(f"{told}: {', '.join(unseen)}.")
    return faults.Found(tuple(fault for fault in found.faults if fault.measured), found.benign)


def _hidden(
    case: Conversions, precision: Precision, found: faults.Found, unseen: tuple[Fault, ...]
) -> tuple[faults.Found, Nodes]:
    """Return as `_mended` does what right outputs hide: few faults whose mending helps INT8, or what isn't seen."""
    gross = _gross(found)
    lossy = frozenset(name for fault in gross for name in fault.nodes)
    few = precision == "int8" and 1 <= len(gross) <= _UNSEEN
    if few and share(case.errors(lossy)) < share(case.errors(())) / 2:
        return faults.Found(gross, found.benign), lossy
    return faults.Found(unseen, found.benign), frozenset(fault.node for fault in unseen)


def _growing_sets(search: faults.Search, precision: Precision, found: faults.Found, kept: Nodes) -> Iterator[Nodes]:
    """Yield the nodes to blame, then those before them as well, then the nodes with the largest errors."""
    for _ in range(_ROUNDS):
        yield kept
        kept |= search.before(kept) if precision != "int8" else frozenset()
    yield kept | {name for fault in found.benign for name in search.touching([fault.tensor])}
    count = 1
    while count <= _LARGEST_SET:
        yield kept | set(search.worst(count))
        count *= 2


def _pruned(case: Conversions, kept: Nodes, certain: Nodes, goal: float) -> Nodes:
    """Take away halves, quarters and at last single nodes, as long as the outputs stay right."""
    order = [name for name in case.operators if name in kept - certain]
    size, trials = max(1, len(order) // 2), 0
    while True:
        start, longest = 0, len(order)
        while start < len(order) and trials < _TRIALS:
            fewer = order[:start] + order[start + size :]
            trials += 1
            if share(case.errors(certain | set(fewer))) <= goal:
                order = fewer
            else:
                start += size
        if trials == _TRIALS:
            case.notes.append(f"After {_TRIALS} trials the search for a smaller set of nodes was given up.")
        if trials == _TRIALS or (size == 1 and len(order) == longest):
            return certain | set(order)
        size = max(1, size // 2)


def _headroom(case: Conversions, kept: Nodes) -> Iterator[str]:
    """Say which tensor of the FP16 file comes near the largest number: with other inputs, it may pass it."""
    nodes = [node for node in case.model.graph.node if node.name not in kept]
    in_fp16 = {name for node in nodes for name in (*node.input, *node.output)}
    values = {name: one for name, one in case.values.items() if name in in_fp16}  # in an order of its own
    peaks = {name: np.abs(one).max(initial=0) for name, one in values.items() if one.dtype == np.float32}
    close = {name: peak for name, peak in peaks.items() if FP16.largest / _HEADROOM < peak <= FP16.largest}
    if close:
        worst = max(close, key=close.__getitem__)
        others = f", and so may {len(close) - 1} more" if len(close) > 1 else ""
        yield (
            f"{worst} reaches {close[worst]:,.0f} with these inputs, and FP16 ends at {FP16.largest:,.0f}: "
            f"with others it may pass that{others}. Give inputs with the largest values that you expect."
        )
