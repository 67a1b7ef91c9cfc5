"""Lesson 04 on a GPU: what each remedy of an overflow costs in time and in answers of the task, on both patients.

The GPU machine needs neither Paddle nor the package that ships the detector: `prepare` writes what is measured with.
AutoCast's files, which `autocast` writes, are taken where they lie beside the others.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutorial_utils import engine, plotting
from tutorial_utils.base import flavour, paths
from tutorial_utils.base.errors import BackendUnavailableError, CourseError
from tutorial_utils.debug import remedies, residual_stream, scaling, tensor_errors
from tutorial_utils.lessons.lesson04 import patients
from tutorial_utils.lessons.lesson04.patients import Patient
from tutorial_utils.measure import rows, timing
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.timing import Comparison, Measurement
from tutorial_utils.model import data, half_precision, onnx_file
from tutorial_utils.plotting import GREEN, ORANGE, RED, Picture

if TYPE_CHECKING:
    from tutorial_utils.engine.tensorrt import trt

METHOD = (
    "text detector at 1x3x192x384 and transformer at 64x17, both with the overflow that lesson 04 plants; engine time "
    "by CUDA events on the GPU, copies excluded, each in turn with the engine of the plain FP16 file, median over "
    "rounds after a warm-up until steady; once launched by the CPU and once as a CUDA graph; answers on 8 views of the "
    "page and on 600 test sentences, against ONNX Runtime's FP32 on the CPU; files are strongly typed; the FP16 flag "
    "and the constraints are set on weakly typed networks from the FP32 file; TF32 as TensorRT sets it: on"
)
PLAIN = "FP16"  # the file as it is: what a remedy adds is counted from here
# What stands for each remedy: the file, and what the builder is told beside.
VARIANTS = {
    "FP32": "fp32", PLAIN: "fp16", "keep in FP32": "keep", "clip": "clip", "scale back": "scale", "BF16": "bf16",
    "AutoCast": "autocast", "FP16 flag": "fp32", "constraints": "fp32",
}  # fmt: skip
# Operators that stay in FP32 where the rest is BF16. TensorRT-RTX 1.7.1 has no transposed convolution in BF16 ("Could
# not infer output types for operation: deconv"), TensorRT 10.6 no Resize ("No supported formats for p2o.Resize.0").
NO_BF16 = ("ConvTranspose", "Resize")
WEAK = {"FP16 flag": ("fp16",), "constraints": ("fp16", "obey_precision_constraints")}
NAMES = ("detector", "transformer")
FILES = (
    *(f"{name}-{file}.onnx" for name in NAMES for file in dict.fromkeys(VARIANTS.values()) if file != "autocast"),
    "remedies.npz",
)  # fmt: skip
_VIEWS, _BATCH = 8, 64
_SECONDS, _CALLS = 1.0, 300


def prepare(folder: Path) -> dict[str, Path]:
    """Write the models and inputs that are measured with; return the path of each of `FILES`.

    It needs Paddle, and the package that ships the detector.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    for patient in (patients.detector(), patients.transformer()):
        inputs = patients.views(_VIEWS, seed=0) if patient.name == "detector" else _sentences().inputs
        arrays |= {f"{patient.name}/{key}": values for key, values in _write(patient, inputs, folder).items()}
    np.savez_compressed(folder / "remedies.npz", **arrays)
    return {name: folder / name for name in FILES}


