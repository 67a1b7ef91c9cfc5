"""The FP32 tensors of an ONNX graph in FP16 or BF16 wherever an operator takes that, and the casts in between.

What may be narrow is read from the operators' own definitions, so that no list of operators has to be kept. Every
graph, the bodies of If, Loop and Scan among them, keeps the types of its inputs and outputs.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

import ml_dtypes
import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tutorial_utils.base.errors import PrecisionError
from tutorial_utils.model import onnx_file
from tutorial_utils.model.number_formats import BF16, FP16

FLOAT = TensorProto.FLOAT
_FORMATS = {TensorProto.FLOAT16: (FP16, np.float16), TensorProto.BFLOAT16: (BF16, ml_dtypes.bfloat16)}
_TYPE_NAMES = {TensorProto.FLOAT16: "tensor(float16)", TensorProto.BFLOAT16: "tensor(bfloat16)"}
# Running sums and spectra lose too much in 16 bits; the region of Resize says where to read, as its scales do.
_FP32_OPERATORS = {"CumSum", "DFT", "STFT"}
_FP32_INPUTS = {("Resize", 1)}
_ANY_TYPE = {"Cast", "Shape", "Size"}  # the type of what they read makes no difference
# Operators for which a constant beyond the range says "as small (large) as can be", and those in which one may say so.
_BOUNDS, _MASKS = {"Where", "Clip", "Min", "Max", "Pad"}, {"Add", "Sub", "Mul"}
_BARE_NUMBERS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
_MASK_FROM = 1e9  # no network multiplies by, or adds, so much to compute with it


class Narrowing:
    """One conversion of a model, whose types and constants it reads once.

    Args:
        model: The FP32 model, with names for all nodes. `apply` changes it.
        half: ``TensorProto.FLOAT16`` or ``BFLOAT16``.
        kept: Names of nodes that go on computing in FP32.
    """

    def __init__(self, model: onnx.ModelProto, half: int, kept: Collection[str]):
        self.model, self.half, self.kept = model, half, kept
        _plain_constants(model)
        self.opsets = {one.domain.replace("ai.onnx", "") or "": one.version for one in model.opset_import}
        graphs = list(onnx_file.graphs(model.graph))
        self.types = _tensor_types(model)  # of each graph, in the same order
        self.constants = {name for graph in graphs for name in onnx_file.constants(graph)}
        self.sizes = _computed_from_sizes(graphs, self.constants)
        self.too_large: dict[str, tuple[float, list[str]]] = {}  # weights, how far they reach, and what reads them
        self.names = {name for graph in graphs for node in graph.node for name in (*node.input, *node.output)}
        self.readers: dict[str, dict[int, list[NodeProto]]] = defaultdict(lambda: defaultdict(list))
        for graph, types in zip(graphs, self.types, strict=True):
            for node in graph.node:
                narrow, _ = self._narrow(node, types)
                for name, is_narrow in zip(node.input, narrow, strict=True):
                    self.readers[name][half if is_narrow else FLOAT].append(node)
            for output in graph.output:
                self.readers[output.name][FLOAT] = []

    def apply(self) -> None:
        """Convert the model in place.

        Raises:
            PrecisionError: A weight is NaN, or beyond the largest FP16 number where that number doesn't mean the same.
        """
        self._convert(self.model.graph, {}, iter(self.types))
        if self.too_large:
            name, (largest, _) = next(iter(self.too_large.items()))
            others = f" (and {len(self.too_large) - 1} more)" if len(self.too_large) > 1 else ""
            readers = sorted({reader for _, readers in self.too_large.values() for reader in readers})
            raise PrecisionError(
                f"The weight {name}{others} reaches {largest:,.0f}, and FP16 ends at {FP16.largest:,.0f}.",
                f"Keep the nodes that read it in FP32: keep_fp32={readers}.",
            )

    def _narrow(self, node: NodeProto, types: Mapping[str, int]) -> tuple[list[bool], list[bool]]:
        """Return for each input and output of a node whether it is 16 bits wide in the converted model."""
        inputs, outputs = [False] * len(node.input), [False] * len(node.output)
        floats = [index for index, name in enumerate(node.input) if types.get(name) == FLOAT]
        is_kept = node.name in self.kept or node.op_type in _FP32_OPERATORS
        if is_kept or (node.output and node.output[0] in self.sizes):
            return inputs, outputs
        if node.op_type == "Cast":
            return inputs, [types.get(node.output[0]) == FLOAT]
        schema = _schema(node, self.opsets)
        if schema is None:
            return inputs, outputs
        narrow_kinds = set()  # names of types, such as T, that the inputs make narrow
        for index in floats:
            parameter = schema.inputs[min(index, len(schema.inputs) - 1)]  # the last may stand for many
            if _TYPE_NAMES[self.half] in parameter.types and (node.op_type, index) not in _FP32_INPUTS:
                inputs[index] = True
                narrow_kinds.add(parameter.type_str)
        for index, name in enumerate(node.output):
            if types.get(name) == FLOAT:
                kind = schema.outputs[min(index, len(schema.outputs) - 1)].type_str
                outputs[index] = kind in narrow_kinds
                if not outputs[index] and not kind.startswith("tensor("):  # an attribute decides, as of random numbers
                    return [False] * len(node.input), [False] * len(node.output)
        return inputs, outputs

    def _convert(
        self, graph: onnx.GraphProto, outside: Mapping[str, Mapping[int, str]], all_types: Iterator[Mapping[str, int]]
    ) -> None:
        """Convert a graph, given the tensors outside of it: each one's names, by type."""
        types = next(all_types)
        tensors = {name: dict(versions) for name, versions in outside.items()}
        tensors |= {value.name: {types.get(value.name, 0): value.name} for value in graph.input}
        for name, constant in onnx_file.constants(graph).items():
            if constant.data_type == FLOAT:
                tensors[name] = self._convert_constant(graph, name, constant)
        outputs, nodes = {value.name for value in graph.output}, []
        for node in graph.node:
            narrow_inputs, narrow_outputs = self._narrow(node, types)
            nodes += self._casts_before(node, narrow_inputs, types, tensors)
            for inner in onnx_file.subgraphs(node):
                self._convert(inner, tensors, all_types)
            if node.op_type == "Cast" and narrow_outputs[0]:
                next(one for one in node.attribute if one.name == "to").i = self.half
            nodes.append(node)
            for index, name in enumerate(node.output):
                if types.get(name) != FLOAT or node.op_type == "Constant":
                    continue
                tensors[name] = {self.half if narrow_outputs[index] else FLOAT: name}
                if narrow_outputs[index] and name in outputs:
                    node.output[index] = self._new_name(f"{node.name}_cast_to_{name}")
                    tensors[name] = {self.half: node.output[index], FLOAT: name}
                    nodes.append(helper.make_node("Cast", [node.output[index]], [name], node.output[index], to=FLOAT))
        for value in graph.value_info:
            if tensors.get(value.name, {}).get(self.half) == value.name:
                value.type.tensor_type.elem_type = self.half
        onnx_file.replace_nodes(graph, nodes)

    def _casts_before(
        self, node: NodeProto, narrow: list[bool], types: Mapping[str, int], tensors: dict[str, dict[int, str]]
    ) -> list[NodeProto]:
        """Let a node read its inputs in the types that it takes, and return the casts that this needs."""
        casts = []
        for index, name in enumerate(node.input):
            if types.get(name) != FLOAT:
                continue
            versions = tensors[name]
            wanted = self.half if narrow[index] else FLOAT
            if node.op_type in _ANY_TYPE:
                wanted = next(iter(versions))
            if wanted not in versions:
                source = next(iter(versions.values()))
                versions[wanted] = self._new_name(f"{source}_cast_to_{node.name}")
                casts.append(helper.make_node("Cast", [source], [versions[wanted]], versions[wanted], to=wanted))
            node.input[index] = versions[wanted]
        return casts

    def _convert_constant(self, graph: onnx.GraphProto, name: str, constant: TensorProto) -> dict[int, str]:
        """Make a constant what its readers want, under its own name where they agree; return its names by type."""
        original, readers = name, self.readers[name]
        if self.half not in readers:
            return {FLOAT: name}
        narrow = self._rounded(name, numpy_helper.to_array(constant), readers[self.half])
        if FLOAT in readers:
            name = self._new_name(f"{name}_{_FORMATS[self.half][0].dtype}")
            constant = graph.initializer.add(name=name, dims=constant.dims)
        constant.ClearField("float_data")
        constant.data_type, constant.raw_data = self.half, narrow.tobytes()
        return {self.half: name, **({FLOAT: original} if FLOAT in readers else {})}

    def _rounded(self, name: str, values: np.ndarray, readers: list[NodeProto]) -> np.ndarray:
        """Round a constant to 16 bits. What isn't 0 doesn't become 0: it may be what keeps a division from it."""
        number, dtype = _FORMATS[self.half]
        low, high = values.min(initial=0), values.max(initial=0)
        if np.isnan(low):
            raise PrecisionError(
                f"The weight {name} holds NaN (not a number).", "Export the model again, from intact weights."
            )
        if max(-low, high) > number.largest:
            finite = np.abs(values[np.isfinite(values)])
            beyond = np.unique(finite[finite > number.largest])
            refusing = [node.name for node in readers if not _means_a_bound(node, beyond)]
            if beyond.size and refusing and self.half == TensorProto.FLOAT16:
                self.too_large[name] = float(beyond[-1]), refusing
            values = np.where(np.isinf(values), values, np.clip(values, -number.largest, number.largest))
        narrow = values.astype(dtype)
        vanished = (narrow == 0) & (values != 0)
        narrow[vanished] = np.copysign(number.smallest, values[vanished]).astype(dtype)
        return narrow

    def _new_name(self, name: str) -> str:
        while name in self.names:
            name += "_"
        self.names.add(name)
        return name


