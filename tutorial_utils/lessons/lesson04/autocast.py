"""Lesson 04: NVIDIA's AutoCast on both patients: which nodes it leaves in FP32, and what the files answer.

AutoCast comes with ModelOpt, whose pins aren't the project's: it runs in an environment of its own, whose Python the
variable AUTOCAST_PYTHON names:

    python -m venv build/autocast && build/autocast/bin/pip install "nvidia-modelopt[onnx]==0.47.0"
    AUTOCAST_PYTHON=build/autocast/bin/python python -m tutorial_utils record lesson04_autocast

It needs no GPU.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils.base.errors import BackendUnavailableError, PrecisionError
from tutorial_utils.debug import remedies
from tutorial_utils.lessons.lesson04 import patients, remedies_on_gpu
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.model import onnx_file

METHOD = (
    "each command once, on the FP32 file of lesson 04's overflowing detector and transformer; calibration data: "
    "8 views of the page, and 64 test sentences; answers on these views and on 600 test sentences, with every rounding "
    "written down on the CPU"
)
COMMAND = "python -m modelopt.onnx.autocast --onnx_path {name}-fp32.onnx --keep_io_types --output_path autocast.onnx"
# What is added to the command, by what it means.
OPTIONS = {
    "random inputs": "",
    "real inputs": " --calibration_data {name}.npz",
    "real inputs, FP32 from 32,000": " --calibration_data {name}.npz --data_max 32000",
}
FOR_ENGINES = "real inputs"  # the file of which `remedies_on_gpu` makes an engine
_VARIABLE = "AUTOCAST_PYTHON"
_CONVERTED = re.compile(r"Converted (\d+)/(\d+) nodes")
_CALIBRATED = 64


@dataclass(frozen=True)
class Cast:
    """What AutoCast made of a patient.

    Attributes:
        patient, inputs: One of `remedies_on_gpu.NAMES`, and of `OPTIONS`.
        command: As it was run.
        converted, nodes: How many nodes it says it converted, of how many.
        casts: How many Cast nodes the file has.
        outcome: What the file answers.
    """

    patient: str
    inputs: str
    command: str
    converted: int
    nodes: int
    casts: int
    outcome: remedies.Outcome


def convert(models: Mapping[str, Path], name: str, inputs: str, target: Path) -> dict[str, Any]:
    """Have AutoCast convert a patient; return the fields of a `Cast` as plain values.

    Raises:
        BackendUnavailableError: AUTOCAST_PYTHON names no Python.
        PrecisionError: AutoCast failed.
    """
    python = shutil.which(os.environ.get(_VARIABLE, ""))
    if not python:
        raise BackendUnavailableError(
            "AutoCast is not at hand: it needs an environment of its own.",
            f'Install "nvidia-modelopt[onnx]" in one, and let {_VARIABLE} name its Python.',
        )
    command = (COMMAND + OPTIONS[inputs]).format(name=name)
    key, metric = ("x", patients.boxes_agree) if name == "detector" else ("ids", patients.predictions_agree)
    with np.load(models["remedies"]) as stored, tempfile.TemporaryDirectory() as folder:
        feeds, expected = {key: stored[f"{name}/inputs"]}, stored[f"{name}/expected"]
        shutil.copy(models[f"{name}-fp32"], folder)
        np.savez(Path(folder) / f"{name}.npz", **{key: feeds[key][:_CALIBRATED]})
        environment = {one: value for one, value in os.environ.items() if one != "PYTHONPATH"}
        ended = subprocess.run(
            [str(Path(python).absolute()), *command.split()[1:]],
            cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        said = _CONVERTED.search(ended.stdout)
        if ended.returncode or not said:
            lines = ended.stdout.strip().splitlines() or ["nothing"]
            raise PrecisionError(f"AutoCast failed on {name}: {lines[-1]}.", "Run its command in a shell.")
        shutil.copy(Path(folder) / "autocast.onnx", target)
    outcome = remedies.judge(target, feeds, expected, metric)
    return {
        "patient": name,
        "inputs": inputs,
        "command": command,
        "converted": int(said[1]),
        "nodes": int(said[2]),
        "casts": sum(node.op_type == "Cast" for node in onnx_file.load(target).graph.node),
        "outcome": [outcome.finite, outcome.rel_l2 if np.isfinite(outcome.rel_l2) else None, outcome.task],
    }


def measure(models: Mapping[str, Path]) -> dict[str, list[dict[str, Any]]]:
    """Convert both patients in every way; return the fields of a `Cast` of each, as "casts".

    The files for engines stay beside the models, as ``NAME-autocast.onnx``.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in remedies_on_gpu.NAMES:
            for inputs in OPTIONS:
                kept = models[f"{name}-fp32"].with_name(f"{name}-autocast.onnx")
                target = kept if inputs == FOR_ENGINES else Path(folder) / "other.onnx"
                rows.append(convert(models, name, inputs, target))
    return {"casts": rows}


def read(data: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Cast]:
    """Return the rows of a recording."""
    return [Cast(**{**row, "outcome": _outcome(*row["outcome"])}) for row in data["casts"]]


def _outcome(finite: float, rel_l2: float | None, task: float) -> remedies.Outcome:
    return remedies.Outcome(finite, np.inf if rel_l2 is None else rel_l2, task)


def table(casts: Sequence[Cast]) -> str:
    """Return the rows as a table in Markdown."""
    lines = ["| patient | AutoCast saw | nodes in FP16 | casts | error | answers kept |", "|:--|:--|--:|--:|--:|--:|"]
    for one in casts:
        made = f"{one.converted} of {one.nodes} | {one.casts} | {one.outcome.rel_l2:.1e} | {one.outcome.task:.1%}"
        lines.append(f"| {one.patient} | {one.inputs} | {made} |")
    return "\n".join(lines)


def _libraries() -> dict[str, str]:
    """Return ModelOpt's version, of the environment that AUTOCAST_PYTHON names."""
    python = os.environ.get(_VARIABLE, "")
    code = "import importlib.metadata; print(importlib.metadata.version('nvidia-modelopt'))"
    try:
        ended = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # `convert` says what is missing
        return {}
    return {"nvidia-modelopt": ended.stdout.strip()}


EXPERIMENT = Experiment(
    name="lesson04_autocast",
    title="AutoCast on the overflowing detector and transformer: what stays in FP32, and what the files answer",
    method=METHOD,
    measure=measure,
    read=read,
    models=("detector-fp32.onnx", "transformer-fp32.onnx", "remedies.npz"),
    make_models=remedies_on_gpu.make_models,
    needs_tensorrt=False,
    libraries=_libraries,
)
