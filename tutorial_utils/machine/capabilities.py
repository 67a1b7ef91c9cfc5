"""What this machine can run and, where it can't, why not and what to do about it.

`probe()` first collects facts: the GPU through its driver, each library imported in a process of its own. Then
`assess()` turns the facts into a yes or a no for each thing that the course does: it is where the rules are.
"""

import dataclasses
import functools
import html
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.base.flavour import FLAVOUR_VARIABLE, FLAVOURS, installed_flavour, is_installed, mistyped
from tutorial_utils.base.gpu import Capability, Gpu, find_gpu
from tutorial_utils.machine import import_check

# What to install: the versions that the course was tested with. A test compares them with pyproject.toml.
INSTALL = {
    "paddle": "python -m pip install paddlepaddle==3.3.1",
    "paddle2onnx": "python -m pip install paddle2onnx==2.1.0",
    "onnxruntime": "python -m pip install onnxruntime",
    "polygraphy": 'python -m pip install "polygraphy>=0.53.6,<0.60"',
    "tensorrt_rtx": "python -m pip install tensorrt-rtx==1.7.1.116",
    "tensorrt": 'python -m pip install "tensorrt>=10,<12"',
    "pycuda": "python -m pip install pycuda",
}
HOPPER = "9.0"
RTX_FOR_HOPPER = "python -m pip install tensorrt-rtx==1.6.1.120"
FULL_STACK = "Create the environment of environment.yml: it has Paddle's GPU build, TensorRT 10 and PyCUDA."

# The packages that can hold a module. Both of a pair can be installed at once; the first is the one for the GPU.
DISTRIBUTIONS = {
    "paddle": ("paddlepaddle-gpu", "paddlepaddle"),
    "paddle2onnx": ("paddle2onnx",),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "polygraphy": ("polygraphy",),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "pycuda": ("pycuda",),
}

# One process for each line. paddle2onnx imports Paddle itself, so the two share one: Paddle's import is the slowest.
_IMPORTS = (("paddle", "paddle2onnx"), ("onnxruntime",), ("polygraphy",), ("tensorrt_rtx",), ("tensorrt",), ("pycuda",))
_IMPORT_SECONDS = 2.2  # the whole probe stays below 3 s; a library that takes longer counts as working, and says so


