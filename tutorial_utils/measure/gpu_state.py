"""Clocks, power and temperature of the GPU in use, which decide how fast it is: from NVIDIA's own command."""

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
    return parse(done.stdout) if done.returncode == 0 else {}


def parse(line: str) -> dict[str, Any]:
    """Read the line of the query. A value that the GPU doesn't tell, "[N/A]", is left out."""
    found = {}
    for name, text in zip(_QUERIES, line.strip().split(","), strict=False):
        try:
            found[name] = float(text)
        except ValueError:
            continue
    return found
