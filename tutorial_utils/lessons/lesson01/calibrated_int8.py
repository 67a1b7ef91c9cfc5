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
import onnx
from onnx import numpy_helper

from tutorial_utils import engine, plotting
from tutorial_utils.base.errors import BackendUnavailableError, CourseError
from tutorial_utils.debug.calibration import Calibrated
from tutorial_utils.engine import computed_types
from tutorial_utils.lessons.lesson01 import calibration as figures
from tutorial_utils.lessons.lesson01.fusion import mark_all_outputs
from tutorial_utils.measure import deployment, quality, rows, timing
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model import data, onnx_file
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

METHOD = (
    "quality on all 600 test images against ONNX Runtime's FP32 on the CPU; types from TensorRT's inspector; ranges of "
    "activations from the calibration table and from FP32 on the test images; engine time by CUDA events for 64 "
    "images, copies excluded, median of 10 rounds after a warm-up until steady"
)
CALIBRATION_IMAGES = 448  # seven batches of 64
STEPS = 127  # of INT8, to each side of zero
_BATCH = 64
_WEIGHT_FACTOR = 10.0


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


def _calibrated(calibrator: str, images: str = "digits", batch: int = _BATCH) -> Case:
    return Case(typed=False, flags=("int8",), calibrator=calibrator, images=images, batch=batch)


PRECISIONS = {
    "FP32": Case(without_flags=("tf32",)),
    "FP32 as it comes": Case(),
    "FP16": Case("quick-fp16"),
    "FP16 by flag": Case(typed=False, flags=("fp16",)),
    "BF16": Case("quick-bf16"),
    "BF16 by flag": Case(typed=False, flags=("bf16",)),
    "INT8 Q/DQ": Case("quick-int8"),
    "INT8 calibrated": _calibrated("entropy"),
    "INT8 calibrated + FP16": Case(typed=False, flags=("int8", "fp16"), calibrator="entropy"),
    "FP8 Q/DQ": Case("quick-fp8"),
}
# What a calibrator is fed with, made of the digits in [-1, 1].
IMAGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "digits": lambda images: images,
    "noise": lambda images: np.random.default_rng(0).uniform(-1, 1, images.shape).astype(np.float32),
    "black": lambda images: np.full_like(images, -1),
    "digits in [0, 1]": lambda images: (images + 1) / 2,
    "digits in 0 to 255": lambda images: (images + 1) * 127.5,
    "digits, darkest first": lambda images: images[np.argsort(images.mean(axis=(1, 2, 3)))],
}
GROUPS = {
    "precisions": PRECISIONS,
    **{
        f"images, {calibrator}": {
            **{images: _calibrated(calibrator, images) for images in list(IMAGES)[:5]},
            "batches of 8": _calibrated(calibrator, "digits", 8),
            "batches of 8, darkest first": _calibrated(calibrator, "digits, darkest first", 8),
        }
        for calibrator in ("entropy", "minmax")
    },
}


@dataclass(frozen=True)
class Range:
    """A quantized activation: the magnitude at which it is cut off, its largest one, and the share that is cut off."""

    threshold: float
    largest: float
    clipped: float

    @property
    def steps(self) -> float:
        """How many of the 127 steps the activation fills."""
        return STEPS * min(1.0, self.largest / self.threshold)


@dataclass(frozen=True)
class Result:
    """An engine on the test images: accuracy and agreement with FP32, 0 to 1; decibels of the logits over their error.

    Attributes:
        line: What it computes in: `computed_types.line`.
        types: The same as numbers of convolutions and matrix products, by type.
        time: Of the engine alone, for 64 images; None of those that differ in their calibration only.
        ranges: Of the activations that convolutions and products read, by tensor; none where nothing is calibrated.
    """

    accuracy: float
    agreement: float
    sqnr_db: float
    line: str
    types: dict[str, int]
    time: Measurement | None = None
    ranges: dict[str, Range] = field(default_factory=dict)

    @property
    def why(self) -> str:
        """What the calibration does to activations, in numbers: where it cuts off most, and where it is coarsest."""
        if not self.ranges:
            return ""
        cut, share = max(((name, one.clipped) for name, one in self.ranges.items()), key=lambda pair: pair[1])
        coarse, steps = min(((name, one.steps) for name, one in self.ranges.items()), key=lambda pair: pair[1])
        median = float(np.median([one.steps for one in self.ranges.values()]))
        return (
            f"fills {median:.0f} of {STEPS} steps in the median activation, {steps:.1f} in {coarse}; "
            f"cuts off at most {100 * share:.2g} % of the values, in {cut}"
        )


