"""Clocks, power and temperature of the GPU in use, which decide how fast it is: from NVIDIA's own command."""

import contextlib
import os
import subprocess
from typing import Any

_QUERIES = {
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "watts": "power.draw",
    "celsius": "temperature.gpu",
}


def read() -> dict[str, Any]:
    """Return clocks in MHz, power in watts and temperature in degrees Celsius; empty where nvidia-smi can't tell."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip() or "0"  # a number or a UUID
    command = ["nvidia-smi", "-i", first, f"--query-gpu={','.join(_QUERIES.values())}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found = {}
    if done.returncode == 0:
        for name, text in zip(_QUERIES, done.stdout.split(","), strict=False):
            with contextlib.suppress(ValueError):  # "[N/A]": this GPU doesn't tell it
                found[name] = float(text)
    return found
