"""NVIDIA's own program for timing engines, `trtexec`, on a plan: what it prints, and the files that it exports."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils.base.errors import BackendUnavailableError, PlanError
from tutorial_utils.base.flavour import installed_flavour


@dataclass(frozen=True)
class Ran:
    """A call of trtexec: its options, as a person would type them, all that it printed, and each exported file."""

    command: str
    output: str
    exported: dict[str, Any]


def missing() -> str:
    """Return why trtexec can't time plans here, or ""."""
    if installed_flavour() == "tensorrt_rtx":
        return "trtexec loads no plans of TensorRT-RTX"
    return "" if shutil.which("trtexec") else "there is no trtexec on the PATH"


def require() -> None:
    """Raise BackendUnavailableError where trtexec can't time plans."""
    if reason := missing():
        raise BackendUnavailableError(
            f"{reason[0].upper()}{reason[1:]}.",
            "It comes with TensorRT's .deb, .tar and container, or is compiled from github.com/NVIDIA/TensorRT.",
        )


def run(plan: bytes, options: Sequence[str] = (), exports: Sequence[str] = ()) -> Ran:
    """Run trtexec on a plan.

    Args:
        plan: The plan, of the very TensorRT that trtexec was built against.
        options: Beside ``--loadEngine``.
        exports: Options that name a file to export, such as "exportTimes".

    Raises:
        PlanError: trtexec refuses the plan, as it does one of another version.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan"
        file.write_bytes(plan)
        written = {name: Path(folder) / f"{name}.json" for name in exports}
        files = [f"--{name}={path}" for name, path in written.items()]
        command = ["trtexec", f"--loadEngine={file}", *options, *files]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            errors = [line for line in (done.stdout + done.stderr).splitlines() if "[E]" in line]
            raise PlanError(f"trtexec refuses the plan: {' '.join(errors[-2:])}.", "Take the trtexec of this TensorRT.")
        typed = " ".join(command).replace(f"{folder}/", "")
        exported = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in written.items()}
        return Ran(typed, (done.stdout + done.stderr).replace(f"{folder}/", ""), exported)


def medians(calls: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the medians of a file that `--exportTimes` wrote, its list of calls: milliseconds.

    "compute" is the GPU's time between two events, "enqueue" the host's for the launches, "copy in", "copy out", and
    "latency", which is their sum without the enqueue.
    """
    columns = {
        "compute": [call["computeMs"] for call in calls],
        "enqueue": [call["endEnqMs"] - call["startEnqMs"] for call in calls],
        "copy in": [call["h2dMs"] for call in calls],
        "copy out": [call["d2hMs"] for call in calls],
        "latency": [call["latencyMs"] for call in calls],
    }
    return {name: float(np.median(ms)) for name, ms in columns.items()}
