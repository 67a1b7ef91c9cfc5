"""Lesson 04 on data-centre TensorRT: Polygraphy's tools that build engines again and again, each used once.

Each chain of commands is a row: they need each other's files and run in turn.
"""

import functools
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutorial_utils.debug import polygraphy_cli
from tutorial_utils.lessons.lesson04 import gpu_commands
from tutorial_utils.measure import rows
from tutorial_utils.measure.experiment import Experiment

TIME_LIMIT_S = 300  # of each command
METHOD = (
    "each command run once with this Polygraphy and TensorRT, those of a chain in turn, beside other builds; "
    "builder optimization level 1: a search that builds many engines is not about the fastest one; they share a timing "
    "cache, but for those that are about tactics; lines and numbers are those that were printed"
)
# Calibrates `convert --int8`: what --data-loader-script names.
LOADER = """from polygraphy.json import load_json

def load_data():
    return load_json("digits.json")
"""

_LEVEL = "--builder-optimization-level 1"
_FAST = f"--fp16 {_LEVEL}"
# Without it, each engine of a search would time the same kernels again. The first build finds no file, and says so.
_CACHED = f"{_FAST} --load-timing-cache times.cache --save-timing-cache times.cache"
_DIGITS = " ".join(f"--trt-{size}-shapes x:[64,3,32,32]" for size in ("min", "opt", "max"))
_PAGE = " ".join(f"--trt-{size}-shapes x:[1,3,192,384]" for size in ("min", "opt", "max"))
_CONVERT = f"polygraphy convert quick-fp32.onnx {_FAST} {_DIGITS}"
_CONVERT_CACHED = f"polygraphy convert quick-fp32.onnx {_CACHED} {_DIGITS}"
_CALIBRATE = _CONVERT_CACHED.replace("--fp16", "--int8")
_PRECISION = (
    f"polygraphy debug precision quick-overflow-fp32.onnx {_CACHED} {_DIGITS}",
    "--check polygraphy run polygraphy_debug.engine --trt --validate --load-inputs digits.json",
)
_GOLDEN = "polygraphy run quick-fp32.onnx --onnxrt --load-inputs digits.json --save-outputs golden.json"
_AGREE = "--trt --load-inputs digits.json --load-outputs golden.json"
_CONTROL = (
    f"polygraphy run det-page-fp32.onnx --trt {_LEVEL} {_PAGE} "
    "--load-inputs page.json --load-outputs golden.json --rtol 1e-4 --atol 1e-3"
)
_MARKED = f"polygraphy run quick-overflow-fp32.onnx --trt {_CACHED} {_DIGITS} --load-inputs digits.json --validate"

_ENGINES = {"engines built": r"(?s).*RUNNING \| Iteration (\d+)"}
_SEARCHED = {"layers in FP32": r"try running the \w+ (\d+) layer", **_ENGINES}
_ITERATION = r"Selecting \w+ (\d+) layer(?s:.*?)(PASSED|FAILED) \| Iteration"
_LAYERS = {"layers": r"---- (\d+) Layer"}
_ERROR = {"largest error": r"Minimum Required Tolerance: .*?\[abs=([^\]]+)\]"}


@dataclass(frozen=True)
class Step:
    """A command, what it is asked, and what of its output matters."""

    what: str
    command: str
    shows: tuple[str, ...] = ()  # patterns of lines, beside those that say how it ended
    finds: Mapping[str, str] = field(default_factory=dict)  # patterns with a group, by the name of what it holds


