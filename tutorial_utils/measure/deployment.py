"""The deployment table: each variant of a model on each backend of this machine, with its quality and honest times.

The lessons and `python -m tutorial_utils record deployment` use the same code, so a live table and a recording mean the
same.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutorial_utils.base.errors import BackendUnavailableError, CourseError
from tutorial_utils.engine import BuildOptions, Engine, Profile, build
from tutorial_utils.machine import capabilities
from tutorial_utils.machine.capabilities import Capabilities
from tutorial_utils.measure import quality, timing
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model import data
from tutorial_utils.model.data import Dataset
from tutorial_utils.model.precisions import DEPLOYED, PRECISIONS
from tutorial_utils.runners import Runner

if TYPE_CHECKING:
    import pandas

    from tutorial_utils.model.classifier import SavedModel

METHOD = (
    "warm-up until steady, then rounds in which the candidates take turns, the first call of a round not counted; "
    "host clock around each call, copies of inputs and outputs included; GPU time by CUDA events, copies excluded; "
    "quality on all test images"
)


@dataclass(frozen=True)
class Row:
    """One variant on one backend.

    Attributes:
        backend: Library and device.
        precision: One of `PRECISIONS`.
        quality: On the whole dataset.
        agreement: Fraction of test images with the same answer as the reference, which is the first row.
        relative_error: Largest difference of a logit from the reference, as a fraction of the largest logit.
        latency: Time of a call on the host, copies included.
        device_latency: Time of the engine alone by CUDA events; only for TensorRT.
        model_bytes: Size of the model file, weights included.
        engine_bytes: Size of the serialized engine; only for TensorRT.
        activation_bytes: Device memory for activations; only for TensorRT.
    """

    backend: str
    precision: str
    quality: quality.Metrics
    agreement: float
    relative_error: float
    latency: Measurement
    device_latency: Measurement | None
    model_bytes: int
    engine_bytes: int | None
    activation_bytes: int | None

    @property
    def label(self) -> str:
        """Backend and precision, as figures name the row."""
        return f"{self.backend} {self.precision.upper()}"

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values for a recording."""
        on_device = self.device_latency and self.device_latency.to_dict()
        return {**asdict(self), "latency": self.latency.to_dict(), "device_latency": on_device}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Row":
        """Read a row back from `to_dict`."""
        timings = {name: values[name] and Measurement.from_dict(values[name]) for name in ("latency", "device_latency")}
        return cls(**{**values, **timings, "quality": quality.Metrics(**values["quality"])})


@dataclass(frozen=True)
class Skipped:
    """A row that this machine can't have, and why."""

    what: str
    reason: str


def run(
    machine: Capabilities,
    dataset: Dataset,
    onnx_models: Mapping[str, Path],
    *,
    engines: Mapping[str, Engine] | None = None,
    paddle_model: "SavedModel | None" = None,
    batch: int = 64,
    seconds: float = 1.0,
) -> tuple[list[Row], list[Skipped]]:
    """Run every variant on every backend that this machine has.

    Args:
        machine: From `capabilities.probe`.
        dataset: Test images and labels. The models have one input and one output.
        onnx_models, engines: ONNX file and TensorRT engine of each precision.
        paddle_model: The static Paddle model that the ONNX files come from. The first row, which is Paddle's where
            Paddle runs, else the first ONNX file's, is the reference of agreement and error.
        batch: Images in one timed call.
        seconds: About how long to time each row.

    Returns:
        The rows, and what had to be left out: also a model that one backend can't load, which costs its own row only.
        Where that is the first, the next row is the reference.

    Raises:
        BackendUnavailableError: Not one candidate could be started, so that there is no table.
    """
    candidates = _candidates(machine, onnx_models, engines or {}, paddle_model)
    images = dataset.images[:batch]
    with ExitStack() as open_runners:
        started = [
            one if isinstance(one, Skipped) else _start(one, open_runners, dataset.images, batch) for one in candidates
        ]
        skipped = [one for one in started if isinstance(one, Skipped)]
        running = [one for one in started if isinstance(one, _Running)]
        if not running:
            reasons = " ".join(f"{one.what}: {one.reason}" for one in skipped)
            remedy = "`python -m tutorial_utils doctor` says what to mend."
            raise BackendUnavailableError(f"No model runs on this machine. {reasons}".strip(), remedy)
        feeds = [{next(iter(one.runner.inputs)): images} for one in running]
        calls = {i: functools.partial(one.runner.infer, feeds[i]) for i, one in enumerate(running)}
        latencies = timing.measure_in_turn(calls, batch=len(images), seconds=seconds)
        rows = [
            Row(
                backend=one.runner.backend,
                precision=one.candidate.precision,
                quality=quality.classification_metrics(dataset.labels, one.logits),
                agreement=quality.agreement(one.logits, running[0].logits),
                relative_error=quality.relative_error(one.logits, running[0].logits),
                latency=latencies[i],
                device_latency=_device_latency(one.runner, feeds[i], seconds),
                model_bytes=one.candidate.model_bytes,
                engine_bytes=one.candidate.engine and one.candidate.engine.report.plan_bytes,
                activation_bytes=one.candidate.engine and one.candidate.engine.report.activation_bytes,
            )
            for i, one in enumerate(running)
        ]
    return rows, skipped


