"""Lesson 01, hardware targets: the same model in five data types, built for every GPU that TensorRT-RTX knows."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tutorial_utils import engine, plotting
from tutorial_utils.base import child_process
from tutorial_utils.base.errors import CourseError

_AT_ONCE = 2


@dataclass(frozen=True)
class Attempt:
    """What came of one build: the size of the plan and its number of kernels, or TensorRT's reason for a refusal."""

    model: str  # stem of the ONNX file
    targets: tuple[str, ...]  # compute capabilities that were asked for; empty for TensorRT-RTX's default
    plan_bytes: int | None = None
    kernels: int | None = None
    reason: str = ""

    @property
    def built(self) -> bool:
        """Whether there is an engine."""
        return self.plan_bytes is not None


def attempt(onnx_path: Path, profile: engine.Profile, targets: tuple[str, ...]) -> Attempt:
    """Build an engine for the targets, or say why TensorRT refuses.

    A failed build can change later ones in the same process: call this once per process, as `attempts` does.
    """
    options = engine.BuildOptions(profiles=(profile,), compute_capabilities=targets)
    try:
        report = engine.build(onnx_path, options, progress=False).report
    except CourseError as error:
        return Attempt(onnx_path.stem, targets, reason=_reason(error))
    return Attempt(onnx_path.stem, targets, report.plan_bytes, len(report.kernels))


def _reason(error: CourseError) -> str:
    """Return the sentence of TensorRT's message that names the cause, without its source file and call stack."""
    found = re.search(r"(Cannot compile .*?)\.? In compileGraph", error.cause)
    return found[1] if found else error.cause


def attempts(cases: Sequence[tuple[Path, tuple[str, ...]]], profile: engine.Profile) -> list[Attempt]:
    """Build every case, an ONNX file and its targets, in a fresh process: no failed build can touch another."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(lambda case: child_process.run(attempt, case[0], profile, case[1]), cases))


def draw_build_matrix(attempts: Sequence[Attempt]) -> plotting.Picture:
    """Draw models against single compute capabilities: the kernels and kilobytes of each engine, or "refused"."""
    models = list(dict.fromkeys(one.model for one in attempts))
    targets = list(dict.fromkeys(one.targets[0] for one in attempts))
    figure, axes = plotting.new_figure(0.8 + 0.55 * len(models))
    lines = []
    for one in attempts:
        row, column = models.index(one.model), targets.index(one.targets[0])
        colour = plotting.BLUE if one.built else plotting.RED
        text = f"{one.kernels} kernels\n{one.plan_bytes / 1000:.0f} KB" if one.built else "refused"
        axes.barh(row, 0.96, left=column - 0.48, height=0.92, color=colour, hatch="" if one.built else "//", alpha=0.9)
        box = {"boxstyle": "round,pad=0.2", "facecolor": colour, "edgecolor": "none"}
        axes.text(column, row, text, ha="center", va="center", color="white", fontsize=9, weight="bold", bbox=box)
        lines.append(f"{one.model} for {one.targets[0]}: {', '.join(text.splitlines())}")
    plotting.name_rows(axes, models)
    axes.set_xticks(range(len(targets)), targets)
    axes.set_xlabel("compute capability of the target")
    axes.grid(visible=False)
    axes.spines[["bottom", "left"]].set_visible(False)
    refused = ", ".join(f"{one.model} for {one.targets[0]}" for one in attempts if not one.built)
    alt = f"{sum(one.built for one in attempts)} of {len(attempts)} builds succeed. Refused: {refused or 'none'}."
    return plotting.Picture(figure, alt, "\n".join(lines))
