"""The parts of lesson 01's experiments that need no GPU, and their figures."""

import onnx
import pictures
import pytest
from small_models import options

from tutorial_utils import engine
from tutorial_utils.inspection import dataflow
from tutorial_utils.lessons.lesson01 import fusion, plans
from tutorial_utils.lessons.lesson01 import memory as memory_figures

PROFILE = options().profiles[0]


def test_damaged_plans_differ_from_the_plan():
    plan = b"vtrt" + bytes(range(100))
    copies = plans.damaged(plan)
    assert copies.pop("untouched") == plan
    assert all(copy != plan for copy in copies.values())


def test_bytes_moved(fp32_model):
    pytest.importorskip("tensorrt_rtx")
    report = engine.build(fp32_model, options()).report
    flows = {"nodes": dataflow.from_onnx(fp32_model, 8), "engine": dataflow.from_report(report, 8)}
    picture = fusion.draw_bytes_moved({"small": flows})
    assert f"{flows['nodes'].read_bytes / 1e6:.1f} MB read" in picture.text
    (axes,) = pictures.drawn(picture)
    lengths = pictures.widths(axes)
    assert lengths[::2] == pictures.near(pictures.numbers(picture.text, r"([\d.]+) MB read"), 0.05)
    assert lengths[1::2] == pictures.near(pictures.numbers(picture.text, r"([\d.]+) MB written"), 0.05)
    assert [left for left, *_ in pictures.bars(axes)][1::2] == lengths[::2]  # what is written begins where reads end


def test_memory_by_batch():
    curves = {"bound": {1: 2**19, 8: 2**22}, "engine": {1: 2**20, 8: 2**23}}
    picture = memory_figures.memory_by_batch({"small": curves, "large": curves})
    assert picture.text.splitlines()[1] == "small, engine: batch 1 1.0 MiB, batch 8 8.0 MiB"
    for axes in pictures.drawn(picture):
        assert pictures.marks(axes) == [(1, 0.5), (8, 4.0), (1, 1.0), (8, 8.0)]


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
    assert dataflow.from_report(broken, 8).moved_bytes > dataflow.from_report(fused, 8).moved_bytes
