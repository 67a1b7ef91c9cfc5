"""The TensorRT runner on a GPU. Needs neither Paddle nor the notebooks' libraries: ``pytest --confcutdir=tests``."""

import contextlib
import functools
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from small_models import images, options

from tutorial_utils.base import flavour
from tutorial_utils.base.errors import BackendUnavailableError, InputError, PlanError
from tutorial_utils.engine import Profile, build
from tutorial_utils.model import onnx_file
from tutorial_utils.runners.cuda_graph import cuda_driver

pytestmark = pytest.mark.gpu


def has_cuda_python():
    try:
        return bool(cuda_driver())
    except BackendUnavailableError:
        return False


RTX = flavour.installed_flavour() == "tensorrt_rtx"
needs_graphs = pytest.mark.skipif(not RTX and not has_cuda_python(), reason="cuda-bindings is not installed")
cuda_graphs = pytest.mark.parametrize("cuda_graph", [False, pytest.param(True, marks=needs_graphs)])

PROFILES = [Profile.batch("x", (3, 32, 32), min=2, opt=4, max=8)]
# TensorRT computes FP32 convolutions in TF32, which has FP16's 10 bits of mantissa.
TOLERANCE = {"fp32": 2e-3, "fp16": 2e-2}


@pytest.fixture(scope="module")
def engines(models):
    return {name: build(models[name], options(profiles=PROFILES), use_cache=False) for name in TOLERANCE}


@pytest.fixture(scope="module")
def start(engines):
    """Start a runner; the import is here because it fails where there is no PyCUDA."""
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    return lambda engine="fp32", **named: TensorRTRunner(engines[engine] if engine in TOLERANCE else engine, **named)


@pytest.fixture(scope="module")
def reference(fp32_model):
    session = onnxruntime.InferenceSession(fp32_model, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"x": batch})[0]


def error(actual, expected):
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / np.abs(expected).max()


@cuda_graphs
@pytest.mark.parametrize("precision", TOLERANCE)
def test_outputs_equal_onnx_runtimes(precision, cuda_graph, start, reference):
    with start(precision, cuda_graph=cuda_graph) as runner:
        for seed, size in enumerate((8, 2, 5, 5, 8)):
            batch = images(size, seed)
            assert error(runner.infer({"x": batch})["y"], reference(batch)) < TOLERANCE[precision]


def test_specs(start):
    with start() as runner:
        x, y = runner.inputs["x"], runner.outputs["y"]
        assert runner.backend.startswith("TensorRT")
    assert (x.shape, x.min_shape, x.max_shape) == ((-1, 3, 32, 32), (2, 3, 32, 32), (8, 3, 32, 32))
    assert (y.name, y.dtype, y.shape) == ("y", np.float32, (-1, 10))


@pytest.mark.parametrize("size", [1, 9])
def test_shape_outside_the_profile(size, start, reference):
    with start() as runner:
        with pytest.raises(InputError, match=rf"shape \({size}, 3, 32, 32\), but the model takes"):
            runner.infer({"x": images(size)})
        inside = images(8)
        assert error(runner.infer({"x": inside})["y"], reference(inside)) < TOLERANCE["fp32"]


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
    runner.infer({"x": images(2)})
    runner.close()
    runner.close()
    with pytest.raises(InputError, match="The runner is closed"):
        runner.infer({"x": images(2)})


def test_two_runners_at_once(start, reference):
    batch = images(8)
    with start("fp32") as one, start("fp16") as other:
        for _ in range(3):
            assert error(one.infer({"x": batch})["y"], reference(batch)) < TOLERANCE["fp32"]
            assert error(other.infer({"x": batch})["y"], reference(batch)) < TOLERANCE["fp16"]
        one.close()
        assert error(other.infer({"x": batch})["y"], reference(batch)) < TOLERANCE["fp16"]


def test_what_the_hook_of_the_build_set_is_what_runs(fp32_model, start, reference):
    """TensorRT computes FP32 in full where TF32 is cleared. TensorRT-RTX (1.6, 1.7) takes no notice."""
    from tutorial_utils.engine.tensorrt import trt

    def configure(network, config):
        network.get_output(0).name = "logits"
        config.clear_flag(trt.BuilderFlag.TF32)

    batch = images(8)
    with start(build(fp32_model, options(profiles=PROFILES), configure=configure)) as runner:
        assert error(runner.infer({"x": batch})["logits"], reference(batch)) < (TOLERANCE["fp32"] if RTX else 1e-5)


@cuda_graphs
def test_runners_of_one_engine_share_it(cuda_graph, start, reference):
    """Each has a stream, a context and buffers of its own, and the engine lives as long as one of them."""
    batches = [images(8, seed) for seed in range(3)]
    first = start(cuda_graph=cuda_graph)
    others = [start(first, cuda_graph=cuda_graph) for _ in range(2)]
    runners = [first, *others]
    assert all(runner.engine is first.engine and runner.log is first.log for runner in others)
    for part in ("context", "stream"):
        assert len({id(getattr(runner, part)) for runner in runners}) == 3
    for _ in range(2):
        for runner, batch in zip(runners, batches, strict=True):
            assert error(runner.infer({"x": batch})["y"], reference(batch)) < TOLERANCE["fp32"]
    first.close()
    for runner, batch in zip(others, batches[1:], strict=True):
        assert error(runner.infer({"x": batch})["y"], reference(batch)) < TOLERANCE["fp32"]
        runner.close()


