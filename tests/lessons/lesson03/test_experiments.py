"""Lesson 03's experiments: what needs no GPU and, on one, that inference by hand agrees with the runner."""

import json

import numpy as np
import onnxruntime
import pytest
from small_models import images, options, residual_model

from tutorial_utils.machine import capabilities

pytest.importorskip("tensorrt_rtx")
from tutorial_utils import engine
from tutorial_utils.engine.tensorrt import MessageLog
from tutorial_utils.lessons.lesson03 import by_hand, inference, resnet50
from tutorial_utils.model import half_precision, onnx_file


def test_profile_of_values_builds(tmp_path):
    """The output shape of this engine follows the value of an input, so its profile ranges over values."""
    assert inference.build_top_k(inference.save_top_k(tmp_path / "top_k.onnx")).plan


@pytest.fixture
def on_gpu():
    machine = capabilities.probe()
    if not machine.tensorrt_run.available:
        pytest.skip(machine.tensorrt_run.reason)
    with by_hand.primary_context():
        yield


@pytest.mark.gpu
def test_every_way_by_hand_agrees_with_the_runner(fp32_model, on_gpu):
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    built, feeds, log = engine.build(fp32_model, options(), use_cache=False), {"x": images(4)}, MessageLog()
    with TensorRTRunner(built) as runner:
        expected = runner.infer(feeds)["y"]
    loaded = by_hand.load(built.plan, log)
    lanes = [by_hand.make_lane(loaded, {"x": feeds["x"].shape}, log, cuda_graph=graph) for graph in (False, True)]
    outputs = [*by_hand.infer_on_lanes(lanes, feeds), by_hand.infer_with_allocator(loaded, feeds, log)]
    for lane in lanes:
        by_hand.close(lane)
    for output in outputs:
        np.testing.assert_allclose(output["y"], expected, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def large_models(tmp_path_factory):
    """The residual model for images of 224x224, in FP32 and FP16: a small stand-in for ResNet-50."""
    folder, model = tmp_path_factory.mktemp("large"), residual_model()
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 224
    fp32 = onnx_file.save(model, folder / "fp32.onnx")
    return {"resnet50-fp32": fp32, "resnet50-fp16": half_precision.to_fp16(fp32, folder / "fp16.onnx")}


@pytest.mark.gpu
def test_inference_experiment_runs(models, large_models):
    """Each way to run an engine agrees with the others, in every part of the recording."""
    files = {"quick-fp32": models["fp32"], "quick-fp16": models["fp16"], **large_models}
    found = inference.read(json.loads(json.dumps(inference.measure(files, seconds=0.01))))
    for precision, errors in found.agreement.items():
        assert max(errors.values()) < {"fp32": 2e-3, "fp16": 2e-2}[precision]
    assert found.top_k["right"]
    refused = [row["message"] for row in found.mistakes if row["returned"] in ("False", "None")]
    assert refused
    assert "TensorRT gave no message" not in refused
    assert found.capture["status"] == "cuda-python is not installed" or found.capture["relative_error"] < 1e-3


@pytest.mark.gpu
def test_resnet50_experiment_runs(large_models, monkeypatch):
    pytest.importorskip("torchvision")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime was built without CUDA")
    monkeypatch.setattr(resnet50, "BATCHES", (2,))
    rows = resnet50.EXPERIMENT.read({"rows": resnet50.measure(large_models, seconds=0.01)})
    of_tensorrt = [row for row in rows if row.library == "TensorRT"]
    assert len(of_tensorrt) == 4
    assert max(row.relative_error for row in of_tensorrt) < 2e-2
