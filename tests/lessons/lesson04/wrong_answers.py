"""Wrong answers to the exercises of lesson 04, each with words from its message, and other right ones."""

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxconverter_common import float16
from onnxruntime.transformers.float16 import convert_float_to_float16
from polygraphy import constants
from polygraphy.backend.onnx import extract_subgraph, modify_outputs
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

from tutorial_utils.debug import diagnosis, remedies, tensor_errors
from tutorial_utils.model import half_precision

HALF = float(np.finfo(np.float16).max)


def saved(model, path):
    onnx.save(model, path)
    return path


def scores_of(path, feeds):
    return tensor_errors.all_outputs(path, feeds)["scores"]


# --- FP16 files, 04c.1 and 04d.3 -------------------------------------------------------------------------------------


def without_writing(fp32_path, feeds, target_path):
    return target_path


def copied(fp32_path, feeds, target_path):
    return shutil.copy(fp32_path, target_path)


def half_throughout(fp32_path, feeds, target_path):
    return saved(convert_float_to_float16(onnx.load(fp32_path), keep_io_types=False), target_path)


def in_bf16(fp32_path, feeds, target_path):
    return str(half_precision.to_bf16(fp32_path, target_path))


def converted(fp32_path, feeds, target_path):
    return str(half_precision.to_fp16(fp32_path, target_path))


def constants_too_small(fp32_path, feeds, target_path):
    """Convert as a training framework's half() does: what is too small becomes 0."""
    model = float16.convert_float_to_float16(onnx.load(fp32_path), keep_io_types=True, min_positive_val=0.0)
    return saved(model, target_path)


def clipped(fp32_path, feeds, target_path):
    exact = tensor_errors.all_outputs(fp32_path, feeds)
    large = [name for name, values in exact.items() if HALF < np.abs(values).max() < 1e8]
    clip_path = target_path.replace(".onnx", "-clip.onnx")
    saved(remedies.clip(onnx.load(fp32_path), large), clip_path)
    return str(half_precision.to_fp16(clip_path, target_path))


def remembered(fp32_path, feeds, target_path):
    """Write a file that gives the scores of these inputs, whatever it is given."""
    model = onnx.load(fp32_path)
    exact = scores_of(fp32_path, feeds)
    nodes = [helper.make_node("Mul", ["known", "one"], ["half"], "half")]
    nodes.append(helper.make_node("Cast", ["half"], ["scores"], "back", to=TensorProto.FLOAT))
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    for name, values in {"known": exact.astype(np.float16), "one": np.float16(1)}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return saved(model, target_path)


def keeping(*tensors):
    """Keep in FP32 what touches these tensors."""

    def answer(fp32_path, feeds, target_path):
        nodes = remedies.touching(onnx.load(fp32_path), tensors)
        return str(half_precision.to_fp16(fp32_path, target_path, keep_fp32=nodes))

    return answer


def keeping_by_onnx_runtime(*tensors):
    """Keep them with ONNX Runtime's converter, which casts between two nodes that it leaves in FP32."""

    def answer(fp32_path, feeds, target_path):
        model = onnx.load(fp32_path)
        nodes = remedies.touching(model, tensors)
        return saved(convert_float_to_float16(model, keep_io_types=True, node_block_list=nodes), target_path)

    return answer


def limited(answer):
    """Return an answer to 04c.1, which has a fourth argument."""
    return lambda fp32_path, feeds, most, target_path: answer(fp32_path, feeds, target_path)


def by_debug(fp32_path, feeds, target_path):
    inputs = Path(target_path).with_suffix(".npz")
    np.savez(inputs, **feeds)
    diagnosis.diagnose(Path(fp32_path), "fp16", inputs, 0, Path(target_path))
    return target_path


def by_scaling(fp32_path, feeds, target_path):
    """Divide the queries and not the logits, and normalize a smaller tensor: no node stays in FP32."""
    model = onnx.load(fp32_path)
    weights = {one.name: one for one in model.graph.initializer}

    def multiplied(name, factor):
        values = numpy_helper.to_array(weights[name]) * np.float32(factor)
        weights[name].CopyFrom(numpy_helper.from_array(values, name))

    if "query.weight" in weights:
        factor = numpy_helper.to_array(weights["scale"])
        multiplied("query.weight", factor)
        multiplied("scale", 1 / factor)
    if "norm.epsilon" in weights:
        for name in ("hidden.weight", "outlier"):
            multiplied(name, 1 / 8)
        multiplied("norm.epsilon", 1 / 64)
    return saved(convert_float_to_float16(model, keep_io_types=True), target_path)


