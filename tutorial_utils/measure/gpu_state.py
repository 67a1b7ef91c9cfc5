"""Clocks, power and temperature of the first GPU, which decide how fast it is: from NVIDIA's own command."""

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
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(_QUERIES.values())}", "--format=csv,noheader,nounits"]
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
