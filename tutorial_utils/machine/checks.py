"""The doctor's checks of what `capabilities` doesn't cover: the system, Paddle's libraries, the kernel, the cache.

Each check is a function that returns one row, or None where it says nothing about this machine. Nothing but the
standard library is imported here: the doctor must also work where nothing is installed.
"""

import functools
import json
import os
import platform
import re
import shutil
import string
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tutorial_utils.base import paths
from tutorial_utils.base.flavour import is_installed
from tutorial_utils.base.requirements import TEXT_DETECTION
from tutorial_utils.machine import doctor_probe, tensorrt_libraries
from tutorial_utils.machine.capabilities import FULL_STACK, Capability, Library, how_it_ended

# What the package itself needs besides the libraries of `capabilities`. A test compares it with pyproject.toml.
PACKAGES = {
    "blake3": "blake3>=1.0",
    "filelock": "filelock>=3.13",
    "ipykernel": "ipykernel>=6.29",
    "jupyterlab": "jupyterlab>=4.2,<5",
    "matplotlib": "matplotlib>=3.8",
    "ml_dtypes": "ml-dtypes>=0.5",
    "nbclient": "nbclient>=0.10",
    "nbconvert": "nbconvert>=7.16",
    "nbformat": "nbformat>=5.10",
    "netron": "netron>=9.3",
    "numpy": "numpy>=1.26",
    "onnx": "onnx>=1.16.1,<=1.17.0",
    "onnx_graphsurgeon": "onnx-graphsurgeon>=0.5",
    "onnxconverter_common": "onnxconverter-common>=1.14",
    "pandas": "pandas>=2.2",
    "PIL": "pillow>=10",
    "platformdirs": "platformdirs>=4.2",
    "pooch": "pooch>=1.8",
    "skimage": "scikit-image>=0.22",
    "sklearn": "scikit-learn>=1.4",
    "scipy": "scipy>=1.11",
    "threadpoolctl": "threadpoolctl>=3.5",
    "tqdm": "tqdm>=4.66",
}
PYTHONS = ((3, 10), (3, 11), (3, 12))  # those that Paddle 3.3.1 and TensorRT-RTX both have wheels for
GIB = 2**30
INSTALLED_BYTES = 4 * GIB  # 2.1 measured for the default environment, and pip's own copies of what it downloads
WORKING_BYTES = GIB  # room for models and engines
MEMORY_BYTES = 2 * GIB  # 0.8 measured for the kernel of lesson 00, and JupyterLab beside it
POLYGRAPHY_SWITCH = "POLYGRAPHY_USE_TENSORRT_RTX"
# Names in /proc/cpuinfo. Without one of the first, ONNX Runtime adds pairs of INT8 products in 16 bits: `onnx_session`.
_EXACT_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")
_SATURATING_INSTRUCTIONS = {"avx512bw": "AVX-512", "avx2": "AVX2"}
SECONDS = 2.2  # for one question: the whole doctor stays below 3 s

_FIX_COMMAND = "Run `python -m tutorial_utils doctor --fix`"
_AGAIN = "Run this again: a second start is faster."


@dataclass(frozen=True)
class Fix:
    """A change that mends a check without touching any package's version.

    Attributes:
        what: The change, as the end of "Shall I ...?".
        apply: Makes it. Raises where it can't.
    """

    what: str
    apply: Callable[[], None]


@dataclass(frozen=True)
class Check:
    """One row of the doctor's table.

    Attributes:
        name: What was looked at.
        status: "yes": it works; "warning": it works, but something about it will surprise; "no": it doesn't work.
        reason: One sentence: what was found.
        remedy: What to do about it. Empty where there is nothing to do.
        needed: Whether the lessons can't run without it.
        fix: The change that mends it, where one is safe to make.
    """

    name: str
    status: Literal["yes", "warning", "no"]
    reason: str
    remedy: str = ""
    needed: bool = False
    fix: Fix | None = None


@dataclass(frozen=True)
class Answer:
    """What came back from a process that was asked something: either values or an error.

    Attributes:
        values: The answer; empty where there is none.
        error: Why there is no answer, or "".
        slow: The process was given up.
    """

    values: Mapping[str, Any]
    error: str = ""
    slow: bool = False


