"""What 04d.1, 04d.2 and 04d.4 are checked with: a tensor's name, the smallest failing part, an INT8 file's ranges."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
from onnx import numpy_helper

from tutorial_utils.base import paths
from tutorial_utils.base.errors import CourseError
from tutorial_utils.debug import rounding, tensor_errors
from tutorial_utils.lessons.checking import DATA, Case, Mistake
from tutorial_utils.lessons.lesson04 import planted
from tutorial_utils.lessons.lesson04.exercises_repair import as_it_is, cannot_run, not_the_path
from tutorial_utils.measure import quality
from tutorial_utils.model import half_precision, onnx_file, quantization

# --- 04d.1: the first wrong tensor -----------------------------------------------------------------------------------


def first_wrong() -> list[Case]:
    """Return the cases of 04d.1, ``first_wrong(reference_path, candidate_path, feeds)``: name the tensor, or None."""
    served = (
        ("another network in FP16", "fold", 121, True),
        ("a network in FP32", "axis", 122, False),
        ("a sound network in FP16", None, 123, True),
        ("a second network in FP32", "mean", 124, False),
    )
    cases = []
    for what, fault, seed, in_fp16 in served:
        *files, feeds, culprit = planted.exports(seed, fault)
        one, other = (paths.cache_dir("lesson04", "checks") / f"{side}-{seed}.onnx" for side in ("old", "new"))
        for model, path in zip(files, (one, other), strict=True):
            onnx_file.save(model, path)
        if in_fp16:
            half_precision.to_fp16(other, other)
        cases.append(_wrong_tensor(str(one), str(other), feeds, culprit, what))
    return cases


def first_wrong_on_data(reference_path: str, candidate_path: str, feeds: planted.Feeds) -> Case:
    """Return the case of the lesson's data."""
    culprit = _first_wrong(reference_path, candidate_path, feeds)
    return _wrong_tensor(reference_path, candidate_path, feeds, culprit, DATA)


def _first_wrong(reference_path: str, candidate_path: str, feeds: planted.Feeds) -> str | None:
    exact = tensor_errors.all_outputs(reference_path, feeds)
    found = tensor_errors.all_outputs(candidate_path, feeds)
    table = tensor_errors.compare({name: one for name, one in exact.items() if name in found}, found)
    depths = tensor_errors.depths(onnx_file.load(reference_path))
    allowed = pd.Series({name: tensor_errors.tolerance("fp16", depths[name]) for name in table.index})
    return tensor_errors.first_bad(table, allowed)


_NOT_FOUND = "This file has a fault, and you find none. Equal answers prove little: compare every tensor."
_SOUND_FILE = "This file is sound, and you name a tensor: its error is what rounding in FP16 leaves at that depth."
_LATER = "That tensor is wrong because one before it is. Go through them in the order of computation."
_EARLIER = "That tensor is as it should be, up to rounding; one that only one of the files has can't be compared."


def _wrong_tensor(
    reference_path: str, candidate_path: str, feeds: planted.Feeds, culprit: str | None, what: str
) -> Case:
    graph = onnx_file.load(reference_path).graph
    names = [*(value.name for value in graph.input), *(name for node in graph.node for name in node.output)]
    if culprit is None:
        mistakes = [Mistake(name, _SOUND_FILE) for name in names]
    else:
        at = names.index(culprit)
        mistakes = [Mistake(name, _EARLIER) for name in names[:at]]
        mistakes += [Mistake(name, _LATER) for name in names[at + 1 :]] + [Mistake(None, _NOT_FOUND)]
    objection = functools.partial(_unknown, what)
    return Case((reference_path, candidate_path, feeds), culprit, what, mistakes, objection=objection)


def _unknown(what: str, returned: Any) -> str | None:
    """Return what speaks against a name that is none."""
    if not isinstance(returned, str):
        return None
    return f"For {what}, your function returned {returned!r}, and the trusted file has no tensor of that name."


# --- 04d.2: the smallest part that fails -----------------------------------------------------------------------------

