"""Lesson 02: the article's program of three predictors, run on the libraries that it used, beside its own figures.

`article_predictors` is the program; here it is run, timed and compared with Paddle on the CPU. The published figures
are the recording ``article_paddle_trt``.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutorial_utils import plotting
from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.base.flavour import installed_version
from tutorial_utils.base.gpu import find_gpu
from tutorial_utils.measure import programs, quality, recordings, rows
from tutorial_utils.measure.experiment import Experiment, Measured
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model import data
from tutorial_utils.runners import paddle_tensorrt_log
from tutorial_utils.runners.paddle_tensorrt_log import OffloadLog

if TYPE_CHECKING:
    import pandas

IMAGES = 64
WRONG = 0.1  # a relative error that no rounding of FP16 explains
# Of the program's predictors, what each is and its place in the published recording.
NAMES = {
    "gpu": "GPU, no TensorRT",
    "trt_fp32": "Paddle-TRT FP32",
    "trt_fp16": "Paddle-TRT FP16",
    "cpu": "CPU",
}
_PUBLISHED = {"gpu": 0, "trt_fp32": 1, "trt_fp16": 2}
_MARK = "######## "  # the program's own lines in its log begin with it, as the article's do
_PROGRAM = Path(__file__).with_name("article_predictors.py")
METHOD = (
    "article_predictors.py: the article's calls, on Paddle 2.6 with TensorRT 8.6. ResNet-50 with 10 classes and random "
    "weights instead of trained ones, 64 of the course's digits as 3x32x32 images instead of CIFAR-10's. So outputs "
    "are compared with Paddle's on the CPU, not with labels: read the error, since all images get one or two classes. "
    "One process makes and calls the predictors one after the other, as the article's does, and a new one goes on "
    "after a predictor that ends it. First: the first call of a fresh predictor, which is all that the article timed. "
    "Warm: afterwards, warm-up until steady, then rounds in which the predictors of a process take turns. Host "
    "clock, copies included. Export: one call of paddle.onnx.export, on the CPU"
)


@dataclass(frozen=True)
class Predictor:
    """One predictor of the article's. Where it ended its process, there are no times."""

    name: str  # a key of `NAMES`
    create_s: float | None = None  # making it: Paddle optimizes the program, and TensorRT builds its engine
    first_ms: float | None = None  # its first call
    warm: Measurement | None = None
    agreement: float | None = None  # with Paddle on the CPU: the fraction of equal answers, and the relative error
    relative_error: float | None = None  # both None where an output is NaN or infinite
    ending: str = ""  # how its process ended, if it did: "SIGABRT"
    reason: str = ""  # what Paddle said then
    log: OffloadLog | None = None  # what Paddle said of the program's way into TensorRT

    @property
    def trouble(self) -> str:
        """Why its times are missing or worthless: the end of its process, or wrong outputs; "" where they aren't."""
        if self.ending:
            return f"the process ends with {self.ending}: {self.reason}"
        if self.relative_error is None or self.relative_error > WRONG:
            error = "NaN" if self.relative_error is None else f"{self.relative_error:.2g}"
            return f"wrong outputs: relative error {error}"
        return ""


@dataclass(frozen=True)
class Export:
    """The article's export to ONNX.

    Attributes:
        seconds: Of the call of `paddle.onnx.export`.
        opset: Of the file that it wrote.
        nodes: Of that file, by operator.
        log: What Paddle and paddle2onnx said, line by line.
    """

    seconds: float
    opset: int
    nodes: dict[str, int]
    log: list[str]


@dataclass(frozen=True)
class Article:
    """What the article's programs did.

    Attributes:
        predictors: Made one after the other, as in the article; the CPU's stands last.
        export: None where it wasn't measured.
    """

    predictors: list[Predictor]
    export: Export | None


def predictors(models: Mapping[str, Path]) -> dict[str, Any]:
    """Run the article's program: its three predictors, then one on the CPU; return the fields of `Predictor` of each.

    Raises:
        BackendUnavailableError: This isn't Paddle 2.6 with TensorRT 8.6 on a GPU.
    """
    _require_stack()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _checked(programs.run(_PROGRAM, "save", folder))
        np.save(folder / "images.npy", data.load("digits", "test").images[:IMAGES])
        found = [*_predict(folder, ["gpu", "trt_fp32", "trt_fp16"]), *_predict(folder, ["cpu"])]
        reference = np.load(folder / "cpu.npy")
        for one in found:
            logits = np.load(folder / f"{one['name']}.npy") if "first_ms" in one else np.array(np.nan)
            if np.isfinite(logits).all():
                one["agreement"] = quality.agreement(logits, reference)
                one["relative_error"] = quality.relative_error(logits, reference)
    return {"predictors": found}


