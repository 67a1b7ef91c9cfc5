"""Lesson 04 on data-centre TensorRT: Polygraphy's tools that build engines again and again, each used once.

The commands of a chain need each other's files and run in turn; the chains run at the same time.
"""

import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutorial_utils import plotting
from tutorial_utils.debug import polygraphy_cli
from tutorial_utils.lessons.lesson04 import gpu_commands
from tutorial_utils.measure.experiment import Experiment, Measured

if TYPE_CHECKING:
    import pandas

TIME_LIMIT_S = 120  # of each command
METHOD = (
    "each command run once with this Polygraphy and TensorRT, those of a chain in turn, the chains at the same time; "
    f"a command is ended after {TIME_LIMIT_S} seconds; lines and numbers are those that it printed"
)
# Calibrates `convert --int8`: what --data-loader-script names.
LOADER = """from polygraphy.json import load_json

def load_data():
    return load_json("digits.json")
"""

_DIGITS = " ".join(f"--trt-{size}-shapes x:[64,3,32,32]" for size in ("min", "opt", "max"))
_PAGE = " ".join(f"--trt-{size}-shapes x:[1,3,192,384]" for size in ("min", "opt", "max"))
# Level 0 takes the first kernel that fits: a search that builds ten engines is not about the fastest one.
_FAST = "--builder-optimization-level 0"
_PRECISION = f"polygraphy debug precision det-overflow-fp32.onnx --fp16 {_FAST} {_PAGE}"
_CHECK = "--check polygraphy run polygraphy_debug.engine --trt --validate"
_AGREE = "--trt --load-inputs digits.json --load-outputs golden.json"
_GOLDEN = "polygraphy run quick-fp32.onnx --onnxrt --load-inputs digits.json --save-outputs golden.json"
_LAYERS = "polygraphy inspect model {} --model-type engine --show layers"

_VERDICT = (r"To achieve", r"Could not find")  # of `debug precision`
_ENGINES = {"engines built": r"(?s).*RUNNING \| Iteration (\d+)"}
_ITERATION = r"Selecting \w+ (\d+) layer(?s:.*?)(PASSED|FAILED) \| Iteration"
_LAYERS_IN_FP32 = {"layers in FP32": r"try running the \w+ (\d+) layer", **_ENGINES}


@dataclass(frozen=True)
class Step:
    """A command, what it is asked, and what of its output matters."""

    what: str
    command: str
    shows: tuple[str, ...] = ()  # patterns of lines, beside those that say how it ended
    finds: Mapping[str, str] = field(default_factory=dict)  # patterns with a group, by the name of what it holds