@dataclass(frozen=True)
class Library:
    """What became of one installed library.

    Attributes:
        version: Its version, or "" where it doesn't say.
        error: Why it can't be imported, or "".
        slow: The import took so long that it was given up; nothing else speaks against the library.
        details: What only the imported library knows; the keys are in `import_check`.
        distributions: The installed packages that hold it, of those in `DISTRIBUTIONS`.
    """

    version: str
    error: str = ""
    slow: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
    distributions: tuple[str, ...] = ()


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
        values = (getattr(self, entry.name) for entry in dataclasses.fields(self))
        return [value for value in values if isinstance(value, Capability)]

    def missing_for_default(self) -> list[Capability]:
        """Return what the course can't do without and this machine lacks: empty on a machine that is set up."""
        return [capability for capability in self.needed_for_default() if not capability.available]

    def needed_for_default(self) -> list[Capability]:
        """Return what the course can't do without on any machine."""
        return [self.paddle, self.onnx_export, self.onnxruntime_cpu, self.tensorrt_build]

    def rows(self) -> list[dict[str, str]]:
        """Return the table, one row for each capability, with the keys "what", "here", "why" and "remedy"."""
        return [
            {
                "what": entry.name,
                "here": "yes" if entry.available else "no",
                "why": entry.reason,
                "remedy": entry.remedy,
            }
            for entry in self.capabilities()
        ]

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

    def to_json(self) -> str:
        """Return everything as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def _heading(self) -> str:
        return f"Python {self.python} on {self.platform}; {self.cpu}, {self.cores} cores"

    def __str__(self) -> str:
        width = min(shutil.get_terminal_size().columns, 120)
        return "\n".join([*textwrap.wrap(self._heading(), width), text_table(self.rows())])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))  # what a notebook keeps as plain text

    def _repr_markdown_(self) -> str:
        def cell(text: str) -> str:
            return text.replace("|", r"\|")

        lines = [self._heading(), "", "| what | here | why | remedy |", "|:--|:--|:--|:--|"]
        lines += ["| " + " | ".join(cell(text) for text in row.values()) + " |" for row in self.rows()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        # No colours: the page's own are right in light and dark.
        table = "border-collapse: collapse; color: inherit;"
        style = "text-align: left; vertical-align: top; padding: 0.3em 0.8em 0.3em 0;"
        body = ""
        for row in self.rows():
            why = html.escape(row["why"])
            if row["remedy"]:
                remedy = re.sub("`(.+?)`", r"<code>\1</code>", html.escape(row["remedy"]))
                why += f"<br>→ {remedy}"
            mark = "✓&nbsp;yes" if row["here"] == "yes" else "✗&nbsp;no"
            what = f'<th scope="row" style="{style} white-space: nowrap;">{html.escape(row["what"])}</th>'
            body += f'<tr>{what}<td style="{style}">{mark}</td><td style="{style}">{why}</td></tr>\n'
        caption = f'<caption style="text-align: left; padding-bottom: 0.5em;">{html.escape(self._heading())}</caption>'
        return f'<table style="{table}">\n{caption}\n<tbody>\n{body}</tbody>\n</table>'


def text_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows with the keys "what", "here", "why" and "remedy" as text that fits the terminal."""
    width = min(shutil.get_terminal_size().columns, 120)
    what_width = max(len(row["what"]) for row in rows)
    here_width = max(len(row["here"]) for row in rows)
    indent = " " * (what_width + here_width + 4)
    lines = []
    for row in rows:
        start = f"{row['what']:{what_width}}  {row['here']:{here_width}}  "
        lines += textwrap.wrap(row["why"], width, initial_indent=start, subsequent_indent=indent)
        if row["remedy"]:
            arrow = f"{indent}-> "
            # A command stays copyable: it is never broken at its hyphens.
            lines += textwrap.wrap(
                row["remedy"], width, initial_indent=arrow, subsequent_indent=indent + "   ", break_on_hyphens=False
            )
    return "\n".join(lines)


@functools.cache
def probe() -> Capabilities:
    """Find out what this machine can run.

    Nothing that is broken here can make it raise or end the process: the GPU is asked through its driver alone, without
    making a context on it, and libraries are imported in processes of their own, which are given up after 2.2 s. The
    answer is kept for the life of the process.
    """
    gpu, driver = find_gpu()
    return assess(gpu, driver, find_libraries(), installed_flavour())


def require_tensorrt_run() -> Capabilities:
    """Return what this machine can run, if TensorRT engines are part of it: what every GPU measurement starts with.

    Raises:
        BackendUnavailableError: TensorRT engines can't run here.
    """
    machine = probe()
    if not machine.tensorrt_run.available:
        raise BackendUnavailableError(machine.tensorrt_run.reason, machine.tensorrt_run.remedy)
    return machine


def find_libraries() -> dict[str, Library]:
    """Find the installed ones of the libraries that the course uses, and try to import them in other processes.

    Returns:
        The installed libraries by module name, whether they can be imported or not.
    """
    groups = [[name for name in group if is_installed(name)] for group in _IMPORTS]
    with ThreadPoolExecutor(len(groups)) as pool:
        found = pool.map(_import_elsewhere, groups)
    return {name: library for group in found for name, library in group.items()}


def _import_elsewhere(modules: Sequence[str]) -> dict[str, Library]:
    """Import the modules one after the other in one other process, and say what became of each."""
    if not modules:
        return {}
    try:
        child = subprocess.run(
            [sys.executable, "-I", import_check.__file__, json.dumps(sys.path), *modules],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_IMPORT_SECONDS,
        )
        output, status = child.stdout, child.returncode
    except subprocess.TimeoutExpired as error:
        output, status = error.stdout or b"", None
    except OSError:  # no process can be started: say what the packages' metadata says
        output, status = b"", None

    reports = {}
    for line in output.decode(errors="replace").splitlines():
        if line.startswith(import_check.REPORT_PREFIX):
            reports.update(json.loads(line[len(import_check.REPORT_PREFIX) :]))
    libraries = {}
    for module in modules:
        versions = installed_versions(module)
        report = reports.get(module, {})
        if not report and status is not None:
            report = {"error": f"importing it ends Python ({how_it_ended(status)})"}
        libraries[module] = Library(
            version=report.get("version") or next(iter(versions.values()), ""),
            error=report.get("error", ""),
            slow=not report,
            details=report.get("details", {}),
            distributions=tuple(versions),
        )
    return libraries


