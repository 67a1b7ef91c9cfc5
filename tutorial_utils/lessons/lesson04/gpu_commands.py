"""Lesson 04 on a GPU: the commands with which one checks an engine, on the sound and on the overflowing detector.

The GPU machine needs neither Paddle nor the package that ships the network: `prepare` writes what `measure` reads, and
what the experiments of `article_commands`, `polygraphy_tools` and lesson 05's `inspector` read.
"""

import importlib
import re
import shutil
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from tutorial_utils.base import flavour, paths
from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.debug import polygraphy_cli, scaling
from tutorial_utils.machine import capabilities
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.model import half_precision, onnx_file

if TYPE_CHECKING:
    import pandas

INPUT_SHAPE = (1, 3, 192, 384)
# The ranges that are often copied for this network, with the largest width rounded up to a multiple of 32.
PROFILE = (
    "--trt-min-shapes x:[1,3,32,32] --trt-opt-shapes x:[1,3,192,192] --trt-max-shapes x:[1,3,1472,1248] "
    "--load-inputs page.json"
)
# Model, what is asked, and the command. Its tolerances are from habit, and often seen; the lesson derives better ones.
COMMANDS = (
    (
        "det-sound-fp32", "compare the output",
        f"polygraphy run det-sound-fp32.onnx --trt --onnxrt {PROFILE} --rtol 1e-4 --atol 1e-3",
    ),
    (
        "det-overflow-fp16", "validate every tensor",
        f"polygraphy run det-overflow-fp16.onnx --trt --validate --trt-outputs mark all {PROFILE}",
    ),
    (
        "det-overflow-fp16", "validate the output",
        f"polygraphy run det-overflow-fp16.onnx --trt --validate {PROFILE}",
    ),
)  # fmt: skip
FILES = ("det-sound-fp32.onnx", "det-overflow-fp16.onnx", "page.json")
METHOD = (
    "each command run once with this Polygraphy and TensorRT, two at a time; input: the page at 192x384; rows hold "
    "what the commands printed"
)
# What the other experiments read. The page at the article's 32x32 overflows with a larger factor; the text detector
# "page" overflows for the page at 192x384, and not for random data. In the classifier, the output of a batch norm is
# scaled: TensorRT folds it into the convolution before it, and what it folds doesn't overflow.
SCALED = {"article": 512.0, "page": 128.0}
OTHER_FILES = (
    *(f"det-{name}-fp32.onnx" for name in SCALED), "det-sound-fp16.onnx", "input_det.json", "quick-fp32.onnx",
    "quick-overflow-fp32.onnx", "digits.json",
)  # fmt: skip
PLANTED_IN_QUICK = ("p2o.pd_op.batch_norm_.1.0", 32768.0)
_ESSENTIAL = (
    r"Flags \|", r"weights are affected", r"^\[E\]", r"^\[!\]", r"^\w+Error: |^what\(\): ",
    r"^\[I\] (PASSED$|Accuracy Summary)",
)  # fmt: skip
_LINES_OF_A_KIND, _WIDTH = 3, 160
_NUMBER = r"[-+\w.]+"


