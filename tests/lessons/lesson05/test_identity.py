"""The experiment on Identity nodes, and what lesson 05a says of its recording."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import helper
from small_models import images, residual_model

from tutorial_utils.base import onnx_session
from tutorial_utils.engine import EngineLayer
from tutorial_utils.lessons.lesson05 import identity
from tutorial_utils.measure import experiment


def recorded(name):
    return experiment.find(name).recorded("It is read by a test.").result


def with_identity(model):
    """Return the model with an Identity before each Relu."""
    graph = helper.make_graph([], model.graph.name, model.graph.input, model.graph.output, model.graph.initializer)
    for node in model.graph.node:
        if node.op_type == "Relu":
            passed_on = f"{node.input[0]}_same"
            graph.node.append(helper.make_node("Identity", [node.input[0]], [passed_on], f"Identity.{node.name}"))
            node.input[0] = passed_on
        graph.node.append(node)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


@pytest.mark.parametrize("left_out", identity.WITHOUT_IDENTITY.values())
def test_onnx_runtime_removes_identity_nodes_and_keeps_what_it_is_told_to(left_out, tmp_path):
    onnx.save(with_identity(residual_model()), tmp_path / "with.onnx")
    found = tmp_path / "without.onnx"
    onnx_session.new_session(tmp_path / "with.onnx", optimize="basic", optimized_path=found, left_out=left_out)
    nodes = [onnx.load(path).graph.node for path in (tmp_path / "with.onnx", found)]
    before, after = (Counter(node.op_type for node in one) for one in nodes)
    assert not any(node.domain for node in nodes[1])
    assert before.keys() - after.keys() == {"Identity"} | ({"BatchNormalization"} if not left_out else set())
    assert all(after[name] == before[name] for name in after)
    answers = [
        onnx_session.new_session(path).run(None, {"x": images(2)})[0] for path in (tmp_path / "with.onnx", found)
    ]
    np.testing.assert_allclose(*answers, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "alone"),
    [
        (("Relu.3",), True),
        (("Relu.3", "Relu.4"), True),
        (("Conv.0", "Relu.0"), False),
        (("Reshape.1",), False),
        ((), False),
    ],
)
def test_a_layer_of_relus_only(nodes, alone):
    assert identity.is_relu_alone(EngineLayer("layer", "kgen", (), (), nodes)) == alone


def test_a_row_with_a_reason_is_read():
    row = {"stack": 0, "date": "2026-11-28", "reason": "It can't be built."}
    assert identity.read({"stacks": [{}], "rows": {"fp16/1x3x8x8": row}}) == {"fp16, 1x3x8x8": "It can't be built."}


def test_what_lesson_05a_says_of_the_recordings():
    large, one_image = recorded("lesson05_identity").values()
    for variants in (large, one_image):
        assert [one.relus_alone for one in variants.values()] == [16, 0, 0]
        assert variants["without Identity"].relative_difference < 1e-3
        _, without, folded = (one.graph.median_ms for one in variants.values())
        assert without == pytest.approx(folded, rel=0.01)  # "TensorRT folds batch norms itself"
    assert gain(large, "graph") == pytest.approx(1.23, abs=5e-3)
    assert gain(one_image, "graph") == pytest.approx(1.13, abs=5e-3)
    assert one_image["without Identity"].verdict.startswith("1.13 times as fast")
    assert gain(one_image, "device") == pytest.approx(1.4, abs=0.05)  # launched by the CPU
    assert 1 - 1 / gain(large, "graph") == pytest.approx(0.19, abs=5e-3)
    kernels = recorded("lesson05_ncu")
    relus = sum(one.microseconds for one in kernels if one.name.startswith("__myl_CasMaxCas"))
    assert relus / sum(one.microseconds for one in kernels) == pytest.approx(1 / 6, rel=0.05)


def gain(variants, clock):
    before, without, _ = (getattr(one, clock).median_ms for one in variants.values())
    return before / without