def how_it_ended(status: int) -> str:
    """Return a process's exit status in words: the signal that killed it, or the number."""
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"exit status {status}"


def installed_versions(module: str) -> dict[str, str]:
    """Return the versions of the installed ones of the packages that can hold a module, without importing it."""
    versions = {}
    for distribution in DISTRIBUTIONS[module]:
        try:
            versions[distribution] = str(importlib.metadata.version(distribution) or "")
        except Exception:  # not installed, or metadata damaged in any of many ways
            continue
    return versions


def assess(gpu: Gpu | None, driver: Capability, libraries: Mapping[str, Library], flavour: str | None) -> Capabilities:
    """Turn what was found on this machine into what can be run on it.

    Args:
        gpu: The GPU, or None.
        driver: What `find_gpu` says about it.
        libraries: The installed libraries, from `find_libraries`.
        flavour: The TensorRT to judge: "tensorrt_rtx", "tensorrt", None, or what somebody mistyped.
    """
    trt = libraries.get(flavour or "")
    paddle = _works("Paddle on the CPU", "paddle", libraries)
    build = _tensorrt_build(gpu, libraries, flavour)
    pycuda = _pycuda(driver, libraries)
    return Capabilities(
        python=platform.python_version(),
        platform=_operating_system(),
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,
        gpu=gpu,
        libraries={name: library.version for name, library in libraries.items()},
        driver=driver,
        paddle=paddle,
        onnx_export=_onnx_export(paddle, libraries),
        onnxruntime_cpu=_works("ONNX Runtime on the CPU", "onnxruntime", libraries),
        onnxruntime_cuda=_onnxruntime_cuda(driver, libraries),
        tensorrt_build=build,
        tensorrt_int8=_tensorrt_int8(gpu, build, trt, flavour),
        tensorrt_run=_tensorrt_run(gpu, driver, build, pycuda, trt, flavour),
        pycuda=pycuda,
        paddle_gpu=_paddle_gpu(driver, paddle, libraries),
        paddle_tensorrt=_paddle_tensorrt(driver, paddle, libraries),
        polygraphy=_works("Polygraphy", "polygraphy", libraries),
    )


def _works(name: str, module: str, libraries: Mapping[str, Library]) -> Capability:
    """A library that works when it can be imported."""
    library = libraries.get(module)
    if library is None:
        return Capability(name, False, f"{module} is not installed.", _run(INSTALL[module]))
    if library.error:
        reason = f"{module} {library.version} is installed but broken: {library.error}."
        return Capability(name, False, reason, _run(INSTALL[module].replace("install", "install --force-reinstall", 1)))
    return Capability(name, True, _found(module, library), "")


def _on_gpu(name: str, driver: Capability, instead: str) -> Capability | None:
    """The answer for whatever needs a GPU when there is none; None when there is one."""
    if driver.available:
        return None
    remedy = f"Nothing is broken: {instead}" if driver.remedy.startswith("Nothing is broken") else driver.remedy
    return Capability(name, False, driver.reason, remedy)


def _onnx_export(paddle: Capability, libraries: Mapping[str, Library]) -> Capability:
    name = "Paddle to ONNX"
    if not paddle.available:
        return Capability(name, False, "paddle2onnx needs Paddle, which doesn't work here.", paddle.remedy)
    return _works(name, "paddle2onnx", libraries)


def _pycuda(driver: Capability, libraries: Mapping[str, Library]) -> Capability:
    name = "PyCUDA"
    missing = _on_gpu(name, driver, "only running TensorRT engines needs PyCUDA.")
    if missing:
        return missing
    works = _works(name, "pycuda", libraries)
    if works.available:
        return works
    without_toolkit = " It needs the CUDA toolkit (nvcc); `conda install -c conda-forge pycuda` doesn't."
    return dataclasses.replace(works, remedy=works.remedy + without_toolkit)


