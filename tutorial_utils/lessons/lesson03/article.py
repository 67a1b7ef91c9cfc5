"""Lesson 03: the article's `build_engine` and `infer` on TensorRT 8.6, and what has become of them on TensorRT 10.

`article_engine` is the article's program, `article_engine_today` the same with today's calls. A row of the recording is
one TensorRT and one precision: built with the article's calls by 8.6, with today's by 10, then called in both ways.
"""

import functools
import importlib
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.base.flavour import is_installed
from tutorial_utils.base.gpu import find_gpu
from tutorial_utils.lessons.lesson03 import api_names
from tutorial_utils.measure import programs, quality, rows
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model import data

BATCH = 64
PRECISIONS = ("fp32", "fp16", "int8")
_PRINTED = Path(__file__).with_name("article_engine.py")
_TODAY = Path(__file__).with_name("article_engine_today.py")
_MAX_LINES = 20  # of warnings and errors that are kept of a program
METHOD = (
    "article_engine.py: the article's calls; article_engine_today.py: those of TensorRT 10, with context, stream and "
    "page-locked buffers made once. ResNet-50 with 10 classes and random weights for 3x32x32, one ONNX file for all; "
    "64 of the course's digits instead of CIFAR-10's images. Outputs are compared with ONNX Runtime's on the CPU: read "
    "the error, since all images get one or two classes. Each build and each way to call in a process of its own. "
    "First: the first call after loading the engine, which is what the article timed; where context and buffers are "
    "made once, without making them. Warm: warm-up until steady, then rounds; host clock, copies included. Engine: "
    "CUDA events, without copies"
)


@dataclass(frozen=True)
class Build:
    """An attempt to build."""

    built: bool
    seconds: float | None  # None where the program failed before it could tell
    log: tuple[str, ...]  # warnings and errors of TensorRT and Python


@dataclass(frozen=True)
class Call:
    """One way to call an engine."""

    first_ms: float
    warm: Measurement
    agreement: float  # with ONNX Runtime on the CPU: the fraction of equal answers, and the relative error
    relative_error: float


@dataclass(frozen=True)
class Row:
    """One TensorRT and one precision."""

    tensorrt: str  # its version
    precision: str  # "fp32", "fp16" or "int8"
    build: Build
    engine_bytes: int | None = None  # None where no engine could be built; then there are no times either
    printed: Call | None = None  # context and buffers made anew in each call
    today: Call | None = None  # made once
    prepare_ms: float | None = None  # what that takes
    engine: Measurement | None = None  # the engine alone


@dataclass(frozen=True)
class Article:
    """What the experiment found."""

    rows: list[Row]
    names: dict[str, dict[str, bool]]  # by version of TensorRT: the names of its API in `article_engine`, and if it has
    stops: dict[str, str]  # by version of TensorRT that lacks one: what Python says where the article's program ends


def measure(models: Mapping[str, Path], major: int, precision: str) -> dict[str, Any]:
    """Build and call an engine with the TensorRT of this process; return the fields of a `Row`.

    Raises:
        BackendUnavailableError: Another TensorRT is installed, or there is no GPU.
    """
    row: dict[str, Any] = {"tensorrt": _required(major).__version__, "precision": precision}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model_path, engine_path, images_path, logits_path = (
            folder / file for file in ("model.onnx", "model.engine", "images.npy", "logits.npy")
        )
        images = data.load("digits", "test").images[:BATCH]
        np.save(images_path, images)
        onnx.save(with_image_size(onnx.load(models["resnet50-fp32"]), 32), model_path)
        ended = programs.run(_PRINTED if major == 8 else _TODAY, "build", model_path, engine_path, precision)
        answer = ended.answers[-1] if ended.answers else {"built": False, "seconds": None}
        row["build"] = {**answer, "log": telling(ended)}
        if not answer["built"]:
            return row
        row["engine_bytes"] = engine_path.stat().st_size
        session = onnx_session.new_session(model_path, providers=["CPUExecutionProvider"])
        (expected,) = session.run(None, {"x": images})
        for calls, program in (("printed", _PRINTED), ("today", _TODAY)):
            ended = programs.run(program, "infer", engine_path, images_path, logits_path)
            if ended.status or not ended.answers:
                raise RuntimeError(f"{program.name} ended with {ended.ending}: {telling(ended)}")
            (times,) = ended.answers
            logits = np.load(logits_path)
            row |= {key: times.pop(key) for key in ("prepare_ms", "engine") if key in times}
            compared = {
                "agreement": quality.agreement(logits, expected),
                "relative_error": quality.relative_error(logits, expected),
            }
            row[calls] = {**times, **compared}
    return row


