"""Lesson 01, hardware targets: the same model in five data types, built for every GPU that TensorRT-RTX knows."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tutorial_utils import engine
from tutorial_utils.base import child_process
from tutorial_utils.base.errors import CourseError

_AT_ONCE = 2


@dataclass(frozen=True)
class Attempt:
    """What came of one build.

    Attributes:
        model: Name of the ONNX file, without its ending.
        targets: The compute capabilities that were asked for; empty for TensorRT-RTX's default.
        plan_bytes: Size of the plan, or None if TensorRT refused.
        kernels: Kernels of the engine, or None if TensorRT refused.
        reason: TensorRT's reason for a refusal, or "".
    """

    model: str
    targets: tuple[str, ...]
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
    """Build every case in a fresh process, so that no failed build can touch another.

    Args:
        cases: ONNX file and compute capabilities of each build.
        profile: The optimization profile of all.

    Returns:
        What came of each case, in order.
    """
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(lambda case: child_process.run(attempt, case[0], profile, case[1]), cases))