def _write(patient: Patient, inputs: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """Write a patient's variants; return the inputs, the right outputs, and what is to stay in FP32."""
    model = onnx_file.load(patient.overflowing)
    (name,) = (value.name for value in model.graph.input)
    values = tensor_errors.all_outputs(patient.overflowing, {name: inputs})
    large = remedies.too_large(values)
    kept = remedies.touching(model, large)
    back = remedies.scale_for_headroom(max(large.values()))
    changed = {
        "fp32": model,
        "clip": remedies.clip(model, large),
        "scale": scaling.move_scale(model, scaling.PLANTED[0], back)
        if patient.name == "detector"
        else residual_stream.scale(model, back),
    }
    fp32 = {key: onnx_file.save(one, folder / f"{patient.name}-{key}.onnx") for key, one in changed.items()}
    half_precision.to_fp16(fp32["fp32"], folder / f"{patient.name}-fp16.onnx")
    half_precision.to_fp16(fp32["fp32"], folder / f"{patient.name}-keep.onnx", keep_fp32=kept)
    refused = [node.name for node in model.graph.node if node.op_type in NO_BF16]
    half_precision.to_bf16(fp32["fp32"], folder / f"{patient.name}-bf16.onnx", keep_fp32=refused)
    for key in ("clip", "scale"):
        half_precision.to_fp16(fp32[key], fp32[key])
    expected = values[model.graph.output[0].name]
    return {"inputs": inputs, "expected": expected, "kept": np.array(kept), "large": np.array(list(large))}


def _sentences() -> data.Dataset:
    return data.load("digit_sentences", "test")


def make_models(names: Sequence[str]) -> dict[str, Path]:
    """Prepare the files of the experiment in the cache."""
    made = prepare(paths.cache_dir("lesson04", "remedies_on_gpu"))
    return {name: made[name] for name in names}


@dataclass(frozen=True)
class Row:
    """A patient with one remedy.

    Attributes:
        finite, rel_l2, task: As of `remedies.Outcome`; the task is text boxes, or classes, that agree with FP32.
        plan_bytes, build_seconds: Of the engine; builds share a timing cache.
        kernels, fp32_kernels: How many there are, and how many of them write FP32.
        line: What the engine computes in: `computed_types.line`.
        times, graph_times: Of this engine and of that of the plain FP16 file, by the names in `VARIANTS`.
        no_graph: Why there are no graph times; "" where there are.
    """

    finite: float
    rel_l2: float
    task: float
    plan_bytes: int
    build_seconds: float
    kernels: int
    fp32_kernels: int
    line: str
    times: dict[str, Measurement]
    graph_times: dict[str, Measurement]
    no_graph: str

    def of(self, remedy: str) -> tuple[Measurement, Comparison | None]:
        """Return the time of this row's engine, and how it compares with the plain FP16 one: by graph where it can."""
        times = self.graph_times or self.times
        return times[remedy], None if remedy == PLAIN else timing.compare(times[PLAIN], times[remedy])


def keep_in_fp32(
    kept: Sequence[str], large: Sequence[str], network: "trt.INetworkDefinition", config: "trt.IBuilderConfig"
) -> None:
    """Constrain layers of a weakly typed network to FP32, and tensors between them.

    Args:
        kept: Names of layers, which are those of the ONNX nodes.
        large: Names of the tensors that have to be stored in FP32.
        network, config: Of the build.

    Raises:
        KeyError: A node became no layer of its own name.
    """
    from tutorial_utils.engine.tensorrt import trt

    layers = {layer.name: layer for layer in map(network.get_layer, range(network.num_layers))}
    for name in kept:
        layer = layers[name]
        layer.precision = trt.float32
        for index in range(layer.num_outputs):
            if layer.get_output(index).name in large:
                layer.set_output_type(index, trt.float32)


def measure(name: str, remedy: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """Build and measure a patient with one remedy; return the fields of its `Row`.

    Raises:
        BackendUnavailableError: There is no GPU, AutoCast's file isn't among the models, or TensorRT is another.
    """
    if remedy in WEAK:
        flavour.require("tensorrt")  # the other one has no weakly typed networks
    from tutorial_utils.runners.tensorrt import TensorRTRunner  # needs PyCUDA

    built = _build(name, remedy, models)
    plain = built if remedy == PLAIN else _build(name, PLAIN, models)
    with np.load(models["remedies"]) as stored:
        inputs, expected = stored[f"{name}/inputs"], stored[f"{name}/expected"]
    agreement = patients.boxes_agree if name == "detector" else patients.predictions_agree
    batch = 1 if name == "detector" else _BATCH
    with TensorRTRunner(built) as runner:
        found = np.concatenate(
            [
                next(iter(runner.infer(_feeds(name, inputs[i : i + batch])).values()))
                for i in range(0, len(inputs), batch)
            ]
        )
    outcome = remedies.judge_output(found, expected, agreement)
    engines = {PLAIN: plain, remedy: built}
    feeds = _feeds(name, inputs[:batch])
    graph_times, no_graph = {}, ""
    try:
        graph_times = _times(lambda one: TensorRTRunner(one, cuda_graph=True), engines, feeds, batch)
    except CourseError as missing:
        no_graph = missing.cause
    report = built.report
    return {
        "finite": outcome.finite,
        "rel_l2": outcome.rel_l2 if np.isfinite(outcome.rel_l2) else None,
        "task": outcome.task,
        "plan_bytes": report.plan_bytes,
        "build_seconds": report.build_seconds,
        "kernels": len(report.kernels),
        "fp32_kernels": sum(any(one.dtype == "fp32" for one in kernel.outputs) for kernel in report.kernels),
        "line": report.precision_line,
        "times": _times(TensorRTRunner, engines, feeds, batch),
        "graph_times": graph_times,
        "no_graph": no_graph,
    }


def _build(name: str, remedy: str, models: Mapping[str, Path]) -> engine.Engine:
    path = models[f"{name}-fp32"].with_name(f"{name}-{VARIANTS[remedy]}.onnx")
    if not path.exists():  # AutoCast's, which not every machine can make
        raise BackendUnavailableError(
            f"There is no {path.name} beside the other models.",
            "Make it with AutoCast in an environment of its own: see tutorial_utils/lessons/lesson04/autocast.py.",
        )
    with np.load(models["remedies"]) as stored:
        inputs, kept, large = (stored[f"{name}/{key}"] for key in ("inputs", "kept", "large"))
    key, sample = next(iter(_feeds(name, inputs[:1]).items()))
    largest = (1 if name == "detector" else _BATCH, *sample.shape[1:])
    profile = engine.Profile.from_mapping({key: (sample.shape, largest, largest)})
    options = engine.BuildOptions((profile,), strongly_typed=remedy not in WEAK, flags=WEAK.get(remedy, ()))
    configure = functools.partial(keep_in_fp32, set(kept), set(large)) if remedy == "constraints" else None
    return engine.build(path, options, configure=configure, progress=False)


def _feeds(name: str, inputs: np.ndarray) -> dict[str, np.ndarray]:
    return {"x" if name == "detector" else "ids": inputs}


def _times(
    opened: Callable[[engine.Engine], Any],
    engines: Mapping[str, engine.Engine],
    feeds: Mapping[str, np.ndarray],
    batch: int,
) -> dict[str, dict[str, Any]]:
    """Time the engines in turn, each in a runner of its own."""
    runners: dict[str, Any] = {}
    try:
        for name, one in engines.items():
            runners[name] = opened(one)
        calls = {name: functools.partial(runner.device_times, feeds) for name, runner in runners.items()}
        return timing.to_plain(timing.measure_on_device_in_turn(calls, batch=batch, seconds=_SECONDS, max_calls=_CALLS))
    finally:
        for runner in runners.values():
            runner.close()


ROWS = {
    f"{name}/{remedy}": functools.partial(measure, name, remedy)
    for name in NAMES
    for remedy in (PLAIN, *(one for one in VARIANTS if one != PLAIN))
}


def read(recorded: Mapping[str, Any]) -> dict[str, dict[str, Row | str]]:
    """Return the rows by patient and remedy, in the order of `VARIANTS`; where there is none, the reason."""
    found = {row.name: row.reason if row.values is None else _row(row.values) for row in rows.read(recorded)}
    return {
        name: {remedy: found[f"{name}/{remedy}"] for remedy in VARIANTS if f"{name}/{remedy}" in found}
        for name in NAMES
    }


def _row(values: Mapping[str, Any]) -> Row:
    error = np.inf if values["rel_l2"] is None else values["rel_l2"]
    times = {name: timing.from_plain(values[name]) for name in ("times", "graph_times")}
    return Row(**{**values, **times, "rel_l2": error})


def table(results: Mapping[str, Mapping[str, Row | str]]) -> str:
    """Return the measured rows as a Markdown table, and below it why others could not be."""
    lines = ["| | GPU ms | against plain FP16 | kernels writing FP32 | error | answers |", "|:--|--:|:--|--:|--:|--:|"]
    reasons = []
    for name, of in results.items():
        for remedy, row in of.items():
            if isinstance(row, str):
                reasons.append(f"{name}, {remedy}: {row}")
                continue
            time, against = row.of(remedy)
            error = f"{row.rel_l2:.1e}" if np.isfinite(row.rel_l2) else "not finite"
            lines.append(
                f"| {name}, {remedy} | {time.median_ms:.3f} | {against.verdict if against else ''} "
                f"| {row.fp32_kernels} of {row.kernels} | {error} | {row.task:.1%} |"
            )
    return "\n".join(lines) + "".join(f"\n\n{reason}" for reason in reasons)


def draw(results: Mapping[str, Mapping[str, Row | str]]) -> Picture:
    """Draw the time of each remedy for both patients, with its interval; the text also has errors and answers."""
    shown = {name: {key: one for key, one in of.items() if isinstance(one, Row)} for name, of in results.items()}
    shown = {name: of for name, of in shown.items() if of}
    height = 1.0 + sum(0.7 + 0.32 * len(of) for of in shown.values())
    ratios = [len(of) for of in shown.values()]
    figure, panels = plotting.new_figure(height, nrows=len(shown), squeeze=False, height_ratios=ratios)
    lines = []
    for axes, (name, of) in zip(panels[:, 0], shown.items(), strict=True):
        longest = max(row.of(remedy)[0].median_ms for remedy, row in of.items())
        for position, (remedy, row) in enumerate(of.items()):
            time, against = row.of(remedy)
            low, high = timing.median_interval(time)
            axes.barh(position, time.median_ms, color=_colour(row), height=0.62)
            axes.plot([low, high], [position] * 2, color="black", linewidth=2)
            task = f"{row.task:.0%} of the answers"
            plotting.note(axes, task, (max(high, time.median_ms), position), (6, 0))
            lines.append(f"{name}, {remedy}: {_described(row, time, against)}")
        plotting.name_rows(axes, list(of))
        axes.set_xlim(0, 1.3 * longest)
        axes.set_title(name, loc="left")
        axes.set_xlabel("milliseconds on the GPU")
    for colour, label in _COLOURS.items():
        panels[0, 0].plot([], [], "s", color=colour, label=label)
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    lines += [
        f"{name}, {key}: {one}" for name, of in results.items() for key, one in of.items() if isinstance(one, str)
    ]
    alt = f"Times of both patients with each remedy as bars, with the part of the answers kept. {' '.join(lines)}"
    return Picture(figure, alt, "\n".join(lines))


_COLOURS = {GREEN: "all answers kept", ORANGE: "some answers lost", RED: "Inf or NaN"}


def _colour(row: Row) -> str:
    return RED if row.finite < 1 else GREEN if row.task == 1 else ORANGE


def _described(row: Row, time: Measurement, against: Comparison | None) -> str:
    low, high = timing.median_interval(time)
    verdict = f" ({against.verdict})" if against else ""
    error = f"error {row.rel_l2:.1e}" if np.isfinite(row.rel_l2) else f"finite in {row.finite:.0%} of the inputs"
    return (
        f"{time.median_ms:.3f} ms, {low:.3f} to {high:.3f}{verdict}; {error}, {row.task:.1%} of the answers; "
        f"plan {row.plan_bytes / 1e6:.1f} MB, {row.fp32_kernels} of {row.kernels} kernels write FP32; {row.line}"
    )


EXPERIMENT = Experiment(
    name="lesson04_remedies",
    title="Remedies of an FP16 overflow on two networks: time, error and answers of each",
    method=METHOD,
    rows=ROWS,
    read=read,
    models=FILES,
    make_models=make_models,
)