def predict(runner: Runner, images: np.ndarray, batch: int) -> np.ndarray:
    """Run all images through a runner with one input and one output; return the logits, float32 ``[N, classes]``."""
    name = next(iter(runner.inputs))
    parts = [next(iter(runner.infer({name: images[i : i + batch]}).values())) for i in range(0, len(images), batch)]
    return np.concatenate(parts)


@dataclass(frozen=True)
class _Candidate:
    backend: str  # as the runner will call itself: the name of what is left out where there is no runner
    precision: str
    make_runner: Callable[[], Runner]
    model_bytes: int
    engine: Engine | None = None

    @property
    def label(self) -> str:
        return f"{self.backend} {self.precision.upper()}"


@dataclass(frozen=True)
class _Running:
    candidate: _Candidate
    runner: Runner
    logits: np.ndarray


def _candidates(
    machine: Capabilities,
    onnx_models: Mapping[str, Path],
    engines: Mapping[str, Engine],
    paddle_model: "SavedModel | None",
) -> Iterator[_Candidate | Skipped]:
    """List what this machine can run, and what it can't. A runner is imported where its library is there."""
    if paddle_model is not None and not machine.paddle.available:
        yield Skipped("Paddle", machine.paddle.reason)
    elif paddle_model is not None:
        from tutorial_utils.runners.paddle import PaddleRunner

        files = (paddle_model.model_path, paddle_model.params_path)
        size = sum(path.stat().st_size for path in files)
        yield _Candidate("Paddle CPU", "fp32", functools.partial(PaddleRunner, *files), size)
        if machine.paddle_gpu.available:
            yield _Candidate("Paddle GPU", "fp32", functools.partial(PaddleRunner, *files, device="gpu"), size)
        else:
            yield Skipped("Paddle GPU", machine.paddle_gpu.reason)
    for device, capability in (("cpu", machine.onnxruntime_cpu), ("cuda", machine.onnxruntime_cuda)):
        backend = f"ONNX Runtime {device.upper()}"
        if not capability.available:
            yield Skipped(backend, capability.reason)
            continue
        from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

        for precision, path in onnx_models.items():
            make_runner = functools.partial(OnnxRuntimeRunner, path, device=device)
            yield _Candidate(backend, precision, make_runner, path.stat().st_size)
    if not machine.tensorrt_run.available:
        yield Skipped("TensorRT", machine.tensorrt_run.reason)
        return
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    for precision, path in onnx_models.items():
        built = engines.get(precision)
        if built is None:
            reason = refusal(machine, precision) or "No engine was built."
            yield Skipped(f"TensorRT {precision.upper()}", reason)
        else:
            make_runner = functools.partial(TensorRTRunner, built)
            yield _Candidate(built.report.flavour, precision, make_runner, path.stat().st_size, built)


def refusal(machine: Capabilities, precision: str) -> str | None:
    """Return why TensorRT can't build an engine of a precision on this machine, or None where it can.

    Without a GPU, engines are built for others, which may have any type.
    """
    needs = PRECISIONS[precision]
    if needs.capability and not getattr(machine, needs.capability).available:
        return getattr(machine, needs.capability).reason
    oldest = needs.compute_capability
    if machine.gpu and oldest and tuple(map(int, machine.gpu.compute_capability.split("."))) < oldest:
        has = f"{machine.gpu.name} has {machine.gpu.compute_capability}"
        return f"{precision.upper()} needs compute capability {oldest[0]}.{oldest[1]} or newer, and {has}."
    return None