def _plain_constants(model: onnx.ModelProto) -> None:
    """Let each Constant node hold a tensor instead of bare numbers, and each initializer be one, and no input."""
    for graph in onnx_file.graphs(model.graph):
        for node in graph.node:
            for attribute in node.attribute if node.op_type == "Constant" else ():
                if attribute.name in _BARE_NUMBERS:
                    values = np.array(helper.get_attribute_value(attribute), _BARE_NUMBERS[attribute.name])
                    attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(values)))
    onnx_file.fix_weights(model)


def _means_a_bound(node: NodeProto, beyond: np.ndarray) -> bool:
    """Say whether magnitudes beyond the range are a mask's or a bound: the largest number says the same."""
    return node.op_type in _BOUNDS or (node.op_type in _MASKS and beyond.size == 1 and beyond[0] >= _MASK_FROM)


def _computed_from_sizes(graphs: list[onnx.GraphProto], constants: Collection[str]) -> set[str]:
    """Return the tensors that follow from shapes alone: sizes of Resize, positions, ends of a Range.

    They are few, and 16 bits can't hold a size or a position above 2,048.
    """
    sizes: set[str] = set()
    for graph in graphs:  # an outer graph stands before those in its nodes
        for node in graph.node:
            inputs = {name for name in node.input if name}
            derived = inputs & sizes or node.op_type == "Range"
            if node.op_type in ("Shape", "Size") or (derived and inputs <= sizes | constants):
                sizes.update(node.output)
    return sizes


