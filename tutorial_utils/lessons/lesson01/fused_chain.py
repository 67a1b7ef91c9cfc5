"""Lesson 01, what fusion buys: four element-wise operators as four kernels and as one, in PyTorch and in TensorRT.

Each operator by itself reads its tensors from the GPU's memory and writes its result there. One kernel for all of them
keeps what is between in registers. On a large tensor the bytes take the time, on a tiny one the launches do.
"""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils import engine, plotting
from tutorial_utils.base import flavour
from tutorial_utils.base.errors import PrecisionError
from tutorial_utils.engine.tensorrt import MessageLog, checked, load_plan
from tutorial_utils.lessons.lesson01 import ways
from tutorial_utils.lessons.lesson01.ways import Way
from tutorial_utils.measure import on_stream, rows
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.plotting import BLUE, GREEN, ORANGE, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHOD = (
    "CUDA events around each call on one stream, copies left out, data on the GPU; calls are enqueued one after "
    "another, so that the host may be the limit; after a warm-up until steady, the ways of a row take turns in "
    "rounds; medians with 95 % intervals; graph: the same, replayed as a CUDA graph. kernels: those of one call, by "
    "PyTorch's profiler (CUPTI). Chain: relu(x + bias) + other, times a scale, FP16; PyTorch eager and torch.compile; "
    "TensorRT with one engine for each operator on one stream, and with one engine for all, optimization level 3"
)
SIZES = {"large": (64, 256, 56, 56), "tiny": (1, 256, 4, 4)}
# Of the chain: the ONNX operator, and what it reads beside the tensor before it.
OPERATORS = (("Add", "bias"), ("Relu", ""), ("Add", "other"), ("Mul", "scale"))
SCALE = 0.5
# Of the chain: with one kernel or one for each operator, the bytes are known; with others in between, only the least.
_COUNTED = (1, len(OPERATORS))


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


ROWS = {
    f"chain/{library.__name__}/{size}": functools.partial(library, size)
    for size in SIZES
    for library in (pytorch, tensorrt)
}


def read(data: Mapping[str, Any]) -> dict[str, tuple[Way, ...] | str]:
    """Return the ways of each row, in the order of `ROWS`; where there are none, the reason."""
    recorded = {row.name: row for row in rows.read(data)}
    found = [recorded[name] for name in ROWS if name in recorded]
    return {row.name: row.reason if row.values is None else ways.from_plain(row.values) for row in found}


def draw(measured: Mapping[str, tuple[Way, ...] | str]) -> Picture:
    """Draw the chain on the large tensor and on the tiny one: a bar for calls, a mark for their CUDA graph.

    What was measured is by row: its ways, or why there are none.
    """
    panels: dict[str, list[Way]] = {}
    for name, found in measured.items():
        if not isinstance(found, str):
            panels.setdefault(f"{name.rpartition('/')[2]} tensor", []).extend(found)
    figure, axes = plotting.new_figure(1.7 + 0.42 * max(map(len, panels.values())), ncols=len(panels), squeeze=False)
    lines, slowdowns = [], []
    for panel, (title, some) in zip(axes.flat, panels.items(), strict=True):
        _draw_ways(panel, title, some)
        lines += [f"{title}, {way.name}: {_described(way)}" for way in some]
        slow, fast = max(some, key=lambda way: way.kernels), min(some, key=lambda way: way.kernels)
        slowdowns.append(f"{title}: {slow.name} takes {slow.plain[0] / fast.plain[0]:.1f} times as long as {fast.name}")
    first, *others = ([way.name for way in some] for some in panels.values())
    for panel, names in zip(list(axes.flat)[1:], others, strict=True):
        panel.tick_params(labelleft=names != first)  # the names that stand at the panel to the left aren't repeated
    for mark, colour, label in (("s", ORANGE, "more kernels"), ("s", BLUE, "fewest kernels"),
                                ("D", GREEN, "as a CUDA graph")):  # fmt: skip
        axes.flat[0].plot([], [], mark, color=colour, label=label)
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    lines += [f"{name}: not measured. {reason}" for name, reason in measured.items() if isinstance(reason, str)]
    return Picture(figure, f"A chain of four operators. {'; '.join(slowdowns)}.", "\n".join(lines))


def _draw_ways(panel: "Axes", title: str, some: Sequence[Way]) -> None:
    for position, way in enumerate(some):
        fused = way.kernels == min(one.kernels for one in some)
        colour, hatch = (BLUE, "") if fused else (ORANGE, "//")
        panel.barh(position, way.plain[0], color=colour, hatch=hatch, edgecolor="#fafafa", height=0.6)
        if way.graph:
            panel.plot(way.graph[0], position, "D", color=GREEN, markersize=7, markeredgecolor="black")
        known = way.moved > 1e8 and way.kernels in _COUNTED
        rate = f", {way.bandwidth / 1e12:.2f} TB/s" if known else ""
        end = max(one[0] for one in (way.plain, way.graph) if one)
        kernels = f"{way.kernels} kernel{'s' * (way.kernels != 1)}"
        plotting.note(panel, f"{kernels}{rate}", (end, position), (7, 0), fontsize=8)
    plotting.name_rows(panel, [way.name for way in some])
    panel.set_title(title, fontsize=10)
    panel.set_xlim(0, 1.75 * max(one[0] for way in some for one in (way.plain, way.graph) if one))
    panel.set_xlabel("milliseconds a call", fontsize=9)


def _described(way: Way) -> str:
    graph = f"as a CUDA graph {way.graph[0]:.4f} ms" if way.graph else f"no CUDA graph: {way.no_graph}"
    moved, kernels = "", f"{way.kernels} kernel{'s' * (way.kernels != 1)}"
    if way.moved:
        exact = way.kernels in _COUNTED
        moved = f", {'' if exact else 'at least '}{way.moved / 1e6:.3g} MB moved"
        moved += f", {way.bandwidth / 1e9:.0f} GB/s" if exact else ""
    return f"{way.plain[0]:.4f} ms, {graph}, {kernels} of together {way.kernels_ms:.4f} ms{moved}"


EXPERIMENT = Experiment(
    name="lesson01_fusion_baseline",
    title="A chain of operators with and without fusion, in PyTorch and TensorRT",
    method=METHOD,
    rows=ROWS,
    read=read,
    draw=lambda measured: draw(measured.result),
    libraries=on_stream.libraries,
)
