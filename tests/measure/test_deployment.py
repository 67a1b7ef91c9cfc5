"""The deployment table, from real runs on the CPU."""

import dataclasses
import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.base.gpu import Gpu
from tutorial_utils.engine import BuildReport
from tutorial_utils.machine import capabilities
from tutorial_utils.measure import deployment, quality, timing
from tutorial_utils.model import data
from tutorial_utils.runners import Runner
from tutorial_utils.runners.base import TensorSpec


@pytest.fixture(scope="module")
def test_images() -> data.Dataset:
    digits = data.load("digits", "test")
    return dataclasses.replace(digits, inputs=digits.inputs[:70], labels=digits.labels[:70])


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


# --- each row has its own numbers: runners whose speed and answers are known ------------------------------------------

# Ten images of five classes, each image filled with its own number, so that a runner can look up its answer to it.
KNOWN = data.Dataset(
    "known",
    np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1),
    np.arange(10) % 5,
    tuple("abcde"),
)


class Clock:
    """A clock that stands still but for what a runner adds to it."""

    now_ms = 0.0

    def perf_counter(self):
        return self.now_ms / 1e3

    def perf_counter_ns(self):
        return round(self.now_ms * 1e6)


class StubRunner(Runner):
    """Takes the time that it is told to take, and answers a number of images wrongly: with the next class."""

    def __init__(self, backend, clock, *, call_ms, wrong, largest=1.0):
        self.backend, self._clock, self._call_ms = backend, clock, call_ms
        self.inputs = {"x": TensorSpec("x", np.dtype(np.float32), (-1, 1, 1, 1))}
        answers = KNOWN.labels.copy()
        answers[:wrong] = (answers[:wrong] + 1) % 5
        self._logits = largest * np.eye(5, dtype=np.float32)[answers]

    def _infer(self, feeds):
        self._clock.now_ms += self._call_ms
        return {"y": self._logits[feeds["x"].astype(int).ravel()]}


class StubEngineRunner(StubRunner):
    """One that also says what the GPU alone takes: half of a call."""

    def device_times(self, feeds, calls):
        return np.full(calls, self._call_ms / 2)


# What each runner is like. The second returns NaN and is left out: the rows after it must keep their numbers.
SPEEDS = {
    ("cpu", "fp32"): {"call_ms": 8, "wrong": 1},
    ("cpu", "fp16"): {"call_ms": 7, "wrong": 2, "largest": np.nan},
    ("cpu", "int8"): {"call_ms": 6, "wrong": 3, "largest": 1.5},
    ("cuda", "fp32"): {"call_ms": 5, "wrong": 4, "largest": 1.25},
    ("cuda", "fp16"): {"call_ms": 4, "wrong": 5, "largest": 1.75},
    ("cuda", "int8"): {"call_ms": 3, "wrong": 6, "largest": 2.0},
    ("tensorrt", "fp32"): {"call_ms": 2, "wrong": 7, "largest": 2.25},
    ("tensorrt", "fp16"): {"call_ms": 1, "wrong": 8, "largest": 2.5},
}


@pytest.fixture
def stubs(monkeypatch, tmp_path):
    """Stubs in place of the runners; returns what `deployment.run` is to be called with."""
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    models = {precision: tmp_path / f"{precision}.onnx" for precision in ("fp32", "fp16", "int8")}
    for size, path in enumerate(models.values(), 1):
        path.write_bytes(bytes(1000 * size))
    engines = {
        precision: SimpleNamespace(
            precision=precision,
            report=BuildReport("TensorRT-RTX", "1", plan_bytes=10 * size, activation_bytes=20 * size),
        )
        for size, precision in enumerate(("fp32", "fp16"), 1)
    }

    def onnx_runtime(path, *, device):
        return StubRunner(f"ONNX Runtime {device.upper()}", clock, **SPEEDS[device, path.stem])

    def tensorrt(engine):
        return StubEngineRunner("TensorRT", clock, **SPEEDS["tensorrt", engine.precision])

    for name, members in (("onnx_runtime", {"OnnxRuntimeRunner": onnx_runtime}),
                          ("tensorrt", {"TensorRTRunner": tensorrt})):  # fmt: skip
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, f"tutorial_utils.runners.{name}", module)
    yes = capabilities.Capability("", True, "", "")
    no = capabilities.Capability("", False, "Not here.", "")
    machine = dataclasses.replace(
        capabilities.assess(None, no, {}, None),
        onnxruntime_cpu=yes, onnxruntime_cuda=yes, tensorrt_run=yes, tensorrt_int8=no,
    )  # fmt: skip
    return {"machine": machine, "dataset": KNOWN, "onnx_models": models, "engines": engines, "batch": 4}


