"""Where rounding does harm: the error that each node makes by itself, the kind of fault, and the nodes it takes.

A node that passes a wrong tensor on is not the one to blame. Here each node is given the tensors of an exact run,
stored in the low precision (`rounding.with_given_inputs`); its result is compared with that of the exact run. So the
error of each node stands for itself, and one run shows all faults.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx

from tutorial_utils.debug import tensor_errors
from tutorial_utils.debug.rounding import stored
from tutorial_utils.debug.tensor_errors import dot, peak
from tutorial_utils.model import onnx_file, quantization
from tutorial_utils.model.number_formats import BY_NAME, FP16

Precision = Literal["fp16", "bf16", "int8"]
KINDS = {
    "overflow": "overflow: values beyond the largest number of the format",
    "underflow": "underflow: values so small that the format keeps few of their digits, or none",
    "cancellation": "cancellation: large numbers that nearly cancel leave the rounding error of the large ones",
    "layernorm": "sums of a normalization (LayerNorm, RMSNorm): squares beyond the largest number of the format",
    "softmax": "sums of a softmax: exponentials beyond the format, or logits so large that their rounding shows",
    "quantization range": "quantization range: a few large values stretch the 8-bit steps over all others",
    "rounding": "rounding that the operator magnifies",
}
_NORMALIZATIONS = {
    "GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization",
    "SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
}  # fmt: skip
_SUMS = {
    "Add", "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "Einsum", "Gemm", "GlobalAveragePool",
    "MatMul", "ReduceMean", "ReduceSum", "Sub", "Sum", *_NORMALIZATIONS,
}  # fmt: skip
_ON_THE_WAY = {"Add", "Cast", "Clip", "Div", "Identity", "Max", "Mul", "ReduceMean", "ReduceSum", "ReduceSumSquare"}
_TINY_SHARE = 0.05  # of an input's values, from which on their loss is called an underflow


@dataclass(frozen=True)
class Fault:
    """A place where the low precision spoils a tensor that was right."""

    kind: str  # a key of KINDS
    tensor: str  # the first tensor that is wrong
    node: str  # which writes it
    op: str
    error: float  # relative L2 error of the tensor, made of exact inputs; infinite for an overflow
    allowed: float
    what: str  # a sentence with the numbers
    nodes: tuple[str, ...] = field(default=())  # to begin with, when nodes are kept in FP32
    measured: bool = True  # False where ONNX Runtime computes it in FP32, and another program need not


@dataclass(frozen=True)
class Found:
    """All faults in the order of computation, and what looks like one and does no harm."""

    faults: tuple[Fault, ...]
    benign: tuple[Fault, ...]


def relative_error(exact: np.ndarray, found: np.ndarray, floor: float = 0.0) -> float:
    """Return the L2 length of the error over that of the exact values, or over that of as many values of the floor.

    Where both have the same infinity, or both NaN, there is no error; other infinities make it infinite.
    """
    if exact.shape != found.shape:
        return np.inf
    one, other = exact.ravel().astype(np.float64), found.ravel().astype(np.float64)
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        differ = ~((one == other) | (np.isnan(one) & np.isnan(other)))
        if not np.isfinite(other[differ]).all():
            return np.inf
        one, other = np.where(np.isfinite(one), one, 0.0), np.where(differ, other, np.where(np.isfinite(one), one, 0.0))
    error = other - one
    squares = dot(error, error)
    length = max(dot(one, one), floor**2 * one.size) ** 0.5
    return squares**0.5 / length if length else (np.inf if squares else 0.0)


class Search:
    """The search for faults in one model.

    Args:
        model: The FP32 model, whose nodes have different names.
        values: Every tensor of an exact run, and the inputs.
        low: The model that rounds: `rounding.with_rounding` of it, or its INT8 file.
        precision: Of the low model.
    """

    def __init__(
        self, model: onnx.ModelProto, values: Mapping[str, np.ndarray], low: onnx.ModelProto, precision: Precision
    ):
        self._model, self._values, self._precision = model, values, precision
        self._allowed = tensor_errors.tolerance(precision, 1)
        self._weights = tensor_errors.constants(model)
        self._outputs = {value.name for value in model.graph.output}
        self._writers = {name: node for node in model.graph.node for name in node.output if name}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in {*node.input, *onnx_file.captured(node)}:
                self._readers.setdefault(name, []).append(node)
        self._is_float = {name for name, array in values.items() if array.dtype == np.float32}
        exact = {name: stored(array, precision) if name in self._is_float else array for name, array in values.items()}
        local = tensor_errors.nodes_alone(low, exact, "model.onnx")
        self.errors = {
            name: relative_error(values[name], array) if values[name].shape == array.shape else 0.0
            for name, array in local.items()
        }
        rounded = {name: relative_error(values[name], stored(values[name], precision)) for name in self._is_float}
        self._bad = {name: error for name, error in rounded.items() if error > self._allowed}
        self._quantized = {name: node for node in low.graph.node for name in node.output}

    def faults(self) -> Found:
        """Return all faults, and those that the nodes after them take away again."""
        harmless = self._harmless()
        found: list[Fault] = []
        benign: list[Fault] = []
        groups = self._groups({name for name in self._bad if name not in harmless})
        for node in self._model.graph.node:
            if fault := self._sums_of_squares(node):
                found.append(fault)
            for name in node.output:
                if name in harmless and not any(one in self._bad for one in node.input):
                    benign.append(self._stored_badly(name, node, ()))
                elif name in groups:
                    found.append(self._stored_badly(name, node, groups[name]))
                elif self._is_born(node, name):
                    found.append(self._computed_badly(name, node))
        inputs = [value.name for value in self._model.graph.input]
        first = [self._stored_badly(name, None, groups[name]) for name in inputs if name in groups]
        return Found((*first, *found), tuple(benign))

    def _is_born(self, node: onnx.NodeProto, name: str) -> bool:
        """Return whether the error of a tensor comes from this node and neither from its inputs nor from storing it."""
        return (
            self.errors.get(name, 0.0) > self._allowed
            and name not in self._bad
            and not any(one in self._bad for one in node.input)
        )

    def _harmless(self) -> set[str]:
        """Return the badly stored tensors that all readers make good results of, as softmax does of a mask of -inf."""
        harmless: set[str] = set()
        for name in (*reversed(tensor_errors.tensor_names(self._model)), *(v.name for v in self._model.graph.input)):
            if name in self._bad and name not in self._outputs:
                results = [
                    one
                    for node in self._readers.get(name, ())
                    for one in (node.output if name in node.input else ["/a body, of which nothing is known"])
                ]
                if all(one in harmless or self._is_good(one) for one in results if one):
                    harmless.add(name)
        return harmless

    def _is_good(self, name: str) -> bool:
        if name in self._values and name not in self._is_float:
            return True
        return name not in self._bad and self.errors.get(name, np.inf) <= self._allowed

    def _groups(self, bad: set[str]) -> dict[str, tuple[str, ...]]:
        """Return for the first of each group of connected badly stored tensors the nodes that touch the group."""
        before: dict[str, str] = {}  # of each tensor, one of its group that is computed before it; of the first, itself

        def first_of(name: str) -> str:
            while before[name] != name:
                name = before[name] = before[before[name]]
            return name

        order = [value.name for value in self._model.graph.input if value.name in bad]
        order += [name for name in tensor_errors.tensor_names(self._model) if name in bad]
        place = {name: index for index, name in enumerate(order)}
        for name in order:
            node = self._writers.get(name)
            joined = {name, *(first_of(one) for one in (node.input if node else ()) if one in before)}
            before.update(dict.fromkeys(joined, min(joined, key=place.__getitem__)))
        members: dict[str, list[str]] = {}
        for name in order:
            members.setdefault(first_of(name), []).append(name)
        return {first: self.touching(names) for first, names in members.items()}

    def touching(self, names: list[str]) -> tuple[str, ...]:
        """Return the nodes that write or read one of these tensors: all of them must work in FP32 for it to be FP32.

        Of an If, Loop or Scan that writes one, all nodes of its bodies are among them.
        """
        nodes = [inner for name in names if name in self._writers for inner in _with_bodies(self._writers[name])]
        nodes += [node for name in names for node in self._readers.get(name, ())]
        bodies = [body for node in nodes for body in onnx_file.subgraphs(node)]
        inner = [node for body in bodies for graph in onnx_file.graphs(body) for node in graph.node]
        wanted = set(names)
        nodes += [node for node in inner if not wanted.isdisjoint(node.input)]
        return tuple(dict.fromkeys(node.name for node in nodes if node.op_type != "Constant"))

    def within(self, fault: Fault, nodes: Collection[str]) -> Fault:
        """Return the fault at its first badly stored tensor that one of these nodes writes: a mask may come before."""
        for node in self._model.graph.node:
            if node.name in nodes and node.name in fault.nodes:
                for name in node.output:
                    if name in self._bad:
                        return self._stored_badly(name, node, fault.nodes)
        return fault

    def before(self, nodes: set[str]) -> set[str]:
        """Return the nodes that write what these nodes read, those that compute numbers."""
        reads = {name for node in self._model.graph.node if node.name in nodes for name in node.input}
        return {self._writers[name].name for name in reads & self._writers.keys() & self._is_float}

    def worst(self, count: int) -> list[str]:
        """Return the nodes with the largest errors of their own."""
        names = [name for name in self.errors if np.isfinite(self.errors[name])]
        return [self._home(name) for name in sorted(names, key=lambda one: -self.errors[one])[:count]]

    def largest(self, nodes: Collection[str]) -> list[Fault]:
        """Return the largest error of one of these nodes as a fault."""
        for name in sorted(self.errors, key=lambda one: -self.errors[one]):
            if self._home(name) in nodes:
                return [self._computed_badly(name, self._writers[name])]
        return []

    def _home(self, name: str) -> str:
        """Return the name of the node that writes a tensor; in the INT8 file, where batch norms are folded."""
        return (self._quantized if self._precision == "int8" else self._writers)[name].name.removesuffix(
            quantization.FUSED
        )

    # --- what kind of fault ------------------------------------------------------------------------------------------

    def _stored_badly(self, name: str, node: onnx.NodeProto | None, nodes: tuple[str, ...]) -> Fault:
        values, stores = self._values[name], self._precision.upper()
        op = node.op_type if node else "input"
        if np.isfinite(stored(values, self._precision)).all():
            kind = "underflow"
            what = f"has a largest value of {peak(values):.2g}, of which {stores} keeps too few digits"
        else:
            largest = BY_NAME[self._precision].largest
            kind, what = "overflow", f"reaches {peak(values):,.6g}, and {stores} ends at {largest:,.6g}"
            if node is not None and self._is_square(node) and self._leads_to_a_root(name):
                kind = "layernorm"
            elif op == "Exp" or (op == "ReduceSum" and self._op_before(node) == "Exp"):
                kind = "softmax"
        error = self._bad[name]
        return Fault(kind, name, node.name if node else name, op, error, self._allowed, f"{name} {what}.", nodes)

    def _computed_badly(self, name: str, node: onnx.NodeProto) -> Fault:
        error, op, home, stores = self.errors[name], node.op_type, self._home(name), self._precision.upper()
        if self._precision == "int8":
            return Fault("quantization range", name, home, op, error, self._allowed, self._range(node), (home,))
        weights = {one: self._weights[one] for one in node.input if one in self._weights}
        bad = [
            one
            for one, array in weights.items()
            if array.dtype == np.float32 and relative_error(array, stored(array, self._precision)) > self._allowed
        ]
        read = [one for one in node.input if one in self._is_float]
        tiny = [one for one in read if self._precision == "fp16" and self._share_of_tiny(one) > _TINY_SHARE]
        largest = max((peak(self._values[one]) for one in read), default=0.0)
        nodes = {*(one.name for one in _with_bodies(node)), *self.before({node.name})}
        if bad:
            kind = "underflow" if np.isfinite(stored(weights[bad[0]], self._precision)).all() else "overflow"
            what = f"The weight {bad[0]} reaches {peak(weights[bad[0]]):.3g}, which {stores} can't hold"
            nodes = {node.name}
        elif np.isinf(error):
            kind, what = "overflow", f"Inside {op}, numbers pass the largest one of {stores}"
        elif tiny:
            kind = "underflow"
            what = f"{self._share_of_tiny(tiny[0]):.0%} of {tiny[0]} lies below {FP16.smallest_normal:.1e}, and counts"
        elif op in ("Softmax", "LogSoftmax", "Exp"):
            kind, what = "softmax", f"The logits reach {largest:,.4g}, and their rounding shows in the exponentials"
        else:
            kind = "cancellation" if op in _SUMS else "rounding"
            what = f"{op} makes values of up to {peak(self._values[name]):,.4g} from values of up to {largest:,.4g}"
        what = f"{what}: {name} is off by {error:.1e}, where {self._allowed:.1e} is allowed."
        return Fault(kind, name, node.name, op, error, self._allowed, what, tuple(sorted(nodes)))

    def _sums_of_squares(self, node: onnx.NodeProto) -> Fault | None:
        """Return the fault of a normalization whose squares overflow inside it, where no tensor shows it."""
        name, op = node.input[0] if node.input else "", node.op_type
        if self._precision != "fp16" or op not in _NORMALIZATIONS or name not in self._is_float or name in self._bad:
            return None
        values = self._values[name].astype(np.float64)
        axis = next((one.i for one in node.attribute if one.name == "axis"), -1) % values.ndim
        axes = tuple(range(2 if op in ("GroupNormalization", "InstanceNormalization") else axis, values.ndim))
        if "Simplified" not in op and not op.startswith("RMS"):
            values = values - values.mean(axes, keepdims=True)
        farthest = peak(values)
        if not FP16.largest < farthest**2 < np.inf:
            return None
        what = (
            f"{name} lies up to {farthest:,.4g} from its mean, so that squares inside {op} reach {farthest**2:,.4g}; "
            f"FP16 ends at {FP16.largest:,.0f}. ONNX Runtime adds them up in FP32: this is computed and not measured."
        )
        return Fault("layernorm", node.output[0], node.name, op, np.inf, self._allowed, what, (node.name,), False)

    def _range(self, node: onnx.NodeProto) -> str:
        parts = []
        for name in node.input[:2]:
            values = self._values.get(name, self._weights.get(name))
            if values is not None and values.size and values.dtype == np.float32:
                times = peak(values) / (float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) or 1.0)
                parts.append(f"{name} reaches {peak(values):,.4g}, {times:,.0f} times its root mean square")
        return f"{'; '.join(parts)}: steps of an 8-bit range of that size lose the small values."

    def _is_square(self, node: onnx.NodeProto) -> bool:
        reads_twice = node.op_type == "Mul" and len(set(node.input)) == 1
        return reads_twice or node.op_type == "Pow" or node.op_type.startswith("Reduce")

    def _leads_to_a_root(self, name: str) -> bool:
        """Return whether a mean and then a square root follow, as in a normalization that is made of several nodes."""
        waiting, seen = [(name, self._writers[name].op_type.startswith("Reduce"), 0)], set()
        while waiting:
            tensor, reduced, steps = waiting.pop()
            for node in self._readers.get(tensor, ()) if steps < 6 else ():
                if node.op_type in ("Sqrt", "Pow", "Reciprocal") and reduced:
                    return True
                if node.op_type in _ON_THE_WAY and (node.name, reduced) not in seen:
                    seen.add((node.name, reduced))
                    waiting.append((node.output[0], reduced or node.op_type.startswith("Reduce"), steps + 1))
        return False

    def _op_before(self, node: onnx.NodeProto) -> str:
        return self._writers[node.input[0]].op_type if node.input[0] in self._writers else ""

    def _share_of_tiny(self, name: str) -> float:
        values = np.abs(self._values[name])
        return float(np.mean((values > 0) & (values < FP16.smallest_normal))) if values.size else 0.0


def _with_bodies(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    inner = [graph for body in onnx_file.subgraphs(node) for graph in onnx_file.graphs(body)]
    return [node, *(one for graph in inner for one in graph.node)]