def test_steps_of_two_runners_interleaved(start, reference):
    from tutorial_utils.runners.tensorrt import primary_context

    batches = [images(size, seed=size) for size in (8, 3)]
    with primary_context(), start() as one, start(one) as other:
        for runner, batch in zip((one, other), batches, strict=True):
            runner.fill({"x": batch})
            assert runner.host["x"].shape == batch.shape
        for step in ("copy_in", "run", "copy_out"):
            for runner in (one, other):
                getattr(runner, step)()
        for runner, batch in zip((one, other), batches, strict=True):
            assert error(runner.results()["y"], reference(batch)) < TOLERANCE["fp32"]
        assert one.event_times(3).shape == (3,)


def test_a_process_with_an_error_inside_ends_normally(engines, tmp_path):
    """A context that is still pushed would abort it."""
    (tmp_path / "plan").write_bytes(engines["fp32"].plan)
    code = (
        "import sys; from pathlib import Path\n"
        "from tutorial_utils.runners.tensorrt import TensorRTRunner, primary_context\n"
        "with primary_context(), TensorRTRunner(Path(sys.argv[1]).read_bytes()) as runner: raise KeyError"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "plan"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.endswith("KeyError\n")


@needs_graphs
@pytest.mark.skipif(RTX, reason="TensorRT-RTX captures by itself")
class TestGraphsOfCudaPython:
    def test_one_graph_as_long_as_shapes_stay(self, start, reference):
        batches = [images(size, seed) for seed, size in enumerate((8, 8, 8, 3, 3, 8))]
        graphs = []
        with start(cuda_graph=True) as runner:
            for batch in batches:
                assert error(runner.infer({"x": batch})["y"], reference(batch)) < TOLERANCE["fp32"]
                graphs.append(runner._graph)
        assert graphs[0] is graphs[1] is graphs[2]
        assert graphs[3] is graphs[4]
        assert len({id(graph) for graph in graphs}) == 3

    @pytest.mark.parametrize("replayed", [False, True])
    def test_a_refused_call_leaves_nothing_that_replays_old_data(self, replayed, start, reference):
        """Whether TensorRT refuses the first call in new shapes, or that which is captured: nothing is kept of it."""
        first, second = images(8, 1), images(4, 2)
        with start(cuda_graph=True) as runner:
            runner.infer({"x": first})
            answers = iter([True, False] if replayed else [False])
            context = runner.context
            refusing = SimpleNamespace(
                execute_async_v3=lambda stream: next(answers) and context.execute_async_v3(stream),
                set_input_shape=context.set_input_shape,
                infer_shapes=context.infer_shapes,
                get_tensor_shape=context.get_tensor_shape,
            )
            runner.context = refusing
            with pytest.raises((PlanError, BackendUnavailableError), match="TensorRT can't run"):
                runner.infer({"x": second})
            assert runner._graph is None
            runner.context = context
            for _ in range(2):
                assert error(runner.infer({"x": second})["y"], reference(second)) < TOLERANCE["fp32"]

    def test_engine_that_waits_for_the_gpu_says_so_and_runs_without_a_graph(self, start, tmp_path):
        text = """<ir_version: 8, opset_import: ["": 17]> branches (float[4] x) => (float[4] y) {
            sum = ReduceSum <keepdims = 0> (x)
            zero = Constant <value_float = 0.0> ()
            positive = Greater (sum, zero)
            y = If (positive) <then_branch = a () => (float[4] a) { a = Exp (x) },
                               else_branch = b () => (float[4] b) { b = Neg (x) }>
        }"""
        built = build(onnx_file.save(onnx.parser.parse_model(text), tmp_path / "branches.onnx"), use_cache=False)
        x = np.arange(4, dtype=np.float32)
        refused = pytest.raises(BackendUnavailableError, match=r"as a CUDA graph.*not stream capturable")
        with start(built, cuda_graph=True) as runner, refused:
            runner.infer({"x": x})
        with start(built) as runner:
            np.testing.assert_array_equal(runner.infer({"x": -x})["y"], x)

    def test_what_waits_for_the_gpu_cannot_be_captured(self, start, reference):
        from tutorial_utils.runners.cuda_graph import CudaGraph
        from tutorial_utils.runners.tensorrt import primary_context

        def wait():
            with contextlib.suppress(Exception):
                runner.stream.synchronize()

        batch = images(8)
        with primary_context(), start() as runner:
            with pytest.raises(BackendUnavailableError, match=r"CUDA refused cuStreamEndCapture: .*INVALIDATED"):
                CudaGraph(wait, runner.stream.handle)
            assert error(runner.infer({"x": batch})["y"], reference(batch)) < TOLERANCE["fp32"]


@cuda_graphs
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
