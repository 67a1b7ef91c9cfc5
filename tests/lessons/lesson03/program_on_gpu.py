"""Lesson 03b's program on a GPU: is it right, and does it refuse what is wrong?

``python tests/lessons/lesson03/program_on_gpu.py PART`` prints a line for each finding: OK or FAIL, its name.
`test_one_program.py` runs all of `PARTS`. The part "sanitized" is for NVIDIA's compute-sanitizer, which finds leaks::

    compute-sanitizer --tool memcheck --leak-check full python tests/lessons/lesson03/program_on_gpu.py sanitized
"""

import contextlib
import gc
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

from tutorial_utils.base import paths
from tutorial_utils.lessons.lesson03 import one_program, program_cells
from tutorial_utils.model import networks

FOLDER = paths.cache_dir("lesson03b")
TWO_INPUTS = """<ir_version: 8, opset_import: ["": 17]>
    two (float[n, 5] a, float[n, 5] b) => (float[n, 5] sum, float[n, 5] difference) {
        sum = Add(a, b)
        difference = Sub(a, b)
    }"""
NONZERO = """<ir_version: 8, opset_import: ["": 17]>
    nonzero (float[n, 5] x) => (int64[2, k] places) { places = NonZero(x) }"""


def line(good, name, *details):
    print("OK  " if good else "FAIL", name, *details, flush=True)


def build(program, name, text, profiles):
    import onnx

    path = FOLDER / f"{name}.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    return program.build_engine(path, FOLDER / name, profiles=profiles)


def two_inputs(program, profiles=2):
    shapes = [((1, 5), (4, 5), (8, 5)), ((9, 5), (16, 5), (32, 5))][:profiles]
    return build(program, "two_inputs", TWO_INPUTS, [{"a": shape, "b": shape} for shape in shapes])


def nonzero(program):
    return build(program, "nonzero", NONZERO, [{"x": ((1, 5), (4, 5), (8, 5))}])


def model():
    """Return the quick classifier in FP16: of the folder $MODELS, for a machine without Paddle, or made here."""
    folder = os.environ.get("MODELS")
    return Path(folder, f"{one_program.MODEL}.onnx") if folder else networks.quick()["fp16"]


def quick(program):
    return program.build_engine(model(), FOLDER / one_program.MODEL, profiles=[one_program.profile()])


def feeds(batch, seed=0):
    a, b = np.random.default_rng(seed).standard_normal((2, batch, 5), dtype=np.float32)
    return {"a": a, "b": b}


def is_right(given, found):
    return np.array_equal(found["sum"], given["a"] + given["b"]) and np.array_equal(
        found["difference"], given["a"] - given["b"]
    )


# --- right answers ---------------------------------------------------------------------------------------------------


def right(program):
    started = time.perf_counter()
    plan = two_inputs(program)
    made = time.perf_counter() - started
    line(two_inputs(program) == plan and time.perf_counter() - started < made + 1, "cache", f"build {made:.1f} s")
    engine = program.load_engine(plan)
    for graph in (False, True):
        with contextlib.closing(program.Session(engine, graph=graph)) as session:
            given = [feeds(batch, seed) for seed, batch in enumerate((1, 8, 8, 8, 3, 8, 1))]
            line(all(is_right(one, session.infer(one)) for one in given), f"two inputs, graph {graph}")
            odd = {name: np.asfortranarray(array) for name, array in feeds(8).items()}
            reverse = {name: array[::-1] for name, array in feeds(8).items()}
            good = all(is_right(one, session.infer(one)) for one in (odd, reverse))
            line(good, f"arrays in any layout, graph {graph}")
    with contextlib.closing(program.Session(engine, profile=1)) as session:
        line(is_right(feeds(20), session.infer(feeds(20))), "second profile")
    with contextlib.closing(program.Session(engine)) as session:  # captured by cuda-python with TensorRT-RTX, too
        session.captures = True
        good = all(is_right(feeds(8, seed), session.infer(feeds(8, seed))) for seed in range(4))
        line(good and session.graph is not None, "captured by cuda-python")
    data_dependent(program, engine)
    big = program.load_engine(quick(program))
    for way, errors in one_program.agreement(program, big, model()).items():
        line(max(errors.values()) < 0.02, f"quick classifier against ONNX Runtime, {way}", errors)


def data_dependent(program, engine):
    x = np.random.default_rng(0).integers(0, 2, (8, 5)).astype(np.float32)
    try:
        with contextlib.closing(program.Session(program.load_engine(nonzero(program)))) as session:
            good = all(np.array_equal(session.infer({"x": one})["places"], one.nonzero()) for one in (x, 0 * x, x[:3]))
            line(good, "output of a data-dependent shape")
        with contextlib.closing(program.Session(program.load_engine(nonzero(program)), graph=True)) as session:
            refusal("a graph of a data-dependent shape", ValueError, lambda: session.infer({"x": x}))
    except RuntimeError as error:
        line(program.IS_RTX, "NonZero: TensorRT-RTX has no such layer:", str(error)[:200])
    with contextlib.closing(program.Session(engine)) as session:  # any output may have an allocator
        session.infer(feeds(8))
        (output,) = (one for one in session.outputs if one.name == "sum")
        output.allocator = program.OutputAllocator()
        session.copied_out = [one for one in session.outputs if one is not output]
        with session.mine:
            program.checked(session.context.set_output_allocator("sum", output.allocator))
        line(is_right(feeds(8, 5), session.infer(feeds(8, 5))), "an allocator for any output", output.allocator.shape)