def scaled_by(left, right=1.0, epsilon=None):
    """Multiply the factors of `joint`, and the epsilon by their product or another number."""

    def answer(fp32_path, feeds, target_path):
        model = onnx.load(fp32_path)
        graph = model.graph
        small = next(one for one in graph.initializer if one.name == "epsilon")
        value = numpy_helper.to_array(small) * np.float32(left * right if epsilon is None else epsilon)
        small.CopyFrom(numpy_helper.from_array(value, "epsilon"))
        at = next(i for i, node in enumerate(graph.node) if node.name == "joint")
        graph.node[at].input[:] = ["left.large", "right.large"]
        for name, factor in {"left": left, "right": right}.items():
            graph.initializer.append(numpy_helper.from_array(np.float32(factor), f"{name}.factor"))
            node = helper.make_node("Mul", [name, f"{name}.factor"], [f"{name}.large"], f"{name}.large")
            graph.node.insert(at, node)
        return saved(convert_float_to_float16(model, keep_io_types=True), target_path)

    return answer


# --- the first wrong tensor, 04d.1 -----------------------------------------------------------------------------------


def compared(reference_path, candidate_path, feeds):
    exact = tensor_errors.all_outputs(reference_path, feeds)
    found = tensor_errors.all_outputs(candidate_path, feeds)
    return tensor_errors.compare({name: one for name, one in exact.items() if name in found}, found)["rel_l2"]


def beyond(limit, otherwise=None):
    """Name the first tensor whose error is beyond a limit for all."""

    def first_wrong(reference_path, candidate_path, feeds):
        errors = compared(reference_path, candidate_path, feeds)
        return next((name for name, error in errors.items() if error > limit), otherwise)

    return first_wrong


def largest_error(reference_path, candidate_path, feeds):
    return compared(reference_path, candidate_path, feeds).idxmax()


def last_wrong(reference_path, candidate_path, feeds):
    errors = compared(reference_path, candidate_path, feeds)
    return [name for name, error in errors.items() if error > 0.01][-1:][0]


def by_answers(reference_path, candidate_path, feeds):
    answers = [scores_of(path, feeds).argmax(1) for path in (reference_path, candidate_path)]
    return "scores" if np.mean(answers[0] == answers[1]) < 1 else None


def by_polygraphy(reference_path, candidate_path, feeds):
    runs = []
    for path in (reference_path, candidate_path):
        model = modify_outputs(onnx.load(path), constants.MARK_ALL)
        with OnnxrtRunner(SessionFromOnnx(model.SerializeToString())) as runner:
            runs.append(dict(runner.infer(feeds)))
    for name, exact in runs[0].items():
        if name in runs[1]:
            error = runs[1][name].astype(np.float64) - exact
            if np.linalg.norm(error) > 0.01 * np.linalg.norm(exact.astype(np.float64)):
                return name
    return None


# --- a part, 04d.2 ---------------------------------------------------------------------------------------------------


def culprit_of(model):
    names = {node.name for node in model.graph.node}
    return "logits" if "logits" in names else "square"


def cut(fp32_path, feeds, inputs, output):
    exact = {**feeds, **tensor_errors.all_outputs(fp32_path, feeds)}
    metadata = {name: (exact[name].dtype, exact[name].shape) for name in inputs}
    return extract_subgraph(onnx.load(fp32_path), metadata, {output: (np.float32, None)})


def node_of(model, name):
    return next(node for node in model.graph.node if node.name == name)


def one_node(name=None):
    """Return the part that is one node, the culprit or another."""

    def part(fp32_path, feeds):
        model = onnx.load(fp32_path)
        node = node_of(model, name or culprit_of(model))
        weights = {one.name for one in model.graph.initializer}
        return cut(fp32_path, feeds, [one for one in node.input if one not in weights], node.output[0])

    return part


def whole_model(fp32_path, feeds):
    return onnx.load(fp32_path)


def from_the_inputs(fp32_path, feeds):
    model = onnx.load(fp32_path)
    output = culprit_of(model)
    return cut(fp32_path, feeds, [name for name in feeds if name != "valid"], output)


def renamed_input(fp32_path, feeds):
    model = one_node()(fp32_path, feeds)
    model.graph.node[0].input[0] = model.graph.input[0].name = "x"
    return model


def no_nodes(fp32_path, feeds):
    return onnx.ModelProto()


def by_hand(fp32_path, feeds):
    model = onnx.load(fp32_path)
    node = node_of(model, culprit_of(model))
    weights = [one for one in model.graph.initializer if one.name in node.input]
    exact = tensor_errors.all_outputs(fp32_path, feeds)
    names = [name for name in node.input if name in exact]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, exact[name].shape) for name in names]
    outputs = [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "part", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=8)


def by_onnx(fp32_path, feeds):
    model = onnx.shape_inference.infer_shapes(onnx.load(fp32_path))
    node = node_of(model, culprit_of(model))
    weights = {one.name for one in model.graph.initializer}
    inputs = [name for name in node.input if name not in weights]
    return onnx.utils.Extractor(model).extract_model(inputs, [node.output[0]])


