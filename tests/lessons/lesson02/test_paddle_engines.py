"""Lesson 02's experiment with Paddle-TRT: its trials make Paddle's calls, and its result is read."""

import dataclasses
import shutil
import warnings

import numpy as np
import pytest
import runners.paddle_signatures as recorded

paddle = pytest.importorskip("paddle")
from tutorial_utils.lessons.lesson02 import paddle_engines, trials  # noqa: E402 - they need Paddle
from tutorial_utils.lessons.lesson02.paddle_engines import PADDLE, PINNED, SAME_COPIES  # noqa: E402
from tutorial_utils.measure import experiment, timing  # noqa: E402
from tutorial_utils.measure.timing import Measurement  # noqa: E402
from tutorial_utils.model.classifier import SavedModel  # noqa: E402


def engine(ms):
    times = {
        name: Measurement(((one, one),) * 10, 20.0, 11, True, 64)
        for name, one in ((PADDLE, 1.1 * ms), (SAME_COPIES, ms), (PINNED, 0.9 * ms))
    }
    return {
        "make_s": 40.0, "open_s": 0.7, "plan_bytes": 1000, "times": timing.to_plain(times), "relative_error": 1e-3,
        "agreement": 1.0, "subgraphs": [123], "whole": True, "computes_in": "53 convolutions in TF32", "warnings": [],
    }  # fmt: skip


OUTCOME = {
    "ended": "exit status 0", "reached": "ran", "said": "", "left": "1 scale", "reasons": [], "subgraphs": [121],
    "whole": False, "relative_error": 1.0, "zeros": True, "refusal": "The engine needs ranges.",
}  # fmt: skip
DATA = {
    "stacks": [{"gpu": "A GPU", "libraries": {"paddle": "2.6.2"}}],
    "rows": {
        "resnet50/FP32": {"stack": 0, "date": "2026-11-26", "values": engine(0.6)},
        "resnet50/FP16": {"stack": 0, "date": "2026-11-26", "reason": "Paddle refused it."},
        "trial/no ranges: static shapes": {"stack": 0, "date": "2026-11-26", "values": OUTCOME},
    },
}


@pytest.mark.parametrize("name", trials.TRIALS)
def test_trials_make_calls_that_paddle_has(name, tmp_path, monkeypatch):
    monkeypatch.setattr(paddle.inference, "Config", recorded.Config)
    trial = trials.TRIALS[name]
    calls = trials.config(trial, SavedModel(tmp_path / "n.pdmodel", tmp_path / "n.pdiparams"), tmp_path).calls
    assert ("enable_tensorrt_engine" in calls) is trial.tensorrt
    assert ("set_trt_dynamic_shape_info" in calls) is (trial.tensorrt and trial.ranges == "hand")
    assert ("enable_tuned_tensorrt_dynamic_shape" in calls) is (trial.ranges == "collected")


def test_rows_are_those_of_the_experiment():
    rows = experiment.find("lesson02_paddle_tensorrt").rows
    assert [name.partition("/")[2] for name in rows] == [*paddle_engines.ENGINES, *trials.TRIALS]


def test_result_is_read_with_reasons_for_what_is_missing():
    found = paddle_engines.read(DATA)
    assert list(found.engines) == ["FP32"]
    assert found.engines["FP32"].times[SAME_COPIES].median_ms == 0.6
    assert found.reasons == {"resnet50/FP16": "Paddle refused it."}
    assert found.outcomes["no ranges: static shapes"].subgraphs == (121,)


def test_the_recording_holds_paddle_close_to_the_bare_loop_on_its_engine():
    """At most 1.15 times TensorRT's own calls with the same copies, in turn: the figure that was to be reached."""
    engines = paddle_engines.EXPERIMENT.recorded("a test").result.engines
    slower = {name: timing.compare(one.times[PADDLE], one.times[SAME_COPIES]).speedup for name, one in engines.items()}
    assert slower["FP16"] <= 1.15
    assert slower["FP32"] <= 1.15


def test_outcomes_are_told_and_what_is_missing_too():
    found = paddle_engines.read(DATA).outcomes
    told = trials.told(found, ["no ranges: static shapes", "usual"])
    assert told.splitlines() == [
        "no ranges: static shapes",
        "    operators in subgraphs for TensorRT: 121; the entire graph: no",
        "    1 scale",
        "    it ran; relative error 1.0e+00, all outputs are 0",
        "n/a, not measured: usual",
    ]
    ended = dataclasses.replace(
        found["no ranges: static shapes"],
        ended="SIGABRT",
        reached=trials.MADE,
        said="no range",
        reasons=("no converter",),
    )
    assert trials.told({"usual": ended}, ["usual"]).splitlines()[-2:] == [
        "    outside because: no converter",
        "    predictor made, then SIGABRT: no range",
    ]


def test_a_machine_without_paddle_tensorrt_says_so():
    from tutorial_utils.base.errors import BackendUnavailableError

    if paddle.inference.get_trt_compile_version() != (0, 0, 0):
        pytest.skip("this Paddle has TensorRT")
    with pytest.raises(BackendUnavailableError, match="built without TensorRT"):
        paddle_engines.measure_engine("FP16", {})


def test_names_of_rows_can_be_asked_for():
    """The command `record --rows` separates names by commas."""
    assert not [name for name in experiment.find("lesson02_paddle_tensorrt").rows if "," in name]


@pytest.mark.parametrize(
    ("log", "outputs", "expected"),
    [
        ("---  detect a sub-graph with 21 nodes", 0.0, {"relative_error": 1.0, "zeros": True, "whole": False}),
        ("The entire graph is offloaded to TensorRT.", np.nan, {"relative_error": None, "zeros": False, "whole": True}),
    ],
)
def test_outcome_of_a_trial_whose_outputs_are_wrong(log, outputs, expected, monkeypatch):
    """The process that runs it is a stand-in: it leaves a log, its steps and outputs, as the real one does."""
    monkeypatch.setattr(trials.paddle_tensorrt, "require_tensorrt", lambda: None)
    monkeypatch.setattr(trials.paddle_kernels, "missing", lambda: None)
    monkeypatch.setattr(trials.paddle_tensorrt, "legacy_config", lambda *_, **__: None)

    def run(path, _changes, _function, _trial, files, images, folder):
        path.write_text(log)
        shutil.copy(files.model_path, folder / "_optimized.pdmodel")
        (folder / "steps").write_text("predictor made\nran\n")
        np.save(folder / "outputs.npy", np.full((len(images), 10), outputs, np.float32))

    monkeypatch.setattr(trials.child_process, "run_with_log", run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = trials.measure("usual", {})
    assert {name: found[name] for name in expected} == expected
    assert (found["ended"], found["reached"], found["said"]) == ("exit status 0", "ran", "")