# --- refusals --------------------------------------------------------------------------------------------------------


def refusal(name, kind, call):
    try:
        call()
    except kind as error:
        line(True, f"refused: {name}:", error)
    except Exception as error:
        line(False, f"refused: {name}: {type(error).__name__}", error)
    else:
        line(False, f"refused: {name}: nothing was raised")


def refused(program):
    plan = two_inputs(program)
    engine = program.load_engine(plan)
    good = feeds(4)
    session = program.Session(engine)
    session.infer(good)
    bad = {
        "an input is missing": (ValueError, {"a": good["a"]}),
        "an input too many": (ValueError, {**good, "c": good["a"]}),
        "a shape that would be broadcast": (ValueError, {**good, "b": good["b"][:1, :1]}),
        "another rank": (ValueError, {**good, "b": good["b"][0]}),
        "outside of the profile": (ValueError, feeds(9)),
        "float64": (TypeError, {**good, "a": good["a"].astype(float)}),
        "big-endian": (TypeError, {**good, "a": good["a"].astype(">f4")}),
        "a list": (TypeError, {**good, "a": good["a"].tolist()}),
        "batches that differ": ((RuntimeError, ValueError), {"a": good["a"], "b": feeds(3)["b"]}),
    }
    for name, (kind, given) in bad.items():
        refusal(name, kind, lambda given=given: session.infer(given))
        line(is_right(good, session.infer(good)), "  and the next call is right")
    raised = []

    def from_another_thread():
        try:
            session.infer(good)
        except RuntimeError as error:
            raised.append(str(error))

    with session.mine:
        thread = threading.Thread(target=from_another_thread)
        thread.start()
        thread.join()
    line(bool(raised), "refused: another thread:", *raised)
    thread = threading.Thread(target=lambda: raised.append(is_right(good, session.infer(good))))
    thread.start()
    thread.join()
    line(raised[-1] is True, "another thread, later")
    session.close()
    session.close()
    refusal("closed", RuntimeError, lambda: session.infer(good))
    damaged = FOLDER / "damaged.plan"
    damaged.write_bytes(plan.read_bytes()[:-100])
    refusal("a damaged plan", RuntimeError, lambda: program.load_engine(damaged))
    model = FOLDER / "two_inputs.onnx"
    refusal("no profile", RuntimeError, lambda: program.build_engine(model, FOLDER / "none", cache=False))
    wrong = [{"a": ((8, 5), (4, 5), (1, 5)), "b": ((1, 5), (1, 5), (1, 5))}]
    refusal("profile", RuntimeError, lambda: program.build_engine(model, FOLDER / "none", profiles=wrong, cache=False))
    (FOLDER / "junk.onnx").write_bytes(b"junk")
    refusal("no ONNX", RuntimeError, lambda: program.build_engine(FOLDER / "junk.onnx", FOLDER / "none", cache=False))
    shapes = [{"a": ((1, 5), (4, 5), (8, 5)), "b": ((1, 5), (4, 5), (8, 5))}]
    weak = {"profiles": shapes, "precision": "fp16", "workspace": 1 << 28, "cache": False}
    if program.IS_RTX:
        refusal("a builder flag", RuntimeError, lambda: program.build_engine(model, FOLDER / "weak", **weak))
    else:
        path = program.build_engine(model, FOLDER / "weak", **weak)
        with contextlib.closing(program.Session(program.load_engine(path))) as session:
            error = np.abs(session.infer(good)["sum"] - good["a"] - good["b"]).max()
        line(error < 0.01, "builder flag FP16", error)


# --- arrays on the GPU -----------------------------------------------------------------------------------------------


