"""Lesson 01, INT8 by TensorRT's own calibrators: right and wrong calibration images, and every other precision beside.

All engines are of the quick classifier and judged on all test images. What a calibration costs is explained by numbers:
for each quantized activation, how much of it the chosen range cuts off, and how many of INT8's 127 steps it fills.
"""

import functools
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils import engine, plotting
from tutorial_utils.base import flavour
from tutorial_utils.debug import scaling, tensor_errors
from tutorial_utils.measure import deployment, quality, rows, timing
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model import data, onnx_file
from tutorial_utils.plotting import GREY, RED, Picture
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

METHOD = (
    "quality on all 600 test images against ONNX Runtime's FP32 on the CPU; types from TensorRT's inspector; ranges of "
    "activations from the calibration table and from FP32 on the test images; engine time by CUDA events for 64 "
    "images, copies excluded, median over rounds after a warm-up until steady"
)
CALIBRATION_IMAGES = 448  # seven batches of 64
STEPS = 127  # of INT8, to each side of zero
_BATCH = 64
_PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # keeps a name readable across other lines
# What other weights with the same answers change: this activation of the quick classifier is as many times as large.
MOVED = ("p2o.pd_op.batch_norm_.1.0", 16.0)


@dataclass(frozen=True)
class Case:
    """How an engine is made: the ONNX file, what is asked of the builder, and the calibration, if there is one."""

    model: str = "quick-fp32"
    typed: bool = True  # whether the ONNX file decides on the types
    flags: tuple[str, ...] = ()
    without_flags: tuple[str, ...] = ()
    calibrator: str = ""  # "entropy" or "minmax"
    images: str = "digits"  # one of IMAGES
    batch: int = _BATCH  # of the calibration

    @property
    def options(self) -> engine.BuildOptions:
        """What the builder is asked for, without the calibrator."""
        profile = engine.Profile.batch("x", data.IMAGE_SHAPE, opt=_BATCH, max=_BATCH)
        return engine.BuildOptions(
            (profile,), strongly_typed=self.typed, flags=self.flags, without_flags=self.without_flags
        )


def _calibrated(calibrator: str, images: str = "digits", batch: int = _BATCH) -> Case:
    return Case(typed=False, flags=("int8",), calibrator=calibrator, images=images, batch=batch)


# What a calibrator is fed with, made of the digits in [-1, 1].
IMAGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "digits": lambda images: images,
    "noise": lambda images: np.random.default_rng(0).uniform(-1, 1, images.shape).astype(np.float32),
    "black": lambda images: np.full_like(images, -1),
    "zero_to_one": lambda images: (images + 1) / 2,
    "zero_to_255": lambda images: (images + 1) * 127.5,
    "darkest_first": lambda images: images[np.argsort(images.mean(axis=(1, 2, 3)))],
}
# The rows of the recording: each precision, and each calibrator with right and wrong images and in other batches.
CASES = {
    "precision/fp32": Case(without_flags=("tf32",)),
    "precision/tf32": Case(),
    "precision/fp16": Case("quick-fp16"),
    "precision/fp16_flag": Case(typed=False, flags=("fp16",)),
    "precision/bf16": Case("quick-bf16"),
    "precision/bf16_flag": Case(typed=False, flags=("bf16",)),
    "precision/int8_qdq": Case("quick-int8"),
    "precision/int8_calibrated": _calibrated("entropy"),
    "precision/int8_calibrated_fp16": Case(typed=False, flags=("int8", "fp16"), calibrator="entropy"),
    "precision/fp8": Case("quick-fp8"),
    **{
        f"{calibrator}/{name}": _calibrated(calibrator, images, batch)
        for calibrator in ("entropy", "minmax")
        for name, images, batch in (
            *((name, name, _BATCH) for name in list(IMAGES)[:5]),
            ("batches_of_8", "digits", 8),
            ("batches_of_8_darkest_first", "darkest_first", 8),
        )
    },
}


@dataclass(frozen=True)
class Range:
    """A quantized activation: the magnitude of INT8's last step, its largest one, and the share of it beyond that."""

    threshold: float
    largest: float
    clipped: float

    @property
    def steps(self) -> float:
        """How many of the 127 steps the activation fills."""
        return STEPS * min(1.0, self.largest / self.threshold)

    @property
    def cut_off(self) -> float:
        """The share that INT8 loses to the range: none where all values round to its last step."""
        return self.clipped if self.largest > self.threshold * (1 + 0.5 / STEPS) else 0.0


