"""What a variant of the text detection network answers, and the figure of it."""

import numpy as np
import onnx
import pictures
import pytest
from onnx import numpy_helper

from tutorial_utils.lessons.lesson04 import outcome
from tutorial_utils.lessons.lesson04 import remedies_figures as figures
from tutorial_utils.model import onnx_file


def test_boxes_may_move_by_a_pixel():
    boxes = [(0, 0, 10, 5), (3, 8, 20, 12)]
    assert outcome.same_boxes([(1, 0, 9, 5), (3, 8, 20, 12)], boxes)
    assert not outcome.same_boxes([(2, 0, 10, 5), (3, 8, 20, 12)], boxes)
    assert not outcome.same_boxes(boxes[:1], boxes)
    assert outcome.same_boxes([], [])


def page_model(path, gain):
    """Write a model [1, 1, H, W] -> [1, 1, H, W] that multiplies, by two factors with the gain between them."""
    info = onnx.helper.make_tensor_value_info
    shape = [1, 1, 8, 8]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Mul", ["x", "g"], ["a"], "up"),
            onnx.helper.make_node("Div", ["a", "g"], ["y"], "down"),
        ],
        "page",
        [info("x", onnx.TensorProto.FLOAT, shape)],
        [info("y", onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.float32([gain]), "g")],
    )
    return onnx_file.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path
    )


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_outcome_tells_a_broken_answer_from_a_good_one(tmp_path):
    page = np.zeros((1, 1, 8, 8), np.float32)
    page[0, 0, 1:3, 1:6] = 0.9
    good = outcome.judge(page_model(tmp_path / "good.onnx", 2), {"x": page}, page, stored_as="fp16")
    assert good == outcome.Outcome(True, pytest.approx(0, abs=1e-3), 1, True)
    bad = outcome.judge(page_model(tmp_path / "bad.onnx", 1e30), {"x": page}, page, stored_as="fp16")
    assert bad == outcome.Outcome(False, np.inf, 0, False)


def test_error_figure_lists_what_is_not_finite():
    good = outcome.Outcome(True, 0.004, 7, True)
    picture = figures.errors({"plain": {8: good, 32: outcome.Outcome(False, np.inf, 0, False)}, "mixed": {8: good}})
    assert "plain" in picture.alt
    assert [line.split()[-1] for line in picture.text.splitlines()] == ["kept", "finite", "kept"]
    (axes,) = pictures.drawn(picture)
    assert pictures.marks(axes) == [(8, 0.004), (32, 0.08), (8, 0.004)]  # what isn't finite stands at the upper edge


def test_accuracy_figure_has_a_line_for_each_training():
    picture = figures.accuracies(
        [("pruning", [("as trained", 0.99), ("pruned", 0.1)]), ("rounding", [("rounded", 0.25)])]
    )
    assert [line.split()[-2] for line in picture.text.splitlines()] == ["99.0", "10.0", "25.0"]
    (axes,) = pictures.drawn(picture)
    assert pictures.widths(axes) == [99, 10, 25]
