"""NVIDIA's kernel profiler, Nsight Compute (`ncu`), on one call of an engine: counters of each kernel.

As a program, this module is what ncu watches: ``python -m tutorial_utils.measure.ncu PLAN`` runs a plan once.
"""

import csv
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_utils.base.errors import BackendUnavailableError, PlanError

_LIMIT_S = 200  # ncu runs each kernel several times, once for each group of counters


def require() -> None:
    """Raise BackendUnavailableError where there is no ncu on the PATH."""
    if not shutil.which("ncu"):
        raise BackendUnavailableError("There is no ncu on the PATH.", "It comes with the CUDA toolkit.")


def metrics() -> list[str]:
    """Return the names of the counters that this GPU has, as ncu lists them."""
    return [line.split()[0] for line in _run("ncu", "--query-metrics").splitlines() if line.strip()]


def counted(plan: bytes, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Run a plan once under ncu; return for each kernel its name, and its counts and their units by metric.

    Raises:
        BackendUnavailableError: There is no ncu.
        PlanError: ncu counts nothing, as where the driver keeps the GPU's counters to administrators.
    """
    require()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan"
        path.write_bytes(plan)
        watched = (sys.executable, "-m", "tutorial_utils.measure.ncu", str(path))
        return kernels_in(_run("ncu", "--csv", "--metrics", ",".join(wanted), *watched))


def kernels_in(printed: str) -> list[dict[str, Any]]:
    """Read what ``ncu --csv`` printed: lines that begin with "==" and the program's own, then a line for each count.

    Raises:
        PlanError: It holds no table; the reason is ncu's own.
    """
    lines = printed.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        said = [line for line in lines if "==ERROR==" in line] or lines[-1:]
        raise PlanError(f"ncu counted nothing: {' '.join(said).strip()}.", "Its message says why.")
    kernels: dict[str, dict[str, Any]] = {}
    for row in csv.DictReader(line for line in lines[start:] if line.startswith('"')):
        kernel = kernels.setdefault(row["ID"], {"kernel": row["Kernel Name"], "counts": {}, "units": {}})
        try:
            kernel["counts"][row["Metric Name"]] = float(row["Metric Value"].replace(",", ""))
        except ValueError:  # "n/a": this GPU doesn't have it after all
            continue
        kernel["units"][row["Metric Name"]] = row["Metric Unit"]
    return list(kernels.values())


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise PlanError(f"ncu didn't end within {_LIMIT_S} s.", "Run it by hand.") from error
    return done.stdout if done.returncode == 0 else f"{done.stdout}\n{done.stderr}"


def run_once(plan: Path) -> None:
    """Run a plan on inputs of zeros, once."""
    from tutorial_utils.runners.tensorrt import TensorRTRunner, primary_context

    with primary_context(), TensorRTRunner(plan.read_bytes()) as runner:
        runner.infer({name: np.zeros(spec.shape, spec.dtype) for name, spec in runner.inputs.items()})


if __name__ == "__main__":
    run_once(Path(sys.argv[1]))