def ask(question: str, environment: Mapping[str, str] | None = None) -> Answer:
    """Ask `doctor_probe` a question in another process.

    Args:
        question: "kernel", "context" or "libraries".
        environment: Of that process; this one's unless given.
    """
    command = [sys.executable, "-I", doctor_probe.__file__, question, json.dumps(sys.path)]
    try:
        child = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Answer({}, f"no answer within {SECONDS} s", slow=True)
    except OSError as error:
        return Answer({}, f"no process can be started: {error}")
    for line in child.stdout.decode(errors="replace").splitlines():
        if line.startswith(doctor_probe.REPORT_PREFIX):
            values = json.loads(line[len(doctor_probe.REPORT_PREFIX) :])
            return Answer(values, values.get("error", ""))
    return Answer({}, f"the process ended without an answer ({how_it_ended(child.returncode)})")


def never_raises(name: str) -> Callable[[Callable[..., Check | None]], Callable[..., Check | None]]:
    """Turn an exception of a check into its row, so that one broken check doesn't hide the others."""

    def decorate(check: Callable[..., Check | None]) -> Callable[..., Check | None]:
        @functools.wraps(check)
        def guarded(*arguments: Any) -> Check | None:
            try:
                return check(*arguments)
            except Exception as error:  # whatever a damaged installation makes it raise
                return Check(name, "warning", f"This can't be examined: {type(error).__name__}: {error}.")

        return guarded

    return decorate


@never_raises("Python")
def python() -> Check:
    """Python's version and the system that it was made for."""
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, {sys.prefix}."
    if sys.platform != "linux" or platform.machine().lower() not in ("x86_64", "amd64"):
        remedy = "Use Linux on x86-64, for example a container, a virtual machine or WSL 2."
        return Check("Python", "no", f"{found} The libraries have no wheels for it.", remedy, needed=True)
    if sys.version_info[:2] not in PYTHONS:
        remedy = "Install Python 3.10, 3.11 or 3.12, then run `make clean course PYTHON=python3.11`."
        return Check("Python", "no", f"{found} Paddle 3.3.1 needs 3.10, 3.11 or 3.12.", remedy, needed=True)
    return Check("Python", "yes", found, needed=True)


@never_raises("Packages")
def packages(libraries: Mapping[str, Library]) -> Check:
    """The light dependencies of the package, JupyterLab among them."""
    missing = {module: requirement for module, requirement in PACKAGES.items() if not is_installed(module)}
    if not missing:
        return Check("Packages", "yes", f"All {len(PACKAGES)} packages beside the large libraries.", needed=True)
    reason = f"Missing: {', '.join(missing)}."
    # The whole list of tested versions is right only where nothing can be overwritten by it.
    remedy = "Run `python -m pip install " + " ".join(f'"{requirement}"' for requirement in missing.values()) + "`."
    if not libraries:
        remedy = "Run `make course`, or `python -m pip install -r requirements.txt`: it installs the libraries too."
    return Check("Packages", "no", reason, remedy, needed=True)


@never_raises("Text detection network")
def text_detection() -> Check:
    """The package that holds the network of lesson 04; requirements.txt can't list it, see `TEXT_DETECTION`."""
    name = "Text detection network"
    if is_installed("rapidocr_onnxruntime"):
        return Check(name, "yes", "rapidocr-onnxruntime is installed, which ships the network of lesson 04.")
    remedy = f"Run `python -m pip install --no-deps {TEXT_DETECTION}`."
    return Check(name, "no", "rapidocr-onnxruntime, which ships the network of lesson 04, is not installed.", remedy)


@never_raises("Disk")
def disk(complete: bool) -> Check:
    """Free space where the next thing is written: packages first, then models and engines.

    Args:
        complete: Whether the libraries are installed.
    """
    place, wanted = (_existing(_cache_root()), WORKING_BYTES) if complete else (Path(sys.prefix), INSTALLED_BYTES)
    free = shutil.disk_usage(place).free
    purpose = "models and engines" if complete else "the libraries"
    reason = f"{free / GIB:.1f} GiB free at {place}; {purpose} want {wanted / GIB:.0f} GiB."
    if free >= wanted:
        return Check("Disk", "yes", reason)
    remedy = "Free some space (`python -m pip cache purge` helps)"
    if complete:
        remedy += f", or set {paths.CACHE_VARIABLE} to a folder on another disk"
    return Check("Disk", "warning", reason, f"{remedy}.")