CHAINS: dict[str, tuple[Step, ...]] = {
    "debug precision": (
        Step("first layers in FP32", " ".join(_PRECISION), (r"To achieve", r"Could not"), _SEARCHED),
    ),
    "debug precision --dir reverse": (
        Step("last layers in FP32", " --dir reverse ".join(_PRECISION), (r"To achieve", r"Could not"), _SEARCHED),
    ),
    "run on random data": (
        Step("build", f"polygraphy convert det-page-fp32.onnx {_FAST} {_PAGE} -o page.engine"),
        Step("validate with the page", "polygraphy run page.engine --trt --validate --load-inputs page.json"),
        Step("validate with random data", "polygraphy run page.engine --trt --validate"),
    ),
    "TF32 and its control run": (
        Step(
            "save the reference",
            "polygraphy run det-page-fp32.onnx --onnxrt --load-inputs page.json --save-outputs golden.json",
        ),
        Step("compare with TF32", f"{_CONTROL} --tf32", finds=_ERROR),
        Step("compare without", _CONTROL, finds=_ERROR),
    ),
    "debug reduce": (
        Step(
            "save every tensor in FP32",
            "polygraphy run quick-overflow-fp32.onnx --onnxrt --onnx-outputs mark all --load-inputs digits.json "
            "--save-inputs inputs.json --save-outputs tensors.json",
        ),
        Step("make inputs of them", "polygraphy data merge inputs.json tensors.json -o layerwise.json"),
        Step(
            "find the smallest part that fails",
            "polygraphy debug reduce quick-overflow-fp32.onnx -o reduced.onnx --model-input-shapes x:[64,3,32,32] "
            f"--check polygraphy run polygraphy_debug.onnx --trt {_CACHED} --validate --load-inputs layerwise.json",
            (r"Minimum", r"reduc"),
        ),
        Step("show what is left", "polygraphy inspect model reduced.onnx --show layers", (r"Node", r"->")),
    ),
    "debug build": (
        Step("save the reference", _GOLDEN),
        Step(
            "sort the tactics of three builds",
            f"polygraphy debug build quick-fp32.onnx {_FAST} {_DIGITS} --until 3 --save-tactics replay.json "
            f"--artifacts replay.json --check polygraphy run polygraphy_debug.engine {_AGREE} --rtol 1e-3 --atol 1e-3",
            (r"(PASSED|FAILED) \| Iteration", r"Minimum Required"),
            _ENGINES,
        ),
        Step("compare good and bad", "polygraphy inspect diff-tactics --dir polygraphy_artifacts", (r"tactic",)),
    ),
    "tactics": (
        Step("save", f"{_CONVERT} --save-tactics tactics.json -o first.engine"),
        Step("inspect", "polygraphy inspect tactics tactics.json", (r"Layer", r"Algorithm")),
        Step("load", f"{_CONVERT} --load-tactics tactics.json -o second.engine", (r"[Rr]eplay",)),
        Step("save its outputs", f"polygraphy run first.engine {_AGREE.replace('--load-outputs', '--save-outputs')}"),
        Step("compare", f"polygraphy run second.engine {_AGREE} --rtol 0 --atol 0", (r"Minimum Required",), _ERROR),
    ),
    "convert --int8": (
        Step("save the reference", _GOLDEN),
        Step(
            "calibrate on digits",
            f"{_CALIBRATE} --data-loader-script loader.py --calibration-cache digits.cache -o digits.engine",
            (r"[Cc]alibrat",),
        ),
        Step("compare with FP32", f"polygraphy run digits.engine {_AGREE} --atol 1", (r"Minimum Required",), _ERROR),
        Step(
            "calibrate without data", f"{_CALIBRATE} --calibration-cache random.cache -o random.engine",
            (r"[Cc]alibrat",),
        ),
        Step("compare again", f"polygraphy run random.engine {_AGREE} --atol 1", (r"Minimum Required",), _ERROR),
    ),
    "marking": (
        Step("build", f"{_CONVERT_CACHED} -o plain.engine"),
        Step("count layers", "polygraphy inspect model plain.engine --model-type engine", (r"Layer",), _LAYERS),
        Step("mark all", f"{_CONVERT_CACHED} --trt-outputs mark all -o marked.engine"),
        Step("count again", "polygraphy inspect model marked.engine --model-type engine", (r"Layer",), _LAYERS),
        Step("mark one for debugging", f"{_MARKED} --mark-debug p2o.pd_op.relu.1.0", (r"Output:",)),
        Step("mark those that keep fusions", f"{_MARKED} --mark-unfused-tensors-as-debug-tensors", (r"Error",)),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Use:
    """A step as it went: its lines that matter, and the numbers and names that were found in what it printed."""

    chain: str
    what: str
    command: str
    returncode: int
    seconds: float
    lines: list[str]
    found: dict[str, str]
    search: list[list[Any]]  # of `debug precision`, for each engine: layers in FP32, and whether the check passed


def measure(chain: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """Run the commands of a chain on this machine's GPU; return the fields of each `Use`.

    Raises:
        BackendUnavailableError: There is no GPU or no TensorRT 10, or the time of a command ran out.
    """
    gpu_commands.require_weak_typing(10)
    with tempfile.TemporaryDirectory() as folder:
        return {"uses": run(chain, CHAINS[chain], models, Path(folder))}


def run(chain: str, steps: Sequence[Step], models: Mapping[str, Path], folder: Path) -> list[dict[str, Any]]:
    """Run commands in turn in a folder that gets copies of the models; return the fields of each `Use`."""
    for path in models.values():
        shutil.copy(path, folder)
    (folder / "loader.py").write_text(LOADER)
    uses = []
    for step in steps:
        start = time.perf_counter()
        result = polygraphy_cli.run(step.command, folder, timeout=TIME_LIMIT_S)
        seconds = round(time.perf_counter() - start, 1)
        gpu_commands.require_done(result)
        uses.append({"chain": chain, "what": step.what, "seconds": seconds, **outcome(step, result)})
    return uses


def outcome(step: Step, result: polygraphy_cli.Result) -> dict[str, Any]:
    """Read what a command printed: the fields of a `Use` that it fills."""
    matches = {name: re.search(pattern, result.text) for name, pattern in step.finds.items()}
    return {
        "command": result.command,
        "returncode": result.returncode,
        "lines": gpu_commands.essential(result, *step.shows),
        "found": {name: match[1] for name, match in matches.items() if match},
        "search": [[int(layers), said == "PASSED"] for layers, said in re.findall(_ITERATION, result.text)],
    }


EXPERIMENT: Experiment[list[Use]] = Experiment(
    name="lesson04_polygraphy_tools",
    title="Polygraphy's tools for TensorRT with builder flags: precision, reduce, build, tactics, calibration, marking",
    method=METHOD,
    rows={chain: functools.partial(measure, chain) for chain in CHAINS},
    read=lambda data: [Use(**use) for row in rows.read(data) if row.values for use in row.values["uses"]],
    models=("det-page-fp32.onnx", "page.json", "quick-fp32.onnx", "quick-overflow-fp32.onnx", "digits.json"),
    make_models=gpu_commands.make_models,
)