_ONE_NODE = "one node that makes infinities of numbers that FP16 can hold, and does harm"
_EMPTY = "a model without nodes"
_FOREIGN = "a part with inputs that are no tensors of the network"
_FED = "a part that is fed with infinities"
_SOUND = "a part that doesn't fail"
_HARMLESS = "a part whose infinities belong there"
_LONG = "a part that fails, with nodes that the failure doesn't need"
_OF_A_PART = (
    Mistake(_EMPTY, "Your model has no nodes."),
    Mistake(
        _FOREIGN, "An input of your part is no tensor of the network: nobody could feed it with what it has there."
    ),
    Mistake(
        _FED,
        "Your part begins too late: it is fed with what FP16 can't hold already. The fault lies before its inputs.",
    ),
    Mistake(_SOUND, "Your part doesn't fail: in FP16, all of its outputs are finite. Does it end too early?"),
    Mistake(
        _HARMLESS,
        "Your part gives infinities that belong there: they stand for padding, and softmax makes 0 of them. Another "
        "tensor does the harm.",
    ),
    Mistake(_LONG, "Your part fails, and fewer nodes would. Whoever gets your report has to look at all of them."),
)


def part() -> list[Case]:
    """Return the cases of 04d.2, ``part(fp32_path, feeds)``: cut out the smallest part that overflows in FP16."""
    served = {
        "an attention with an infinite mask": planted.attention(111),
        "an attention with a mask of -1e9": planted.attention(112, minus=-1e9),
        "a LayerNorm": planted.layernorm(113),
    }
    return [_part_of(*_saved(one, f"part{i}"), what) for i, (what, one) in enumerate(served.items())]


def part_on_data(fp32_path: str, feeds: planted.Feeds) -> Case:
    """Return the case of the lesson's data."""
    return _part_of(fp32_path, feeds, DATA)


def _saved(faulty: planted.Faulty, name: str) -> tuple[str, planted.Feeds]:
    path = onnx_file.save(faulty.model, paths.cache_dir("lesson04", "checks") / f"{name}.onnx")
    return str(path), faulty.feeds


def _part_of(fp32_path: str, feeds: planted.Feeds, what: str) -> Case:
    judged = functools.partial(_part_verdict, fp32_path, feeds)
    return Case((fp32_path, feeds), _ONE_NODE, what, _OF_A_PART, judged=judged, objection=as_it_is(what))


def _part_verdict(fp32_path: str, feeds: planted.Feeds, returned: Any) -> str:
    if not isinstance(returned, onnx.ModelProto):
        return f"{type(returned).__name__}, and no `onnx.ModelProto`: `extract_subgraph` makes one of the loaded model"
    if not returned.graph.node:
        return _EMPTY
    values = {**feeds, **tensor_errors.all_outputs(fp32_path, feeds)}
    inputs = [value.name for value in returned.graph.input]
    if not values.keys() >= set(inputs):
        return _FOREIGN
    given = {name: values[name] for name in inputs}
    outputs = [value.name for value in returned.graph.output]
    try:
        found = tensor_errors.run(rounding.with_rounding(returned, "fp16"), given, "part.onnx", outputs)
    except Exception as error:  # whatever ONNX and its runtime raise for a model that somebody else made
        return cannot_run("model", error)
    if not all(np.isfinite(rounding.stored(one, "fp16")).all() for one in given.values() if one.dtype == np.float32):
        return _FED
    infinite = [name for name in outputs if not np.isfinite(found[name]).all()]
    if not infinite:
        return _SOUND
    if not any(_does_harm(values.get(name), found[name]) for name in infinite):
        return _HARMLESS
    return _ONE_NODE if len(returned.graph.node) == 1 else _LONG


def _does_harm(exact: np.ndarray | None, found: np.ndarray) -> bool:
    """Whether an infinity isn't one that a mask means: at least as far below all numbers as in FP32."""
    return exact is None or bool((~np.isfinite(found) & (exact > _MASK)).any())


_MASK = -1e8  # below, it is a mask


# --- 04d.4: the ranges of an INT8 file -------------------------------------------------------------------------------

_FITTING = "an INT8 file whose ranges fit"
_LOSS_DB = 3  # below the ranges that reach to the largest value: another rule may choose somewhat smaller ones
_NO_FILE = "a path, and no ONNX file there"
_CHANGED = "a file with other nodes or weights"
_CUT_OFF = "a file with ranges that cut off"
_TOO_WIDE = "a file with ranges that are far too wide"
_AS_BEFORE = "a file with the ranges that it had before"
_OF_RANGES = (
    Mistake(_NO_FILE, "There is no ONNX file at the path that you return: write the file to `target_path`."),
    Mistake(_CHANGED, "Nodes or weights of your file aren't those that it had. Only scales of activations may change."),
    Mistake(_AS_BEFORE, "All scales are as before. Compare 127 steps of each with the largest value of its tensor."),
    Mistake(
        _CUT_OFF,
        "Some ranges still cut off. If you measured the activations in the INT8 file, they were cut off by the ranges "
        "before them: measure in a file that rounds no activation.",
    ),
    Mistake(_TOO_WIDE, "Your ranges are far wider than the activations. A scale is the size of one of 127 steps."),
)