def _schema(node: NodeProto, opsets: Mapping[str, int]) -> "onnx.defs.OpSchema | None":
    """Return the definition of a node's operator. None for what stays in FP32.

    That is what ONNX doesn't define, such as ONNX Runtime's own operators, and what works on subgraphs and sequences.
    """
    domain = node.domain.replace("ai.onnx", "") if node.domain in ("", "ai.onnx") else node.domain
    if any(True for _ in onnx_file.subgraphs(node)):
        return None
    try:
        found = onnx.defs.get_schema(node.op_type, opsets.get(domain, 1), domain)
    except onnx.defs.SchemaError:
        return None
    for one in (*found.inputs, *found.outputs):
        if not any(kind.startswith("tensor") for kind in one.types):
            return None  # a sequence, an optional or a map
    return found


def _tensor_types(model: onnx.ModelProto) -> list[dict[str, int]]:
    """Add what ONNX infers about tensors to the model's ``value_info``.

    Returns:
        For each graph, as `onnx_file.graphs` gives them, the element types of its tensors and of those outside. Two
        graphs may have tensors of one name.
    """
    declared = [onnx.ValueInfoProto.FromString(output.SerializeToString()) for output in model.graph.output]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model)
    for output, before, found in zip(model.graph.output, declared, inferred.graph.output, strict=True):
        shape = found.type.tensor_type  # the checker refuses a wrong rank, of which runtimes only warn
        is_other = len(shape.shape.dim) != len(before.type.tensor_type.shape.dim)
        output.CopyFrom(found if shape.HasField("shape") and is_other else before)
    return list(_types_of(model.graph, inferred.graph, _types_by_running(model, inferred.graph)))


def _types_of(
    graph: onnx.GraphProto, inferred: onnx.GraphProto, outside: Mapping[str, int]
) -> Iterator[dict[str, int]]:
    types = {**outside, **{name: one.data_type for name, one in onnx_file.constants(graph).items()}}
    types |= {value.name: kind for value in _values(inferred) if (kind := value.type.tensor_type.elem_type)}
    del graph.value_info[:]
    graph.value_info.extend(inferred.value_info)
    yield types
    for node, found in zip(graph.node, inferred.node, strict=True):
        for inner, inferred_inner in zip(onnx_file.subgraphs(node), onnx_file.subgraphs(found), strict=True):
            yield from _types_of(inner, inferred_inner, types)


def _values(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    return [*graph.input, *graph.value_info, *graph.output]


def _types_by_running(model: onnx.ModelProto, inferred: onnx.GraphProto) -> dict[str, int]:
    known = {"", *(value.name for value in _values(inferred) if value.type.WhichOneof("value"))}
    unknown = {name for node in model.graph.node for name in node.output} - known
    return dict.fromkeys(onnx_file.float_tensors(model, unknown), FLOAT) if unknown else {}
