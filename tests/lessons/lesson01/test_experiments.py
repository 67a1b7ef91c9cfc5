"""The parts of lesson 01's experiments that need no GPU, and their figures."""

import onnx
import pytest
from small_models import options

from tutorial_utils import engine
from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.inspection import dataflow
from tutorial_utils.lessons.lesson01 import fusion, fusion_figures, plans, targets
from tutorial_utils.lessons.lesson01 import memory as memory_figures
from tutorial_utils.lessons.lesson01 import plans_figures as plan_figures
from tutorial_utils.lessons.lesson01 import targets_figures as target_figures
from tutorial_utils.lessons.lesson01.targets import Attempt
from tutorial_utils.machine import capabilities
from tutorial_utils.measure import recordings
from tutorial_utils.model import half_precision, quantization

PROFILE = options().profiles[0]


@pytest.fixture(scope="module")
def typed_models(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets")
    return (
        half_precision.to_bf16(models["fp16"], folder / "bf16.onnx"),
        quantization.to_fp8(models["fp32"], models["int8"], folder / "fp8.onnx"),
    )


def test_bf16_model_holds_no_fp16(typed_models):
    types = {weight.data_type for weight in onnx.load(typed_models[0]).graph.initializer}
    assert onnx.TensorProto.BFLOAT16 in types
    assert onnx.TensorProto.FLOAT16 not in types


def test_targets_that_build_and_targets_that_do_not(typed_models):
    pytest.importorskip("tensorrt_rtx")
    bf16, fp8 = typed_models
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


@pytest.mark.parametrize("experiment", [fusion, plans])
def test_recording_needs_a_gpu(experiment, tmp_path):
    if capabilities.probe().tensorrt_run.available:
        pytest.skip("engines run here")
    with pytest.raises(BackendUnavailableError):
        experiment.record(tmp_path)


def test_fusion_rows_survive_the_recording(tmp_path):
    times = {"rounds_ms": [[1.0, 2.0]], "first_call_ms": 3.0, "warmup_calls": 4, "stable": True, "batch": 5}
    row = {"model": "m", "engine": "fused", "kernels": 6, "times": times}
    recording = recordings.new("t", "m", {"gpu": "g"}, {"rows": [row]})
    (read,) = fusion.rows_of(recordings.load(recordings.save(recording, tmp_path / "r.json")))
    assert read["kernels"] == 6
    assert read["times"].median_ms == 1.5


def png(picture):
    return picture._repr_mimebundle_()[0]["image/png"][:4]


def test_fusion_figures(fp32_model):
    pytest.importorskip("tensorrt_rtx")
    report = engine.build(fp32_model, options()).report
    drawn = fusion_figures.fusion_map(onnx.load(fp32_model).graph, report)
    assert png(drawn) == b"\x89PNG"
    for name in ("conv0", "norm", "sum", "fc"):
        assert name in drawn.text
    flows = {"nodes": dataflow.from_onnx(fp32_model, 8), "engine": dataflow.from_report(report, 8)}
    drawn = fusion_figures.bytes_moved({"small": flows})
    assert png(drawn) == b"\x89PNG"
    assert f"{flows['nodes'].read_bytes / 1e6:.1f} MB read" in drawn.text


def test_memory_figures(fp32_model):
    flow = dataflow.from_onnx(fp32_model, 8)
    drawn = memory_figures.lifetimes(flow)
    assert png(drawn) == b"\x89PNG"
    assert f"{flow.largest_live_set / 2**20:.2f} MiB" in drawn.alt
    drawn = memory_figures.memory_by_batch({"small": {"engine": {1: 2**20, 8: 2**23}}})
    assert png(drawn) == b"\x89PNG"
    assert "batch 8 8.0 MiB" in drawn.text


def test_target_and_plan_figures():
    builds = [Attempt("a", ("7.5",), reason="no"), Attempt("a", ("8.6",), 5000, 3)]
    drawn = target_figures.build_matrix(builds)
    assert png(drawn) == b"\x89PNG"
    assert drawn.text == "a for 7.5: refused\na for 8.6: 3 kernels, 5 KB"
    drawn = plan_figures.times({"small": {"build": 100.0, "read": 1.0}})
    assert png(drawn) == b"\x89PNG"
    assert "small, build: 100 ms" in drawn.text
