"""The program of lessons 03b and 03c: its Python with stand-ins for the GPU's libraries, and all of it on a GPU."""

import itertools
import math
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from tutorial_utils.base import flavour

if flavour.installed_flavour() is None:
    pytest.skip("there is no TensorRT", allow_module_level=True)
from lessons.lesson03 import fake_gpu, program_on_gpu
from small_models import residual_model

from tutorial_utils.base.errors import LessonError
from tutorial_utils.lessons.lesson03 import one_program, program_cells

SHAPES = {"a": ((1, 3), (4, 3), (8, 3)), "b": ((1, 2), (4, 2), (8, 2))}


@pytest.fixture
def program(monkeypatch):
    program = program_cells.load()
    program.primary_context.cache_clear()
    monkeypatch.setattr(program, "cuda", fake_gpu.cuda())
    monkeypatch.setattr(program, "driver", fake_gpu.Driver(), raising=False)
    yield program
    program.primary_context.cache_clear()


@pytest.fixture
def session(program):
    return program.Session(fake_gpu.Engine(program.trt, SHAPES))


def feeds(batch, names="ab"):
    random = np.random.default_rng(batch)
    return {name: random.standard_normal((batch, SHAPES[name][0][1]), dtype=np.float32) for name in names}


def is_doubled(given, found):
    return all(np.array_equal(found[f"{name} doubled"], 2 * array) for name, array in given.items())


def test_the_program_imports_nothing_of_the_package():
    assert "tutorial_utils" not in program_cells.source()


def test_a_notebook_without_the_program(tmp_path):
    path = tmp_path / "empty.ipynb"
    path.write_text('{"cells": []}')
    with pytest.raises(LessonError, match="no cells with the tag program"):
        program_cells.source([path])


# --- build -----------------------------------------------------------------------------------------------------------


def test_a_plan_is_built_once_and_anew_for_anything_else(program, tmp_path, monkeypatch):
    if not program.IS_RTX:
        pytest.skip("data-centre TensorRT builds on a GPU only")
    path, other = tmp_path / "model.onnx", tmp_path / "other.onnx"
    onnx.save(residual_model(), path)
    changed = residual_model()
    changed.doc_string = "changed"
    onnx.save(changed, other)
    shapes = [{"x": ((1, 3, 32, 32), (2, 3, 32, 32), (2, 3, 32, 32))}]
    plan = program.build_engine(path, tmp_path / "plan", profiles=shapes)
    written = plan.stat().st_mtime_ns
    assert program.build_engine(path, tmp_path / "plan", profiles=shapes) == plan
    assert plan.stat().st_mtime_ns == written
    wider = [{"x": ((1, 3, 32, 32), (2, 3, 32, 32), (4, 3, 32, 32))}]
    others = {
        program.build_engine(other, tmp_path / "plan", profiles=shapes),
        program.build_engine(path, tmp_path / "plan", profiles=wider),
        program.build_engine(path, tmp_path / "plan", profiles=shapes, workspace=1 << 30),
    }
    assert len(others | {plan}) == 4
    assert not [one for one in tmp_path.iterdir() if one.suffix not in (".onnx", ".plan")], "something half-written"
    with pytest.raises(RuntimeError, match="has no flag for fp16"):
        program.build_engine(path, tmp_path / "plan", "fp16", shapes)
    with pytest.raises(RuntimeError, match=r"No engine: .*no optimization profile"):
        program.build_engine(path, tmp_path / "plan")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(RuntimeError, match=r"junk\.onnx can't be parsed: "):
        program.build_engine(tmp_path / "junk.onnx", tmp_path / "plan")


def test_weights_in_other_files_are_refused_since_no_key_holds_them(program, tmp_path, monkeypatch):
    if not program.IS_RTX:
        pytest.skip("data-centre TensorRT builds on a GPU only")
    monkeypatch.chdir(tmp_path)  # the parser would look for the weights here
    onnx.save(residual_model(), "split.onnx", save_as_external_data=True, location="split.bin", size_threshold=0)
    shapes = [{"x": ((1, 3, 32, 32), (2, 3, 32, 32), (2, 3, 32, 32))}]
    with pytest.raises(RuntimeError, match=r"split\.onnx can't be parsed: .*split\.bin"):
        program.build_engine("split.onnx", "plan", profiles=shapes)