def recalibrate() -> list[Case]:
    """Return the case of 04d.4, ``recalibrate(int8_path, images, target_path)``: give an INT8 file its ranges."""
    folder = paths.cache_dir("lesson04", "checks")
    model, images, pixels = planted.convolutions(131)
    fp32 = onnx_file.save(model, folder / "convolutions.onnx")
    int8 = quantization.to_int8(fp32, folder / "int8.onnx", pixels)
    return [_ranges(str(int8), images, str(folder / "int8-answer.onnx"), "another network")]


def recalibrate_on_data(int8_path: str, images: np.ndarray, target_path: str) -> Case:
    """Return the case of the lesson's data."""
    return _ranges(int8_path, images, target_path, DATA)


def _ranges(int8_path: str, images: np.ndarray, target_path: str, what: str) -> Case:
    Path(target_path).unlink(missing_ok=True)
    judged: Callable[[Any], str] = functools.partial(_ranges_verdict, int8_path, images, target_path)
    return Case((int8_path, images, target_path), _FITTING, what, _OF_RANGES, judged=judged, objection=as_it_is(what))


def _ranges_verdict(int8_path: str, images: np.ndarray, target_path: str, returned: Any) -> str:
    if str(returned) != target_path:
        return not_the_path(returned)
    if not Path(target_path).exists():
        return _NO_FILE
    before = onnx_file.load(int8_path)
    try:
        after = onnx_file.load(target_path)
        scales, found = _scales(before), _scales(after)
        if found.keys() != scales.keys() or _without(before, scales) != _without(after, scales):
            return _CHANGED
        logits = tensor_errors.all_outputs(target_path, {"x": images})[after.graph.output[0].name]
    except CourseError as error:
        return cannot_run("file", error)
    if found == scales:
        return _AS_BEFORE
    exact = _unrounded(before, {"x": images})
    best = {name: float(np.abs(exact[name]).max()) / 127 for name in _quantized(before)}
    fitted = _with_scales(before, best)
    name = before.graph.output[0].name
    reached = tensor_errors.run(fitted, {"x": images}, "fitted.onnx", [name])[name]
    if quality.sqnr_db(logits, exact[name]) >= quality.sqnr_db(reached, exact[name]) - _LOSS_DB:
        return _FITTING
    ratios = [found[_quantized(before)[tensor]] / scale for tensor, scale in best.items()]
    return _TOO_WIDE if np.median(ratios) > 1 else _CUT_OFF


def _quantized(model: onnx.ModelProto) -> dict[str, str]:
    """Return the name of the scale of each quantized activation, by the tensor that is quantized."""
    return {node.input[0]: node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}


def _scales(model: onnx.ModelProto) -> dict[str, float]:
    values = tensor_errors.constants(model)
    return {name: float(values[name]) for name in _quantized(model).values() if name in values}


def _without(model: onnx.ModelProto, scales: dict[str, float]) -> list[bytes]:
    """Return the nodes and the other weights, to compare."""
    weights = sorted((one for one in model.graph.initializer if one.name not in scales), key=lambda one: one.name)
    return [one.SerializeToString(deterministic=True) for one in (*model.graph.node, *weights)]


def _with_scales(model: onnx.ModelProto, by_tensor: dict[str, float]) -> onnx.ModelProto:
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    names = {scale: by_tensor[tensor] for tensor, scale in _quantized(model).items()}
    for weight in changed.graph.initializer:
        if weight.name in names:
            weight.CopyFrom(numpy_helper.from_array(np.array(names[weight.name], np.float32), weight.name))
    return changed


def _unrounded(model: onnx.ModelProto, feeds: planted.Feeds) -> dict[str, np.ndarray]:
    """Run an INT8 file without rounding activations: its weights are what they are."""
    bare = onnx.ModelProto.FromString(model.SerializeToString())
    pairs = {node.output[0]: node.input[0] for node in bare.graph.node if node.op_type == "QuantizeLinear"}
    back = {node.output[0]: pairs[node.input[0]] for node in bare.graph.node if node.input[0] in pairs}
    kept = [node for node in bare.graph.node if node.output[0] not in {*pairs, *back}]
    for node in kept:
        node.input[:] = [back.get(name, name) for name in node.input]
    onnx_file.replace_nodes(bare.graph, kept)
    names = tensor_errors.tensor_names(bare)
    return {**feeds, **tensor_errors.run(bare, feeds, "unrounded.onnx", names)}