@dataclass(frozen=True)
class Failed:
    """An engine that can't be had, and why."""

    reason: str


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
    wanted = {node.input[0] for node in nodes if node.op_type in ("Conv", "MatMul", "Gemm")}
    with tempfile.TemporaryDirectory() as folder:
        marked = mark_all_outputs(onnx_path, Path(folder) / "marked.onnx")
        with OnnxRuntimeRunner(marked) as runner:
            (name,) = runner.inputs
            values = {name: images, **runner.infer({name: images})}
    return {name: values[name] for name in wanted if name in values}


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


def measure_group(cases: Mapping[str, Case], timed: bool, models: Mapping[str, Path]) -> dict[str, Any]:
    """Build and judge each engine of a group; return the fields of its `Result`, or the reason why there is none."""
    from tutorial_utils.engine.tensorrt import IS_RTX

    if IS_RTX:
        raise BackendUnavailableError(
            "TensorRT-RTX has no calibrators.", "Measure with data-centre TensorRT 10: set TUTORIAL_UTILS_TENSORRT."
        )
    judge = _Judge(models["quick-fp32"])
    found: dict[str, Any] = {}
    for name, case in cases.items():
        try:
            found[name] = _measure(case, models[case.model], judge, timed)
        except BackendUnavailableError:
            raise  # nothing can be measured here
        except CourseError as error:
            found[name] = {"reason": error.cause}
    return found


def _measure(case: Case, onnx_path: Path, judge: _Judge, timed: bool) -> dict[str, Any]:
    built, table = _built(case, onnx_path, IMAGES[case.images](judge.images))
    return _judged(built, judge, timed) | {
        "ranges": {name: asdict(one) for name, one in ranges(table, judge.activations).items()} if table else {}
    }


def _built(case: Case, onnx_path: Path, images: np.ndarray) -> tuple[engine.Engine, bytes]:
    """Return the engine and its calibration table, which is empty without a calibration."""
    profile = engine.Profile.batch("x", data.IMAGE_SHAPE, opt=_BATCH, max=_BATCH)
    options = engine.BuildOptions(
        (profile,), strongly_typed=case.typed, flags=case.flags, without_flags=case.without_flags
    )
    if not case.calibrator:
        return engine.build(onnx_path, options, progress=False), b""
    from tutorial_utils.engine.calibrators import EntropyCalibrator, MinMaxCalibrator

    with tempfile.TemporaryDirectory() as folder:
        make = {"entropy": EntropyCalibrator, "minmax": MinMaxCalibrator}[case.calibrator]
        calibrator = make(onnx_path, {"x": images}, case.batch, cache_file=Path(folder) / "table")
        return _build_with(calibrator, onnx_path, options), calibrator.cache_file.read_bytes()


def _build_with(calibrator: Any, onnx_path: Path, options: engine.BuildOptions) -> engine.Engine:
    def configure(network: Any, config: Any) -> None:
        config.int8_calibrator = calibrator

    return engine.build(onnx_path, options, configure=configure, progress=False)


def _judged(built: engine.Engine, judge: _Judge, timed: bool) -> dict[str, Any]:
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    test_set, time = judge.test_set, None
    with TensorRTRunner(built) as runner:
        logits = deployment.predict(runner, test_set.images, _BATCH)
        if timed:
            times = functools.partial(runner.device_times, {"x": test_set.images[:_BATCH]})
            time = timing.measure_on_device(times, batch=_BATCH, seconds=0.2, max_calls=100).to_dict()
    counted = sum(computed_types.counted(built.report.layers).values(), start=computed_types.Counter())
    return {
        "accuracy": quality.classification_metrics(test_set.labels, logits).accuracy,
        "agreement": quality.agreement(logits, judge.logits),
        "sqnr_db": quality.sqnr_db(logits, judge.logits),
        "line": built.report.precision_line,
        "types": dict(counted),
        "time": time,
    }


def measure_old_table(models: Mapping[str, Path]) -> dict[str, Any]:
    """Build a model whose first weights are ten times as large with its own table, and with that of the old weights.

    The package refuses an old table; here TensorRT gets it, which knows nothing but the names of tensors in it.
    """
    from tutorial_utils.engine.calibrators import EntropyCalibrator

    case = _calibrated("entropy")
    images = data.calibration_images(data.load("digits", "train"), CALIBRATION_IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        changed = with_larger_weights(models["quick-fp32"], Path(folder) / "changed.onnx")
        judge = _Judge(changed)
        _, old = _built(case, models["quick-fp32"], images)

        class Unchecked(EntropyCalibrator):
            def read_calibration_cache(self) -> bytes:
                return old

        _, own = built = _built(case, changed, images)
        calibrator = Unchecked(changed, {"x": images}, _BATCH)
        options = built[0].options
        engines = {"its own table": (built[0], own), "the old table": (_build_with(calibrator, changed, options), old)}
        return {
            name: _judged(one, judge, timed=False)
            | {"ranges": {tensor: asdict(it) for tensor, it in ranges(table, judge.activations).items()}}
            for name, (one, table) in engines.items()
        }


def with_larger_weights(onnx_path: Path, target_path: Path) -> Path:
    """Write a copy of a model in which the weights of its first convolution are ten times as large."""
    model = onnx_file.load(onnx_path)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    weight = next(one for one in model.graph.initializer if one.name == first.input[1])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(_WEIGHT_FACTOR), weight.name))
    onnx.save(model, target_path)
    return target_path


