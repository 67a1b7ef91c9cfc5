"""Lesson 01, layer fusion: the time of an engine on a GPU as it is, and with its fusions broken by marked outputs."""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils import engine, plotting
from tutorial_utils.inspection.dataflow import Dataflow
from tutorial_utils.machine import capabilities
from tutorial_utils.measure import recordings, timing
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model import onnx_file

METHOD = (
    "CUDA events around each call of an engine on its own stream, copies left out, input copied to the GPU once; "
    "warm-up until the time is steady, then 10 rounds in which the fused engine and the one with all tensors marked as "
    "outputs take turns"
)
# ONNX file, shape of one image and batch.
CASES = (("quick-fp32", (3, 32, 32), 64), ("resnet50-fp16", (3, 224, 224), 8))


def device_times(
    onnx_path: Path, sample: tuple[int, ...], batch: int, seconds: float = 1.0
) -> dict[str, tuple[int, Measurement]]:
    """Time a model's engine on this machine's GPU, fused and with every tensor marked as an output.

    Args:
        onnx_path: The model. Its one input is called x.
        sample: Shape of one image.
        batch: Images in one call.
        seconds: About how long to time each engine.

    Returns:
        Number of kernels and times, under "fused" and "marked".

    Raises:
        BackendUnavailableError: TensorRT engines can't run here.
        ModelFileError: The model is missing.
    """
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    options = engine.BuildOptions(profiles=(engine.Profile.batch("x", sample, opt=batch, max=batch),))
    images = np.random.default_rng(0).standard_normal((batch, *sample), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        marked = onnx_file.mark_all_outputs(onnx_path, Path(folder) / f"{onnx_path.stem}-marked.onnx")
        engines = {name: engine.build(path, options) for name, path in (("fused", onnx_path), ("marked", marked))}
    with ExitStack() as stack:
        runners = {name: stack.enter_context(TensorRTRunner(built)) for name, built in engines.items()}
        calls = {name: functools.partial(runner.device_times, {"x": images}) for name, runner in runners.items()}
        times = timing.measure_on_device_in_turn(calls, batch=batch, seconds=seconds)
    return {name: (len(built.report.kernels), times[name]) for name, built in engines.items()}


def rows(cases: Sequence[tuple[Path, tuple[int, ...], int]]) -> list[dict[str, Any]]:
    """Time the engines of several models, see `device_times`.

    Args:
        cases: ONNX file, shape of one image and batch of each model.

    Returns:
        Two rows for each model, fused and marked: "model", "engine", "kernels" and "times", a `Measurement`.
    """
    return [
        {"model": path.stem, "engine": kind, "kernels": kernels, "times": times}
        for path, sample, batch in cases
        for kind, (kernels, times) in device_times(path, sample, batch).items()
    ]


def rows_of(recording: recordings.Recording) -> list[dict[str, Any]]:
    """Return the rows of the recording in the form of `rows`."""
    return [{**row, "times": Measurement.from_dict(row["times"])} for row in recording.data["rows"]]


def record(models: Path) -> Path:
    """Measure on this machine's GPU and keep the result as the recording "lesson01_fusion".

    Args:
        models: A folder with ``quick-fp32.onnx`` and ``resnet50-fp16.onnx``.

    Returns:
        The file that was written.

    Raises:
        BackendUnavailableError: TensorRT engines can't run here.
        ModelFileError: A model is missing.
    """
    machine = capabilities.require_tensorrt_run()
    measured = rows([(Path(models) / f"{name}.onnx", sample, batch) for name, sample, batch in CASES])
    data = {"rows": [{**row, "times": row["times"].to_dict()} for row in measured]}
    recording = recordings.new("Engines with and without layer fusion", METHOD, machine.machine(), data)
    return recordings.save(recording, recordings.FOLDER / "lesson01_fusion.json")


def draw_bytes_moved(networks: Mapping[str, Mapping[str, Dataflow]]) -> plotting.Picture:
    """Draw the bytes of activations that each variant of each network reads and writes.

    Args:
        networks: For each network its variants, such as ``{"quick": {"ONNX nodes": ..., "fused engine": ...}}``.
    """
    figure, axes = plotting.new_figure(2.6, nrows=1, ncols=len(networks))
    lines, fractions = [], []
    for one, (network, variants) in zip([axes] if len(networks) == 1 else axes, networks.items(), strict=True):
        for row, (name, flow) in enumerate(variants.items()):
            read, written = flow.read_bytes / 1e6, flow.written_bytes / 1e6
            one.barh(row, read, color=plotting.BLUE, label="read" if row == 0 else None)
            one.barh(row, written, left=read, color=plotting.ORANGE, label="written" if row == 0 else None)
            one.text(read + written, row, f" {read + written:.0f}", va="center", fontsize=9)
            lines.append(f"{network}, {name}: {read:.1f} MB read, {written:.1f} MB written, {len(flow.steps)} steps")
        one.set_yticks(range(len(variants)), variants)
        one.set_ylim(len(variants) - 0.4, -0.6)
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