@never_raises("Memory")
def memory() -> Check:
    """Memory that is free for a lesson, below the limit of a container where there is one."""
    available = _available_memory()
    reason = f"{available / GIB:.1f} GiB available; a lesson wants {MEMORY_BYTES / GIB:.0f} GiB."
    if available >= MEMORY_BYTES:
        return Check("Memory", "yes", reason)
    return Check("Memory", "warning", reason, "Close other programs, or raise the memory limit of the container.")


def _available_memory() -> int:
    meminfo = Path("/proc/meminfo").read_text()
    available = int(re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE).group(1)) * 1024
    # The limit of a container, for version 2 of control groups and for version 1.
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            group = Path("/sys/fs/cgroup")
            available = min(available, int((group / limit).read_text()) - int((group / used).read_text()))
        except (OSError, ValueError):  # no such file, or "max": no limit
            continue
    return max(available, 0)


@never_raises("CPU's INT8 instructions")
def integer_instructions() -> Check:
    """What the CPU multiplies INT8 numbers with: on some, ONNX Runtime by itself would give other INT8 results."""
    name = "CPU's INT8 instructions"
    flags = _cpu_flags()
    if not flags:
        return Check(name, "yes", "This system doesn't name them in /proc/cpuinfo.")
    exact = [flag for flag in _EXACT_INSTRUCTIONS if flag in flags]
    if exact:
        return Check(name, "yes", f"{', '.join(exact)}: INT8 products are added in 32 bits.")
    saturating = [title for flag, title in _SATURATING_INSTRUCTIONS.items() if flag in flags]
    if not saturating:
        return Check(name, "yes", "None for INT8: neither AVX2 nor VNNI.")
    reason = f"{saturating[0]} only, no VNNI: ONNX Runtime would saturate INT8. The course turns on its exact mode."
    return Check(name, "yes", reason)


def _cpu_flags() -> set[str]:
    """Return the features of the first processor; none where the system doesn't name them as on x86-64."""
    try:
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return set()
    return set(found[1].split()) if found else set()


@never_raises("TensorRT libraries for Paddle")
def paddle_libraries(loader: Answer | None) -> Check | None:
    """The unversioned names by which Paddle opens TensorRT.

    Args:
        loader: The answer to "libraries"; None where no GPU build of Paddle is installed.
    """
    if loader is None:
        return None
    name = "TensorRT libraries for Paddle"
    if loader.error:
        status = "warning" if loader.slow else "no"
        remedy = _AGAIN if loader.slow else f"Reinstall TensorRT. {FULL_STACK}"
        return Check(name, status, f"Opening libnvinfer.so: {loader.error}.", remedy)
    errors = loader.values["errors"]
    if not errors:
        where = "by the loader" if _on_loader_path() else "by Jupyter kernels of this environment"
        return Check(name, "yes", f"libnvinfer.so and libnvinfer_plugin.so are found {where}.")
    reason = "Paddle opens TensorRT by names without a version. " + "; ".join(errors) + "."
    folder = tensorrt_libraries.libraries_folder()
    if folder is None:
        return Check(name, "no", reason, f"No TensorRT of pip is installed to link to. {FULL_STACK}")
    fix = Fix(
        f"link libnvinfer.so and libnvinfer_plugin.so in {folder}, and put that folder on the LD_LIBRARY_PATH of this "
        "environment's Jupyter kernel",
        lambda: make_findable(folder),
    )
    remedy = f"{_FIX_COMMAND}, and for scripts `export LD_LIBRARY_PATH={folder}:$LD_LIBRARY_PATH` before Python starts."
    return Check(name, "no", reason, remedy, fix=fix)


