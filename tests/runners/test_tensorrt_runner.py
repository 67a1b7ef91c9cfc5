"""The TensorRT runner on a GPU. Needs neither Paddle nor the notebooks' libraries: ``pytest --confcutdir=tests``."""

import functools

import numpy as np
import onnxruntime
import pytest
from small_models import images, options

from tutorial_utils.base.errors import InputError, PlanError
from tutorial_utils.engine import Profile, build

pytestmark = pytest.mark.gpu

PROFILES = [Profile.batch("x", (3, 32, 32), opt=4, max=8), Profile.batch("x", (3, 32, 32), min=16, opt=32, max=64)]
# TensorRT computes FP32 convolutions in TF32, which has FP16's 10 bits of mantissa.
TOLERANCE = {"fp32": 2e-3, "fp16": 2e-2}


@pytest.fixture(scope="module")
def engines(models):
    return {name: build(models[name], options(profiles=PROFILES), use_cache=False) for name in TOLERANCE}


@pytest.fixture(scope="module")
def start(engines):
    """Start a runner; the import is here because it fails where there is no PyCUDA."""
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    return lambda engine="fp32", **named: TensorRTRunner(engines.get(engine, engine), **named)


@pytest.fixture(scope="module")
def reference(fp32_model):
    session = onnxruntime.InferenceSession(fp32_model, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"x": batch})[0]


def error(actual, expected):
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("precision", TOLERANCE)
def test_outputs_equal_onnx_runtimes(precision, cuda_graph, start, reference):
    with start(precision, cuda_graph=cuda_graph) as runner:
        for seed, size in enumerate((8, 1, 5, 5, 8)):
            batch = images(size, seed)
            assert error(runner.infer({"x": batch})["y"], reference(batch)) < TOLERANCE[precision]


def test_specs(start):
    with start(profile=1) as runner:
        x, y = runner.inputs["x"], runner.outputs["y"]
        assert runner.backend.startswith("TensorRT")
    assert (x.shape, x.min_shape, x.max_shape) == ((-1, 3, 32, 32), (16, 3, 32, 32), (64, 3, 32, 32))
    assert (y.name, y.dtype, y.shape) == ("y", np.float32, (-1, 10))


def test_second_profile(start, reference):
    with start(profile=1) as runner:
        for size in (16, 64, 33):
            batch = images(size, seed=size)
            assert error(runner.infer({"x": batch})["y"], reference(batch)) < TOLERANCE["fp32"]


@pytest.mark.parametrize(("profile", "size"), [(0, 9), (1, 15), (1, 65)])
def test_shape_outside_the_profile(profile, size, start, reference):
    with start(profile=profile) as runner:
        with pytest.raises(InputError, match=rf"shape \({size}, 3, 32, 32\), but the model takes"):
            runner.infer({"x": images(size)})
        inside = images(16 if profile else 8)
        assert error(runner.infer({"x": inside})["y"], reference(inside)) < TOLERANCE["fp32"]


@pytest.mark.parametrize("profile", [-1, 2])
def test_unknown_profile(profile, start):
    with pytest.raises(InputError, match=f"no profile {profile}: the engine has 2"):
        start(profile=profile)


def test_memory_layout_of_an_input_does_not_matter(start):
    batch = images(4)
    view = np.ascontiguousarray(batch.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    with start() as runner:
        np.testing.assert_array_equal(runner.infer({"x": view})["y"], runner.infer({"x": batch})["y"])


def test_outputs_are_arrays_of_their_own(start):
    with start() as runner:
        first = runner.infer({"x": images(4, seed=1)})["y"]
        kept = first.copy()
        runner.infer({"x": images(4, seed=2)})
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("damage", [lambda plan: plan[: len(plan) // 2], lambda plan: b"", lambda plan: b"junk" * 99])
def test_damaged_plan(damage, start, engines):
    with pytest.raises(PlanError, match=r"can't load the engine.*Build it again"):
        start(damage(engines["fp32"].plan))


def test_refused_cached_plan_is_built_again(start, models, reference, tmp_path):
    """The cache found what it had stored, but this GPU or TensorRT doesn't take it."""
    import dataclasses

    build(models["fp32"], options(profiles=PROFILES), cache_folder=tmp_path)
    cached = build(models["fp32"], options(profiles=PROFILES), cache_folder=tmp_path)
    with pytest.warns(UserWarning, match="refuses the cached engine"):
        runner = start(dataclasses.replace(cached, plan=cached.plan[:1000]))
    batch = images(4)
    assert error(runner.infer({"x": batch})["y"], reference(batch)) < TOLERANCE["fp32"]
    runner.close()


def test_closing_twice(start):
    runner = start()
    runner.infer({"x": images(1)})
    runner.close()
    runner.close()
    with pytest.raises(InputError, match="The runner is closed"):
        runner.infer({"x": images(1)})


def test_two_runners_at_once(start, reference):
    batch = images(8)
    with start("fp32") as one, start("fp16") as other:
        for _ in range(3):
            assert error(one.infer({"x": batch})["y"], reference(batch)) < TOLERANCE["fp32"]
            assert error(other.infer({"x": batch})["y"], reference(batch)) < TOLERANCE["fp16"]
        one.close()
        assert error(other.infer({"x": batch})["y"], reference(batch)) < TOLERANCE["fp16"]


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_device_times(cuda_graph, start):
    with start(cuda_graph=cuda_graph) as runner:
        feeds = {"x": images(8)}
        times = functools.partial(runner.device_times, feeds)(20)
        assert times.shape == (20,)
        assert (times > 0).all()
        assert np.isfinite(times).all()
        with pytest.raises(InputError, match="but the model takes"):
            runner.device_times({"x": images(9)}, 1)


def test_inspector_and_build_log_tell_the_same(engines):
    from tutorial_utils.engine.builder import inspect_plan

    for engine in engines.values():
        assert inspect_plan(engine.plan) == engine.report.layers