# --- ranges of an INT8 file, 04d.4 -----------------------------------------------------------------------------------


def quantizers(model):
    return [node for node in model.graph.node if node.op_type == "QuantizeLinear"]


def with_scales(model, scales):
    for weight in model.graph.initializer:
        if weight.name in scales:
            weight.CopyFrom(numpy_helper.from_array(np.array(scales[weight.name], np.float32), weight.name))
    return model


def peaks_in_int8(int8_path, images):
    found = {"x": images, **tensor_errors.all_outputs(int8_path, {"x": images})}
    return {node.input[1]: np.abs(found[node.input[0]]).max() for node in quantizers(onnx.load(int8_path))}


def measured_in_int8(int8_path, images, target_path):
    scales = {name: peak / 127 for name, peak in peaks_in_int8(int8_path, images).items()}
    return saved(with_scales(onnx.load(int8_path), scales), target_path)


def without_127(int8_path, images, target_path):
    return saved(with_scales(onnx.load(int8_path), peaks_in_int8(int8_path, images)), target_path)


def only_the_input(int8_path, images, target_path):
    return saved(with_scales(onnx.load(int8_path), {"x_scale": np.abs(images).max() / 127}), target_path)


def same_file(int8_path, images, target_path):
    return shutil.copy(int8_path, target_path)


def other_weights(int8_path, images, target_path):
    model = onnx.load(int8_path)
    name = next(one.name for one in model.graph.initializer if one.name.endswith("weight_quantized"))
    values = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    weight = next(one for one in model.graph.initializer if one.name == name)
    weight.CopyFrom(numpy_helper.from_array(-values[name], name))
    return saved(model, target_path)


def not_written(int8_path, images, target_path):
    return target_path


def one_after_the_other(int8_path, images, target_path):
    """Mend the first range, run again, mend the next: what comes before is right by then."""
    shutil.copy(int8_path, target_path)
    for node in quantizers(onnx.load(int8_path)):
        peak = peaks_in_int8(target_path, images)[node.input[1]]
        saved(with_scales(onnx.load(target_path), {node.input[1]: peak / 127}), target_path)
    return target_path


def until_nothing_changes(int8_path, images, target_path):
    shutil.copy(int8_path, target_path)
    for _ in range(6):
        measured_in_int8(target_path, images, target_path)
    return target_path


FILES = [
    (without_writing, "There is no ONNX file"),
    (half_throughout, "in name and type"),
    (copied, "No node of your file computes in FP16"),
    (in_bf16, "Your file computes in BF16"),
    (remembered, "right for these inputs"),
]
WRONG_ANSWERS = {
    "04c.1": [
        *((limited(answer), words) for answer, words in FILES),
        (limited(converted), "still gives Inf or NaN"),
        (limited(keeping_by_onnx_runtime("logits", "square")), "casts to FP16 and back"),
        (limited(clipped), "What is cut off at 65,504"),
        (limited(keeping("logits")), "what is divided by infinity becomes 0"),
        (limited(keeping("mask", "masked", "logits", "square")), "take one after the other away"),
    ],
    "04d.1": [
        (largest_error, "one before it is"),
        (last_wrong, "one before it is"),
        (beyond(1e-5), "as it should be"),
        (by_answers, "Equal answers prove little"),
        (beyond(0.01, otherwise="scores"), "This file is sound"),
    ],
    "04d.2": [
        (no_nodes, "no nodes"),
        (renamed_input, "no tensor of the network"),
        (one_node("scaled"), "begins too late"),
        (one_node("query"), "doesn't fail"),
        (one_node("mask"), "softmax makes 0 of them"),
        (whole_model, "and fewer nodes would"),
        (from_the_inputs, "and fewer nodes would"),
    ],
    "04d.3": [
        *FILES,
        (constants_too_small, "still gives Inf or NaN"),
        (scaled_by(16), "lifted from 0"),
        (converted, "still gives nothing but 0"),
        (keeping("joint", "total", "safe"), "Here none may be"),
    ],
    "04d.4": [
        (not_written, "There is no ONNX file"),
        (same_file, "All scales are as before"),
        (other_weights, "aren't those that it had"),
        (measured_in_int8, "measure in a file that rounds no activation"),
        (only_the_input, "Some ranges still cut off"),
        (without_127, "far wider than the activations"),
    ],
}
RIGHT_ANSWERS = {
    "04c.1": [limited(by_debug), limited(by_scaling), limited(keeping("logits", "square"))],
    "04d.1": [by_polygraphy, beyond(0.01), beyond(0.03)],
    "04d.2": [one_node(), by_hand, by_onnx],
    "04d.3": [scaled_by(2.0**12, 2.0**12), scaled_by(2.0**22), scaled_by(2.0**10, 2.0**12)],
    "04d.4": [one_after_the_other, until_nothing_changes],
}
