"""The parts of lesson 01's experiments that need no GPU, and their figures."""

import onnx
import pictures
import pytest
from small_models import options

from tutorial_utils import engine
from tutorial_utils.lessons.lesson01 import fusion, plans

PROFILE = options().profiles[0]


def test_damaged_plans_differ_from_the_plan():
    plan = b"vtrt" + bytes(range(100))
    copies = plans.damaged(plan)
    assert copies.pop("untouched") == plan
    assert all(copy != plan for copy in copies.values())


def test_times_to_a_context():
    load = {"read_ms": 2.0, "deserialize_ms": 3.0, "context_ms": 400.0, "reported_bytes": 0, "asked_bytes": 0}
    picture = plans.draw(plans.read({"loads": {"small": {"parse_ms": 1.0, "build_ms": 100.0, **load}}, "refusals": {}}))
    assert picture.text.splitlines()[0].startswith("small, from ONNX: 504 ms (parse 1.0, build 100.0, deserialize 3.0")
    assert picture.text.splitlines()[1].startswith("small, from the plan: 405 ms (read the plan 2.0, deserialize 3.0")
    (axes,) = pictures.drawn(picture)
    assert axes.get_xscale() == "linear"
    assert axes.get_xlim()[0] == 0
    ends = {}  # of each row, where its last step ends
    for left, bottom, width, height in pictures.bars(axes):
        row = round(bottom + height / 2)
        assert left == pytest.approx(ends.get(row, 0))  # a step begins where the one before it ends
        ends[row] = left + width
    assert ends == {0: pytest.approx(504), 1: pytest.approx(405)}


def test_marking_all_outputs_breaks_fusion(fp32_model, tmp_path):
    marked = fusion.mark_all_outputs(fp32_model, tmp_path / "marked.onnx")
    names = [value.name for value in onnx.load(marked).graph.output]
    assert names == ["y", "conv0", "relu0", "conv1", "norm", "sum", "relu1", "pool", "flat"]
    pytest.importorskip("tensorrt_rtx")
    fused, broken = (engine.build(path, options()).report for path in (fp32_model, marked))
    assert len(broken.kernels) > len(fused.kernels)
