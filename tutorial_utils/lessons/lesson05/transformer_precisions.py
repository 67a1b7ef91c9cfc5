"""Lesson 05: the transformer in every precision, its time by batch and length, and whether attention is one kernel.

The network is the trained one with room for longer sentences: the rows of its table of positions, 17 for the digits,
are repeated up to 128. Sentences of digits are answered as before; times and attention don't depend on the weights.
"""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import numpy_helper

from tutorial_utils import engine, plotting
from tutorial_utils.base import flavour
from tutorial_utils.base.errors import CourseError
from tutorial_utils.engine import EngineLayer
from tutorial_utils.measure import deployment, quality, rows, timing
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model import data, onnx_file
from tutorial_utils.plotting import BLUE, GREEN, ORANGE, Picture
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

METHOD = (
    "the transformer encoder (width 64, 4 heads, 2 layers), one engine of each precision for batches of 1 to 64 and "
    "lengths of 1 to 128, tuned for 8 sentences of 128; engine time by CUDA events on random ids, copies excluded, "
    "median over rounds after a warm-up until steady, launched by the CPU and replayed as a CUDA graph; accuracy and "
    "agreement with ONNX Runtime's FP32 on the CPU on all 600 test sentences, error on 64 random sentences of 128 "
    "tokens; attention from the layers of the engine's report"
)
BATCHES, LENGTHS = (1, 8, 64), (32, 128)
FP32 = "transformer-fp32"
_PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
_SECONDS = 0.2


@dataclass(frozen=True)
class Attention:
    """What became of the attention of an engine.

    Attributes:
        fused: Whether each attention, both products and the softmax between them, is one kernel.
        kernels: Those that hold a product or softmax of attention, each with the name of its tactic where it has one.
    """

    fused: bool
    kernels: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Row:
    """The transformer in one precision.

    Attributes:
        accuracy, agreement: On the test sentences, 0 to 1; the second with FP32.
        error: Largest difference of a logit from FP32 as a fraction of the largest logit, on random long sentences.
        line: What the engine computes in: `computed_types.line`.
        times, graph_times: Of the engine alone, by "batch x length", without and with a CUDA graph.
        no_graph: Why there are no graph times; "" where there are.
    """

    accuracy: float
    agreement: float
    error: float
    line: str
    attention: Attention
    times: dict[str, Measurement]
    graph_times: dict[str, Measurement]
    no_graph: str


def with_longer_sentences(onnx_path: Path, target_path: Path) -> Path:
    """Write a copy of the transformer that takes longer sentences: the rows of its table of positions are repeated."""
    model = onnx_file.load(onnx_path)
    (table,) = (one for one in model.graph.initializer if one.dims[:1] == [data.LONGEST_SENTENCE])
    positions = np.resize(numpy_helper.to_array(table), (max(LENGTHS), table.dims[1]))
    table.CopyFrom(numpy_helper.from_array(positions, table.name))
    return onnx_file.save(model, target_path)


def attention_nodes(onnx_path: Path) -> list[tuple[str, str, str]]:
    """Return the names of the three nodes of each attention of an FP32 model: product, softmax, product."""
    graph = onnx_file.load(onnx_path).graph
    weights = {one.name for one in graph.initializer}
    products = [node.name for node in graph.node if node.op_type == "MatMul" and not weights.intersection(node.input)]
    softmaxes = [node.name for node in graph.node if node.op_type == "Softmax"]
    return list(zip(products[::2], softmaxes, products[1::2], strict=True))


def attention_of(layers: Sequence[EngineLayer], nodes: Sequence[tuple[str, str, str]]) -> Attention:
    """Find an engine's kernels of attention, by the ONNX nodes that they hold."""
    wanted = {name for one in nodes for name in one}
    kernels = [one for one in layers if one.is_kernel and wanted.intersection(one.onnx_nodes)]
    fused = all(any(set(one) <= set(kernel.onnx_nodes) for kernel in kernels) for one in nodes)
    return Attention(fused, tuple((kernel.name, kernel.tactic) for kernel in kernels))


