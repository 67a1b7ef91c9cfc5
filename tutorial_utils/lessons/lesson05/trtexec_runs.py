"""Lesson 05, time: what `trtexec` prints and exports of ResNet-50 in FP16, for one image and for 64."""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutorial_utils.lessons.lesson05.program_models import MODEL, built
from tutorial_utils.measure import rows, trtexec
from tutorial_utils.measure.experiment import Experiment

# Rows by name: images in a call, and options of trtexec.
RUNS = {
    "batch 1": (1, ()),
    "batch 1 with a CUDA graph": (1, ("--useCudaGraph",)),
    "batch 64": (64, ()),
}
OPTIONS = ("--dumpProfile", "--separateProfileRun", "--noDataTransfers")
EXPORTS = ("exportTimes", "exportProfile", "exportLayerInfo")
METHOD = (
    "trtexec of the same TensorRT on a plan with detailed profiling verbosity, with "
    f"{' '.join((*OPTIONS, *(f'--{name}' for name in EXPORTS)))}, else its defaults: 200 ms of warm-up, 3 s of calls "
    "on one stream; the profiler in a run of its own"
)
_TIMESTAMP = re.compile(r"^\[\d\d/\d\d/\d{4}-[\d:]+\] ")


@dataclass(frozen=True)
class Run:
    """A call of trtexec.

    Attributes:
        name: One of `RUNS`.
        command: As a person would type it.
        summary: The lines that it printed of times, and its warnings.
        times: Medians in milliseconds, by the names of `trtexec.medians`.
        profile: Mean milliseconds of each layer, by its name, in the order of execution.
        layers: ONNX nodes of each layer by its name, as the exported layer information says.
    """

    name: str
    command: str
    summary: list[str]
    times: dict[str, float]
    profile: dict[str, float]
    layers: dict[str, list[str]]

    @property
    def warnings(self) -> list[str]:
        """What trtexec warns of, such as that the host enqueues too slowly."""
        return [line.removeprefix("[W] ") for line in self.summary if line.startswith("[W]")]


def measure(name: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """Let trtexec time an engine; return the fields of a `Run` but its name.

    Raises:
        BackendUnavailableError: There is no trtexec, or no data-centre TensorRT.
    """
    trtexec.require()
    batch, options = RUNS[name]
    engine, _ = built(models[MODEL], batch)
    ran = trtexec.run(engine.plan, (*OPTIONS, *options), EXPORTS)
    profile = [one for one in ran.exported["exportProfile"] if "name" in one]
    layers = [one for one in ran.exported["exportLayerInfo"]["Layers"] if isinstance(one, dict)]
    return {
        "command": ran.command,
        "summary": summary(ran.output),
        "times": {what: round(ms, 4) for what, ms in trtexec.medians(ran.exported["exportTimes"]).items()},
        "profile": {one["name"]: round(one["averageMs"], 5) for one in profile},
        "layers": {one["Name"]: re.findall(r"\[ONNX Layer: ([^\]]*)\]", one.get("Metadata", "")) for one in layers},
    }


def summary(output: str) -> list[str]:
    """Return the lines of trtexec's output from its performance summary to the first that explains, and warnings."""
    lines = [_TIMESTAMP.sub("", line) for line in output.splitlines()]
    start = next((i for i, line in enumerate(lines) if "=== Performance summary ===" in line), len(lines))
    end = next((i for i, line in enumerate(lines) if i > start and "Explanations" in line), len(lines))
    return [line for i, line in enumerate(lines) if start <= i < end or line.startswith("[W]")]


def read(data: Mapping[str, Any]) -> list[Run]:
    """Return what trtexec said, run by run; a row that failed is left out."""
    return [Run(row.name, **row.values) for row in rows.read(data) if row.values]


EXPERIMENT = Experiment(
    name="lesson05_trtexec",
    title="What trtexec prints and exports of ResNet-50 in FP16",
    method=METHOD,
    rows={name: functools.partial(measure, name) for name in RUNS},
    read=read,
    models=(f"{MODEL}.onnx",),
)