@dataclass(frozen=True)
class Result:
    """An engine on the test images: accuracy, 0 to 1; decibels of FP32's logits over their error.

    Attributes:
        agreement: Of its answers with FP32's, 0 to 1.
        line: What it computes in: `computed_types.line`.
        time: Of the engine alone, for 64 images; None of those that differ in their calibration only.
        ranges: Of the activations that convolutions and products read, by tensor; none where nothing is calibrated.
    """

    accuracy: float
    agreement: float
    sqnr_db: float
    line: str
    time: Measurement | None = None
    ranges: dict[str, Range] = field(default_factory=dict)

    @property
    def median_steps(self) -> float:
        """How many steps the median activation fills."""
        return float(np.median([one.steps for one in self.ranges.values()]))

    @property
    def most_cut_off(self) -> float:
        """The share of the values that is cut off in the activation that loses most."""
        return max(one.cut_off for one in self.ranges.values())


class _Judge:
    """What all engines of a process are measured against: labels, FP32's logits, and FP32's activations."""

    def __init__(self, fp32_path: Path):
        self.test_set = data.load("digits", "test")
        self.images = data.calibration_images(data.load("digits", "train"), CALIBRATION_IMAGES)
        with OnnxRuntimeRunner(fp32_path) as runner:
            self.logits = deployment.predict(runner, self.test_set.images, _BATCH)
        self.activations = activations(fp32_path, self.test_set.images)