def measure(stack: str, precision: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """Build and measure the transformer in one precision on one TensorRT; return the fields of its `Row`."""
    flavour.require(stack)
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    test_set = data.load("digit_sentences", "test")
    long_ids = np.random.default_rng(0).integers(data.CLS + 1, data.VOCABULARY, (max(BATCHES), max(LENGTHS)))
    profile = engine.Profile.of(ids=((1, 1), (8, max(LENGTHS)), long_ids.shape))
    options = engine.BuildOptions((profile,), without_flags=("tf32",) if precision == "fp32" else ())
    stem = f"transformer-{'fp32' if precision == 'tf32' else precision}"
    with tempfile.TemporaryDirectory() as name:
        exact, path = (with_longer_sentences(models[one], Path(name) / f"{one}.onnx") for one in (FP32, stem))
        with OnnxRuntimeRunner(exact) as runner:
            reference = deployment.predict(runner, test_set.inputs, 64)
            long_reference = deployment.predict(runner, long_ids, 64)
        built = engine.build(path, options, progress=False)
    with TensorRTRunner(built) as runner:
        logits = deployment.predict(runner, test_set.inputs, 64)
        error = quality.relative_error(deployment.predict(runner, long_ids, 64), long_reference)
        times = _times(runner, long_ids)
    graph_times, no_graph = {}, ""
    try:
        with TensorRTRunner(built, cuda_graph=True) as runner:
            graph_times = _times(runner, long_ids)
    except CourseError as missing:
        no_graph = missing.cause
    found = attention_of(built.report.layers, attention_nodes(models[FP32]))
    return {
        "accuracy": quality.classification_metrics(test_set.labels, logits).accuracy,
        "agreement": quality.agreement(logits, reference),
        "error": error,
        "line": built.report.precision_line,
        "attention": {"fused": found.fused, "kernels": found.kernels},
        "times": times,
        "graph_times": graph_times,
        "no_graph": no_graph,
    }


def _times(runner: Any, ids: np.ndarray) -> dict[str, dict[str, Any]]:
    found = {}
    for length in LENGTHS:
        for batch in BATCHES:
            times = functools.partial(runner.device_times, {"ids": ids[:batch, :length]})
            one = timing.measure_on_device(times, batch=batch, seconds=_SECONDS, max_calls=50)
            found[f"{batch}x{length}"] = one.to_dict()
    return found


ROWS = {
    f"{stack}/{precision}": functools.partial(measure, stack, precision)
    for stack in ("tensorrt", "tensorrt_rtx")
    for precision in _PRECISIONS
}


def read(recorded: Mapping[str, Any]) -> dict[str, Row | str]:
    """Return the rows by "TensorRT, precision", in the order of `ROWS`; where there is none, the reason."""
    found = {row.name: row.reason if row.values is None else _row(row.values) for row in rows.read(recorded)}
    return {f"{flavour.FLAVOURS[stack]}, {precision}": found[f"{stack}/{precision}"]
            for stack, precision in (name.split("/") for name in ROWS if name in found)}  # fmt: skip


def _row(values: Mapping[str, Any]) -> Row:
    attention = Attention(values["attention"]["fused"], tuple(map(tuple, values["attention"]["kernels"])))
    times = {name: timing.from_plain(values[name]) for name in ("times", "graph_times")}
    return Row(**{**values, **times, "attention": attention})


def draw(results: Mapping[str, Row | str]) -> Picture:
    """Draw the times of each precision for the smallest and the largest call; the text also has attention and error."""
    shown = {name: one for name, one in results.items() if isinstance(one, Row)}
    figure, panels = plotting.new_figure(1.2 + 0.3 * len(shown), ncols=2, sharey=True)
    for axes, call in zip(panels, (f"{min(BATCHES)}x{min(LENGTHS)}", f"{max(BATCHES)}x{max(LENGTHS)}"), strict=True):
        for position, one in enumerate(shown.values()):
            colour = ORANGE if one.attention.fused else BLUE
            axes.barh(position, one.times[call].median_ms, color=colour, height=0.6)
            if one.graph_times:
                axes.plot(one.graph_times[call].median_ms, position, "D", color=GREEN, markersize=6)
        axes.set_xlabel(f"milliseconds for a batch of {call.replace('x', ' x ')} tokens")
    plotting.name_rows(panels[0], list(shown))
    for colour, mark, label in ((ORANGE, "s", "attention is one kernel"), (BLUE, "s", "attention is several kernels"),
                                (GREEN, "D", "as a CUDA graph")):  # fmt: skip
        panels[0].plot([], [], mark, color=colour, label=label)
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    lines = [f"{name}: {one if isinstance(one, str) else _described(one)}" for name, one in results.items()]
    return Picture(figure, f"Times of a transformer by precision. {' '.join(lines)}", "\n".join(lines))


def _described(row: Row) -> str:
    times = ", ".join(f"{call} {one.median_ms:.3f} ms" for call, one in row.times.items())
    graphs = ", ".join(f"{call} {one.median_ms:.3f} ms" for call, one in row.graph_times.items()) or row.no_graph
    attention = "one kernel" if row.attention.fused else f"{len(row.attention.kernels)} kernels"
    return (
        f"{times}; as a CUDA graph: {graphs}; attention is {attention}; accuracy {row.accuracy:.1%}, "
        f"agreement {row.agreement:.1%}, error {row.error:.1e}; {row.line}"
    )


EXPERIMENT = Experiment(
    name="transformer_precisions",
    title="The transformer in every precision: times by batch and length, and which kernel attention is",
    method=METHOD,
    rows=ROWS,
    read=read,
    draw=lambda measured: draw(measured.result),
    models=tuple(f"transformer-{name}.onnx" for name in ("fp32", "fp16", "bf16", "int8", "fp8")),
)
