"""Examine this machine, say what to mend in which order, and mend what is safe: `python -m tutorial_utils doctor`.

The rules about GPUs and libraries are those of `rules`, which lessons show too. The checks beyond them are in
`checks` and `library_checks`. Here they are put in the order in which a person would mend them.
"""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tutorial_utils.base.flavour import installed_flavour, is_installed
from tutorial_utils.base.gpu import Capability, find_gpu
from tutorial_utils.base.lesson_names import import_room, part_of
from tutorial_utils.base.paths import ROOT
from tutorial_utils.machine import checks, library_checks
from tutorial_utils.machine.capabilities import Capabilities, Needs, assess, text_table
from tutorial_utils.machine.checks import Check
from tutorial_utils.machine.child import ask
from tutorial_utils.machine.facts import find_libraries, installed_versions

NOTEBOOKS = ROOT / "notebooks"


@dataclass(frozen=True)
class LessonOutlook:
    """How one lesson, by the name of its notebook, will run on this machine, and why: one sentence."""

    lesson: str
    runs: Literal["live", "in part", "no"]  # in part: the rest is shown from recordings
    reason: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything that the doctor found."""

    checks: Sequence[Check]  # in the order in which a person would mend them
    lessons: Sequence[LessonOutlook]  # those whose notebooks are there
    machine: Mapping[str, Any]  # hardware and versions, as in the stamp of a recording

    @property
    def first_to_mend(self) -> Check | None:
        """The first check that keeps the lessons from running, or None."""
        return next((check for check in self.checks if check.needed and check.status == "no"), None)

    def to_json(self) -> str:
        """Return everything as a JSON object with the keys "ready", "checks", "lessons" and "machine"."""
        rows = [vars(check) | {"fix": check.fix.what if check.fix else None} for check in self.checks]
        lessons = [vars(lesson) for lesson in self.lessons]
        found = {"ready": self.first_to_mend is None, "checks": rows, "lessons": lessons, "machine": self.machine}
        return json.dumps(found, indent=2)

    def __str__(self) -> str:
        parts = [text_table([(check.name, check.status, check.reason, check.remedy) for check in self.checks])]
        if self.lessons:
            parts.append(text_table([(lesson.lesson, lesson.runs, lesson.reason, "") for lesson in self.lessons]))
        end = "Ready: the lessons run here. What can't run live is shown from recordings."
        if not self.lessons:
            end = "Ready: the package works here. The lessons are in a clone of the course, which this isn't."
        if first := self.first_to_mend:
            end = f"Not ready. Mend this first: {first.name}. {first.remedy}"
        return "\n\n".join([*parts, end])


def examine() -> Diagnosis:
    """Look at this machine. Nothing that is broken here makes it raise."""
    # Each question starts a process of its own, at once with those of `find_libraries`.
    with ThreadPoolExecutor() as pool:
        asked = {}
        if is_installed("jupyter_client"):
            asked["kernel"] = pool.submit(ask, "kernel")
        if is_installed("pycuda"):
            asked["context"] = pool.submit(ask, "context")
        if "paddlepaddle-gpu" in installed_versions("paddle"):
            asked["libraries"] = pool.submit(ask, "libraries", environment=library_checks.loader_environment())
        imports = pool.submit(find_libraries)
        gpu, driver = find_gpu()
        libraries = imports.result()
        answers = {question: answer.result() for question, answer in asked.items()}
    found = assess(gpu, driver, libraries, installed_flavour())

    context = library_checks.pycuda_context(found.pycuda, answers.get("context"))
    if context and context.status == "no" and found.tensorrt_run.available:
        run = Capability(found.tensorrt_run.name, False, context.reason, context.remedy)
        found = dataclasses.replace(found, tensorrt_run=run)
    loader = answers.get("libraries")
    rows = [
        checks.python(),
        checks.packages(libraries),
        checks.disk(not found.missing_for_default()),
        checks.memory(),
        *_rows(found, "driver"),
        library_checks.tensorrt_choice(),
        *_rows(found, "tensorrt_build", "tensorrt_int8", "paddle", "onnx_export", "paddle_gpu"),
        library_checks.paddle_libraries(loader),
        library_checks.paddle_tensorrt_version(libraries.get("paddle"), loader),
        *_rows(found, "paddle_tensorrt", "pycuda"),
        context,
        *_rows(found, "tensorrt_run", "onnxruntime_cpu", "onnxruntime_cuda", "polygraphy"),
        library_checks.polygraphy_switch(libraries),
        checks.text_detection(),
        library_checks.kernel(answers.get("kernel")),
        checks.cache(),
    ]
    lessons = [outlook(path.stem, needs, found) for path in notebooks() if (needs := needs_of(part_of(path) or ""))]
    return Diagnosis([row for row in rows if row], lessons, found.machine())


def notebooks(folder: Path = NOTEBOOKS) -> list[Path]:
    """Return the notebooks of the lessons that exist, in order."""
    return sorted(path for path in folder.glob("*.ipynb") if part_of(path))


def needs_of(part: str) -> Needs | None:
    """Return what a part of a lesson needs; None where its room doesn't say."""
    room = import_room(part)
    return room.NEEDS.get(part) if room else None


