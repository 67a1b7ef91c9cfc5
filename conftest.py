"""How the notebooks are tested: nbval runs each code cell as a test, and this file mends where that misleads.

Two parts of nbval are replaced, which is why pyproject.toml pins it. tests/authoring/test_nbval_traps.py has a
notebook for each thing that is mended here.
"""

import os
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from queue import Empty

import nbval.plugin
import pytest
from nbformat import NotebookNode
from nbval.plugin import IPyNbCell

from tutorial_utils.authoring.course import kernel_environment
from tutorial_utils.authoring.notebook_form import tags
from tutorial_utils.base import flavour, requirements
from tutorial_utils.base.paths import CACHE_VARIABLE
from tutorial_utils.machine.capabilities import probe
from tutorial_utils.measure.recordings import ORIGIN_MIME_TYPE

# Warnings of libraries differ between machines, and HTML shows what the text/plain beside it shows.
NOT_COMPARED = ("stderr", "text/html")

FAILED_CELL = pytest.StashKey[str]()

NOTEBOOKS_CACHE = "TUTORIAL_UTILS_NOTEBOOKS_CACHE"  # the variable that tells the processes of a run their common folder


def pytest_configure(config: pytest.Config) -> None:
    """Give the notebooks of a run a new cache, common to its processes: a network is trained once for all of them.

    It isn't that of the tests in tests/, which put other networks in the course's place.
    """
    if not hasattr(config, "workerinput"):  # a worker of pytest-xdist has it from the process that started it
        folder = tempfile.TemporaryDirectory(prefix="notebooks-cache-", ignore_cleanup_errors=True)
        os.environ[NOTEBOOKS_CACHE] = folder.name
        config.add_cleanup(folder.cleanup)


@pytest.fixture(scope="session")
def notebooks_cache() -> Path:
    """The cache that the notebooks of this run share."""
    return Path(os.environ[NOTEBOOKS_CACHE])


class KernelDiedError(RuntimeError):
    """The kernel's process ended while a cell ran."""


class CourseKernel(nbval.plugin.RunningKernel):
    """nbval's kernel, behaving as one that Jupyter starts, and noticed within a second when it dies."""

    def __init__(self, *args, **kwargs):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in kernel_environment().items():
                patch.setenv(name, value)
            patch.setenv(CACHE_VARIABLE, os.environ[NOTEBOOKS_CACHE])
            # ipykernel leaves native output (TensorRT, Paddle) uncaptured where it finds this variable.
            patch.delenv("PYTEST_CURRENT_TEST", raising=False)
            super().__init__(*args, **kwargs)

    def execute_cell_input(self, cell_input, allow_stdin=None):
        """Execute with history, unlike nbval: without it IPython shows what a trailing semicolon should hide."""
        return self.kc.execute(cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)

    def get_message(self, stream, timeout=None):
        """Wait in steps of a second, unlike nbval, which waits the whole cell time-out for a dead kernel."""
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while True:
            try:
                return super().get_message(stream, timeout=max(0, min(1, deadline - time.monotonic())))
            except Empty:
                if not self.is_alive():
                    raise KernelDiedError from None
                if time.monotonic() >= deadline:
                    raise


nbval.plugin.RunningKernel = CourseKernel


def is_recorded_environment() -> bool:
    """Say whether the committed outputs can be expected here: those of the default TensorRT, with no GPU to run it.

    Another TensorRT fuses other layers, and a GPU adds rows. There every cell still runs, and its asserts count.
    """
    pinned = requirements.requirement("tensorrt_rtx").rpartition("==")[2]
    return flavour.installed_version("tensorrt_rtx") == pinned and not probe().tensorrt_run.available


def pytest_report_header() -> str | None:
    """Say when committed outputs are not compared."""
    if is_recorded_environment():
        return None
    return "notebooks: run, but outputs are not compared: they are those of the default TensorRT without a GPU"


def without_origins(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Leave out what only says whether a result is live or a recording: that depends on the machine."""
    return [output for output in outputs if ORIGIN_MIME_TYPE not in output.get("data", {})]


def compare_outputs(cell, test, ref, skip_compare=None, compare=IPyNbCell.compare_outputs):
    """Compare a cell's outputs as nbval does, but for the origins."""
    return compare(cell, without_origins(test), without_origins(ref), skip_compare)


IPyNbCell.compare_outputs = compare_outputs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the cells that are tagged gpu, and leave out of every comparison what differs between machines."""
    notebooks = set()
    for item in items:
        if isinstance(item, IPyNbCell):
            notebooks.add(item.parent)
            item.options["check"] = item.options["check"] and is_recorded_environment()
            if "gpu" in tags(item.cell):
                item.add_marker("gpu")
    for notebook in notebooks:
        notebook.skip_compare += NOT_COMPARED


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none, and what comes after a failed cell, which would only fail again."""
    if item.get_closest_marker("gpu"):
        gpu = probe().tensorrt_run
        if not gpu.available:
            pytest.skip(gpu.reason)
    if isinstance(item, IPyNbCell) and FAILED_CELL in item.parent.stash:
        pytest.skip(f"{item.parent.stash[FAILED_CELL]} of this notebook failed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail cells that nbval would pass though they show nothing, and remember a notebook's first failure."""
    if not isinstance(item, IPyNbCell):
        return (yield)
    try:
        if item.options["check"] and item.cell.source.strip() and item.cell.execution_count is None:
            item.raise_cell_error("The output is to be checked, and none is recorded: run `make notebooks`")
        yield
        if item.options["check_exception"] and not any(out.output_type == "error" for out in item.test_outputs):
            item.raise_cell_error("The cell is tagged raises-exception, and nothing was raised")
    except KernelDiedError:
        item.parent.stash[FAILED_CELL] = item.name
        item.raise_cell_error("The kernel died: a native library crashed, or memory ran out")
    except Exception:
        item.parent.stash[FAILED_CELL] = item.name
        raise