def activations(onnx_path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the values of all tensors that convolutions and matrix products of a model read, by ONNX Runtime."""
    nodes = onnx_file.load(onnx_path).graph.node
    values = {"x": images, **tensor_errors.all_outputs(onnx_path, {"x": images})}
    return {node.input[0]: values[node.input[0]] for node in nodes if node.op_type in ("Conv", "MatMul", "Gemm")}


def thresholds(table: bytes) -> dict[str, float]:
    """Return the largest magnitude that isn't cut off, by tensor, from a calibration table of TensorRT.

    Below its header, a line holds a name and the scale of one step, the bytes of an FP32 number in hexadecimal.
    """
    lines = (line.rpartition(": ") for line in table.decode().splitlines()[1:])
    return {name: STEPS * struct.unpack(">f", bytes.fromhex(scale))[0] for name, _, scale in lines if name}


def ranges(table: bytes, values: Mapping[str, np.ndarray]) -> dict[str, Range]:
    """Hold a calibration table against real activations: those of them that it names."""
    chosen = thresholds(table)
    found = {}
    for name in values.keys() & chosen.keys():
        magnitudes = np.abs(values[name])
        clipped = float(np.mean(magnitudes > chosen[name]))
        found[name] = Range(chosen[name], float(magnitudes.max()), clipped)
    return dict(sorted(found.items()))


def measure(name: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """Build and judge the engine of one of `CASES`; return the fields of its `Result`."""
    flavour.require("tensorrt")  # the other one has no calibrators
    case = CASES[name]
    judge = _Judge(models["quick-fp32"])
    images = IMAGES[case.images](judge.images)
    return _judged(*_built(case, models[case.model], images), judge, timed=name.startswith("precision/"))


def _built(case: Case, onnx_path: Path, images: np.ndarray) -> tuple[engine.Engine, bytes]:
    """Return the engine and its calibration table, which is empty without a calibration."""
    if not case.calibrator:
        return engine.build(onnx_path, case.options, progress=False), b""
    from tutorial_utils.engine.calibrators import EntropyCalibrator, MinMaxCalibrator

    with tempfile.TemporaryDirectory() as folder:
        make = {"entropy": EntropyCalibrator, "minmax": MinMaxCalibrator}[case.calibrator]
        calibrator = make(onnx_path, {"x": images}, case.batch, cache_file=Path(folder) / "table")
        return _build_with(calibrator, onnx_path, case.options), calibrator.cache_file.read_bytes()


def _build_with(calibrator: Any, onnx_path: Path, options: engine.BuildOptions) -> engine.Engine:
    def configure(network: Any, config: Any) -> None:
        config.int8_calibrator = calibrator

    return engine.build(onnx_path, options, configure=configure, progress=False)


def _judged(built: engine.Engine, table: bytes, judge: _Judge, timed: bool = False) -> dict[str, Any]:
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    test_set, time = judge.test_set, None
    with TensorRTRunner(built) as runner:
        logits = deployment.predict(runner, test_set.images, _BATCH)
        if timed:
            times = functools.partial(runner.device_times, {"x": test_set.images[:_BATCH]})
            time = timing.measure_on_device(times, batch=_BATCH, seconds=0.2, max_calls=100).to_dict()
    return {
        "accuracy": quality.classification_metrics(test_set.labels, logits).accuracy,
        "agreement": quality.agreement(logits, judge.logits),
        "sqnr_db": quality.sqnr_db(logits, judge.logits),
        "line": built.report.precision_line,
        "time": time,
        "ranges": {name: asdict(one) for name, one in ranges(table, judge.activations).items()},
    }


def measure_other_weights(with_old_table: bool, models: Mapping[str, Path]) -> dict[str, Any]:
    """Measure a model with other weights and the same answers, calibrated anew or with the table of the old weights.

    The package refuses an old table; here TensorRT gets it, which knows nothing but the names of tensors in it.
    """
    flavour.require("tensorrt")
    case = CASES["entropy/digits"]
    with tempfile.TemporaryDirectory() as folder:
        other = scaling.move_scale(onnx_file.load(models["quick-fp32"]), *MOVED)
        changed = onnx_file.save(other, Path(folder) / "changed.onnx")
        judge = _Judge(changed)
        if not with_old_table:
            return _judged(*_built(case, changed, judge.images), judge)
        from tutorial_utils.engine.calibrators import EntropyCalibrator

        _, table = _built(case, models["quick-fp32"], judge.images)

        class Unchecked(EntropyCalibrator):
            def read_calibration_cache(self) -> bytes:
                return table

        built = _build_with(Unchecked(changed, {"x": judge.images}, _BATCH), changed, case.options)
        return _judged(built, table, judge)


ROWS = {
    **{name: functools.partial(measure, name) for name in CASES},
    "other_weights/own_table": functools.partial(measure_other_weights, False),
    "other_weights/old_table": functools.partial(measure_other_weights, True),
}


def read(recorded: Mapping[str, Any]) -> dict[str, Result | str]:
    """Return the results by row, in the order of `ROWS`; the reason where an engine can't be had."""
    found = {row.name: row.reason if row.values is None else _result(row.values) for row in rows.read(recorded)}
    return {name: found[name] for name in ROWS if name in found}


def _result(values: Mapping[str, Any]) -> Result:
    time = values["time"] and Measurement.from_dict(values["time"])
    return Result(**{**values, "time": time, "ranges": {name: Range(**one) for name, one in values["ranges"].items()}})


def draw_thresholds(values: np.ndarray, chosen: Mapping[str, float]) -> Picture:
    """Draw an activation's magnitudes, and the one at which each calibration, by its name, puts INT8's last step."""
    figure, axes = plotting.new_figure(3.4)
    magnitudes = np.abs(values).ravel()
    edges = np.geomspace(0.01, 1.3 * max(*chosen.values(), magnitudes.max()), 120)
    weights = np.full(magnitudes.size, 100 / magnitudes.size)
    axes.hist(magnitudes, edges, weights=weights, color=GREY, alpha=0.55, label="values")
    top = 1.9 * axes.get_ylim()[1]
    lines = []
    for position, (name, threshold) in enumerate(sorted(chosen.items(), key=lambda pair: -pair[1])):
        axes.axvline(threshold, color=RED, linewidth=1.5, label="" if position else "range: INT8's last step")
        height = top * (0.95 - 0.45 * position / len(chosen))
        plotting.note(axes, name, (threshold, height), (-5, 0), ha="right", bbox=_PLATE)
        cut = float(np.mean(magnitudes > threshold))
        lines.append(f"{name}: last step at {threshold:.4g}, {100 * cut:.2f} % of all values beyond it")
    plotting.plain_numbers(axes.xaxis)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, top)
    axes.set_xlabel("magnitude (0 is left of the axis)")
    axes.set_ylabel("% of all values")
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    listed = "; ".join(lines)
    return Picture(figure, f"An activation, and where calibrations cut it off. {listed}.", "\n".join(lines))


EXPERIMENT = Experiment(
    name="lesson01_calibration",
    title="INT8 by TensorRT's calibrators: right and wrong images; the quick classifier in every precision",
    method=METHOD,
    rows=ROWS,
    read=read,
    models=tuple(f"quick-{name}.onnx" for name in ("fp32", "fp16", "bf16", "int8", "fp8")),
)
