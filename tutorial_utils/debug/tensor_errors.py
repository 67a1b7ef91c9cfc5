"""What differs between two runs of a network, by how much, and where first: every tensor, in the order of computation.

A model in FP16 needs care on a CPU. ONNX Runtime has hardly any FP16 operators there: it computes in FP32 and leaves
out the casts between neighbours, so that a value beyond 65,504 lives on. `with_rounding` writes down each rounding as
casts of the model's own, which ONNX Runtime keeps.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, numpy_helper

from tutorial_utils.base.errors import InputError, PrecisionError
from tutorial_utils.model import onnx_file
from tutorial_utils.model.number_formats import BY_NAME

Format = Literal["fp32", "tf32", "fp16", "bf16"]
_STORED = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_NARROW = set(_STORED.values())
_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "Mul"}
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
    epsilon: layers also magnify the error of what they are given.
    """
    return 2 * machine_epsilon(dtype) * max(depth, 1) ** 0.5


def depths(model: onnx.ModelProto) -> dict[str, int]:
    """Return for each tensor how many operations lie on the longest way to it from the input."""
    found: dict[str, int] = {}
    for node in model.graph.node:  # ONNX wants them in topological order
        depth = 1 + max((found.get(name, 0) for name in node.input), default=0)
        found.update(dict.fromkeys(node.output, depth))
    return found


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
    from polygraphy.backend.onnx import modify_outputs
    from polygraphy.logger import G_LOGGER

    from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

    model = onnx_file.load(onnx_path)
    names = [name for node in model.graph.node for name in node.output if name]
    with G_LOGGER.verbosity(G_LOGGER.ERROR):
        marked = modify_outputs(with_rounding(model, stored_as), outputs=names)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(onnx_path).name
        onnx.save(marked, path)
        runner = OnnxRuntimeRunner(path, optimize=False)
    runner.check(feeds)
    try:
        found = runner.infer(feeds)
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
        raise InputError(
            f"{Path(onnx_path).name} can't run on {shapes}: {str(error).strip().splitlines()[0].rstrip('.')}.",
            "Give sizes that the strides of the network divide.",
        ) from error
    return {name: found[name] for name in names}


def with_rounding(model: onnx.ModelProto, stored_as: Literal["fp16", "bf16"] | None = None) -> onnx.ModelProto:
    """Return an FP32 model that rounds as a GPU does that runs each node of a model with FP16 tensors by itself.

    Tensor cores add up in FP32 and store the result in FP16. So does the returned model: its operators compute in FP32,
    and each result that the model declares as FP16 or BF16 is cast there and back; with ``stored_as``, every FP32
    weight and tensor is taken for one of that format. An engine that fuses nodes stores, and rounds, fewer tensors.

    Raises:
        PrecisionError: The format is unknown.
    """
    if stored_as is not None and stored_as not in _STORED:
        raise PrecisionError(f"Tensors can't be rounded to {stored_as!r}.", f"Choose one of {', '.join(_STORED)}.")
    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    graph, inferred = rounded.graph, onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    if stored_as:
        types = {name: _STORED[stored_as] if kind == TensorProto.FLOAT else kind for name, kind in types.items()}
    for weight in graph.initializer:
        values = onnx_file.array_of(weight)
        if weight.data_type in _NARROW:
            values = values.astype(np.float32)
        elif stored_as and weight.data_type == TensorProto.FLOAT:
            values = BY_NAME[stored_as].round(values).astype(np.float32)
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    nodes = []
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _NARROW:
                attribute.i = TensorProto.FLOAT  # the rounding follows, as after every other node
        nodes.append(node)
        for index, name in enumerate(node.output):
            if types.get(name) in _NARROW:
                node.output[index] = f"{name}/exact"
                to_narrow = onnx.helper.make_node("Cast", [f"{name}/exact"], [f"{name}/rounded"], to=types[name])
                back = onnx.helper.make_node("Cast", [f"{name}/rounded"], [name], to=TensorProto.FLOAT)
                nodes += [to_narrow, back]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]  # the next line clears originals
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return rounded


def compare(reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray]) -> pd.DataFrame:
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
        "peak_ref": _peak(one), "peak": _peak(other),
        "inf": int(np.isinf(other).sum()), "nan": int(np.isnan(other).sum()),
    }  # fmt: skip
    if not one.size or not np.isfinite([row["peak_ref"], row["peak"]]).all():
        return row
    error = np.abs(other - one)
    squares = _dot(error, error)
    lengths = np.sqrt(_dot(one, one)), np.sqrt(_dot(other, other))
    sizes = np.abs(one)
    sizes[sizes == 0] = np.inf  # nothing is relative to 0
    with np.errstate(divide="ignore", invalid="ignore"):
        row["max_abs"] = error.max()
        row["max_rel"] = (error / sizes).max()
        row["rel_l2"] = np.sqrt(squares) / lengths[0] if squares else 0.0
        row["cosine"] = _dot(one, other) / (lengths[0] * lengths[1])
        row["psnr"] = 20 * np.log10(row["peak_ref"] / np.sqrt(squares / one.size))
    return row


def _dot(one: np.ndarray, other: np.ndarray) -> float:
    """Return the inner product on one thread. BLAS would start several for each tensor, and take ten times as long."""
    return float(np.einsum("i,i->", one, other))


def _peak(values: np.ndarray) -> float:
    """Return the largest magnitude; NaN where a value is."""
    return float(max(values.max(initial=0), -values.min(initial=0)))


def first_bad(table: pd.DataFrame, rel_l2: float | pd.Series = np.inf) -> str | None:
    """Return the first tensor of what `compare` returned that holds Inf or NaN, or errs more than tolerated; or None.

    The tolerance is one for the relative L2 errors of all tensors, or one for each by name.
    """
    bad = (table["inf"] > 0) | (table["nan"] > 0) | (table["rel_l2"] > rel_l2)
    return bad.idxmax() if bad.any() else None


def layers_behind(model: onnx.ModelProto, tensor: str, values: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Find where the scale of a tensor comes from: the nearest layers with weights that it is computed from.

    An overflow shows where a sum or product passes the limit, which may be a node without weights.

    Args:
        values: Every tensor in FP32, from `all_outputs`, and the inputs.

    Returns:
        One row per layer, under its name, the largest output first: its operator ``op``, the name of its ``weight``,
        the largest magnitudes ``weight_peak``, ``input_peak`` and ``output_peak``, and the ``gain``, output over input.

    Raises:
        InputError: The model has no such tensor.
    """
    writers = {name: node for node in model.graph.node for name in node.output}
    if tensor not in writers:
        raise InputError(f"The model computes no tensor {tensor}.", "Give a name from the model's nodes.")
    weights = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    rows, waiting, seen = {}, [tensor], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in writers:
            continue
        seen.add(name)
        node = writers[name]
        own = next((one for one in node.input if one in weights), None)
        activations = [one for one in node.input if one and one not in weights]
        if own and node.op_type in _LAYERS:
            largest_input = max(_peak(values[one]) for one in activations)
            rows[node.name] = {
                "op": node.op_type, "weight": own, "weight_peak": _peak(weights[own]), "input_peak": largest_input,
                "output_peak": _peak(values[name]), "gain": _peak(values[name]) / largest_input,
            }  # fmt: skip
        elif node.op_type not in _BOUNDED:
            waiting += activations
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")
    return table.sort_values("output_peak", ascending=False) if rows else table