def pointers(program):
    engine = program.load_engine(two_inputs(program))
    given = feeds(8)
    session = program.Session(engine)
    with session.mine:
        memory = {name: program.cuda.to_device(array) for name, array in given.items()}
        raw = {name: program.DeviceArray(int(one), (8, 5), np.float32, owner=one) for name, one in memory.items()}

    def fetched(found):
        arrays = {name: np.empty(one.shape, one.dtype) for name, one in found.items()}
        with session.mine:
            for name, one in found.items():
                program.cuda.memcpy_dtoh(arrays[name], one.pointer)
        return arrays

    for graph in (False, True):
        with contextlib.closing(program.Session(engine, graph=graph)) as other:
            good = all(is_right(given, fetched(program.infer_on_gpu(other, raw))) for _ in range(3))
            line(good, f"device pointers, graph {graph}")
            line(is_right(feeds(3), other.infer(feeds(3))), "  and from the host again")
    host = np.zeros((8, 5), np.float32)
    pinned = program.cuda.pagelocked_empty
    refusal("a host pointer", ValueError, lambda: program.DeviceArray(host.ctypes.data // 256 * 256, (8, 5), "f4"))
    with session.mine:
        locked = pinned(4096, np.float32)
    refusal("a pinned host pointer", ValueError, lambda: program.DeviceArray(locked.ctypes.data, (8, 5), "f4"))
    refusal("numpy", ValueError, lambda: program.infer_on_gpu(session, given))
    refusal("an input is missing", ValueError, lambda: program.infer_on_gpu(session, {"a": raw["a"]}))
    with contextlib.suppress(ImportError):
        import torch

        tensors = {name: torch.from_numpy(array).cuda() for name, array in given.items()}
        found = program.infer_on_gpu(session, tensors)
        taken = {name: torch.as_tensor(one, device="cuda").cpu().numpy() for name, one in found.items()}
        line(is_right(given, taken), "PyTorch's tensors by DLPack, results taken by PyTorch")
        big = torch.ones(4096, 4096, device="cuda")
        late = {name: (big @ big)[:8, :5].contiguous() for name in "ab"}
        found = fetched(program.infer_on_gpu(session, late))
        line(bool((found["sum"] == 8192).all()), "the call waits for what PyTorch still computes", found["sum"][0, 0])
        refusal("a transposed tensor", ValueError, lambda: program.infer_on_gpu(
            session, {**tensors, "a": torch.ones(5, 8, device="cuda").T}))  # fmt: skip
        refusal("an address that isn't aligned", ValueError, lambda: program.infer_on_gpu(
            session, {**tensors, "a": torch.ones(9, 5, device="cuda")[1:]}))  # fmt: skip
        refusal("PyTorch on the CPU", ValueError, lambda: program.infer_on_gpu(
            session, {**tensors, "a": torch.ones(8, 5)}))  # fmt: skip
        refusal("FP16", TypeError, lambda: program.infer_on_gpu(
            session, {**tensors, "a": torch.ones(8, 5, device="cuda").half()}))  # fmt: skip
    with session.mine:
        from pycuda import gpuarray

        arrays = {name: gpuarray.to_gpu(array) for name, array in given.items()}
        line(is_right(given, fetched(program.infer_on_gpu(session, arrays))), "PyCUDA's arrays by their interface")
        del arrays
        for one in memory.values():
            one.free()
    session.close()


# --- compute-sanitizer -----------------------------------------------------------------------------------------------


def sanitized(program):
    """Open and close sessions of all kinds. What is found should be TensorRT's own."""
    engines = [program.load_engine(two_inputs(program)), program.load_engine(quick(program))]
    for graph in (False, True):
        with contextlib.closing(program.Session(engines[0], graph=graph)) as session:
            assert all(is_right(feeds(batch), session.infer(feeds(batch))) for batch in (8, 8, 8, 3, 3))
    with contextlib.closing(program.Session(engines[1])) as session:
        session.infer({"x": one_program.images(7)})
        session.infer({"x": one_program.images(64)})
    if not program.IS_RTX:
        engines.append(program.load_engine(nonzero(program)))
        with contextlib.closing(program.Session(engines[2])) as session:
            session.infer({"x": np.eye(5, dtype=np.float32)})
    with contextlib.closing(program.Session(engines[0])) as session:
        with session.mine:
            memory = program.cuda.to_device(np.ones((8, 5), np.float32))
            array = program.DeviceArray(int(memory), (8, 5), np.float32)
        program.infer_on_gpu(session, {"a": array, "b": array})
        with session.mine:
            memory.free()
    engines.clear()
    gc.collect()
    program.driver.cuDevicePrimaryCtxReset(0)  # leaks are looked for when the context ends


def shapes(program):
    """What is said of inputs that contradict each other: the `infer_shapes` of TensorRT 10.6 ends the process."""
    context = program.load_engine(two_inputs(program)).create_execution_context()
    context.set_input_shape("a", (4, 5))
    context.set_input_shape("b", (3, 5))
    sizes = context.get_tensor_shape("sum")
    print("     get_tensor_shape: rank", sizes.__len__(), "errors", program.LOG.errors, flush=True)
    from tutorial_utils.base.errors import InputError
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    with TensorRTRunner(two_inputs(program).read_bytes()) as runner:
        refusal("the package's runner, batches that differ", InputError,
                lambda: runner.infer({"a": feeds(4)["a"], "b": feeds(3)["b"]}))  # fmt: skip
        line(is_right(feeds(4), runner.infer(feeds(4))), "  and the next call is right")


PARTS = {"shapes": shapes, "right": right, "refused": refused, "pointers": pointers}


if __name__ == "__main__":
    (PARTS | {"sanitized": sanitized})[sys.argv[1]](program_cells.load())