def read(recorded: Mapping[str, Any]) -> dict[str, dict[str, Result | Failed]]:
    """Return the results by group and name; of a group that failed as a whole, the one result "all"."""
    return {
        row.name: {"all": Failed(row.reason)}
        if row.values is None
        else {name: _result(values) for name, values in row.values.items()}
        for row in rows.read(recorded)
    }


def _result(values: Mapping[str, Any]) -> Result | Failed:
    if "reason" in values:
        return Failed(values["reason"])
    time = values["time"] and Measurement.from_dict(values["time"])
    found = {name: Range(**one) for name, one in values["ranges"].items()}
    return Result(**{**values, "time": time, "ranges": found})


def draw(results: Mapping[str, Mapping[str, Result | Failed]]) -> plotting.Picture:
    """Draw what each calibration leaves of the logits and of the answers, with the reasons in numbers as text."""
    calibrations = {group: names for group, names in results.items() if group != "precisions"}
    groups = [
        (group, {name: Calibrated(one.accuracy, one.sqnr_db, {}) for name, one in names.items() if _is_result(one)})
        for group, names in calibrations.items()
    ]
    fp32 = results["precisions"]["FP32"]
    total = data.DIGITS_TEST_IMAGES
    picture = figures.draw_quality(groups, quality.accuracy_interval(round(fp32.accuracy * total), total))
    return plotting.Picture(picture.figure, picture.alt, "\n".join(_lines(calibrations)))


def _lines(results: Mapping[str, Mapping[str, Result | Failed]]) -> list[str]:
    return [
        f"{group}, {name}: "
        + (f"{one.sqnr_db:.1f} dB, agreement {one.agreement:.1%}; {one.why}" if _is_result(one) else one.reason)
        for group, names in results.items()
        for name, one in names.items()
    ]


def _is_result(one: Result | Failed) -> bool:
    return isinstance(one, Result)


_SHADES = {
    "fp32": plotting.GREY, "tf32": plotting.BLUE, "fp16": plotting.ORANGE, "bf16": plotting.GREEN, "int8": plotting.RED,
    "fp8": "#CC79A7",
}  # fmt: skip


def draw_types(results: Mapping[str, Result | Failed]) -> plotting.Picture:
    """Draw what the convolutions and matrix products of each engine compute in, beside what was asked for."""
    shown = {name: one for name, one in results.items() if isinstance(one, Result)}
    figure, axes = plotting.new_figure(1.0 + 0.32 * len(shown))
    for position, one in enumerate(shown.values()):
        left = 0
        for dtype, count in one.types.items():
            axes.barh(position, count, left=left, color=_SHADES.get(dtype, "black"), height=0.7)
            left += count
    plotting.name_rows(axes, list(shown))
    axes.set_xlabel("convolutions and matrix products, by the type that they compute in")
    present = dict.fromkeys(dtype for one in shown.values() for dtype in one.types)
    for dtype in present:
        axes.plot([], [], "s", color=_SHADES.get(dtype, "black"), label=dtype.upper())
    figure.legend(loc="outside upper left", ncols=len(present), frameon=False)
    width = max(map(len, shown))
    lines = [
        f"asked for {name:{width}}  accuracy {one.accuracy:.1%}, agreement {one.agreement:.1%}; {one.line}"
        for name, one in shown.items()
    ]
    return plotting.Picture(figure, f"Types that engines compute in. {'; '.join(lines)}.", "\n".join(lines))


EXPERIMENT = Experiment(
    name="lesson01_calibration",
    title="INT8 by TensorRT's calibrators: right and wrong images; the quick classifier in every precision",
    method=METHOD,
    rows={
        **{name: functools.partial(measure_group, cases, name == "precisions") for name, cases in GROUPS.items()},
        "old table": measure_old_table,
    },
    read=read,
    draw=lambda measured: draw(measured.result),
    models=tuple(f"quick-{name}.onnx" for name in ("fp32", "fp16", "bf16", "int8", "fp8")),
)
