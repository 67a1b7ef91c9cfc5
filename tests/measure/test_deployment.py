"""The deployment table, from real runs on the CPU."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tutorial_utils import plotting
from tutorial_utils.base.errors import BackendUnavailableError, ModelFileError
from tutorial_utils.machine import capabilities
from tutorial_utils.measure import deployment, quality, record, recordings, timing
from tutorial_utils.model import data


@pytest.fixture(scope="module")
def test_images() -> data.Dataset:
    digits = data.load("digits", "test")
    return dataclasses.replace(digits, images=digits.images[:70], labels=digits.labels[:70])


@pytest.fixture
def row() -> deployment.Row:
    latency = timing.Measurement(((1.0, 2.0), (3.0, 4.0)), 50.0, 11, True, 64)
    found = quality.Metrics(0.99, 0.98, 0.97)
    return deployment.Row("ONNX Runtime CPU", "fp32", found, 1.0, 0.0, latency, None, 323_000, None, None)


def without_gpu() -> capabilities.Capabilities:
    no = capabilities.Capability("GPU", False, "No GPU here.", "Nothing is broken.")
    return dataclasses.replace(
        capabilities.probe(), onnxruntime_cuda=no, tensorrt_run=no, paddle_gpu=no, tensorrt_int8=no
    )


def test_all_test_images_count_also_those_that_fill_no_batch(test_images, fp32_model):
    rows, _ = deployment.run(without_gpu(), test_images, {"fp32": fp32_model}, batch=64, seconds=0.05)
    from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

    with OnnxRuntimeRunner(fp32_model) as runner:
        (logits,) = runner.infer({"x": test_images.images}).values()
    assert rows[0].quality == quality.classification_metrics(test_images.labels, logits)
    assert rows[0].agreement == 1
    assert rows[0].relative_error == 0
    assert rows[0].latency.batch == 64
    assert rows[0].model_bytes == fp32_model.stat().st_size


def test_what_is_left_out_is_said_with_its_reason(test_images, fp32_model):
    _, skipped = deployment.run(without_gpu(), test_images, {"fp32": fp32_model}, seconds=0.05)
    assert {one.what for one in skipped} == {"ONNX Runtime CUDA", "TensorRT"}
    assert {one.reason for one in skipped} == {"No GPU here."}


def test_a_model_that_overflows_costs_its_own_row_only(test_images, fp32_model, tmp_path):
    model = onnx.load(fp32_model)
    for weight in model.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(np.inf), weight.name))
    onnx.save(model, tmp_path / "broken.onnx")
    models = {"fp32": fp32_model, "fp16": tmp_path / "broken.onnx"}
    rows, skipped = deployment.run(without_gpu(), test_images, models, seconds=0.05)
    assert [row.precision for row in rows] == ["fp32"]
    assert deployment.Skipped("ONNX Runtime CPU FP16", "It returns NaN or Inf.") in skipped


def test_row_survives_json(row):
    assert deployment.Row.from_dict(json.loads(json.dumps(row.to_dict()))) == row


def test_table_shows_each_number_and_leaves_unknown_ones_empty(row):
    table = deployment.table([("here", [row]), ("there", [row])]).reset_index()
    assert list(table["where"]) == ["here", "there"]
    first = table.iloc[0]
    assert (first["accuracy %"], first["macro prec. %"], first["macro recall %"]) == ("99.00", "98.00", "97.00")
    assert (first["median ms"], first["images/s"], first["model KB"]) == ("2.500", "25,600", "323")
    assert first["calls"] == "4"
    assert first["engine KB"] == first["GPU only ms"] == ""


def test_latency_figure_has_a_description_and_its_numbers_as_text(row):
    picture = plotting.latency([("here", [row])])
    content, about = picture._repr_mimebundle_()
    assert content["image/png"].startswith(b"\x89PNG")
    assert about["image/png"]["alt"] == picture.alt
    assert "ONNX Runtime CPU FP32" in picture.alt
    assert "2.500 ms" in content["text/plain"]


def test_samples_figure_names_the_labels():
    digits = data.load("digits", "test")
    assert plotting.samples(digits, 4).text == "labels: " + ", ".join(map(str, digits.labels[:4]))


def test_recording_of_the_course_is_stamped_and_complete():
    recording = recordings.load("deployment")
    rows = [deployment.Row.from_dict(values) for values in recording.data["rows"]]
    assert recording.machine["gpu"] in recording.stamp
    assert {row.precision for row in rows if row.backend == "TensorRT-RTX"} >= {"fp32", "fp16"}
    assert all(row.latency.stable and np.all(row.latency.samples_ms > 0) for row in rows)
    # TF32, and TensorRT-RTX swaps kernels while it runs: 7e-4 at the first calls of an engine, up to 3.1e-3 later.
    assert max(row.relative_error for row in rows if row.precision == "fp32") < 5e-3
    assert max(row.relative_error for row in rows if row.precision == "fp16") < 2e-2


def test_recording_needs_a_gpu(monkeypatch):
    machine = without_gpu()
    monkeypatch.setattr(capabilities, "probe", lambda: machine)
    with pytest.raises(BackendUnavailableError, match="No GPU here"):
        record.record_deployment()


def test_recording_needs_all_models(tmp_path):
    with pytest.raises(ModelFileError, match=r"quick-fp32\.onnx"):
        record.models_in(tmp_path)


def test_dynamic_graph_comes_first_and_agrees(test_images):
    pytest.importorskip("paddle")
    from tutorial_utils.model import classifier

    model = classifier.build("quick")
    machine = dataclasses.replace(
        without_gpu(), onnxruntime_cpu=capabilities.Capability("ONNX Runtime", False, "Left out.", "")
    )
    rows, _ = deployment.run(machine, test_images, {}, dynamic_graph=model, seconds=0.05)
    assert [row.backend for row in rows] == ["Paddle dynamic CPU"]
    logits = classifier.predict(model, test_images.images)
    assert rows[0].quality == quality.classification_metrics(test_images.labels, logits)


def test_details_are_shown_on_request(row):
    shown = deployment.table([("here", [dataclasses.replace(row, first_result_ms=123.21)])], details=True)
    assert shown["first result ms"].tolist() == ["123.2"]
    assert shown["agreement %"].tolist() == ["100.00"]
    assert not {"first result ms", "agreement %"} & {*deployment.table([("here", [row])])}


def test_rows_of_recordings_before_first_results_are_read(row):
    values = row.to_dict()
    del values["first_result_ms"]
    assert deployment.Row.from_dict(values) == row
