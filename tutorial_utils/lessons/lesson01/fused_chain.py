"""Four element-wise operators as four kernels and as one: in PyTorch and in TensorRT.

Each operator by itself reads its tensors from the GPU's memory and writes its result there. One kernel for all of them
keeps what is between in registers.
"""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils import engine
from tutorial_utils.base import flavour
from tutorial_utils.base.errors import PrecisionError
from tutorial_utils.engine.tensorrt import MessageLog, checked, load_plan
from tutorial_utils.lessons.lesson01 import ways
from tutorial_utils.measure import on_stream

SIZES = {"large": (64, 256, 56, 56), "tiny": (1, 256, 4, 4)}
# Of the chain: the ONNX operator, and what it reads beside the tensor before it.
OPERATORS = (("Add", "bias"), ("Relu", ""), ("Add", "other"), ("Mul", "scale"))
SCALE = 0.5


def chain(x: Any, bias: Any, other: Any, scale: float) -> Any:
    """Four element-wise operators, as PyTorch runs them one by one."""
    x = x + bias
    x = x.relu()
    x = x + other
    return x * scale


def pytorch(size: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """Run the chain in PyTorch, eager and compiled; return the fields of two `Way`."""
    torch = on_stream.require_torch()
    stream = torch.cuda.Stream()
    with torch.inference_mode(), torch.cuda.stream(stream):
        x, bias, other = tensors(torch, SIZES[size])
        compiled = torch.compile(chain)
        _require_equal(torch, compiled(x, bias, other, SCALE), chain(x, bias, other, SCALE))
        calls = {name: functools.partial(one, x, bias, other, SCALE)
                 for name, one in (("PyTorch eager", chain), ("torch.compile", compiled))}  # fmt: skip
        moved = {"PyTorch eager": sum(bytes_moved(SIZES[size])), "torch.compile": bytes_moved_fused(SIZES[size])}
        return ways.timed(torch, stream, calls, *ways.captured(torch, stream, calls), moved)


def tensorrt(size: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """Run the chain in TensorRT, as an engine for each operator and as one; return the fields of two `Way`.

    Raises:
        BackendUnavailableError: Data-centre TensorRT, PyTorch or a GPU is missing.
    """
    torch = on_stream.require_torch()
    flavour.require("tensorrt")
    shape = SIZES[size]
    stream = torch.cuda.Stream()
    with torch.inference_mode(), torch.cuda.stream(stream):
        x, bias, other = tensors(torch, shape)
        memory = {"t0": x, "other": other, **{f"t{number}": torch.empty_like(x) for number in range(1, 5)}}
        contexts = {
            "TensorRT, an engine each": [context(bias, shape, number, number + 1, memory) for number in range(4)],
            "TensorRT, one engine": [context(bias, shape, 0, 4, memory)],
        }

        def run(name: str) -> None:
            for one in contexts[name]:
                one.execute_async_v3(stream.cuda_stream)

        calls = {name: functools.partial(run, name) for name in contexts}
        for call in calls.values():
            memory["t4"].zero_()
            call()
            _require_equal(torch, memory["t4"], chain(x, bias, other, SCALE))
        moved = dict(zip(contexts, (sum(bytes_moved(shape)), bytes_moved_fused(shape)), strict=True))
        return ways.timed(torch, stream, calls, *ways.captured(torch, stream, calls), moved)


def context(bias: Any, shape: Sequence[int], first: int, end: int, memory: Mapping[str, Any]) -> Any:
    """Build an engine of some operators of the chain, and return its execution context on PyTorch's tensors."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chain.onnx"
        onnx.save(model(bias.cpu().numpy(), shape, first, end), path)
        built = engine.build(path, engine.BuildOptions(optimization_level=3), use_cache=False, progress=False)
    log = MessageLog()
    loaded = load_plan(built.plan, log)
    made = checked(loaded.create_execution_context(), log)
    for name in (loaded.get_tensor_name(i) for i in range(loaded.num_io_tensors)):
        checked(made.set_tensor_address(name, memory[name].data_ptr()), log)
    return made


def model(bias: np.ndarray, shape: Sequence[int], first: int, end: int) -> onnx.ModelProto:
    """Return operators ``first`` to ``end`` of the chain in ONNX, FP16; they read t0 to t3 and write t1 to t4."""
    weights = {"bias": bias.astype(np.float16), "scale": np.array(SCALE, np.float16)}
    nodes, read = [], [f"t{first}"]
    for number, (operator, operand) in list(enumerate(OPERATORS))[first:end]:
        inputs = [name for name in (f"t{number}", operand) if name]
        nodes.append(helper.make_node(operator, inputs, [f"t{number + 1}"], f"{operator}{number}"))
        read += [operand] * (operand == "other")
    kept = [numpy_helper.from_array(weights[name], name) for _, name in OPERATORS[first:end] if name in weights]
    graph = helper.make_graph(
        nodes, "chain", [helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape) for name in read],
        [helper.make_tensor_value_info(f"t{end}", TensorProto.FLOAT16, shape)], kept,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def bytes_moved(shape: Sequence[int]) -> list[int]:
    """Return the bytes that each operator reads and writes by itself, FP16; the bias and the scale are too few."""
    return [2 * int(np.prod(shape)) * (2 + (operand == "other")) for _, operand in OPERATORS]


def bytes_moved_fused(shape: Sequence[int]) -> int:
    """Return the bytes that one kernel for all of them must move: it reads x and other, and writes the result."""
    return 3 * 2 * int(np.prod(shape))


def tensors(torch: ModuleType, shape: Sequence[int]) -> tuple[Any, Any, Any]:
    """Return x, bias and other of the chain: random numbers, FP16, on the GPU."""
    torch.manual_seed(0)
    shapes = (shape, (1, shape[1], 1, 1), shape)
    return tuple(torch.randn(one, device="cuda", dtype=torch.float16) for one in shapes)


def _require_equal(torch: ModuleType, found: Any, expected: Any) -> None:
    torch.cuda.synchronize()
    error = (found - expected).abs().max().item()
    if not error < 2e-2:  # one rounding of FP16 at each operator, or at the end alone
        raise PrecisionError(f"The two ways differ by {error:.2g}.", "Don't compare their times.")