def _predict(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Run predictors in one process, and those after one that ends it in the next.

    Raises:
        BackendUnavailableError: One ended for want of a library: that says nothing about the article's program.
    """
    ended = programs.run(_PROGRAM, "predict", folder, *names)
    log = by_predictor(ended.log)
    times = {answer["name"]: answer for answer in ended.answers if "name" in answer}
    warm = next((answer["warm"] for answer in ended.answers if "warm" in answer), {})
    found: list[dict[str, Any]] = []
    for name in names:
        if name not in times:
            reason = paddle_tensorrt_log.last_line(log.get(name, ended.log))
            if "Could not load library" in reason:
                raise BackendUnavailableError(
                    f"{reason}.", "Put all libraries of cuDNN 8.9 and of CUDA into LD_LIBRARY_PATH."
                )
            found.append({"name": name, "ending": ended.ending, "reason": reason})
            left = names[len(found) :]
            return [*found, *(_predict(folder, left) if left else [])]
        found.append({**times[name], "warm": warm.get(name), "log": vars(paddle_tensorrt_log.parse(log[name]))})
    return found


def by_predictor(log: str) -> dict[str, str]:
    """Split a log at the program's own lines ``######## NAME``."""
    _, *parts = re.split(rf"^{_MARK}(\w+)\n", log, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def export(models: Mapping[str, Path]) -> dict[str, Any]:
    """Export the program to ONNX, as the article does; return the fields of `Export`.

    Raises:
        BackendUnavailableError: As for `predictors`.
    """
    import onnx

    _require_stack()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _checked(programs.run(_PROGRAM, "save", folder))
        ended = _checked(programs.run(_PROGRAM, "export", folder))
        model = onnx.load(folder / "model.onnx")
    operators = sorted(node.op_type for node in model.graph.node)
    return {
        **ended.answers[-1],
        "opset": model.opset_import[0].version,
        "nodes": dict(Counter(operators)),
        "log": _told_of_export(by_predictor(ended.log)["export"], folder),
    }


def _told_of_export(log: str, folder: Path) -> list[str]:
    """Return the lines of a log without moments, colours and the folder's name."""
    text = re.sub(r"\x1b\[[\d;]*m", "", log).replace(f"{folder}/", "")
    text = re.sub(r"^(?:\d{4}-\d\d-\d\d [\d:]+|([IWE])\d{4} [\d:.]+ +\d+)", r"\1", text, flags=re.MULTILINE)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def _require_stack() -> None:
    remedy = "Read the recording, or run it where Paddle 2.6 for GPUs and TensorRT 8.6 are installed."
    gpu, driver = find_gpu()
    if gpu is None:
        raise BackendUnavailableError(driver.reason, remedy)
    paddle = installed_version("paddlepaddle-gpu")
    if not (paddle or "").startswith("2.6."):
        raise BackendUnavailableError(f"The article's program needs Paddle 2.6 for GPUs; found: {paddle}.", remedy)


def _checked(ended: programs.Ended) -> programs.Ended:
    if ended.status:
        raise RuntimeError(f"{_PROGRAM.name} ended with {ended.ending}: {paddle_tensorrt_log.last_line(ended.log)}")
    return ended


def read(values: Mapping[str, Any]) -> Article:
    """Return what a recording holds."""
    found = {row.name: row.values for row in rows.read(values) if row.values}
    made = [_predictor(one) for one in found.get("predictors", {}).get("predictors", [])]
    return Article(made, Export(**found["export"]) if "export" in found else None)


def _predictor(values: Mapping[str, Any]) -> Predictor:
    warm, log = values.get("warm"), values.get("log")
    return Predictor(**{**values, "warm": warm and Measurement.from_dict(warm), "log": log and _offload(log)})


def _offload(values: Mapping[str, Any]) -> OffloadLog:
    return OffloadLog(**{key: tuple(one) if isinstance(one, list) else one for key, one in values.items()})


def told_of_export(export: Export | None) -> str:
    """Return what the export took, made and said, as text."""
    if export is None:
        return "Export to ONNX: not recorded yet (`python -m tutorial_utils record lesson02_article --rows export`)."
    nodes = ", ".join(f"{count} {kind}" for kind, count in export.nodes.items())
    made = (
        f"Export to ONNX in {export.seconds:.1f} s: opset {export.opset}, {sum(export.nodes.values())} nodes ({nodes})"
    )
    return "\n  ".join([made, *export.log])


def draw(measured: Measured[Article]) -> plotting.Picture:
    """Draw first and warm calls of each predictor beside the article's figures."""
    published = recordings.load("article_paddle_trt").data["rows"]
    lines = []
    for one in measured.result.predictors:
        ms = 1000 * published[_PUBLISHED[one.name]]["call_s"] if one.name in _PUBLISHED else None
        lines.append(plotting.Calls(NAMES[one.name], ms, one.first_ms, one.warm and one.warm.median_ms, one.trouble))
    return plotting.cold_and_warm(lines, f"milliseconds for {IMAGES} images of 3x32x32, copies included")


def log_table(measured: Measured[Article]) -> "pandas.DataFrame":
    """Return what the article's log says of its two predictors with TensorRT, beside what ours says."""
    import pandas

    published = recordings.load("article_paddle_trt").data["rows"]
    lines = {}
    for one in measured.result.predictors:
        if one.log and one.log.subgraphs:
            lines[NAMES[one.name], "article"] = _told(_offload(published[_PUBLISHED[one.name]]["log"]))
            lines[NAMES[one.name], "here"] = _told(one.log)
    return pandas.DataFrame(lines).T


def _told(log: OffloadLog) -> dict[str, str]:
    affected = re.findall(r"(\d+) weights are affected by this issue: Detected (subnormal|values)", str(log.warnings))
    return {
        "nodes in each sub-graph": ", ".join(map(str, log.subgraphs)),
        "entire graph offloaded": "yes" if log.whole else "no",
        "weights subnormal in FP16": ", ".join(count for count, what in affected if what == "subnormal"),
        "weights below FP16's smallest": ", ".join(count for count, what in affected if what == "values"),
    }


EXPERIMENT = Experiment(
    name="lesson02_article",
    title="The article's three predictors on Paddle 2.6 and TensorRT 8.6",
    method=METHOD,
    rows={"predictors": predictors, "export": export},
    read=read,
    needs_tensorrt=False,
)
