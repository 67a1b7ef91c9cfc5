"""What differs between two runs of a network, by how much, and where first: every tensor, in the order of computation.

FP16 and BF16 are computed on a CPU with each rounding written down: see `rounding`.
"""

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import onnx

from tutorial_utils.base.errors import InputError, PrecisionError
from tutorial_utils.debug.rounding import with_given_inputs, with_rounding
from tutorial_utils.model import onnx_file
from tutorial_utils.model.number_formats import BY_NAME
from tutorial_utils.model.onnx_file import captured

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["fp32", "tf32", "fp16", "bf16", "int8"]
# An 8-bit step is a fraction of a tensor's largest value, some 4 times the usual one; its root mean square error is
# 1/sqrt(3) of its largest.
_PEAK_TO_USUAL = 4 / 3**0.5
_LAYERS = {
    "BatchNormalization", "Conv", "ConvTranspose", "Gemm", "GroupNormalization", "InstanceNormalization",
    "LayerNormalization", "MatMul", "Mul",
}  # fmt: skip
# Operators whose outputs ONNX Runtime won't give: constants, and sequences of tensors.
_NO_TENSORS = {
    "Constant", "Optional", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceMap",
    "SplitToSequence", "ZipMap",
}  # fmt: skip
_SAME_VALUES = {"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}  # in another shape
_DATA = {"Gather": slice(1), "Where": slice(1, None)}  # inputs that a scale comes from: not indices and conditions
_BOUNDED = {"Clip", "HardSigmoid", "Sigmoid", "Softmax", "Tanh"}  # whatever scale comes in, it ends here


def machine_epsilon(dtype: Format) -> float:
    """Return the distance from 1 to the next larger number of a format. Rounding errs by half of it at most.

    Raises:
        PrecisionError: The format is unknown.
    """
    if dtype not in get_args(Format):
        raise PrecisionError(f"There is no format {dtype!r}.", f"Choose one of {', '.join(get_args(Format))}.")
    return BY_NAME[dtype].epsilon


def tolerance(dtype: Format, depth: int) -> float:
    """Return the relative L2 error that rounding may leave after a number of operations.

    Each operation rounds its result, by half the machine epsilon at most. Errors of independent sign add up as a random
    walk does, with the square root of their number (`depths`). Four times that is allowed, which makes twice the
    epsilon: layers also magnify the error of what they are given. For INT8 count the quantized operations alone.
    """
    usual = _PEAK_TO_USUAL if dtype == "int8" else 1
    return 2 * usual * machine_epsilon(dtype) * max(depth, 1) ** 0.5


def tolerances(trusted: "Iterable[pd.DataFrame]", dtype: Format = "fp16") -> "pd.Series":
    """Return for each tensor three times the largest relative L2 error that a trusted model of this format made.

    An error below a quarter of the machine epsilon, which is about what one rounding leaves, counts as so much.

    Args:
        trusted: What `compare` returned for a model that is known to be sound, on some inputs.
        dtype: Its format.
    """
    import pandas as pd

    largest = pd.concat([table["rel_l2"] for table in trusted], axis="columns").max(axis="columns")
    return 3 * largest.clip(lower=machine_epsilon(dtype) / 4)


def depths(model: onnx.ModelProto, counted: Collection[str] | None = None) -> dict[str, int]:
    """Return for each tensor how many operations lie on the longest way to it from the input.

    Only operators of the types ``counted`` count, or all.
    """
    return _depths(model.graph, counted, {})


def _depths(graph: onnx.GraphProto, counted: Collection[str] | None, outside: Mapping[str, int]) -> dict[str, int]:
    found = dict(outside)
    for node in graph.node:  # ONNX wants them in topological order
        depth = int(counted is None or node.op_type in counted)
        depth += max((found.get(name, 0) for name in (*node.input, *captured(node))), default=0)
        for body in onnx_file.subgraphs(node):
            inner = _depths(body, counted, found | {value.name: depth for value in body.input})
            depth = max(depth, *(inner.get(value.name, 0) for value in body.output))
        found.update(dict.fromkeys(node.output, depth))
    return found


def joined(model: onnx.ModelProto, name: str) -> list[str]:
    """Return the tensors that a Concat joins to this one, if any: large boxes would hide the error of small scores."""
    writers = {output: node for node in model.graph.node for output in node.output}
    parts, waiting, is_joined, seen = [], [name], False, set()
    while waiting:
        tensor = waiting.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        node = writers.get(tensor)
        if node is not None and node.op_type == "Concat":
            is_joined = True
            waiting += node.input
        elif node is not None and node.op_type in _SAME_VALUES:
            waiting.append(node.input[0])
        elif node is not None:
            parts.append(tensor)
    return parts if is_joined else []


def all_outputs(
    onnx_path: str | Path, feeds: Mapping[str, np.ndarray], stored_as: Literal["fp16", "bf16"] | None = None
) -> dict[str, np.ndarray]:
    """Run a model with ONNX Runtime and return every tensor between two nodes, and the outputs.

    Graph optimization is off and every rounding is written down (`with_rounding`), so that tensors are what the file
    says. Tensors of type FP16 come back as float32 arrays of FP16 values.

    Args:
        onnx_path: The model. Its inputs and outputs are FP32.
        feeds: One array for each input, by name.
        stored_as: Round all weights and tensors of an FP32 model to this format; otherwise only what the model says.

    Raises:
        ModelFileError: The model is missing, damaged, or ONNX Runtime can't load it.
        InputError: The feeds don't fit the model, or its operators refuse their shape.
    """
    model = onnx_file.load(onnx_path)
    return run(with_rounding(model, stored_as), feeds, Path(onnx_path).name, tensor_names(model))


def each_node(onnx_path: str | Path, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run each node of a model by itself, on the tensors of an exact run, and return what it makes of them.

    So the error of a tensor is that of its own node: those before it, and their rounding, don't add to it.

    Args:
        onnx_path: The model, with FP16 or BF16 tensors or without. Its roundings are written down (`with_rounding`).
        values: Every tensor of the exact run, from `all_outputs` of the FP32 model, and the inputs.

    Returns:
        The tensors that both models compute in floating point, under their names.

    Raises:
        ModelFileError, InputError: As for `all_outputs`.
    """
    return nodes_alone(with_rounding(onnx_file.load(onnx_path)), values, Path(onnx_path).name)


def nodes_alone(model: onnx.ModelProto, values: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Do what `each_node` does for a model that has its roundings written down; the name is that of its file."""
    read = {one for node in model.graph.node for one in node.input}
    given = {one: array for one, array in values.items() if one in read and array.dtype == np.float32 and array.size}
    cut = with_given_inputs(model, {one: array.ndim for one, array in given.items()})
    feeds = {value.name: values[value.name] for value in model.graph.input if value.name in values}
    feeds |= {f"{one}/given": array for one, array in given.items()}
    written = {one for node in model.graph.node for one in node.output}
    wanted = [one for one, array in values.items() if one in written and array.dtype == np.float32]
    return run(cut, feeds, name, wanted)


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return the values of a model's weights by name, whether they are initializers or Constant nodes."""
    return {name: onnx_file.array_of(tensor) for name, tensor in onnx_file.constants(model.graph).items()}


def tensor_names(model: onnx.ModelProto) -> list[str]:
    """Return the tensors that nodes compute, in their order, without constants and what is a sequence and no tensor."""
    nodes = [node for node in model.graph.node if node.op_type not in _NO_TENSORS]
    return list(dict.fromkeys(name for node in nodes for name in node.output if name))


def run(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], name: str, tensors: Iterable[str]
) -> dict[str, np.ndarray]:
    """Run a model with ONNX Runtime as it is, without optimization, and return some of its tensors.

    Args:
        model: It is changed: its outputs become these tensors.
        feeds: One array for each input, by name.
        name: Of the model's file, for messages.
        tensors: Names of tensors.

    Raises:
        ModelFileError: ONNX Runtime can't load the model.
        InputError: The feeds don't fit the model, or its operators refuse their shape or values.
    """
    from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

    graph = model.graph
    wanted = list(tensors)
    if not wanted:  # as of a model whose every operator stays in FP32
        return {}
    del graph.output[:]
    graph.output.extend(onnx.helper.make_empty_tensor_value_info(one) for one in wanted)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        onnx.save(model, path, save_as_external_data=onnx_file.weight_bytes(model) > onnx_file.LARGEST)
        runner = OnnxRuntimeRunner(path, optimize=False)
    found = runner.infer(feeds)
    return {one: found[one] for one in wanted}


def compare(reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray]) -> "pd.DataFrame":
    """Compare two runs tensor by tensor. Those that only the candidate has, such as those of added casts, are left out.

    Returns:
        One row per tensor of the reference, under its name: ``max_abs`` and ``max_rel``, the largest absolute and
        relative error of an element (relative where the reference isn't 0); ``rel_l2``, the length of the error over
        that of the reference; ``cosine`` of the angle between the two; ``psnr``, the ratio of the reference's peak to
        the root mean square error in dB; ``peak_ref`` and ``peak``, the largest magnitudes; ``inf`` and ``nan``, how
        many elements of the candidate are so. Where any is, the errors are infinite, and cosine and PSNR are NaN.

    Raises:
        InputError: The runs have different tensors, or tensors of different shapes.
    """
    import pandas as pd

    if missing := [name for name in reference if name not in candidate]:
        raise InputError(
            f"{len(missing)} of {len(reference)} tensors are missing in the second run: {', '.join(missing[:3])}.",
            "Compare what both have: {name: reference[name] for name in reference if name in candidate}.",
        )
    for name, values in reference.items():
        shape, other = np.shape(values), np.shape(candidate[name])
        if shape != other:
            cause = f"The tensor {name} has the shape {shape} in one run and {other} in the other."
            raise InputError(cause, "Run both models on the same input.")
    rows = {name: _differences(np.asarray(values), np.asarray(candidate[name])) for name, values in reference.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("tensor")


def _differences(reference: np.ndarray, candidate: np.ndarray) -> dict[str, float]:
    one, other = reference.ravel().astype(np.float64), candidate.ravel().astype(np.float64)
    row = {
        "max_abs": np.inf, "max_rel": np.inf, "rel_l2": np.inf, "cosine": np.nan, "psnr": np.nan,
        "peak_ref": peak(one), "peak": peak(other),
        "inf": int(np.isinf(other).sum()), "nan": int(np.isnan(other).sum()),
    }  # fmt: skip
    if not one.size:  # as from a detector that found nothing: equal
        return row | {"max_abs": 0.0, "max_rel": 0.0, "rel_l2": 0.0, "psnr": np.inf}
    if not np.isfinite([row["peak_ref"], row["peak"]]).all():
        return row
    error = np.abs(other - one)
    squares = dot(error, error)
    lengths = np.sqrt(dot(one, one)), np.sqrt(dot(other, other))
    sizes = np.abs(one)
    sizes[sizes == 0] = np.inf  # nothing is relative to 0
    with np.errstate(divide="ignore", invalid="ignore"):
        row["max_abs"] = error.max()
        row["max_rel"] = (error / sizes).max()
        row["rel_l2"] = np.sqrt(squares) / lengths[0] if squares else 0.0
        row["cosine"] = dot(one, other) / (lengths[0] * lengths[1])
        row["psnr"] = 20 * np.log10(row["peak_ref"] / np.sqrt(squares / one.size))
    return row


def dot(one: np.ndarray, other: np.ndarray) -> float:
    """Return the inner product on one thread. BLAS would start several for each tensor, and take ten times as long."""
    return float(np.einsum("i,i->", one, other))


def peak(values: np.ndarray) -> float:
    """Return the largest magnitude, 0 of no values; NaN where a value is."""
    return float(np.abs(values).max(initial=0))


def first_bad(table: "pd.DataFrame", rel_l2: "float | pd.Series" = np.inf) -> str | None:
    """Return the first tensor of what `compare` returned that holds Inf or NaN, became 0, or errs too much; or None.

    The tolerance is one for the relative L2 errors of all tensors, or one for each by name.
    """
    vanished = (table["peak"] == 0) & (table["peak_ref"] > 0)
    bad = (table["inf"] > 0) | (table["nan"] > 0) | vanished | (table["rel_l2"] > rel_l2)
    return bad.idxmax() if bad.any() else None


def layers_behind(model: onnx.ModelProto, tensor: str, values: Mapping[str, np.ndarray]) -> "pd.DataFrame":
    """Find where the scale of a tensor comes from: the nearest layers with weights that it is computed from.

    An overflow shows where a sum or product passes the limit, which may be a node without weights.

    Args:
        values: Every tensor in FP32, from `all_outputs`, and the inputs.

    Returns:
        One row per layer, under its name, the largest output first: its operator ``op``, the name of its ``weight``,
        the largest magnitudes ``weight_peak``, ``input_peak`` and ``output_peak``, and the ``gain``, output over input.
        An embedding, which reads indices, has neither input peak nor gain.
        An input of the model from which no layer leads to the tensor has a row as well, with ``op`` "input" and gain 1.

    Raises:
        InputError: The model has no such tensor.
    """
    import pandas as pd

    writers = {name: node for node in model.graph.node for name in node.output}
    if tensor not in writers:
        raise InputError(f"The model computes no tensor {tensor}.", "Give a name from the model's nodes.")
    weights = constants(model)
    rows = {}
    for name in _sources(tensor, writers, weights.keys()):
        node = writers.get(name)
        if node is None and name in values:
            rows[name] = "input", "", np.nan, peak(values[name]), peak(values[name])
        elif node is not None:
            own = next(one for one in node.input if one in weights)
            numbers = [one for one in node.input if one in values and node.op_type != "Gather"]  # which reads indices
            read = max((peak(values[one]) for one in numbers), default=np.nan)
            rows[node.name or name] = node.op_type, own, peak(weights[own]), read, peak(values[name])
    columns = ["op", "weight", "weight_peak", "input_peak", "output_peak"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("layer")
    table["gain"] = table["output_peak"] / table["input_peak"]  # NaN where both are 0
    return table.sort_values("output_peak", ascending=False)


def _sources(tensor: str, writers: Mapping[str, onnx.NodeProto], weights: Collection[str]) -> Iterator[str]:
    """Yield the outputs of layers with weights, and inputs, that a tensor is computed from with nothing in between."""
    waiting, seen = [tensor], set()
    while waiting:
        name = waiting.pop()
        node = writers.get(name)
        if name in seen:
            continue
        seen.add(name)
        if node is None or _is_layer(node, weights):
            yield name
        elif node.op_type not in _BOUNDED:
            data = node.input[_DATA.get(node.op_type, slice(None))]
            waiting += [one for one in data if one and one not in weights]


def _is_layer(node: onnx.NodeProto, weights: Collection[str]) -> bool:
    if node.op_type == "Gather":  # an embedding, and no choice among activations
        return node.input[0] in weights
    return node.op_type in _LAYERS and any(one in weights for one in node.input)
