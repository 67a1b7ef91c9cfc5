"""Lesson 04a on models that aren't the course's: its cells, copied, lead to the tensor and tell what is harmless."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import onnx
import pictures
import pytest
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils.lessons.lesson04 import figures

NOTEBOOK = Path(__file__).parents[3] / "notebooks" / "04a_find_the_layer.ipynb"
LAST = "def trace("  # the cell that ends the search
WIDTH, HEADS = 64, 4


def save(folder, nodes, inputs, outputs, weights, feeds):
    """Write model.onnx, whose nodes have no names, and inputs.npz."""
    graph = helper.make_graph(
        nodes, "own", inputs, outputs, [numpy_helper.from_array(w, n) for n, w in weights.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "inputs.npz", **feeds)
    return folder


def attention(folder, strength, constants=False):
    """Self-attention with a mask of FP32's most negative number; the strength makes the logits large."""
    rng = np.random.default_rng(3)

    def weight(factor):
        return (rng.standard_normal((WIDTH, WIDTH)) * factor).astype(np.float32)

    weights = {
        "wq": weight(strength), "wk": weight(strength), "wv": weight(0.1), "wo": weight(0.1),
        "gamma": np.ones(WIDTH, np.float32), "scale": np.float32(0.25), "one": np.float32(1),
        "lowest": np.finfo(np.float32).min, "axes": np.int64([1, 2]),
        "heads": np.int64([0, 0, HEADS, WIDTH // HEADS]), "width": np.int64([0, 0, WIDTH]),
    }  # fmt: skip
    make = helper.make_node
    nodes = [
        make("Cast", ["mask"], ["kept"], to=TensorProto.FLOAT), make("Sub", ["one", "kept"], ["padding"]),
        make("Mul", ["padding", "lowest"], ["low"]), make("Unsqueeze", ["low", "axes"], ["added"]),
        make("LayerNormalization", ["x", "gamma"], ["normal"]),
    ]  # fmt: skip
    for one, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            make("MatMul", ["normal", f"w{one}"], [f"{one}0"]), make("Reshape", [f"{one}0", "heads"], [f"{one}1"]),
            make("Transpose", [f"{one}1"], [one], perm=order),
        ]  # fmt: skip
    nodes += [
        make("MatMul", ["q", "k"], ["logits"]), make("Mul", ["logits", "scale"], ["scaled"]),
        make("Add", ["scaled", "added"], ["masked"]), make("Softmax", ["masked"], ["shares"], axis=-1),
        make("MatMul", ["shares", "v"], ["seen"]), make("Transpose", ["seen"], ["tokens"], perm=[0, 2, 1, 3]),
        make("Reshape", ["tokens", "width"], ["flat"]), make("MatMul", ["flat", "wo"], ["mixed"]),
        make("Add", ["x", "mixed"], ["y"]),
    ]  # fmt: skip
    if constants:  # as old exports of Paddle hold their weights
        held = [make("Constant", [], [n], value=numpy_helper.from_array(w, n)) for n, w in weights.items()]
        nodes, weights = [*held, *nodes], {}
    shape = ["batch", "length", WIDTH]
    mask = np.ones((2, 12), np.int64)
    mask[1, 8:] = 0
    return save(
        folder, nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
         helper.make_tensor_value_info("mask", TensorProto.INT64, shape[:2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)], weights,
        {"x": rng.standard_normal((2, 12, WIDTH)).astype(np.float32), "mask": mask},
    )  # fmt: skip


def depthwise(folder, strength=3e4, scale=1):
    """A convolutional network with FP16 inputs and outputs; the depthwise convolution or its norm has large weights."""
    rng = np.random.default_rng(4)

    def weight(factor, *shape):
        return (rng.standard_normal(shape) * factor).astype(np.float32)

    ones, zeros = np.ones(16, np.float32), np.zeros(16, np.float32)
    weights = {
        "stem": weight(0.3, 16, 3, 3, 3), "depth": weight(strength, 16, 1, 3, 3), "point": weight(1e-6, 32, 16, 1, 1),
        "scale": ones * np.float32(scale), "zeros": zeros, "mean": zeros, "variance": ones, "head": weight(0.1, 32, 10),
    }  # fmt: skip
    make = helper.make_node
    nodes = [
        make("Cast", ["image"], ["x"], to=TensorProto.FLOAT), make("Conv", ["x", "stem"], ["c0"], strides=[2, 2]),
        make("Relu", ["c0"], ["r0"]), make("Conv", ["r0", "depth"], ["c1"], group=16),
        make("BatchNormalization", ["c1", "scale", "zeros", "mean", "variance"], ["n1"]), make("Relu", ["n1"], ["r1"]),
        make("Conv", ["r1", "point"], ["c2"]), make("GlobalAveragePool", ["c2"], ["pool"]),
        make("Flatten", ["pool"], ["flat"]), make("Gemm", ["flat", "head"], ["logits"]),
        make("Cast", ["logits"], ["scores"], to=TensorProto.FLOAT16),
    ]  # fmt: skip
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT16, ["batch", 3, 32, 32])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT16, ["batch", 10])
    return save(folder, nodes, [image], [scores], weights, {"image": weight(1, 2, 3, 32, 32).astype(np.float16)})