def _onnxruntime_cuda(driver: Capability, libraries: Mapping[str, Library]) -> Capability:
    name = "ONNX Runtime on the GPU"
    missing = _on_gpu(name, driver, "ONNX Runtime runs on the CPU.")
    if missing:
        return missing
    works = _works(name, "onnxruntime", libraries)
    if not works.available:
        return works
    library = libraries["onnxruntime"]
    replace = _run("python -m pip uninstall -y onnxruntime onnxruntime-gpu && python -m pip install onnxruntime-gpu")
    if not library.slow and "CUDAExecutionProvider" not in library.details["providers"]:
        if len(library.distributions) > 1:
            reason = "onnxruntime and onnxruntime-gpu are both installed, and the CPU build has overwritten the other."
        else:
            reason = f"This build of ONNX Runtime ({library.version}) has no CUDA provider."
        return Capability(name, False, reason, replace)
    if library.slow and "onnxruntime-gpu" not in library.distributions:
        return Capability(name, False, f"{_found('onnxruntime', library)} It is not onnxruntime-gpu.", replace)
    return works


def _tensorrt_build(gpu: Gpu | None, libraries: Mapping[str, Library], flavour: str | None) -> Capability:
    name = "TensorRT builds engines"
    if flavour is None:
        return Capability(name, False, "No TensorRT is installed.", _run(_rtx_for(gpu)))
    wrong = mistyped(flavour)
    if wrong:
        return Capability(name, False, wrong.cause, wrong.remedy)
    works = _works(name, flavour, libraries)
    if not works.available:
        if flavour not in libraries and FLAVOUR_VARIABLE in os.environ:
            return dataclasses.replace(works, reason=f"{FLAVOUR_VARIABLE} asks for {flavour}, which is not installed.")
        return works
    if flavour == "tensorrt_rtx":
        return works
    library = libraries[flavour]
    if _version(library.version) < (10,):
        reason = f"TensorRT {library.version} is too old: the course needs 10.0 or newer."
        return Capability(name, False, reason, _run(INSTALL["tensorrt"]))
    if gpu is None:
        reason = f"TensorRT {library.version} needs an NVIDIA GPU also to build; TensorRT-RTX doesn't."
        return Capability(name, False, reason, _use_rtx(gpu, libraries))
    if _compute_capability(gpu) < (7, 5):
        reason = f"{gpu.name} has compute capability {gpu.compute_capability}; the course needs 7.5 or newer."
        return Capability(name, False, reason, _use_rtx(gpu, libraries))
    if _compute_capability(gpu) >= (10, 0) and _version(library.version) < (10, 8):
        reason = f"TensorRT {library.version} doesn't know compute capability {gpu.compute_capability} (Blackwell)."
        return Capability(name, False, reason, _run('python -m pip install "tensorrt>=10.8,<11"'))
    return works


def _tensorrt_int8(gpu: Gpu | None, build: Capability, trt: Library | None, flavour: str | None) -> Capability:
    name = "TensorRT builds INT8"
    if not build.available:
        return dataclasses.replace(build, name=name)
    if flavour == "tensorrt_rtx" and _version(trt.version) < (1, 7, 1):
        reason = f"TensorRT-RTX {trt.version} can't build INT8 convolutions; 1.7.1 is the first that can."
        remedy = _run(INSTALL["tensorrt_rtx"])
        if gpu and gpu.compute_capability == HOPPER:
            remedy = f"Nothing is broken: keep {trt.version}, since 1.7.1 builds INT8 but runs no engine on Hopper."
        return Capability(name, False, reason, remedy)
    return Capability(name, True, build.reason, "")