def prepare(folder: Path) -> dict[str, Path]:
    """Write the models and inputs that are measured with; return the path of each of `FILES` and `OTHER_FILES`.

    It needs Paddle, and the package that ships the network.
    """
    from polygraphy.json import save_json

    from tutorial_utils.lessons.lesson04 import text_detection
    from tutorial_utils.model import data, networks

    folder.mkdir(parents=True, exist_ok=True)
    sound = onnx_file.load(text_detection.prepare())
    for name, model in (("sound", sound), ("overflow", scaling.move_scale(sound, *scaling.PLANTED))):
        fp32_path = onnx_file.save(model, folder / f"det-{name}-fp32.onnx")
        half_precision.to_fp16(fp32_path, folder / f"det-{name}-fp16.onnx")
    for name, factor in SCALED.items():
        onnx_file.save(scaling.move_scale(sound, scaling.PLANTED[0], factor), folder / f"det-{name}-fp32.onnx")
    for name, size in (("page.json", INPUT_SHAPE[2:]), ("input_det.json", (32, 32))):
        save_json([{"x": text_detection.preprocess(text_detection.page(), *size)}], str(folder / name))
    quick = networks.quick(["fp32"])
    shutil.copy(quick["fp32"], folder / "quick-fp32.onnx")
    overflowing = scaling.move_scale(onnx_file.load(quick["fp32"]), *PLANTED_IN_QUICK)
    onnx_file.save(overflowing, folder / "quick-overflow-fp32.onnx")
    save_json([{"x": data.load("digits", "test").images[:64]}], str(folder / "digits.json"))
    return {name: folder / name for name in (*FILES, *OTHER_FILES)}


def make_models(names: Sequence[str]) -> dict[str, Path]:
    """Prepare the files of an experiment in the cache."""
    made = prepare(paths.cache_dir("lesson04", "gpu_commands"))
    return {name: made[name] for name in names}


@dataclass(frozen=True)
class Command:
    """A command of Polygraphy, and what it said. A first tensor is the first in the order of computation."""

    model: str  # stem of the file
    what: str  # what was asked
    command: str
    returncode: int
    passed: bool  # whether Polygraphy said so
    checked: int | None  # number of tensors that were checked; None, as below, where the article doesn't say
    failed: int | None  # number of those that failed
    first_failed: str | None
    not_finite: int | None  # number of tensors with Inf or NaN in TensorRT
    first_not_finite: str | None
    last_error: list | None  # name, largest absolute and relative difference of the last one; None if not finite
    text: list[str]  # the lines that matter
    build_seconds: float | None = None  # what Polygraphy printed of the engine's build, and of the whole command
    seconds: float | None = None


def outcome(result: polygraphy_cli.Result, order: list[str]) -> dict[str, Any]:
    """Read what a `polygraphy run` with one or two runners printed: the fields of `Command` from `returncode` on.

    Args:
        result: Of the command.
        order: The tensors of the model in the order in which they are computed.
    """
    text = result.text
    place = {name: index for index, name in enumerate(order)}

    def in_order(names: list[str]) -> list[str]:
        return sorted(set(names), key=lambda name: place.get(name, len(place)))

    failed = re.findall(r"FAILED \| Errors detected in output: (\S+)", text)
    not_finite = list(failed)  # --validate looks for nothing else
    failed += re.findall(r"FAILED \| Output: '([^']+)'", text)
    passed = re.findall(r"PASSED \| Output: '?([^' ]+)'?", text)
    extremes = re.findall(rf"\btrt-runner-N\d+: (\S+) +\| Stats: .*?\bmin=({_NUMBER}) at .*?\bmax=({_NUMBER}) at", text)
    not_finite += [name for name, *ends in extremes if {end.lstrip("-") for end in ends} & {"inf", "nan"}]
    failed, not_finite = in_order(failed), in_order(not_finite)
    errors = re.findall(rf"Error Metrics: (\S+)\n.*?\[abs=({_NUMBER})\] OR \[rel=({_NUMBER})\]", text)
    last = max(errors, key=lambda error: place.get(error[0], len(place)), default=None)
    return {
        "returncode": result.returncode,
        "passed": result.returncode == 0 and bool(result.lines(r"^\[I\] PASSED$")),
        "checked": len(set(failed + passed)),
        "failed": len(failed),
        "first_failed": failed[0] if failed else None,
        "not_finite": len(not_finite),
        "first_not_finite": not_finite[0] if not_finite else None,
        "last_error": [last[0], float(last[1]), float(last[2])] if last and "nan" not in last else None,
        "text": essential(result),
        "build_seconds": _printed_number(r"Finished engine building in ([\d.]+) seconds", result),
        "seconds": _printed_number(r"Runtime: ([\d.]+)s", result),
    }