def test_each_row_has_the_numbers_of_its_own_runner(stubs):
    rows, skipped = deployment.run(**stubs)
    expected = {key: about for key, about in SPEEDS.items() if key != ("cpu", "fp16")}
    names = {"cpu": "ONNX Runtime CPU", "cuda": "ONNX Runtime CUDA", "tensorrt": "TensorRT"}
    assert [(row.backend, row.precision) for row in rows] == [(names[one], precision) for one, precision in expected]
    for row, about in zip(rows, expected.values(), strict=True):
        assert row.latency.median_ms == pytest.approx(about["call_ms"])
        # The reference answers one image wrongly, and the others answer this image in the same wrong way.
        assert row.agreement == pytest.approx(1 - (about["wrong"] - 1) / 10)
        assert row.quality.accuracy == pytest.approx(1 - about["wrong"] / 10)
        # An answer that differs is wrong by its whole logit; no other row agrees with the reference throughout.
        largest = about.get("largest", 1.0)
        assert row.relative_error == pytest.approx(largest if about["wrong"] > 1 else 0)
        assert row.latency.batch == 4
    assert [row.model_bytes for row in rows] == [1000, 3000, 1000, 2000, 3000, 1000, 2000]
    assert deployment.Skipped("ONNX Runtime CPU FP16", "It returns NaN or Inf.") in skipped


def test_only_rows_of_engines_have_the_numbers_of_engines(stubs):
    rows, _ = deployment.run(**stubs)
    others, of_engines = rows[:-2], rows[-2:]
    assert {(row.device_latency, row.engine_bytes, row.activation_bytes) for row in others} == {(None, None, None)}
    assert [(row.engine_bytes, row.activation_bytes) for row in of_engines] == [(10, 20), (20, 40)]
    assert [row.device_latency.median_ms for row in of_engines] == [1.0, 0.5]
    assert {row.device_latency.batch for row in of_engines} == {4}


# --- what is left out ------------------------------------------------------------------------------------------------


def test_what_is_left_out_is_said_with_its_reason(test_images, fp32_model):
    _, skipped = deployment.run(without_gpu(), test_images, {"fp32": fp32_model}, seconds=0.05)
    assert {one.what for one in skipped} == {"ONNX Runtime CUDA", "TensorRT"}
    assert {one.reason for one in skipped} == {"No GPU here."}


def test_a_model_that_one_backend_refuses_costs_its_own_row_only(test_images, models):
    """ONNX Runtime's CPU has no convolutions in BF16, and says so when it loads the model."""
    variants = {"bf16": models["bf16"], "fp32": models["fp32"], "fp16": models["fp16"]}
    rows, skipped = deployment.run(without_gpu(), test_images, variants, seconds=0.05)
    assert [row.precision for row in rows] == ["fp32", "fp16"]
    assert rows[0].agreement == 1  # the first that runs is the reference
    assert rows[0].relative_error == 0
    (refused,) = [one for one in skipped if one.what == "ONNX Runtime CPU BF16"]
    assert "ONNX Runtime can't load bf16.onnx" in refused.reason
    assert "Could not find an implementation" in refused.reason
    assert "Remedy" not in refused.reason  # to export the model again wouldn't help


