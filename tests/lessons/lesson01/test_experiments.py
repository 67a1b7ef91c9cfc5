"""The parts of lesson 01's experiments that need no GPU, and their figures."""

import onnx
import pictures
import pytest
from small_models import options

from tutorial_utils import engine
from tutorial_utils.inspection import dataflow
from tutorial_utils.lessons.lesson01 import fusion, plans, targets
from tutorial_utils.lessons.lesson01 import memory as memory_figures
from tutorial_utils.lessons.lesson01.targets import Attempt

PROFILE = options().profiles[0]


def test_targets_that_build_and_targets_that_do_not(models):
    pytest.importorskip("tensorrt_rtx")
    bf16, fp8 = models["bf16"], models["fp8"]
    built, old, refused = targets.attempts([(bf16, ("8.6",)), (bf16, ("7.5",)), (fp8, ("8.6",))], PROFILE)
    assert built.built
    assert built.kernels > 0
    assert "b16" in old.reason
    assert "fp8_e4m3" in refused.reason
    assert "/_src/" not in refused.reason


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


def test_build_matrix():
    builds = [Attempt("a", ("7.5",), reason="no"), Attempt("a", ("8.6",), 5000, 3)]
    picture = targets.draw_build_matrix(builds)
    assert picture.text == "a for 7.5: refused\na for 8.6: 3 kernels, 5 KB"
    (axes,) = pictures.drawn(picture)
    assert [(round(left + 0.48), round(bottom + 0.46)) for left, bottom, *_ in pictures.bars(axes)] == [(0, 0), (1, 0)]
    assert [text.get_text() for text in axes.texts] == ["refused", "3 kernels\n5 KB"]


def test_plan_times():
    picture = plans.draw_times({"small": {"build": 100.0, "read": 1.0}, "large": {"build": 2000.0, "read": 3.0}})
    (axes,) = pictures.drawn(picture)
    assert pictures.widths(axes) == pictures.numbers(picture.text, r": ([\d.,]+) ms$") == [100, 1, 2000, 3]


def test_marking_all_outputs_breaks_fusion(fp32_model, tmp_path):
    marked = fusion.mark_all_outputs(fp32_model, tmp_path / "marked.onnx")
    names = [value.name for value in onnx.load(marked).graph.output]
    assert names == ["y", "conv0", "relu0", "conv1", "norm", "sum", "relu1", "pool", "flat"]
    pytest.importorskip("tensorrt_rtx")
    fused, broken = (engine.build(path, options()).report for path in (fp32_model, marked))
    assert len(broken.kernels) > len(fused.kernels)
    assert dataflow.from_report(broken, 8).moved_bytes > dataflow.from_report(fused, 8).moved_bytes
