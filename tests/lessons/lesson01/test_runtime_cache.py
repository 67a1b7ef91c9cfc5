"""The runtime cache of TensorRT-RTX: what is asked of it and in which order, rows that are read, and what is told."""

import json
import subprocess
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
from small_models import options

from tutorial_utils.base.errors import BackendUnavailableError, BuildError, PlanError
from tutorial_utils.base.flavour import installed_flavour
from tutorial_utils.engine import build
from tutorial_utils.lessons.lesson01 import runtime_cache
from tutorial_utils.lessons.lesson01.runtime_cache import STEPS, WAYS, Started, Starts

IMAGES = np.zeros((2, 3), np.float32)


@pytest.fixture
def asked(runner, monkeypatch):
    """A TensorRT-RTX whose calls all succeed; returns those that concern the cache, in their order."""
    from tutorial_utils.engine import tensorrt

    engine, calls = MagicMock(), MagicMock()
    config = engine.create_runtime_config.return_value
    cache = config.create_runtime_cache.return_value
    cache.serialize.side_effect = [b"first", b"more"]
    context = engine.create_execution_context.return_value
    context.get_tensor_shape.return_value = (2, 10)
    for name, one in (("read", cache.deserialize), ("set", config.set_runtime_cache), ("run", context.execute_async_v3),
                      ("create", engine.create_execution_context), ("keep", cache.serialize)):  # fmt: skip
        calls.attach_mock(one, name)
    engine.get_tensor_name.side_effect = ["x", "logits"]
    trt = SimpleNamespace(
        ILogger=tensorrt.trt.ILogger,
        Runtime=lambda log: SimpleNamespace(deserialize_cuda_engine=lambda plan: engine if plan else None),
        nptype=lambda dtype: np.float32,
    )
    monkeypatch.setattr(tensorrt, "trt", trt)
    monkeypatch.setattr(tensorrt, "IS_RTX", True)
    return SimpleNamespace(engine=engine, config=config, cache=cache, calls=calls)


def _names(asked):
    return [name for name, *_ in asked.calls.mock_calls if "(" not in name]


AFTER = ["set", "create", "run", "keep"]


@pytest.mark.usefixtures("any_tensorrt")
@pytest.mark.parametrize(
    ("cache", "calls"),
    [
        (None, ["create", "run"]),
        (b"", ["set", "create", "run", "keep"]),
        (b"kept", ["read", "set", "create", "run", "keep"]),
    ],
)
def test_a_start_reads_the_cache_before_the_context_and_keeps_it_after_the_first_call(asked, cache, calls):
    found = runtime_cache.start(b"plan", IMAGES, cache)
    assert _names(asked) == calls
    assert len(found.ms) == len(STEPS)
    assert min(found.ms) >= 0
    assert (found.accepted, found.kept, found.kept_later) == (cache == b"kept", b"" if cache is None else b"first", b"")
    assert found.output.shape == (2, 10)
    given = asked.engine.create_execution_context.call_args.args
    assert given == (() if cache is None else (asked.config,))


@pytest.mark.usefixtures("any_tensorrt")
def test_more_calls_before_the_cache_is_kept_again(asked):
    found = runtime_cache.start(b"plan", IMAGES, b"", more_seconds=0.01)
    names = _names(asked)
    assert names[:5] == ["set", "create", "run", "keep", "run"]
    assert names[-1] == "keep"
    assert (found.kept, found.kept_later) == (b"first", b"more")


@pytest.mark.usefixtures("any_tensorrt")
def test_what_is_refused(asked):
    asked.cache.deserialize.return_value = False  # made elsewhere: no error, it is compiled again
    assert not runtime_cache.start(b"plan", IMAGES, b"kept").accepted
    asked.config.set_runtime_cache.return_value = False
    with pytest.raises(BuildError, match="refuses the runtime cache"):
        runtime_cache.start(b"plan", IMAGES, b"")
    with pytest.raises(PlanError, match="can't load the plan"):
        runtime_cache.start(b"", IMAGES, None)


@pytest.fixture
def starts(monkeypatch):
    """Starts that are made up instead of done: returns what was asked of each."""
    calls = []

    def elsewhere(way, plan, images, cache, more_seconds=0.0):
        calls.append((cache, more_seconds))
        later = b"later" if more_seconds else b""
        return Started((1.0, 0.0, 200.0, 30.0), cache == b"later", b"" if cache is None else b"first", later, output)

    output = np.eye(3)
    monkeypatch.setattr(runtime_cache, "_elsewhere", elsewhere)
    monkeypatch.setattr(runtime_cache.flavour, "require", lambda flavour: None)
    monkeypatch.setattr(runtime_cache.engine, "build", lambda *_, **__: SimpleNamespace(plan=b"a plan"))
    return SimpleNamespace(calls=calls, output=output)