def with_image_size(model: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """Declare another height and width for the images of a network that takes any."""
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = size
    del model.graph.value_info[:]  # shapes of the other size
    return model


def telling(ended: programs.Ended) -> list[str]:
    """Return warnings and errors of a program, each once: of TensorRT, of Python, and of the exception at its end."""
    log = f"{ended.printed}\n{ended.log}"
    found = re.findall(r"^.*?((?:\[TRT\] \[[WEF]\]|\w+Warning:|\w+Error:).*)$", log, re.MULTILINE)
    return list(dict.fromkeys(found))[:_MAX_LINES]


def names(models: Mapping[str, Path], major: int) -> dict[str, Any]:
    """Look up every name of TensorRT's API in the article's program in the TensorRT of this process.

    Where one is missing, run the program until it stops there.
    """
    tensorrt = _required(major)
    used = api_names.used(_PRINTED.read_text(encoding="utf-8"))
    found = {name: api_names.exists(name, tensorrt) for name in used}
    row = {"tensorrt": tensorrt.__version__, "names": found}
    if not all(found.values()):
        with tempfile.TemporaryDirectory() as folder:
            row["stops"] = telling(programs.run(_PRINTED, "build", f"{folder}/no.onnx", f"{folder}/no.engine"))[-1]
    return row


def _required(major: int) -> Any:
    remedy = f"Read the recording, or run it where a GPU and TensorRT {major} are."
    gpu, driver = find_gpu()
    if gpu is None:
        raise BackendUnavailableError(driver.reason, remedy)
    for library in ("tensorrt", "pycuda"):
        if not is_installed(library):
            raise BackendUnavailableError(f"The article's program needs {library}, which is not installed.", remedy)
    tensorrt = importlib.import_module("tensorrt")
    if tensorrt.__version__.partition(".")[0] != str(major):
        raise BackendUnavailableError(f"TensorRT {tensorrt.__version__} is installed, not {major}.", remedy)
    return tensorrt


def read(values: Mapping[str, Any]) -> Article:
    """Return what a recording holds."""
    found = [row.values for row in rows.read(values) if row.values is not None]
    tables, stops = ({one["tensorrt"]: one[key] for one in found if key in one} for key in ("names", "stops"))
    return Article([_row(one) for one in found if "precision" in one], tables, stops)


def _row(values: Mapping[str, Any]) -> Row:
    typed: dict[str, Any] = {"build": Build(**{**values["build"], "log": tuple(values["build"]["log"])})}
    for name in ("printed", "today"):
        if name in values:
            typed[name] = Call(**{**values[name], "warm": Measurement.from_dict(values[name]["warm"])})
    if "engine" in values:
        typed["engine"] = Measurement.from_dict(values["engine"])
    return Row(**{**values, **typed})


EXPERIMENT = Experiment(
    name="lesson03_article",
    title="The article's build_engine and infer on TensorRT 8.6 and 10",
    method=METHOD,
    rows={
        **{f"tensorrt_{major}/names": functools.partial(names, major=major) for major in (8, 10)},
        **{
            f"tensorrt_{major}/{precision}": functools.partial(measure, major=major, precision=precision)
            for major in (8, 10)
            for precision in PRECISIONS
        },
    },
    read=read,
    models=("resnet50-fp32.onnx",),
    needs_tensorrt=False,
)