def _start(candidate: _Candidate, open_runners: ExitStack, images: np.ndarray, batch: int) -> _Running | Skipped:
    """Load a candidate and run all images, or say why it can't be had.

    Backends raise whatever they like, and some only at the first call: no error of one may cost the other rows. Neither
    may an overflow of one.
    """
    try:
        with ExitStack() as opened:  # a runner that fails is closed at once, so that it holds no memory meanwhile
            runner = opened.enter_context(candidate.make_runner())
            logits = predict(runner, images, batch)
            if not np.isfinite(logits).all():
                return Skipped(candidate.label, "It returns NaN or Inf.")
            open_runners.push(opened.pop_all())
    except CourseError as error:
        return Skipped(candidate.label, error.cause)
    except Exception as error:
        first_line = next(iter(str(error).strip().splitlines()), "")
        return Skipped(candidate.label, f"{type(error).__name__}: {first_line.rstrip('.')}.")
    return _Running(candidate, runner, logits)


def _device_latency(runner: Runner, feeds: dict[str, np.ndarray], seconds: float) -> Measurement | None:
    device_times = getattr(runner, "device_times", None)  # of a TensorRTRunner
    if device_times is None:
        return None
    (images,) = feeds.values()
    return timing.measure_on_device(functools.partial(device_times, feeds), batch=len(images), seconds=seconds)


def table(groups: Sequence[tuple[str, Sequence[Row]]]) -> "pandas.DataFrame":
    """Return rows as a table for display, each number with as many digits as it deserves.

    Args:
        groups: Rows by where they were measured, such as ``[("here", rows), ("H200, recorded", others)]``.
    """
    import pandas

    lines = [
        {
            "where": where,
            "backend": row.backend,
            "type": row.precision.upper(),
            "accuracy %": f"{100 * row.quality.accuracy:.2f}",
            "macro prec. %": f"{100 * row.quality.precision:.2f}",
            "macro recall %": f"{100 * row.quality.recall:.2f}",
            "median ms": f"{row.latency.median_ms:.3f}",
            "p99 ms": f"{row.latency.p99_ms:.3f}",
            "calls": f"{row.latency.calls}{'' if row.latency.stable else ' (not steady)'}",
            "GPU only ms": f"{row.device_latency.median_ms:.3f}" if row.device_latency else "",
            "images/s": f"{row.latency.images_per_second:,.0f}",
            "model KB": f"{row.model_bytes / 1000:,.0f}",
            "engine KB": f"{row.engine_bytes / 1000:,.0f}" if row.engine_bytes else "",
            "activ. MB": f"{row.activation_bytes / 1e6:.1f}" if row.activation_bytes else "",
        }
        for where, rows in groups
        for row in rows
    ]
    return pandas.DataFrame(lines).set_index(["where", "backend", "type"])


@dataclass(frozen=True)
class Deployment:
    """The table of one machine: its rows, and what had to be left out."""

    rows: list[Row]
    skipped: list[Skipped]


def measure(models: Mapping[str, Path], seconds: float = 1.0) -> dict[str, Any]:
    """Measure the quick classifier in every precision on every backend of this machine; return what `read` takes.

    The models are ONNX files by name: ``quick-fp32`` and so on for each of `precisions.DEPLOYED`.
    """
    machine = capabilities.probe()
    onnx_models = {precision: models[f"quick-{precision}"] for precision in DEPLOYED}
    # Batches from one image to the largest that the lessons time, with the best kernels for the latter.
    options = BuildOptions(profiles=(Profile.batch("x", data.IMAGE_SHAPE, opt=64, max=64),))
    engines = {one: build(path, options) for one, path in onnx_models.items() if refusal(machine, one) is None}
    rows, skipped = run(machine, data.load("digits", "test"), onnx_models, engines=engines, seconds=seconds)
    return {"rows": [row.to_dict() for row in rows], "skipped": [vars(one) for one in skipped]}


EXPERIMENT = Experiment(
    name="deployment",
    title="The quick classifier on the digits: quality and time of every variant on every backend",
    method=METHOD,
    measure=measure,
    read=lambda values: Deployment(
        [Row.from_dict(row) for row in values["rows"]], [Skipped(**one) for one in values["skipped"]]
    ),
    models=tuple(PRECISIONS[precision].file_name("quick") for precision in DEPLOYED),
)
