"""Lesson 03's experiments: what needs no GPU and, on one, that inference by hand agrees with the runner."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from small_models import images, options, residual_model

from tutorial_utils.base import flavour
from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.machine import capabilities

if flavour.installed_flavour() is None:
    pytest.skip("there is no TensorRT", allow_module_level=True)
from tutorial_utils import engine
from tutorial_utils.engine.tensorrt import MessageLog
from tutorial_utils.lessons.lesson03 import by_hand, inference, resnet50
from tutorial_utils.model import half_precision, onnx_file


def test_profile_of_values_builds(tmp_path):
    """The output shape of this engine follows the value of an input, so its profile ranges over values."""
    assert inference.build_top_k(inference.save_top_k(tmp_path / "top_k.onnx")).plan


@pytest.mark.parametrize("rtx", [True, False])
def test_a_lane_replays_a_graph_that_tensorrt_does_not_capture_by_itself(rtx, monkeypatch):
    calls = []
    enqueue = SimpleNamespace(execute_async_v3=lambda handle: calls.append("enqueued") or True)
    monkeypatch.setattr(by_hand, "IS_RTX", rtx)
    monkeypatch.setattr(by_hand, "cuda", SimpleNamespace(Stream=lambda: SimpleNamespace(handle=7)))
    monkeypatch.setattr(by_hand, "new_context", lambda engine, log, cuda_graph: calls.append(cuda_graph) or enqueue)
    monkeypatch.setattr(by_hand, "allocate", lambda *_: {})
    monkeypatch.setattr(by_hand, "capture", lambda lane: "graph")
    monkeypatch.setattr(by_hand, "launch", lambda graph, lane: calls.append(graph))
    by_hand.start(by_hand.make_lane(None, {}, MessageLog(), cuda_graph=True), {})
    assert calls == [rtx, "enqueued" if rtx else "graph"]


@pytest.mark.parametrize(
    ("rtx", "expected"), [(True, ["enqueued"]), (False, ["enqueued", "waited", "captured", "launched"])]
)
def test_resnet50_is_captured_where_tensorrt_does_not(rtx, expected, monkeypatch):
    calls = []

    def captured(call, stream):
        calls.append("captured")
        return SimpleNamespace(launch=lambda: calls.append("launched"))

    context = SimpleNamespace(
        engine=None,
        set_input_shape=lambda name, shape: True,
        set_tensor_address=lambda name, address: True,
        get_tensor_shape=lambda name: (2, 10),
        execute_async_v3=lambda handle: calls.append("enqueued") or True,
    )
    logits = np.zeros((2, 10))
    tensor = SimpleNamespace(shape=(2, 3, 224, 224), data_ptr=lambda: 1)
    torch = SimpleNamespace(empty=lambda *_, **__: SimpleNamespace(data_ptr=lambda: 2, logits=logits), float32=None)
    monkeypatch.setattr("tutorial_utils.engine.tensorrt.IS_RTX", rtx)
    monkeypatch.setattr("tutorial_utils.runners.cuda_graph.CudaGraph", captured)
    monkeypatch.setattr(by_hand, "load", lambda plan, log: None)
    monkeypatch.setattr(by_hand, "new_context", lambda *_, cuda_graph: context)
    monkeypatch.setattr(by_hand, "tensors", lambda engine: {"x": (), "logits": ()})
    stream = SimpleNamespace(cuda_stream=7, synchronize=lambda: calls.append("waited"))
    call = resnet50.tensorrt_call(torch, stream, SimpleNamespace(plan=b""), tensor, True)
    assert call().logits is logits
    assert calls == expected


def test_without_cuda_python_nothing_is_built(monkeypatch):
    monkeypatch.setattr(inference, "IS_RTX", False)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(BackendUnavailableError, match="cuda-python"):
        inference.measure({})


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