CHAINS: dict[str, tuple[Step, ...]] = {
    "debug precision, the page": (
        Step("first layers in FP32", f"{_PRECISION} {_CHECK} --load-inputs page.json", _VERDICT, _LAYERS_IN_FP32),
    ),
    "debug precision, the page, reverse": (
        Step(
            "last layers in FP32", f"{_PRECISION} --dir reverse {_CHECK} --load-inputs page.json", _VERDICT,
            _LAYERS_IN_FP32,
        ),
    ),
    "debug precision, random data": (
        Step("first layers in FP32", f"{_PRECISION} {_CHECK}", _VERDICT, _LAYERS_IN_FP32),
    ),
    "debug reduce": (
        Step(
            "every tensor in FP32",
            "polygraphy run quick-overflow-fp32.onnx --onnxrt --onnx-outputs mark all --load-inputs digits.json "
            "--save-inputs inputs.json --save-outputs tensors.json",
        ),
        Step("tensors as inputs", "polygraphy data merge inputs.json tensors.json -o layerwise.json"),
        Step(
            "smallest part that fails in FP16",
            "polygraphy debug reduce quick-overflow-fp32.onnx -o reduced.onnx --model-input-shapes x:[64,3,32,32] "
            "--check polygraphy run polygraphy_debug.onnx --trt --fp16 --validate --load-inputs layerwise.json",
            (r"Minimum .*model", r"Finished reducing"),
            _ENGINES,
        ),
        Step("what is left", "polygraphy inspect model reduced.onnx --show layers", (r"Node", r"->")),
    ),
    "debug build": (
        Step("reference", _GOLDEN),
        Step(
            "sort tactics of three builds",
            f"polygraphy debug build quick-fp32.onnx --fp16 {_DIGITS} --until 3 --save-tactics replay.json "
            f"--artifacts replay.json --check polygraphy run polygraphy_debug.engine {_AGREE} --rtol 1e-3 --atol 1e-3",
            (r"(PASSED|FAILED) \| Iteration", r"Difference (is|exceeds)"),
            {"good": r"Passed: (\d+)/", **_ENGINES},
        ),
        Step("compare good and bad", "polygraphy inspect diff-tactics --dir polygraphy_artifacts", (r"tactic",)),
    ),
    "tactics": (
        Step(
            "save", f"polygraphy convert quick-fp32.onnx --fp16 {_DIGITS} --save-tactics tactics.json -o first.engine",
        ),
        Step("inspect", "polygraphy inspect tactics tactics.json", (r"Layer|Algorithm",)),
        Step(
            "load", f"polygraphy convert quick-fp32.onnx --fp16 {_DIGITS} --load-tactics tactics.json -o second.engine",
            (r"replay",),
        ),
        Step("layers of the first", _LAYERS.format("first.engine"), (r"Layer\(s\)",)),
        Step("layers of the second", _LAYERS.format("second.engine"), (r"Layer\(s\)",)),
    ),
    "convert --int8": (
        Step("reference", _GOLDEN),
        Step(
            "calibrate on digits",
            f"polygraphy convert quick-fp32.onnx --int8 {_DIGITS} --data-loader-script loader.py "
            "--calibration-cache digits.cache -o int8.engine",
            (r"[Cc]alibrat", r"Flags"),
        ),
        Step("layers", "polygraphy inspect model int8.engine --model-type engine --show layers attrs", (r"Int8|INT8",)),
        Step("compare", f"polygraphy run int8.engine {_AGREE} --rtol 0 --atol 1", (r"Minimum Required",)),
        Step(
            "calibrate on nothing given",
            f"polygraphy convert quick-fp32.onnx --int8 {_DIGITS} --calibration-cache random.cache -o random.engine",
            (r"[Cc]alibrat",),
        ),
        Step("compare", f"polygraphy run random.engine {_AGREE} --rtol 0 --atol 1", (r"Minimum Required",)),
    ),
    "marking": (
        Step("build", f"polygraphy convert quick-fp32.onnx --fp16 {_DIGITS} -o plain.engine"),
        Step("layers", _LAYERS.format("plain.engine"), (r"Layer\(s\)",)),
        Step("mark", f"polygraphy convert quick-fp32.onnx --fp16 {_DIGITS} --trt-outputs mark all -o marked.engine"),
        Step("layers, marked", _LAYERS.format("marked.engine"), (r"Layer\(s\)",)),
        Step(
            "debug tensor",
            f"polygraphy run quick-overflow-fp32.onnx --trt --fp16 {_DIGITS} --load-inputs digits.json --validate "
            "--mark-debug p2o.pd_op.relu.1.0",
        ),
        Step(
            "debug tensors that keep fusions",
            f"polygraphy run quick-overflow-fp32.onnx --trt --fp16 {_DIGITS} --load-inputs digits.json --validate "
            "--mark-unfused-tensors-as-debug-tensors",
        ),
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


def measure(models: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Run all chains on this machine's GPU; return the fields of each `Use`.

    Raises:
        BackendUnavailableError: There is no GPU, or no TensorRT 10.
    """
    gpu_commands.require_weak_typing(10)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(CHAINS)) as pool:
        chains = pool.map(
            lambda number: _run(*list(CHAINS.items())[number], models, Path(folder, str(number))), range(8)
        )
        return [row for rows in chains for row in rows]


def _run(chain: str, steps: Sequence[Step], models: Mapping[str, Path], folder: Path) -> list[dict[str, Any]]:
    folder.mkdir()
    for path in models.values():
        shutil.copy(path, folder)
    (folder / "loader.py").write_text(LOADER)
    rows = []
    for step in steps:
        start = time.perf_counter()
        result = polygraphy_cli.run(step.command, folder, timeout=TIME_LIMIT_S)
        seconds = round(time.perf_counter() - start, 1)
        rows.append({"chain": chain, "what": step.what, "seconds": seconds, **outcome(step, result)})
    return rows


def outcome(step: Step, result: polygraphy_cli.Result) -> dict[str, Any]:
    """Read what a command printed: the fields of a `Use` that it fills."""
    matches = {name: re.search(pattern, result.text) for name, pattern in step.finds.items()}
    return {
        "command": result.command,
        "returncode": result.returncode,
        "lines": gpu_commands.essential(result, *step.shows),
        "found": {name: match[1] for name, match in matches.items() if match},
        "search": [
            [int(layers), said == "PASSED"]
            for layers, said in re.findall(
                r"Selecting \w+ (\d+) layer(?s:.*?)(PASSED|FAILED) \| Iteration", result.text
            )
        ],
    }


def table(uses: Sequence[Use]) -> "pandas.DataFrame":
    """Return what each command was asked and what came out as a table for display."""
    import pandas

    lines = [
        {
            "tool": use.chain,
            "asked to": use.what,
            "seconds": use.seconds,
            "return code": use.returncode,
            "found": ", ".join(f"{name} {value}" for name, value in use.found.items()),
        }
        for use in uses
    ]
    return pandas.DataFrame(lines).set_index(["tool", "asked to"])


def draw(measured: Measured[list[Use]]) -> plotting.Picture:
    """Draw the searches of `debug precision`: how many layers each engine had in FP32, and whether it passed."""
    figure, axes = plotting.new_figure(3.4)
    searches = {use.chain: use for use in measured.result if use.search}
    colours = (plotting.BLUE, plotting.GREEN, plotting.ORANGE)
    for (chain, use), colour in zip(searches.items(), colours, strict=False):
        numbers = range(1, len(use.search) + 1)
        axes.plot(numbers, [layers for layers, _ in use.search], color=colour, linewidth=1.5, label=chain)
        for number, (layers, passed) in zip(numbers, use.search, strict=True):
            marker = {"marker": "o", "color": colour} if passed else {"marker": "x", "color": plotting.RED}
            axes.plot(number, layers, linestyle="", markersize=8, markeredgewidth=2, **marker)
    axes.plot([], [], "o", color=plotting.GREY, label="finite")
    axes.plot([], [], "x", color=plotting.RED, label="Inf or NaN")
    axes.set_xlabel("engine built")
    axes.set_ylabel("layers in FP32")
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    lines = [
        f"{chain}: {use.found.get('layers in FP32', 'no number of')} {use.what} after {len(use.search)} engines"
        for chain, use in searches.items()
    ]
    return plotting.Picture(figure, f"How debug precision searches. {'; '.join(lines)}.", "\n".join(lines))


EXPERIMENT: Experiment[list[Use]] = Experiment(
    name="lesson04_polygraphy_tools",
    title="Polygraphy's tools for TensorRT with builder flags: precision, reduce, build, tactics, calibration, marking",
    method=METHOD,
    measure=lambda models: {"uses": measure(models)},
    read=lambda data: [Use(**row) for row in data["uses"]],
    draw=draw,
    models=("det-overflow-fp32.onnx", "page.json", "quick-fp32.onnx", "quick-overflow-fp32.onnx", "digits.json"),
    make_models=gpu_commands.make_models,
)
