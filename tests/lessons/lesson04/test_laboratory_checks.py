"""What the checks of 04c and 04d say of answers that no exercise has in mind: each gets one sentence that helps."""

import onnx
import pytest
from lessons.lesson04 import wrong_answers
from onnx import numpy_helper

from tutorial_utils.debug import polygraphy_cli
from tutorial_utils.lessons import check
from tutorial_utils.model import onnx_file

FILES = ("04c.1", "04d.3", "04d.4")
EXERCISES = ("04c.1", "04d.1", "04d.2", "04d.3", "04d.4")


def nothing(*given):
    print(end="")


def fails(*given):
    return given[0].no_such_attribute


def garbage(*given):
    with open(given[-1], "wb") as file:
        file.write(b"no model")
    return given[-1]


def no_operators(*given):
    onnx.save(onnx.ModelProto(ir_version=8), given[-1])
    return given[-1]


def torn(model):
    """Let the first node read what nothing computes."""
    model.graph.node[0].input[0] = "nowhere"
    return model


def torn_file(*given):
    onnx.save(torn(onnx.load(given[0])), given[-1])
    return given[-1]


@pytest.mark.parametrize("exercise", EXERCISES)
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (nothing, "end with `return`"),
        (fails, "raised AttributeError: 'str' object has no attribute"),
        (lambda *given: 3, "your function returned int, "),
        (lambda *given: ["logits"], "your function returned list, "),
        (lambda *given: {}, "your function returned dict, "),
    ],
)
def test_answer_of_another_kind(exercise, answer, words):
    result = check(exercise, answer)
    assert result.state == "wrong"
    assert words in result.message


@pytest.mark.parametrize("exercise", FILES)
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda *given: "elsewhere.onnx", "str, and not `target_path`: write the file there"),
        (garbage, "can't be run: "),
        (no_operators, "holds no operators."),
    ],
)
def test_file_that_is_none(exercise, answer, words):
    result = check(exercise, answer)
    assert result.state == "wrong"
    assert words in result.message


@pytest.mark.parametrize("exercise", ["04c.1", "04d.3"])
def test_file_that_onnx_runtime_refuses(exercise):
    message = check(exercise, torn_file).message
    assert message.endswith("can't be run: Invalid model. Node input 'nowhere' is not a graph input, initializer, or "
                            "output of a previous node.")  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda path, feeds: torn(onnx.load(path)), "a model that can't be run: Invalid model"),
        (lambda path, feeds: path, "str, and no `onnx.ModelProto`"),
        (lambda path, feeds: onnx.load(path).graph, "GraphProto, and no `onnx.ModelProto`"),
    ],
)
def test_part_that_is_none(answer, words):
    result = check("04d.2", answer)
    assert result.state == "wrong"
    assert words in result.message


def test_name_that_no_tensor_has():
    message = check("04d.1", lambda *given: "Norm2").message
    assert message.endswith("your function returned 'Norm2', and the trusted file has no tensor of that name.")


@pytest.mark.parametrize("exercise", EXERCISES)
@pytest.mark.parametrize("constant", [None, "logits", "norm2", "weights", ("tolerance", None), True])
def test_no_constant_is_right(exercise, constant):
    def answer(*given):
        _ = len(given)  # not an empty stub
        return constant

    assert check(exercise, answer).state == "wrong"


def test_file_that_an_earlier_answer_wrote_is_no_answer():
    solution = wrong_answers.RIGHT_ANSWERS["04d.4"][0]
    assert check("04d.4", solution).passed
    assert "There is no ONNX file" in check("04d.4", wrong_answers.not_written).message


def test_part_that_surgeon_cuts_out_is_right(tmp_path):
    """What lesson 04a shows on the command line."""

    def by_surgeon(path, feeds):
        model = onnx.load(path)
        onnx.save(model, tmp_path / "model.onnx")
        output = wrong_answers.culprit_of(model)
        node = wrong_answers.node_of(model, output)
        weights = {one.name for one in model.graph.initializer}
        inputs = " ".join(f"{name}:auto:auto" for name in node.input if name not in weights)
        command = f"polygraphy surgeon extract model.onnx --inputs {inputs} --outputs {output}:auto -o part.onnx"
        assert polygraphy_cli.run(command, tmp_path).returncode == 0
        return onnx.load(tmp_path / "part.onnx")

    assert check("04d.2", by_surgeon).passed


def test_smaller_ranges_that_another_rule_chooses_are_right():
    """A percentile cuts the largest activations off, as calibrators do."""

    def by_percentile(int8_path, images, target_path):
        wrong_answers.one_after_the_other(int8_path, images, target_path)
        model = onnx_file.load(target_path)
        names = {node.input[1] for node in wrong_answers.quantizers(model)}
        values = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer if one.name in names}
        scaled = {name: scale * 0.95 for name, scale in values.items()}
        onnx.save(wrong_answers.with_scales(model, scaled), target_path)
        return target_path

    assert check("04d.4", by_percentile).passed