@pytest.mark.parametrize("fails", ["load", "infer"])
def test_whatever_a_backend_raises_costs_its_own_row_only(fails, stubs, monkeypatch):
    """Backends have errors of their own, and some come at the first call only."""
    closed = []

    class Failing(StubRunner):
        def __init__(self, *arguments, **about):
            super().__init__(*arguments, **about)
            if fails == "load":
                raise RuntimeError("no kernel for this GPU.\nA second line about the stack")

        def _infer(self, feeds):
            raise RuntimeError("no kernel for this GPU.\nA second line about the stack")

        def close(self):
            closed.append(self.backend)

    monkeypatch.setattr(sys.modules[__name__], "StubEngineRunner", Failing)
    rows, skipped = deployment.run(**stubs)
    assert [row.latency.median_ms for row in rows] == pytest.approx([8, 6, 5, 4, 3])
    for precision in ("FP32", "FP16"):
        left_out = deployment.Skipped(f"TensorRT-RTX {precision}", "RuntimeError: no kernel for this GPU.")
        assert left_out in skipped
    assert closed == (["TensorRT"] * 2 if fails == "infer" else [])


def test_runners_stay_open_until_the_table_is_made(stubs, monkeypatch):
    is_open = {}

    class Closing(StubRunner):
        def _infer(self, feeds):
            assert is_open.setdefault(self, True)
            return super()._infer(feeds)

        def close(self):
            is_open[self] = False

    monkeypatch.setattr(sys.modules[__name__], "StubRunner", Closing)
    stubs["machine"] = dataclasses.replace(stubs["machine"], tensorrt_run=stubs["machine"].tensorrt_int8)
    rows, _ = deployment.run(**stubs)
    assert len(rows) == 5
    assert [*is_open.values()] == [False] * 6  # the one that is left out, too


def test_a_table_without_any_row_says_why(test_images, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(BackendUnavailableError, match=r"ONNX Runtime CPU FP32: ONNX Runtime can't load broken\.onnx"):
        deployment.run(without_gpu(), test_images, {"fp32": tmp_path / "broken.onnx"}, seconds=0.05)


@pytest.mark.parametrize(
    ("precision", "refused_on"), [("fp32", []), ("fp16", []), ("bf16", ["7.5"]), ("fp8", ["7.5", "8.6"])]
)
def test_a_type_that_the_gpu_lacks_is_refused_with_its_reason(precision, refused_on):
    def refusal(compute_capability):
        gpu = Gpu("Some GPU", compute_capability, "13.0", 1)
        return deployment.refusal(dataclasses.replace(without_gpu(), gpu=gpu), precision)

    refusals = {one: refusal(one) for one in ("7.5", "8.6", "8.9", "12.0")}
    assert [one for one, reason in refusals.items() if reason] == refused_on
    assert deployment.refusal(dataclasses.replace(without_gpu(), gpu=None), precision) is None
    if precision == "bf16":
        assert refusals["7.5"] == "BF16 needs compute capability 8.0 or newer, and Some GPU has 7.5."


def test_int8_is_refused_where_tensorrt_cannot_build_it(stubs):
    assert deployment.refusal(stubs["machine"], "int8") == "Not here."
    _, skipped = deployment.run(**stubs)
    assert deployment.Skipped("TensorRT INT8", "Not here.") in skipped


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


def test_recording_of_the_course_is_stamped_and_complete():
    recorded = deployment.EXPERIMENT.recorded("no GPU")
    rows = recorded.result.rows
    assert recorded.gpu in recorded.origin.machine
    assert {row.precision for row in rows if row.backend == "TensorRT-RTX"} >= {"fp32", "fp16"}
    assert all(row.latency.stable and np.all(row.latency.samples_ms > 0) for row in rows)
    # TF32, and TensorRT-RTX swaps kernels while it runs: 7e-4 at the first calls of an engine, up to 3.1e-3 later.
    assert max(row.relative_error for row in rows if row.precision == "fp32") < 5e-3
    assert max(row.relative_error for row in rows if row.precision == "fp16") < 2e-2