def test_a_message_of_tensorrt_is_quoted_once(program):
    program.LOG.log(program.trt.ILogger.ERROR, "first\nline")
    with pytest.raises(RuntimeError, match=r"^It failed: first line$"):
        program.checked(None, "It failed")
    with pytest.raises(RuntimeError, match=r"^It failed again$"):
        program.checked(False, "It failed again")


# --- calls -----------------------------------------------------------------------------------------------------------


def test_batches_change_and_layouts_do_not_matter(session):
    for batch in (2, 8, 8, 1, 8):
        given = feeds(batch)
        assert is_doubled(given, session.infer(given))
        given["a"] = np.asfortranarray(given["a"][::-1])
        assert is_doubled(given, session.infer(given))
    assert fake_gpu.Context.pushed == 0


def test_a_call_after_one_without_memory(session, program, monkeypatch):
    def refuse(size):
        raise MemoryError

    with monkeypatch.context() as full:
        full.setattr(program.cuda, "mem_alloc", refuse)
        with pytest.raises(MemoryError):
            session.infer(feeds(8))
    assert is_doubled(feeds(8), session.infer(feeds(8)))


def test_results_are_not_written_over(session):
    first = session.infer(feeds(2))
    session.infer({name: 0 * array for name, array in feeds(2).items()})
    assert is_doubled(feeds(2), first)