@never_raises("TensorRT version for Paddle")
def paddle_tensorrt_version(paddle: Library | None, loader: Answer | None) -> Check | None:
    """The TensorRT that Paddle was compiled for against the one that it opens.

    Args:
        paddle: Paddle, where it is installed.
        loader: The answer to "libraries"; None where no GPU build of Paddle is installed.
    """
    compiled = tuple(paddle.details.get("tensorrt", ())) if paddle else ()
    number = loader.values.get("version") if loader else None
    if not any(compiled) or not number:
        return None
    # NV_TENSORRT_VERSION of NvInferVersion.h: 8601 is 8.6.1, 100500 is 10.5.0.
    step = 100 if number >= 100_000 else 10
    opened = (number // (100 * step), number // 100 % step, number % 100)
    name = "TensorRT version for Paddle"
    reason = f"Paddle was compiled for TensorRT {_dotted(compiled)} and opens {_dotted(opened)}."
    if opened[0] != compiled[0]:
        return Check(name, "no", f"{reason} The major versions don't fit.", FULL_STACK)
    if opened[:2] < compiled[:2]:
        return Check(name, "warning", f"{reason} An older one may crash.", FULL_STACK)
    if opened[:2] >= (10, 8):
        known = "From 10.8 on, paddle.tensorrt can't convert pd_op.stack and pd_op.arange (Paddle issue 79319)."
        return Check(name, "warning", f"{reason} {known}", "Use 10.5, or name both in TensorRTConfig's disable_ops.")
    return Check(name, "yes", reason)


@never_raises("CUDA context of PyCUDA")
def pycuda_context(pycuda: Capability, answer: Answer | None) -> Check | None:
    """Whether PyCUDA gets the GPU's primary context, which engines run in.

    Args:
        pycuda: Whether there are a GPU and PyCUDA.
        answer: To "context"; None where PyCUDA is not installed.
    """
    name = "CUDA context of PyCUDA"
    if not pycuda.available or answer is None:
        return None  # the row of PyCUDA says why
    if not answer.error:
        return Check(name, "yes", "The primary context of the first GPU can be retained.")
    if answer.slow:
        return Check(name, "warning", f"Retaining the primary context: {answer.error}.", _AGAIN)
    remedy = "Look at `nvidia-smi` for other programs on the GPU and its compute mode, then at PyCUDA's CUDA version."
    return Check(name, "no", f"The primary context can't be retained: {answer.error}.", remedy)


@never_raises("Polygraphy's TensorRT")
def polygraphy_switch(libraries: Mapping[str, Library]) -> Check | None:
    """Which TensorRT Polygraphy imports: it reads its switch once, when it is imported itself."""
    rtx, tensorrt = "tensorrt_rtx" in libraries, "tensorrt" in libraries
    if "polygraphy" not in libraries or not (rtx or tensorrt):
        return None
    name = "Polygraphy's TensorRT"
    wants_rtx = os.environ.get(POLYGRAPHY_SWITCH, "0") != "0"
    wanted = "tensorrt_rtx" if wants_rtx else "tensorrt"
    if wanted in libraries:
        return Check(name, "yes", f"Polygraphy uses {wanted}.")
    reason = f"Polygraphy looks for {wanted}, and only {'tensorrt_rtx' if rtx else 'tensorrt'} is installed."
    command = f"unset {POLYGRAPHY_SWITCH}" if wants_rtx else f"export {POLYGRAPHY_SWITCH}=1"
    return Check(name, "warning", reason, f"Before using Polygraphy with TensorRT, run `{command}`.")


@never_raises("Jupyter kernel")
def kernel(answer: Answer | None) -> Check:
    """Whether the kernel that Jupyter starts is this interpreter.

    Args:
        answer: To "kernel"; None where Jupyter is not installed.
    """
    name = "Jupyter kernel"
    if answer is None:
        return Check(
            name, "no", "Jupyter is not installed.", f'Run `python -m pip install "{PACKAGES["jupyterlab"]}"`.', True
        )
    if not is_installed("ipykernel"):
        remedy = f'Run `python -m pip install "{PACKAGES["ipykernel"]}"`.'
        return Check(name, "no", "This environment has no ipykernel.", remedy, needed=True)
    if answer.slow:
        return Check(name, "warning", f"Looking for the kernel: {answer.error}.", _AGAIN, needed=True)
    fix = Fix(f"describe this interpreter as the kernel python3 in {_kernel_folder()}", install_kernel)
    if answer.error:
        remedy = f"{_FIX_COMMAND}: it installs the kernel's description."
        return Check(name, "no", f"There is no kernel python3 ({answer.error}).", remedy, needed=True, fix=fix)
    command, folder = answer.values["argv"][0], answer.values["folder"]
    if not _is_this_python(command):
        reason = f"The kernel python3 of {folder} starts another interpreter, {command}."
        remedy = f"{_FIX_COMMAND}, or delete that folder."
        return Check(name, "no", reason, remedy, needed=True, fix=fix)
    return Check(name, "yes", f"python3 of {folder} starts this interpreter.", needed=True)


@never_raises("Cache")
def cache() -> Check:
    """Whether generated files can be written, tried with a file."""
    try:
        folder = paths.cache_root()
    except ImportError:
        reason = "The user's cache folder isn't known without platformdirs."
        return Check("Cache", "no", reason, 'Run `python -m pip install "platformdirs>=4.2"`.', needed=True)
    if not folder.exists() and not os.path.lexists(folder) and os.access(_existing(folder), os.W_OK | os.X_OK):
        fix = Fix(f"create {folder}", lambda: folder.mkdir(parents=True))
        return Check(
            "Cache",
            "warning",
            f"{folder} doesn't exist, so writing to it can't be tried; it is created when it is first used.",
            f"Nothing is broken. {_FIX_COMMAND} to create it now.",
            needed=True,
            fix=fix,
        )
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remedy = f"Give yourself write access, or set {paths.CACHE_VARIABLE} to a folder that you can write to."
        return Check("Cache", "no", f"{folder} can't be written to: {error.strerror}.", remedy, needed=True)
    return Check("Cache", "yes", f"{folder} can be written to.", needed=True)


def _cache_root() -> Path:
    try:
        return paths.cache_root()
    except ImportError:
        return Path.home()


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


# What makes Paddle find a TensorRT that pip installed


def loader_environment() -> dict[str, str]:
    """Return this process's environment with the LD_LIBRARY_PATH that this environment's Jupyter kernel gets."""
    environment = dict(os.environ)
    try:
        wanted = json.loads((_kernel_folder() / "kernel.json").read_text())["env"]["LD_LIBRARY_PATH"]
    except (OSError, ValueError, KeyError, TypeError):  # no kernel, or one that leaves the variable alone
        return environment
    # Jupyter fills in variables in the same way.
    return environment | {"LD_LIBRARY_PATH": string.Template(wanted).safe_substitute(environment)}


def _on_loader_path() -> bool:
    return loader_environment().get("LD_LIBRARY_PATH") == os.environ.get("LD_LIBRARY_PATH")


def make_findable(folder: Path) -> None:
    """Link TensorRT's libraries by their unversioned names, and let the Jupyter kernel's loader look for them there.

    Args:
        folder: Where the libraries are, ``libnvinfer.so.10`` for example.

    Raises:
        BackendUnavailableError: The folder can't be written to.
        OSError: The kernel's description can't be read or written to.
        CalledProcessError: The kernel has no description yet, and ipykernel can't make one.
    """
    tensorrt_libraries.link_unversioned(folder)
    description = _kernel_folder() / "kernel.json"
    if not description.exists():
        install_kernel()
    values = json.loads(description.read_text())
    values["env"] = values.get("env", {}) | {"LD_LIBRARY_PATH": f"{folder}:${{LD_LIBRARY_PATH}}"}
    with paths.replacing(description) as temporary:
        temporary.write_text(json.dumps(values, indent=1))


# The Jupyter kernel


def _kernel_folder() -> Path:
    return Path(sys.prefix) / "share" / "jupyter" / "kernels" / "python3"


def install_kernel() -> None:
    """Describe this interpreter as the kernel "python3" of its environment.

    Raises:
        CalledProcessError: ipykernel can't be run, or the folder can't be written to.
    """
    command = [sys.executable, "-m", "ipykernel", "install", "--sys-prefix"]
    subprocess.run(command, check=True, capture_output=True, text=True)


def _is_this_python(command: str) -> bool:
    if re.fullmatch(r"python(\d+(\.\d+)?)?", command):
        return True  # Jupyter takes the interpreter that it runs on itself
    # The folder, not the file: the interpreters of all virtual environments are links to the same file.
    return os.path.realpath(os.path.dirname(command)) == os.path.realpath(os.path.dirname(sys.executable))
