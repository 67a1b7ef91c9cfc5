"""Lesson 01, layer fusion: the time of an engine on a GPU as it is, and with its fusions broken by marked outputs."""

import functools
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tutorial_utils import engine, plotting
from tutorial_utils.inspection.dataflow import Dataflow
from tutorial_utils.measure import timing
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model import onnx_file

METHOD = (
    "CUDA events around each call of an engine on its own stream, copies left out, input copied to the GPU once; "
    "warm-up until the time is steady, then rounds in which the fused engine and the one with all tensors marked as "
    "outputs take turns"
)
# ONNX file, shape of one image and batch.
CASES = (("quick-fp32", (3, 32, 32), 64), ("resnet50-fp16", (3, 224, 224), 8))


def mark_all_outputs(onnx_path: str | Path, target_path: str | Path) -> Path:
    """Write a copy of a model in which every tensor between two nodes is an output of the network.

    It is what Polygraphy's ``--trt-outputs mark all`` does to a TensorRT network. ``target_path`` is returned.
    """
    model = onnx_file.load(onnx_path)
    values = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    marked = {value.name for value in model.graph.output}
    written = [name for node in model.graph.node for name in node.output]
    model.graph.output.extend(values[name] for name in written if name in values and name not in marked)
    return onnx_file.save(model, target_path)


def device_times(onnx_path: Path, sample: tuple[int, ...], batch: int) -> dict[str, tuple[int, Measurement]]:
    """Time a model's engine on this machine's GPU, fused and with every tensor marked as an output.

    The model's one input, x, is a batch of samples. Returns number of kernels and times, under "fused" and "marked".
    """
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    options = engine.BuildOptions(profiles=(engine.Profile.batch("x", sample, opt=batch, max=batch),))
    images = np.random.default_rng(0).standard_normal((batch, *sample), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        marked = mark_all_outputs(onnx_path, Path(folder) / f"{onnx_path.stem}-marked.onnx")
        engines = {name: engine.build(path, options) for name, path in (("fused", onnx_path), ("marked", marked))}
    with ExitStack() as stack:
        runners = {name: stack.enter_context(TensorRTRunner(built)) for name, built in engines.items()}
        calls = {name: functools.partial(runner.device_times, {"x": images}) for name, runner in runners.items()}
        times = timing.measure_on_device_in_turn(calls, batch=batch)
    return {name: (len(built.report.kernels), times[name]) for name, built in engines.items()}


@dataclass(frozen=True)
class FusionRow:
    """An engine of a model: "fused" as it is, or "marked", with all tensors made outputs."""

    model: str
    engine: str
    kernels: int
    times: Measurement


def measure(models: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Time the engines of all `CASES`, see `device_times`; return the fields of a `FusionRow` of each engine."""
    return [
        {"model": name, "engine": kind, "kernels": kernels, "times": times.to_dict()}
        for name, sample, batch in CASES
        for kind, (kernels, times) in device_times(models[name], sample, batch).items()
    ]


EXPERIMENT = Experiment(
    name="lesson01_fusion",
    title="Engines with and without layer fusion",
    method=METHOD,
    measure=lambda models: {"rows": measure(models)},
    read=lambda data: [FusionRow(**{**row, "times": Measurement.from_dict(row["times"])}) for row in data["rows"]],
    models=tuple(f"{name}.onnx" for name, _, _ in CASES),
)


def draw_bytes_moved(networks: Mapping[str, Mapping[str, Dataflow]]) -> plotting.Picture:
    """Draw the bytes of activations that each variant of each network reads and writes.

    Networks are given such as ``{"quick": {"ONNX nodes": ..., "fused engine": ...}}``.
    """
    figure, _ = plotting.new_figure(2.6, nrows=1, ncols=len(networks))
    lines, fractions = [], []
    for one, (network, variants) in zip(figure.axes, networks.items(), strict=True):
        for row, (name, flow) in enumerate(variants.items()):
            read, written = flow.read_bytes / 1e6, flow.written_bytes / 1e6
            one.barh(row, read, color=plotting.BLUE, label="read" if row == 0 else None)
            one.barh(row, written, left=read, color=plotting.ORANGE, label="written" if row == 0 else None)
            one.text(read + written, row, f" {read + written:.0f}", va="center", fontsize=9)
            lines.append(f"{network}, {name}: {read:.1f} MB read, {written:.1f} MB written, {len(flow.steps)} steps")
        plotting.name_rows(one, variants)
        one.set_xlim(right=1.18 * max(flow.moved_bytes for flow in variants.values()) / 1e6)
        one.set_title(network, fontsize=11)
        one.set_xlabel("MB of activations for one batch")
        first, second = list(variants.values())[:2]
        fractions.append(f"{network} {second.moved_bytes / first.moved_bytes:.0%}")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    first, second = list(next(iter(networks.values())))[:2]
    alt = f"Bytes of activations moved by {second}, as a fraction of those by {first}: {', '.join(fractions)}."
    return plotting.Picture(figure, alt, "\n".join(lines))