MISTAKES = {
    "forgotten": lambda given: {"a": given["a"]},
    "none": lambda given: {},
    "too many": lambda given: {**given, "c": given["a"]},
    "an output": lambda given: {**given, "a doubled": given["a"]},
    "to broadcast": lambda given: {**given, "b": given["b"][:1, :1]},
    "another rank": lambda given: {**given, "b": given["b"][0]},
    "float64": lambda given: {**given, "a": given["a"].astype(float)},
    "big-endian": lambda given: {**given, "a": given["a"].astype(">f4")},
    "a list": lambda given: {**given, "a": given["a"].tolist()},
    "outside": lambda given: {**given, "a": np.zeros((9, 3), np.float32)},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_refused_and_leave_the_session_as_it_was(mistake, session):
    given = feeds(4)
    session.infer(given)
    with pytest.raises((TypeError, ValueError)):
        session.infer(MISTAKES[mistake](given))
    assert is_doubled(given, session.infer(given))


class NoRank:
    """What TensorRT gives for the shape of an output where the inputs contradict each other."""

    def __len__(self):
        return -1


def test_inputs_that_contradict_each_other(program, session, monkeypatch):
    monkeypatch.setattr(fake_gpu.ExecutionContext, "get_tensor_shape", lambda self, name: NoRank())
    with pytest.raises(RuntimeError, match="The inputs don't fit each other"):
        session.infer(feeds(4))


def test_a_format_that_numpy_cannot_hold_is_refused(program):
    with pytest.raises(ValueError, match="can't fill a"):
        program.Session(fake_gpu.Engine(program.trt, SHAPES, tensor_format="HWC8"))


def test_channels_last(program):
    shape = (2, 3, 4, 5)
    session = program.Session(fake_gpu.Engine(program.trt, {"x": (shape,) * 3}, tensor_format="HWC"))
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    (found,) = session.infer({"x": x}).values()
    assert np.array_equal(found.reshape(2, 4, 5, 3).transpose(0, 3, 1, 2), 2 * x), "it wasn't written as N, H, W, C"


def test_shapes_that_only_the_run_can_tell(program):
    engine = fake_gpu.Engine(program.trt, SHAPES, open_shape=True)
    session = program.Session(engine)
    assert all(is_doubled(feeds(batch), session.infer(feeds(batch))) for batch in (2, 8, 1))


def test_everything_is_freed(program):
    before = fake_gpu.Allocation.live
    for open_shape in (False, True):
        session = program.Session(fake_gpu.Engine(program.trt, SHAPES, open_shape=open_shape))
        session.infer(feeds(4))
        referred_to = [*session.inputs, *session.outputs]  # as a traceback or a debugger would
        session.close()
        session.close()
        assert referred_to
        assert fake_gpu.Allocation.live == before
        with pytest.raises(RuntimeError, match="closed"):
            session.infer(feeds(4))


def test_another_thread_is_refused_while_one_is_inside(session):
    raised = []

    def call():
        try:
            session.infer(feeds(4))
        except RuntimeError as error:
            raised.append(str(error))

    with session.mine:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    assert raised == ["Another thread is using this session: make one for each thread."]
    assert is_doubled(feeds(4), session.infer(feeds(4)))


# --- CUDA graphs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def capturing(program, monkeypatch):
    """A session of data-centre TensorRT with a graph."""
    monkeypatch.setattr(program, "IS_RTX", False)
    return program.Session(fake_gpu.Engine(program.trt, SHAPES), graph=True)


def test_a_graph_is_captured_for_each_binding_and_freed(program, capturing):
    for batch in (2, 2, 2, 4):
        capturing.infer(feeds(batch))
    launches = [one for one in program.driver.called if one in ("cuGraphInstantiate", "cuGraphLaunch")]
    assert launches == ["cuGraphInstantiate", "cuGraphLaunch", "cuGraphLaunch", "cuGraphInstantiate"]
    assert program.driver.graphs == 1
    capturing.close()
    assert program.driver.graphs == 0


@pytest.mark.parametrize("refused", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_a_refused_capture_leaves_no_graph(refused, program, capturing, monkeypatch):
    monkeypatch.setattr(program, "driver", fake_gpu.Driver(refused))
    with pytest.raises(RuntimeError, match="CUDA refused a call"):
        capturing.infer(feeds(2))
    assert program.driver.graphs == 0
    assert fake_gpu.Context.pushed == 0


def test_a_call_that_fails_while_it_is_captured_ends_the_capture(program, capturing, monkeypatch):
    answers = itertools.chain([True], itertools.repeat(False))
    monkeypatch.setattr(fake_gpu.ExecutionContext, "execute_async_v3", lambda self, handle: next(answers))
    with pytest.raises(RuntimeError, match="The engine can't run"):
        capturing.infer(feeds(2))
    assert program.driver.called[:2] == ["cuStreamBeginCapture", "cuStreamEndCapture"]
    assert program.driver.graphs == 0


def test_no_graph_of_a_shape_that_depends_on_the_data(program, capturing):
    engine = fake_gpu.Engine(program.trt, SHAPES, open_shape=True)
    with pytest.raises(ValueError, match="depends on the data: leave graph out"):
        program.Session(engine, graph=True).infer(feeds(2))


# --- data on the GPU -------------------------------------------------------------------------------------------------


class OnGpu:
    """An array of another library, that says where it lies in one of both ways."""

    def __init__(self, array, protocol, strides=None):
        self._memory, self._array = fake_gpu.Allocation(array.nbytes), array
        fake_gpu._copy_in(self._memory, np.ascontiguousarray(array), None)
        if protocol == "interface":
            data = {"data": (int(self._memory), False), "shape": array.shape, "typestr": array.dtype.str}
            self.__cuda_array_interface__ = {"version": 2, "strides": strides, **data}
        else:
            size = math.prod(array.shape)
            floats = (np.ctypeslib.ctypes.c_float * size).from_address(int(self._memory))
            view = np.ctypeslib.as_array(floats).reshape(array.shape)
            self.__dlpack__ = lambda stream: (view if strides is None else view.T).__dlpack__()
            self.__dlpack_device__ = lambda: (2, 0)


@pytest.mark.parametrize("protocol", ["interface", "dlpack"])
def test_arrays_on_the_gpu(protocol, program, session, monkeypatch):
    given = feeds(4)
    arrays = {name: OnGpu(array, protocol) for name, array in given.items()}
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(program.cuda, "memcpy_htod_async", lambda *_: pytest.fail("it copied from the host"))
            patch.setattr(program.cuda, "memcpy_dtoh_async", lambda *_: pytest.fail("it copied to the host"))
            found = program.infer_on_gpu(session, arrays)
        fetched = {name: np.empty(one.shape, one.dtype) for name, one in found.items()}
        for name, one in found.items():
            fake_gpu._copy_out(fetched[name], one.pointer)
        assert is_doubled(given, fetched)
        assert is_doubled(feeds(2), session.infer(feeds(2)))  # bound to its own memory again
    strided = {**arrays, "a": OnGpu(given["a"], protocol, strides=(4, 16))}
    with pytest.raises(ValueError, match="not in C order"):
        program.infer_on_gpu(session, strided)
    with pytest.raises(ValueError, match=r"Given: a\. The engine takes a, b\."):
        program.infer_on_gpu(session, {"a": arrays["a"]})
    with pytest.raises(TypeError, match="a is DeviceArray of float16"):
        program.infer_on_gpu(session, {**arrays, "a": OnGpu(np.zeros((4, 3), np.float16), "interface")})


def test_a_result_of_open_shape_stays_on_the_gpu(program):
    session = program.Session(fake_gpu.Engine(program.trt, SHAPES, open_shape=True))
    given = feeds(4)
    found = program.infer_on_gpu(session, {name: OnGpu(array, "dlpack") for name, array in given.items()})
    fetched = {name: np.empty(one.shape, one.dtype) for name, one in found.items()}
    for name, one in found.items():
        fake_gpu._copy_out(fetched[name], one.pointer)
    assert is_doubled(given, fetched)


def test_arrays_on_the_gpu_are_not_read_in_another_order(program):
    shape = (2, 3, 4, 5)
    session = program.Session(fake_gpu.Engine(program.trt, {"x": (shape,) * 3}, tensor_format="HWC"))
    with pytest.raises(ValueError, match="C order"):
        program.infer_on_gpu(session, {"x": OnGpu(np.zeros(shape, np.float32), "interface")})


def test_memory_of_the_host_is_refused(program, session):
    with pytest.raises(ValueError, match="not on the GPU"):
        program.infer_on_gpu(session, feeds(4))
    with pytest.raises(ValueError, match="no address on the GPU"):
        program.DeviceArray(4097, (4, 3), np.float32)


# --- the experiment --------------------------------------------------------------------------------------------------


class Running:
    """A session that is bound: each call finds the same, or fails."""

    def __init__(self, found, error=None):
        self.mine, self.error = threading.RLock(), error
        self.outputs = [SimpleNamespace(array=found)]

    def run(self):
        if self.error:
            raise RuntimeError(self.error)


def test_threads_are_judged_by_their_own_answers(monkeypatch):
    monkeypatch.setattr(one_program, "CALLS", 3)
    right, wrong = np.ones((2, 10), np.float32), np.zeros((2, 10), np.float32)
    found = one_program.in_threads([Running(right), Running(wrong), Running(right, "no\ncall")], [right] * 3)
    assert (found["calls"], found["right"], found["errors"]) == (6, 3, ["no call"])


@pytest.fixture
def result():
    times = {"rounds_ms": [[0.2, 0.2]] * 10, "first_call_ms": 9.0, "warmup_calls": 12, "stable": True, "batch": 64}
    ways, names = ("calls", "graph"), ("Session", "TensorRTRunner")
    data = {
        "agreement": {way: {"1": 1e-3, "64": 2e-3} for way in ways},
        "growth": {way: {"calls": [100, 1100], "device_bytes": [2**20, 2**21], "host_bytes": [0, 0]} for way in ways},
        "threads": {
            "own": {"calls": 800, "right": 800, "seconds": 0.1, "errors": []},
            "shared": {"calls": 200, "right": 100, "seconds": 0.1, "errors": ["refused", "refused"]},
            "died": {"message": "SIGSEGV: no message"},
        },
        "runner": {f"{name}, {way}": times for name in names for way in ways},
        "copies": {"host": times, "GPU": times},
        "formats": {"FP32, NCHW": times},
    }
    return one_program.read(data)


def test_the_result_in_words_and_as_a_picture(result):
    text = result.calls_as_text()
    assert "graph: errors up to 2.0e-03 of the largest logit" in text
    assert "no difference larger than noise" in text
    assert "in use, device: 1 MiB after 100 calls, 2 MiB after 1,100 calls" in text
    assert result.threads_as_text().splitlines() == [
        "own: 800 of 800 answers right, 8,000 calls a second",
        "shared: 100 of 200 answers right, 2,000 calls a second",
        "    refused",
        "died: SIGSEGV: no message",
    ]
    picture = one_program.draw(result)
    assert "shared 50.0% right" in " ".join(picture.text.split())
    assert "data on the GPU 0.200 ms" in picture.alt


@pytest.mark.gpu
@pytest.mark.parametrize("part", program_on_gpu.PARTS)
def test_the_program_on_a_gpu(part):
    command = [sys.executable, Path(program_on_gpu.__file__), part]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "FAIL" not in done.stdout, done.stdout
