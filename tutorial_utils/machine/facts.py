"""What is found on this machine: its libraries, each imported in a process of its own, and its hardware's names."""

import contextlib
import importlib.metadata
import platform
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutorial_utils.base.flavour import is_installed
from tutorial_utils.base.requirements import DISTRIBUTIONS
from tutorial_utils.machine import child

# One process for each line. paddle2onnx imports Paddle itself, so the two share one: Paddle's import is the slowest.
_IMPORTS = (("paddle", "paddle2onnx"), ("onnxruntime",), ("polygraphy",), ("tensorrt_rtx",), ("tensorrt",), ("pycuda",))


@dataclass(frozen=True)
class Library:
    """What became of one installed library."""

    version: str  # its version, or "" where it doesn't say
    error: str = ""  # why it can't be imported, or ""
    late: bool = False  # whether that is because its import took too long: it may be sound
    details: Mapping[str, Any] = field(default_factory=dict)  # what only the imported library knows: `child.modules`
    distributions: tuple[str, ...] = ()  # the installed packages that hold it, of those in `requirements.DISTRIBUTIONS`


def find_libraries() -> dict[str, Library]:
    """Return the installed ones of the course's libraries by module name, after trying to import them elsewhere."""
    groups = [[name for name in group if is_installed(name)] for group in _IMPORTS]
    with ThreadPoolExecutor(len(groups)) as pool:
        found = pool.map(_import_elsewhere, filter(None, groups))
    return {name: library for group in found for name, library in group.items()}


def _import_elsewhere(modules: Sequence[str]) -> dict[str, Library]:
    """Import the modules one after the other in one other process, and say what became of each."""
    answer = child.ask("modules", *modules)
    libraries = {}
    for module in modules:
        versions = installed_versions(module)
        report = answer.values.get(module, {})
        if not report:
            ended = f"importing it ends Python ({answer.end})" if answer.end else answer.error
            report = {"error": ended or "importing it gives no answer", "late": answer.late}
        elif module == "tensorrt" and (answer.end or answer.late):  # after the import
            ended = f"making one ends the process ({answer.end})" if answer.end else f"making one gives {answer.error}"
            report = {**report, "details": {"builder_error": ended}}
        libraries[module] = Library(
            version=report.get("version") or next(iter(versions.values()), ""),
            error=report.get("error", ""),
            late=report.get("late", False),
            details=report.get("details", {}),
            distributions=tuple(versions),
        )
    return libraries


def installed_versions(module: str) -> dict[str, str]:
    """Return the versions of the installed ones of the packages that can hold a module, without importing it."""
    versions = {}
    for distribution in DISTRIBUTIONS[module]:
        with contextlib.suppress(Exception):  # not installed, or metadata damaged in any of many ways
            versions[distribution] = str(importlib.metadata.version(distribution) or "")
    return versions


def operating_system() -> str:
    """Return the name of the system and of the kind of its processor."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = f"{platform.system()} {platform.release()}"
    return f"{name}, {platform.machine()}"


def cpu_model() -> str:
    """Return the name of the processor."""
    found = None
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: *(.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()