def _printed_number(pattern: str, result: polygraphy_cli.Result) -> float | None:
    found = re.search(pattern, result.printed)
    return float(found[1]) if found else None


def essential(result: polygraphy_cli.Result, *patterns: str) -> list[str]:
    """Return the lines with a pattern and those that say how the command ended: of many, the first two and the last."""
    return [
        textwrap.shorten(line, _WIDTH, placeholder=" ...")
        for pattern in (*patterns, *_ESSENTIAL)
        for line in _first_and_last(result.lines(pattern))
    ]


def require_weak_typing(*majors: int) -> None:
    """Ask for a GPU, and for a TensorRT of one of these major versions, whose builders can be asked for FP16 by a flag.

    Raises:
        BackendUnavailableError: One of them is missing.
    """
    machine = capabilities.probe()
    if machine.gpu is None:
        raise BackendUnavailableError(machine.driver.reason, machine.driver.remedy)
    name = flavour.installed_flavour()
    version = importlib.import_module(name).__version__ if name in flavour.FLAVOURS else "none"
    if name != "tensorrt" or int(version.partition(".")[0]) not in majors:
        needed, here = " or ".join(map(str, majors)), flavour.FLAVOURS.get(name or "", "no TensorRT:")
        raise BackendUnavailableError(
            f"A builder of TensorRT {needed} is asked for FP16 by its flag; here is {here} {version}.",
            f"Run it where TensorRT {needed} is the one that is used, or take the recording.",
        )


def require_done(result: polygraphy_cli.Result) -> None:
    """Raise BackendUnavailableError where a command's time ran out: then nothing is known, and nothing is recorded."""
    if late := result.lines(r"Ended after"):
        raise BackendUnavailableError(
            f"`{textwrap.shorten(result.command, 60)}`: {late[0].removeprefix('[E] ')}.",
            "Run it where the GPU and the cores have nothing else to do.",
        )


def _first_and_last(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _LINES_OF_A_KIND else [*lines[: _LINES_OF_A_KIND - 1], lines[-1]]


def measure(models: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Run all `COMMANDS` on this machine's GPU; return the fields of a `Command` of each.

    Args:
        models: The paths of `FILES`, by stem.
    """
    with tempfile.TemporaryDirectory() as folder:
        for path in models.values():
            shutil.copy(path, folder)
        results = polygraphy_cli.run_all([command for _, _, command in COMMANDS], folder)
    found = []
    for (model, what, command), result in zip(COMMANDS, results, strict=True):
        order = [name for node in onnx.load(models[model]).graph.node for name in node.output]
        found.append({"model": model, "what": what, "command": command, **outcome(result, order)})
    return found


def table(rows: Sequence[Command]) -> "pandas.DataFrame":
    """Return what Polygraphy said of the engines as a table for display, with seconds where they were kept."""
    import pandas

    lines = [
        {
            "model": row.model,
            "asked to": row.what,
            "said": "PASSED" if row.passed else "FAILED",
            "tensors checked": row.checked,
            "failed": row.failed,
            "first not finite": row.first_not_finite or "",
            "largest error of the last one": f"{row.last_error[1]:.1e}" if row.last_error else "",
            "build s": row.build_seconds,
            "command s": row.seconds,
        }
        for row in rows
    ]
    found = pandas.DataFrame(lines, dtype=object).set_index(["model", "asked to"])
    return found.dropna(axis="columns", how="all").fillna("")


EXPERIMENT = Experiment(
    name="lesson04_polygraphy",
    title="Polygraphy on TensorRT: the text detector, sound in FP32 and overflowing in FP16",
    method=METHOD,
    measure=lambda models: {"input": list(INPUT_SHAPE), "profile": PROFILE, "commands": measure(models)},
    read=lambda data: [Command(**row) for row in data["commands"]],
    models=FILES,
    make_models=make_models,
)