def _tensorrt_run(
    gpu: Gpu | None,
    driver: Capability,
    build: Capability,
    pycuda: Capability,
    trt: Library | None,
    flavour: str | None,
) -> Capability:
    name = "TensorRT runs engines"
    missing = _on_gpu(name, driver, "ONNX Runtime runs the models, and the lessons show recordings of TensorRT.")
    if missing:
        return missing
    if not build.available:
        return dataclasses.replace(build, name=name)
    if flavour == "tensorrt_rtx":
        if _compute_capability(gpu) < (7, 5):
            reason = f"TensorRT-RTX needs compute capability 7.5 or newer; {gpu.name} has {gpu.compute_capability}."
            return Capability(name, False, reason, "Nothing is broken: ONNX Runtime runs the models on this GPU.")
        if gpu.compute_capability == HOPPER and _version(trt.version) >= (1, 7):
            reason = (
                f"TensorRT-RTX {trt.version} refuses to load engines on compute capability 9.0 (Hopper); "
                "1.6.1.120 was measured to work there."
            )
            return Capability(name, False, reason, _run(RTX_FOR_HOPPER))
    if not pycuda.available:
        return Capability(name, False, f"Running engines needs PyCUDA. {pycuda.reason}", pycuda.remedy)
    return Capability(name, True, f"{build.reason.rstrip('.')} on {gpu.name}.", "")


def _paddle_gpu(driver: Capability, paddle: Capability, libraries: Mapping[str, Library]) -> Capability:
    name = "Paddle on the GPU"
    missing = _on_gpu(name, driver, "Paddle runs on the CPU.")
    if missing:
        return missing
    if not paddle.available:
        return dataclasses.replace(paddle, name=name)
    library = libraries["paddle"]
    compiled = "paddlepaddle-gpu" in library.distributions if library.slow else library.details["cuda"]
    if not compiled:
        return Capability(name, False, f"Paddle {library.version} is the CPU build.", FULL_STACK)
    return Capability(name, True, _found("paddle", library), "")


def _paddle_tensorrt(driver: Capability, paddle: Capability, libraries: Mapping[str, Library]) -> Capability:
    name = "Paddle-TensorRT"
    missing = _on_gpu(name, driver, "its lesson shows recordings and the code.")
    if missing:
        return missing
    on_gpu = _paddle_gpu(driver, paddle, libraries)
    if not on_gpu.available:
        reason = on_gpu.reason
        if paddle.available:
            reason += " Only Paddle's GPU builds hold paddle.tensorrt."
        return Capability(name, False, reason, on_gpu.remedy)
    library = libraries["paddle"]
    if library.slow:
        return Capability(name, False, _found("paddle", library), "Run this again: a second import is faster.")
    compiled = ".".join(str(number) for number in library.details["tensorrt"])
    if compiled == "0.0.0":
        return Capability(name, False, f"Paddle {library.version} was compiled without TensorRT.", FULL_STACK)
    works = _works(name, "tensorrt", libraries)  # never TensorRT-RTX: Paddle links against libnvinfer
    if not works.available:
        return dataclasses.replace(works, reason=f"Paddle was compiled for TensorRT {compiled}. {works.reason}")
    installed = libraries["tensorrt"].version
    if _version(installed)[:1] != _version(compiled)[:1]:
        reason = f"Paddle was compiled for TensorRT {compiled}, and {installed} is installed."
        return Capability(name, False, reason, _run(f"python -m pip install tensorrt=={compiled}"))
    return Capability(name, True, f"Paddle {library.version}, compiled for TensorRT {compiled}, with {installed}.", "")


def _use_rtx(gpu: Gpu | None, libraries: Mapping[str, Library]) -> str:
    if "tensorrt_rtx" in libraries:
        return f"TensorRT-RTX is installed: set {FLAVOUR_VARIABLE}=tensorrt_rtx."
    return _run(_rtx_for(gpu))


def _rtx_for(gpu: Gpu | None) -> str:
    return RTX_FOR_HOPPER if gpu and gpu.compute_capability == HOPPER else INSTALL["tensorrt_rtx"]


def _run(command: str) -> str:
    return f"Run `{command}`."


def _found(module: str, library: Library) -> str:
    text = f"{FLAVOURS.get(module, module)} {library.version}".strip()
    if library.slow:
        text += f", installed (its import takes longer than {_IMPORT_SECONDS} s and was given up)"
    return text + "."


def _version(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: "10.5.0.post1" is (10, 5, 0)."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(number) for number in match.group().split(".")) if match else ()


def _compute_capability(gpu: Gpu) -> tuple[int, ...]:
    return _version(gpu.compute_capability)


def _operating_system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = f"{platform.system()} {platform.release()}"
    return f"{name}, {platform.machine()}"


def _cpu_model() -> str:
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    except OSError:
        match = None
    return match.group(1).strip() if match else platform.processor() or platform.machine()
