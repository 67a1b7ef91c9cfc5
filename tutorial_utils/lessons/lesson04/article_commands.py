"""Lesson 04: the four Polygraphy commands of the article that this course grew out of, on its stack and on a later one.

What the article's author printed is the recording `article_polygraphy`. Each command is a row for each stack, which has
an environment of its own.
"""

import functools
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from tutorial_utils.debug import polygraphy_cli
from tutorial_utils.lessons.lesson04 import gpu_commands
from tutorial_utils.measure import recordings, rows
from tutorial_utils.measure.experiment import Experiment, Measured

if TYPE_CHECKING:
    import pandas

MODEL = "det-article-fp32"
# The article's is [1,3,1472,1224], and this network takes sides that are multiples of 32.
LARGEST = "[1,3,1472,1248]"
STACKS = {"TensorRT 8.6 at level 1": 8, "TensorRT 10 at level 1": 10}  # name, and major version
TIME_LIMIT_S = 570  # of each command
# The one option beside the article's. Level 1 tries fewer kernels than 3, the default.
LEVEL = "--builder-optimization-level 1"
METHOD = (
    "the article's commands at optimization level 1, since at the default level FP16 against ONNX Runtime was not done "
    f"after {TIME_LIMIT_S} s beside other builds; each run once, beside other builds on the same GPU, on the detector "
    "with a planted overflow (an FP32 file; for FP16 the builder's flag); input: the page at 32x32; "
    "seconds as Polygraphy prints them"
)


def commands(largest: str = LARGEST, option: str = "") -> dict[str, str]:
    """Return the article's commands by what they ask, with another largest shape and perhaps one more option."""
    run = " ".join(filter(None, [f"polygraphy run {MODEL}.onnx --trt", option]))
    shapes = f"--trt-min-shapes x:[1,3,32,32] --trt-opt-shapes x:[1,3,192,192] --trt-max-shapes x:{largest}"
    marked, inputs = "--validate --trt-outputs mark all", "--load-inputs input_det.json"
    return {
        "validate/fp32": f"{run} {marked} {shapes} --save-results=trt_out32.pkl {inputs}",
        "validate/fp16": f"{run} {marked} {shapes} --fp16 --save-results=trt_out.pkl {inputs}",
        "compare/fp32": f"{run} --onnxrt {shapes} {inputs} --rtol 1e-4 --atol 1e-3",
        "compare/fp16": f"{run} --onnxrt {shapes} {inputs} --rtol 1e-4 --atol 1e-3 --fp16 --validate",
    }


@dataclass(frozen=True)
class Tensor:
    """A tensor that TensorRT computed: its largest finite magnitude, and how many of its values are not finite."""

    name: str
    peak: float
    nan: int
    inf: int
    values: int


@dataclass(frozen=True)
class Said(gpu_commands.Command):
    """What a command said, and the tensors that it saved, in the order of computation."""

    tensors: list[Tensor] = field(default_factory=list)


def measure(stack: str, what: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """Run one of the commands on this machine's GPU; return the fields of what it `Said`.

    Raises:
        BackendUnavailableError: There is no GPU, TensorRT is that of another stack, or time ran out.
    """
    gpu_commands.require_weak_typing(STACKS[stack])
    with tempfile.TemporaryDirectory() as folder:
        for path in models.values():
            shutil.copy(path, folder)
        result = polygraphy_cli.run(commands(option=LEVEL)[what], folder, timeout=TIME_LIMIT_S)
        gpu_commands.require_done(result)
        order = [name for node in onnx.load(models[MODEL]).graph.node for name in node.output]
        said = {"model": MODEL, "what": what, "command": result.command, **gpu_commands.outcome(result, order)}
        return said | {"tensors": [tensor for path in Path(folder).glob("*.pkl") for tensor in saved(path, order)]}


def saved(path: Path, order: list[str]) -> list[list[Any]]:
    """Return the fields of each `Tensor` that a command with one runner saved, of those named, in their order.

    TensorRT marks a few of its own as well.
    """
    from polygraphy.comparator import RunResults

    ((_, (outputs,)),) = RunResults.load(str(path))
    found = []
    for name in filter(outputs.__contains__, order):
        values = np.asarray(outputs[name], np.float32)
        finite = np.abs(values[np.isfinite(values)])
        nan, inf = int(np.isnan(values).sum()), int(np.isinf(values).sum())
        found.append([name, float(f"{finite.max(initial=0):.4g}"), nan, inf, values.size])
    return found


def read(said: Mapping[str, Any]) -> Said:
    """Make a `Said` of what `measure` returned, or of a command that the article printed, which has no tensors."""
    return Said(**{**said, "tensors": [Tensor(*fields) for fields in said.get("tensors", ())]})


def by_stack(data: Mapping[str, Any]) -> dict[str, dict[str, Said]]:
    """Return what each command said, by what it asked, of each stack of a recording."""
    found: dict[str, dict[str, Said]] = {}
    for row in rows.read(data):
        if row.values:
            stack, _, what = row.name.partition("/")
            found.setdefault(stack, {})[what] = read(row.values)
    return found


def printed() -> Measured[dict[str, dict[str, Said]]]:
    """Return what the article printed: a recording of another form, of the author's own detector."""
    recording = recordings.load("article_polygraphy")
    said = {row["what"]: read(row) for row in recording.data["commands"]}
    origin = recordings.recorded(recording.title, recording, "It is what the article shows.")
    return Measured({"the article": said}, origin, recording.method, recording.machine)


def table(stacks: Mapping[str, Mapping[str, Said]]) -> "pandas.DataFrame":
    """Return what the commands said as a table for display, those of the stacks, by their names, beside each other."""
    asked = [(what, stack) for what in commands() for stack, said in stacks.items() if what in said]
    return gpu_commands.table([replace(stacks[stack][what], model=what, what=stack) for what, stack in asked])


EXPERIMENT: Experiment[dict[str, dict[str, Said]]] = Experiment(
    name="lesson04_article",
    title="The article's four Polygraphy commands on a detector that overflows in FP16",
    method=METHOD,
    rows={f"{stack}/{what}": functools.partial(measure, stack, what) for stack in STACKS for what in commands()},
    read=by_stack,
    models=(f"{MODEL}.onnx", "input_det.json"),
    make_models=gpu_commands.make_models,
    needs_tensorrt=False,  # TensorRT 8.6 is too old for the engines of the course; `measure` asks for what it needs
)
