"""The doctor's rows, and its checks of the system: Python, packages, disk, memory, the cache.

Nothing but the standard library is imported here: the doctor must also work where nothing is installed.
"""

import functools
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tutorial_utils.base import paths, requirements
from tutorial_utils.base.flavour import is_installed
from tutorial_utils.base.requirements import pip_install
from tutorial_utils.machine.facts import Library

PYTHONS = ((3, 10), (3, 11), (3, 12))  # those that Paddle 3.3.1 and TensorRT-RTX both have wheels for
GIB = 2**30
INSTALLED_BYTES = 4 * GIB  # 2.1 measured for the default environment, and pip's own copies of what it downloads
WORKING_BYTES = GIB  # room for models and engines
# `make memory` measured 2.0 GiB in lesson 01c, the largest; JupyterLab is beside it.
MEMORY_BYTES = 5 * GIB // 2


@dataclass(frozen=True)
class Fix:
    """A change that mends a check without touching any package's version."""

    what: str  # the end of "Shall I ...?"
    apply: Callable[[], None]


@dataclass(frozen=True)
class Check:
    """One row of the doctor's table."""

    name: str  # what was looked at
    status: Literal["yes", "warning", "no"]  # warning: it works, but something about it will surprise
    reason: str  # one sentence: what was found
    remedy: str = ""  # what to do about it. Empty where there is nothing to do
    fix: Fix | None = None  # the change that mends it, where one is safe to make
    needed: bool = False  # whether the lessons can't run without it


# What a check found: status, reason and, where there are any, remedy and fix.
Found = tuple[str, str] | tuple[str, str, str] | tuple[str, str, str, Fix]


def row(name: str, *, needed: bool = False) -> Callable[[Callable[..., Found | None]], Callable[..., Check | None]]:
    """Make a check return its row, or None where it says nothing about this machine.

    An exception becomes the row as well, so that one broken check doesn't hide the others.
    """

    def decorate(check: Callable[..., Found | None]) -> Callable[..., Check | None]:
        @functools.wraps(check)
        def guarded(*arguments: Any) -> Check | None:
            try:
                found = check(*arguments)
            except Exception as error:  # whatever a damaged installation makes it raise
                found = "warning", f"This can't be examined: {type(error).__name__}: {error}."
            return Check(name, *found, needed=needed) if found else None

        return guarded

    return decorate


@row("Python", needed=True)
def python() -> Found:
    """Python's version and the system that it was made for."""
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {sys.prefix}."
    if sys.platform != "linux" or platform.machine().lower() not in ("x86_64", "amd64"):
        remedy = "Use Linux on x86-64, for example a container, a virtual machine or WSL 2."
        return "no", f"{found} The libraries have no wheels for it.", remedy
    if sys.version_info[:2] not in PYTHONS:
        remedy = "Install Python 3.10, 3.11 or 3.12, then run `make clean course PYTHON=python3.11`."
        return "no", f"{found} Paddle 3.3.1 needs 3.10, 3.11 or 3.12.", remedy
    return "yes", found


@row("Packages", needed=True)
def packages(libraries: Mapping[str, Library]) -> Found:
    """The light dependencies of the package, JupyterLab among them."""
    needed = requirements.light()
    if not needed:
        reason = "What the course needs isn't known here: the package is neither in a clone nor installed."
        return "no", reason, "Clone the course, and run `make course` in it."
    missing = {module: requirement for module, requirement in needed.items() if not is_installed(module)}
    if not missing:
        return "yes", f"All {len(needed)} packages beside the large libraries."
    if (paths.ROOT / ".venv" / "installed").exists() and Path(sys.prefix) != paths.ROOT / ".venv":
        command = ".venv/bin/python -m tutorial_utils doctor"
        remedy = f"`make` set up another Python: in {paths.ROOT}, run `make doctor`, or `{command}`."
        return "no", f"Missing in this Python: {', '.join(missing)}.", remedy
    # The whole list of tested versions is right only where nothing can be overwritten by it.
    remedy = f"Run `{pip_install(*missing.values())}`."
    if not libraries:
        remedy = "Run `make course`, or `python -m pip install -r requirements.txt`: it installs the libraries too."
    return "no", f"Missing: {', '.join(missing)}.", remedy