@pytest.mark.parametrize("way", WAYS)
def test_starts_of_each_way(starts, way):
    found = json.loads(json.dumps(runtime_cache.EXPERIMENT.rows[f"quick-fp32/{way}"]({"quick-fp32": "a path"})))
    first = None if way.startswith("none") else b""
    assert starts.calls[0] == (first, runtime_cache._MORE_SECONDS if way == "filled" else 0)
    assert starts.calls[1:] == [(b"later" if way == "filled" else first, 0)] * runtime_cache.STARTS
    row = {"stack": 0, "date": "2026", "values": found}
    (one,) = runtime_cache.read({"stacks": [{}], "rows": {f"quick-fp32/{way}": row}}).values()
    assert isinstance(one, Starts)
    assert (one.model, one.way, one.plan_bytes, one.difference) == ("quick-fp32", way, 6, 0)
    assert one.accepted == [way == "filled"] * runtime_cache.STARTS
    assert one.cache_bytes["after the first call"] == (0 if first is None else 5)
    assert (one.ms(), one.ms("context"), one.range_ms) == (231, 200, (231, 231))


def test_a_result_that_is_the_same_for_all_images_is_refused(starts):
    starts.output[...] = 0
    with pytest.raises(PlanError, match="nothing that depends on the images"):
        runtime_cache.measure("quick-fp32", "none", {"quick-fp32": "a path"})


def test_only_the_control_turns_the_drivers_cache_off_and_a_death_is_told(monkeypatch):
    environments = {}

    def run(log, changes, function, *args):
        environments[way] = changes
        log.write_text("[TRT] loading\nCUDA error 700\n")
        raise subprocess.CalledProcessError(-6, "python")

    monkeypatch.setattr(runtime_cache.child_process, "run_with_log", run)
    for way in WAYS:
        with pytest.raises(PlanError, match=r"ended with SIGABRT: .*CUDA error 700"):
            runtime_cache._elsewhere(way, b"plan", IMAGES, None)
    assert environments == {name: {"CUDA_CACHE_DISABLE": "1"} if name == WAYS[1] else {} for name in WAYS}


def test_what_is_told_of_rows_that_are_there_that_failed_and_that_are_missing():
    starts = [[1.0, 0.0, 2000.0, 30.0], [1.0, 0.0, 2200.0, 10.0], [1.0, 0.0, 900.0, 10.0]]
    none = Starts("quick-fp32", "none", 6000, starts, [False] * 3, {}, 0.0)
    filled = replace(none, starts=[[1.0, 5.0, 190.0, 7.1]], cache_bytes={"after the first call": 4000, "later": 5000})
    failed = {"stack": 0, "date": "2026", "reason": "No."}
    read = runtime_cache.read({"stacks": [{}], "rows": {"quick-fp32/empty": failed}})
    lines = runtime_cache.told({"quick-fp32/none": none, "quick-fp32/filled": filled, **read}).splitlines()
    assert lines[0] == "quick-fp32: plan 6 KB, cache 5 KB, 10 times as fast with it"
    assert lines[1].split(maxsplit=1)[1] == "2,031 ms (911 to 2,211): deserialize 1, context 2,000, first call 10"
    command = 'python -m tutorial_utils record lesson01_runtime_cache --rows "quick-fp32/none, driver cache off"'
    assert lines[2].endswith(f"not recorded yet (`{command}`)")
    assert lines[3].split() == ["empty", "No."]
    assert "cache 5, context 190" in lines[4]
    assert lines[5] == "resnet50-fp16"


def test_what_lesson_01d_says_of_the_recording():
    found = runtime_cache.EXPERIMENT.recorded("").result
    assert found.keys() == runtime_cache.EXPERIMENT.rows.keys()
    for model, saved, seconds in (("quick-fp32", 9, (0.07, 0.6, 2.0)), ("resnet50-fp16", 22, (0.15, 3.4, 4.7))):
        none, off, empty, filled = (found[f"{model}/{way}"] for way in WAYS)
        assert round(none.ms() / filled.ms()) == saved
        assert tuple(round(one.ms() / 1000, digits) for one, digits in ((filled, 2), (none, 1), (off, 1))) == seconds
        assert all(filled.accepted)
        assert filled.cache_bytes["later"] == filled.cache_bytes["after the first call"] < filled.plan_bytes
        assert max(one.difference for one in (none, off, empty, filled)) < 0.01
        assert empty.range_ms[0] < none.ms()  # not slower than without, by what the ranges show
    # Of dynamic shapes, ResNet-50's first call compiles more: with what was kept it takes a small part of its time.
    first_call = {way: found[f"resnet50-fp16/{way}"].ms("first call") for way in ("none", "filled")}
    assert first_call["none"] > 10 * first_call["filled"]


@pytest.mark.skipif(installed_flavour() != "tensorrt", reason="TensorRT-RTX is installed")
def test_it_needs_tensorrt_rtx():
    with pytest.raises(BackendUnavailableError, match="measured with TensorRT-RTX"):
        runtime_cache.measure("quick-fp32", "none", {})


@pytest.mark.gpu
@pytest.mark.usefixtures("rtx")
def test_a_filled_cache_is_accepted_on_a_gpu(fp32_model):
    images = np.ones((4, 3, 32, 32), np.float32)
    plan = build(fp32_model, options()).plan
    filled = runtime_cache._elsewhere("filled", plan, images, b"", 0.5)
    again = runtime_cache._elsewhere("filled", plan, images, filled.kept_later)
    assert again.accepted
    np.testing.assert_allclose(again.output, filled.output, rtol=1e-2)
