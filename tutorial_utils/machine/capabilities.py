"""The table of what this machine can run and, where it can't, why not and what to do about it.

`probe()` collects the facts (`facts`, and the GPU through its driver) and applies the rules (`rules`).
"""

import dataclasses
import functools
import html
import os
import platform
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.base.flavour import FLAVOURS, choice, installed_flavour
from tutorial_utils.base.gpu import Capability, Gpu, find_gpu
from tutorial_utils.machine.facts import Library, cpu_model, find_libraries, operating_system
from tutorial_utils.machine.rules import judge

Row = tuple[str, str, str, str]  # what, whether it is so here, why, remedy


@dataclass(frozen=True)
class Capabilities:
    """What this machine can run. A notebook shows it as a table, `print` as aligned text."""

    python: str
    platform: str
    cpu: str
    cores: int
    gpu: Gpu | None
    libraries: Mapping[str, str]  # module: version, of what is installed
    driver: Capability
    paddle: Capability
    onnx_export: Capability
    onnxruntime_cpu: Capability
    onnxruntime_cuda: Capability
    tensorrt_build: Capability
    tensorrt_int8: Capability
    tensorrt_run: Capability
    pycuda: Capability
    paddle_gpu: Capability
    paddle_tensorrt: Capability
    polygraphy: Capability

    def capabilities(self) -> list[Capability]:
        """Return all capabilities, in the order of the table."""
        return [value for value in vars(self).values() if isinstance(value, Capability)]

    def missing_for_default(self) -> list[Capability]:
        """Return what the course can't do without and this machine lacks: empty on a machine that is set up."""
        return [capability for capability in self.needed_for_default() if not capability.available]

    def needed_for_default(self) -> list[Capability]:
        """Return what the course can't do without on any machine."""
        return [self.paddle, self.onnx_export, self.onnxruntime_cpu, self.tensorrt_build]

    def runs(self, module: str) -> Capability:
        """Return whether engines of `tensorrt` or `tensorrt_rtx` run here: of two that are installed, one does."""
        chosen = choice()
        if not self.tensorrt_run.available or module == chosen.name:
            return self.tensorrt_run
        this, other = (FLAVOURS.get(name or "", str(name)) for name in (module, chosen.name))
        reason = f"This is {this}, and {other} is the one to run here. {chosen.reason}"
        return dataclasses.replace(self.tensorrt_run, available=False, reason=reason, remedy=f"Import {chosen.name}.")

    def rows(self) -> list[Row]:
        """Return the table, one row for each capability."""
        return [(one.name, "yes" if one.available else "no", one.reason, one.remedy) for one in self.capabilities()]

    def machine(self) -> dict[str, Any]:
        """Return the stamp of a recording: the hardware and software that a measurement depends on."""
        return {
            "gpu": self.gpu.name if self.gpu else None,
            "compute_capability": self.gpu.compute_capability if self.gpu else None,
            "driver_cuda_version": self.gpu.driver_version if self.gpu else None,
            "cpu": self.cpu,
            "cores": self.cores,
            "os": self.platform,
            "python": self.python,
            "libraries": dict(self.libraries),
        }

    def _heading(self) -> str:
        return f"Python {self.python} on {self.platform}; {self.cpu}, {self.cores} cores"

    def __str__(self) -> str:
        width = min(shutil.get_terminal_size().columns, 120)
        return "\n".join([*textwrap.wrap(self._heading(), width), text_table(self.rows())])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))  # what a notebook keeps as plain text

    def _repr_html_(self) -> str:
        # No colours: the page's own are right in light and dark.
        table = "border-collapse: collapse; color: inherit;"
        style = "text-align: left; vertical-align: top; padding: 0.3em 0.8em 0.3em 0;"
        body = ""
        for what, here, why, remedy in self.rows():
            why = html.escape(why)
            if remedy:
                why += "<br>→ " + re.sub("`(.+?)`", r"<code>\1</code>", html.escape(remedy))
            mark = "✓&nbsp;yes" if here == "yes" else "✗&nbsp;no"
            heading = f'<th scope="row" style="{style} white-space: nowrap;">{html.escape(what)}</th>'
            body += f'<tr>{heading}<td style="{style}">{mark}</td><td style="{style}">{why}</td></tr>\n'
        caption = f'<caption style="text-align: left; padding-bottom: 0.5em;">{html.escape(self._heading())}</caption>'
        return f'<table style="{table}">\n{caption}\n<tbody>\n{body}</tbody>\n</table>'


@dataclass(frozen=True)
class Needs:
    """What a part of a lesson uses, as names of fields of `Capabilities`. Its room says it: ``NEEDS[part]``."""

    live: tuple[str, ...]  # it can't run without these
    recorded: tuple[str, ...] = ()  # what needs these is shown from a recording, or left out with the reason


def text_table(rows: Sequence[Row]) -> str:
    """Return rows as text that fits the terminal."""
    width = min(shutil.get_terminal_size().columns, 120)
    what_width, here_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    indent = " " * (what_width + here_width + 4)
    lines = []
    for what, here, why, remedy in rows:
        start = f"{what:{what_width}}  {here:{here_width}}  "
        lines += textwrap.wrap(why, width, initial_indent=start, subsequent_indent=indent)
        # A command stays copyable: it is never broken at its hyphens.
        lines += textwrap.wrap(
            remedy, width, initial_indent=f"{indent}-> ", subsequent_indent=indent + "   ", break_on_hyphens=False
        )
    return "\n".join(lines)


@functools.cache
def probe() -> Capabilities:
    """Find out what this machine can run; the answer is kept for the life of the process.

    Nothing that is broken here can make it raise or end the process: the GPU is asked through its driver alone, without
    making a context on it, and libraries are imported in processes of their own.
    """
    gpu, driver = find_gpu()
    return assess(gpu, driver, find_libraries(), installed_flavour())


def assess(gpu: Gpu | None, driver: Capability, libraries: Mapping[str, Library], flavour: str | None) -> Capabilities:
    """Apply the rules to what was found; the arguments are those of `rules.judge`."""
    return Capabilities(
        python=platform.python_version(),
        platform=operating_system(),
        cpu=cpu_model(),
        cores=os.cpu_count() or 1,
        gpu=gpu,
        libraries={name: library.version for name, library in libraries.items()},
        **judge(gpu, driver, libraries, flavour),
    )


def require_tensorrt_run() -> Capabilities:
    """Return what this machine can run, if TensorRT engines are part of it: what every GPU measurement starts with.

    Raises:
        BackendUnavailableError: TensorRT engines can't run here.
    """
    machine = probe()
    if not machine.tensorrt_run.available:
        raise BackendUnavailableError(machine.tensorrt_run.reason, machine.tensorrt_run.remedy)
    return machine