def follow(folder):
    """Run the lesson's cells to copy, up to where the search ends, with this model in their place; return the text."""
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, 4).cells if "library" in cell.metadata.get("tags", [])]
    last = next(number for number, source in enumerate(cells) if LAST in source)
    program, places = re.subn(
        r"^MODEL, INPUTS = .*$", 'MODEL, INPUTS = "model.onnx", "inputs.npz"', "\n".join(cells[: last + 1]), flags=re.M
    )
    assert places == 1
    assert "detector" not in program, "the cells hold to the course's own model"
    ran = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


def outcome(text):
    """Return which groups of tensors are suspects, and the error of the output with each back in FP16."""
    groups = dict(re.findall(r"^group (\d): (.*)$", text, re.M))
    errors = dict(re.findall(r"^group (\d) back in FP16:\n.*error (\S+)$", text, re.M))
    return {group: (tensors.split(), errors[group]) for group, tensors in groups.items()}


@pytest.mark.parametrize("constants", [False, True], ids=["initializers", "Constant nodes"])
@pytest.mark.parametrize("strength", [12, 60])
def test_logits_that_overflow_are_found_beside_a_harmless_mask(tmp_path, strength, constants):
    text = follow(attention(tmp_path, strength, constants))
    (mask, harmless), (logits, guilty) = outcome(text).values()
    assert mask == ["low", "added", "masked"]
    assert float(harmless) < 0.01
    assert logits[0] == "logits"
    assert guilty == "nan"
    assert re.search(r" in logits, by MatMul \n +of \S+ in q( <-)?, \S+ in k( <-)?$", text, re.M)
    assert re.search(r" in (q0, by MatMul \n.* in wq|k0, by MatMul \n.* in wk)$", text, re.M), "the layer with weights"


def test_a_sound_model_with_a_mask_has_no_guilty_tensor(tmp_path):
    ((mask, error),) = outcome(follow(attention(tmp_path, 0.2))).values()
    assert mask == ["low", "added", "masked"]
    assert float(error) < 0.01


def test_a_depthwise_convolution_is_found_behind_fp16_inputs(tmp_path):
    text = follow(depthwise(tmp_path))
    ((tensors, error),) = outcome(text).values()
    assert tensors == ["c1", "n1", "r1"]
    assert error == "nan"
    assert re.search(r" in c1, by Conv \n +of \S+ in r0 <-, \S+ in depth$", text, re.M)


def test_weights_in_a_file_of_their_own_are_folded_and_converted(tmp_path):
    folder = attention(tmp_path, 0.2)
    onnx.save(onnx.load(folder / "model.onnx"), folder / "model.onnx", save_as_external_data=True, location="weights")
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    (begins,) = (source for source in cells if "MODEL, INPUTS =" in source)
    (folds,) = (source for source in cells if '"half.onnx")' in source)
    own = 'MODEL, INPUTS = "../model.onnx", "../inputs.npz"'  # the lesson's working folder isn't the model's
    program = re.sub("MODEL, INPUTS = .*", own, f"{begins}\n{folds}")
    (folder / "elsewhere").mkdir()
    ran = subprocess.run([sys.executable, "-c", program], cwd=folder / "elsewhere", capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert (folder / "elsewhere" / "half.onnx").exists()


def test_a_weight_that_fp16_makes_0_is_listed(tmp_path):
    folder = depthwise(tmp_path)
    model = onnx.load(folder / "model.onnx")
    depth = next(one for one in model.graph.initializer if one.name == "depth")
    depth.CopyFrom(numpy_helper.from_array(np.full(depth.dims, 2e-8, np.float32), "depth"))
    onnx.save(model, folder / "model.onnx")
    assert "{'depth': '2e-08', 'point'" in follow(folder)  # whose weights are small, too


def test_a_weight_beyond_fp16_is_listed_although_no_tensor_is_a_suspect(tmp_path):
    text = follow(depthwise(tmp_path, strength=1e-3, scale=1e5))
    assert "'scale': '100,000'}" in text
    assert re.search(r"^No suspects: .*weights.*above.*debug", text, re.M)
    assert re.search(r"^No group to give back\. All in FP16:\n.* 0\.0% NaN", text, re.M)


def test_the_figure_names_what_it_labels():
    large = {"a": np.float32([1]), "b": np.float32([-1e5, 2]), "shape": np.int64([3]), "none": np.float32([0])}
    picture = figures.magnitudes(
        {"one": large, "two": {"a": np.float32([3])}}, {"one": {"a": "begins", "b": "first Inf"}}
    )
    assert picture.text.splitlines() == [
        "one: 1 of 2 tensors above 65,504; a 1, begins; b 100,000, first Inf",
        "two: 0 of 1 tensors above 65,504",
    ]
    one, two = pictures.drawn(picture)
    assert pictures.marks(one) == [(1, 1e5)]
    assert [(text.get_text(), text.xy) for text in one.texts] == [("begins", (0, 1)), ("first Inf", (1, 1e5))]
    assert not two.texts