@row("Text detection network")
def text_detection() -> Found:
    """The package that holds the network of lesson 04; requirements.txt can't list it, see `requirements`."""
    if is_installed("rapidocr_onnxruntime"):
        return "yes", "rapidocr-onnxruntime is installed, which ships the network of lesson 04."
    remedy = f"Run `{pip_install(requirements.TEXT_DETECTION, options='--no-deps')}`."
    return "no", "rapidocr-onnxruntime, which ships the network of lesson 04, is not installed.", remedy


@row("Disk")
def disk(complete: bool) -> Found:
    """Free space where the next thing is written: models and engines where the installation is complete."""
    place, wanted = (_existing(_cache_root()), WORKING_BYTES) if complete else (Path(sys.prefix), INSTALLED_BYTES)
    free = shutil.disk_usage(place).free
    purpose = "models and engines" if complete else "the libraries"
    reason = f"{free / GIB:.1f} GiB free at {place}; {purpose} want {wanted / GIB:.0f} GiB."
    if free >= wanted:
        return "yes", reason
    remedy = "Free some space (`python -m pip cache purge` helps)"
    if complete:
        remedy += f", or set {paths.CACHE_VARIABLE} to a folder on another disk"
    return "warning", reason, f"{remedy}."


@row("Memory")
def memory() -> Found:
    """Memory that is free for a lesson, below the limit of a container where there is one."""
    available = _available_memory()
    reason = f"{available / GIB:.1f} GiB available; a lesson wants {MEMORY_BYTES / GIB:.1f} GiB."
    if available >= MEMORY_BYTES:
        return "yes", reason
    return "warning", reason, "Close other programs, or raise the memory limit of the container."


def _available_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    meminfo = (proc / "meminfo").read_text()
    available = int(re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE).group(1)) * 1024
    lines = (line.split(":", 2) for line in (proc / "self" / "cgroup").read_text().splitlines())
    for _, controllers, path in lines:
        if controllers == "memory":  # version 1 of control groups
            folder, names = groups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        elif not controllers:  # version 2
            folder, names = groups, ("memory.max", "memory.current", "inactive_file")
        else:
            continue
        own = folder / path.strip("/")
        for group in (own, *own.parents):  # a limit may lie on any of them; a container sees its own as the first
            if group.is_relative_to(folder):
                available = min(available, _below_limit(group, *names, otherwise=available))
    return max(available, 0)


def _below_limit(group: Path, limit: str, used: str, reclaimable: str, otherwise: int) -> int:
    """Return how much a control group has left; what it keeps of files is given up where memory is wanted."""
    try:
        found = re.search(rf"^{reclaimable} (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
        kept = int(found[1]) if found else 0
        return int((group / limit).read_text()) - int((group / used).read_text()) + kept
    except (OSError, ValueError):  # no such file, or "max": no limit
        return otherwise


@row("Cache", needed=True)
def cache() -> Found:
    """Whether generated files can be written, tried with a file."""
    try:
        folder = paths.cache_root()
    except ImportError:
        reason = "The user's cache folder isn't known without platformdirs."
        return "no", reason, f"Run `{pip_install(requirements.requirement('platformdirs'))}`."
    if not os.path.lexists(folder) and os.access(_existing(folder), os.W_OK | os.X_OK):
        return "yes", f"{folder} is created when it is first used."
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remedy = f"Give yourself write access, or set {paths.CACHE_VARIABLE} to a folder that you can write to."
        return "no", f"{folder} can't be written to: {error.strerror}.", remedy
    return "yes", f"{folder} can be written to."


def _cache_root() -> Path:
    try:
        return paths.cache_root()
    except ImportError:
        return Path.home()


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