def outlook(lesson: str, needs: Needs, found: Capabilities) -> LessonOutlook:
    """Say how a lesson will run."""
    wanted = [[getattr(found, field) for field in fields] for fields in (needs.live, needs.recorded)]
    live, recorded = (", ".join(one.name for one in several if not one.available) for several in wanted)
    if live:
        return LessonOutlook(lesson, "no", f"It can't run without: {live}.")
    if recorded:
        return LessonOutlook(lesson, "in part", f"From recordings, or left out: {recorded}.")
    return LessonOutlook(lesson, "live", "Everything runs on this machine.")


def _rows(found: Capabilities, *fields: str) -> list[Check]:
    """Turn capabilities into rows of the doctor's table."""
    needed = found.needed_for_default()
    rows = []
    for field in fields:
        capability = getattr(found, field)
        status = "yes" if capability.available else "no"
        rows.append(Check(capability.name, status, capability.reason, capability.remedy, needed=capability in needed))
    return rows


def mend(diagnosis: Diagnosis, accept_all: bool = False) -> int:
    """Offer each safe change, make those that are accepted, and print what became of them.

    Return how many were made. Where it has to ask, and stdin is no terminal, nothing is changed.
    """
    fixable = [check for check in diagnosis.checks if check.fix]
    if not fixable:
        print("There is nothing that --fix could mend.")
    made = 0
    for check in fixable:
        if not accept_all and not _agreed(f"{check.name}: shall I {check.fix.what}? [y/N] "):
            print("Left as it is.")
            continue
        try:
            check.fix.apply()
        except subprocess.CalledProcessError as error:
            lines = (error.stderr or "").strip().splitlines() or [str(error)]
            print(f"{check.name}: that failed: {lines[-1]}")
        except Exception as error:  # one that fails must not keep the others from being tried
            print(f"{check.name}: that failed: {error}")
        else:
            print(f"{check.name}: done ({check.fix.what}).")
            made += 1
    return made


def _agreed(question: str) -> bool:
    if not sys.stdin or not sys.stdin.isatty():
        print(f"{question}\nstdin is no terminal, so that is a no; --yes accepts all.")
        return False
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def run(*, as_json: bool = False, fix: bool = False, accept_all: bool = False) -> int:
    """Examine and print, `mend` if wanted, and return the exit status: 0 where the lessons run, else 1."""
    diagnosis = examine()
    print(diagnosis.to_json() if as_json else diagnosis)
    if fix:
        print()
        if mend(diagnosis, accept_all):
            diagnosis = examine()
            print(f"\n{diagnosis}")
    return 1 if diagnosis.first_to_mend else 0
