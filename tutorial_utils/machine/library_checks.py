"""The doctor's checks of libraries that meet: Paddle and TensorRT, PyCUDA and the driver, Jupyter and its kernel.

As in `checks`, nothing but the standard library is imported. The answers are those of `child.ask`; None where the
question has no sense, since what it is about isn't installed.
"""

import json
import os
import re
import string
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tutorial_utils.base import flavour, paths, requirements
from tutorial_utils.base.flavour import is_installed
from tutorial_utils.base.gpu import Capability
from tutorial_utils.base.requirements import pip_install
from tutorial_utils.machine import tensorrt_libraries
from tutorial_utils.machine.checks import Fix, Found, row
from tutorial_utils.machine.child import Answer
from tutorial_utils.machine.facts import Library
from tutorial_utils.machine.rules import FULL_STACK, RUN_AGAIN

POLYGRAPHY_SWITCH = "POLYGRAPHY_USE_TENSORRT_RTX"
_FIX_COMMAND = "Run `python -m tutorial_utils doctor --fix`"


@row("Choice of TensorRT")
def tensorrt_choice() -> Found | None:
    """Which of the two flavours the course uses here, and why."""
    chosen = flavour.choice()
    if chosen.name is None or flavour.mistyped(chosen.name):
        return None  # the row about building engines says it
    return "yes", f"{flavour.FLAVOURS[chosen.name]} (module {chosen.name}). {chosen.reason}"


@row("TensorRT libraries for Paddle")
def paddle_libraries(loader: Answer | None) -> Found | None:
    """The unversioned names by which Paddle opens TensorRT."""
    if loader is None:
        return None
    if loader.error:
        remedy = RUN_AGAIN if loader.late else f"Reinstall TensorRT. {FULL_STACK}"
        return "no", f"Opening libnvinfer.so: {loader.error}.", remedy
    errors = loader.values["errors"]
    if not errors:
        in_kernel = loader_environment().get("LD_LIBRARY_PATH") != os.environ.get("LD_LIBRARY_PATH")
        where = "by Jupyter kernels of this environment" if in_kernel else "by the loader"
        return "yes", f"libnvinfer.so and libnvinfer_plugin.so are found {where}."
    reason = "Paddle opens TensorRT by names without a version. " + "; ".join(errors) + "."
    folder = tensorrt_libraries.libraries_folder()
    if folder is None:
        return "no", reason, f"No TensorRT of pip is installed to link to. {FULL_STACK}"
    fix = Fix(
        f"link libnvinfer.so and libnvinfer_plugin.so in {folder}, and put that folder on the LD_LIBRARY_PATH of this "
        "environment's Jupyter kernel",
        lambda: make_findable(folder),
    )
    remedy = f"{_FIX_COMMAND}, and for scripts `export LD_LIBRARY_PATH={folder}:$LD_LIBRARY_PATH` before Python starts."
    return "no", reason, remedy, fix


@row("TensorRT version for Paddle")
def paddle_tensorrt_version(paddle: Library | None, loader: Answer | None) -> Found | None:
    """The TensorRT that Paddle was compiled for against the one that it opens."""
    compiled = tuple(paddle.details.get("tensorrt", ())) if paddle else ()
    number = loader.values.get("version") if loader else None
    if not any(compiled) or not number:
        return None
    # NV_TENSORRT_VERSION of NvInferVersion.h: 8601 is 8.6.1, 100500 is 10.5.0.
    step = 100 if number >= 100_000 else 10
    opened = (number // (100 * step), number // 100 % step, number % 100)
    versions = [".".join(map(str, version)) for version in (compiled, opened)]
    reason = f"Paddle was compiled for TensorRT {versions[0]} and opens {versions[1]}."
    if opened[0] != compiled[0]:
        return "no", f"{reason} The major versions don't fit.", FULL_STACK
    if opened[:2] < compiled[:2]:
        return "warning", f"{reason} An older one may crash.", FULL_STACK
    if opened[:2] >= (10, 8):
        known = "From 10.8 on, paddle.tensorrt can't convert pd_op.stack and pd_op.arange (Paddle issue 79319)."
        return "warning", f"{reason} {known}", "Use 10.5, or name both in TensorRTConfig's disable_ops."
    return "yes", reason


@row("CUDA context of PyCUDA")
def pycuda_context(pycuda: Capability, answer: Answer | None) -> Found | None:
    """Whether PyCUDA gets the GPU's primary context, which engines run in."""
    if not pycuda.available or answer is None:
        return None  # the row of PyCUDA says why
    if not answer.error:
        return "yes", "The primary context of the first GPU can be retained."
    remedy = "Look at `nvidia-smi` for other programs on the GPU and its compute mode, then at PyCUDA's CUDA version."
    return "no", f"The primary context can't be retained: {answer.error}.", remedy


@row("Polygraphy's TensorRT")
def polygraphy_switch(libraries: Mapping[str, Library]) -> Found | None:
    """Which TensorRT Polygraphy imports: it reads its switch once, when it is imported itself."""
    rtx, tensorrt = "tensorrt_rtx" in libraries, "tensorrt" in libraries
    if "polygraphy" not in libraries or not (rtx or tensorrt):
        return None
    wants_rtx = os.environ.get(POLYGRAPHY_SWITCH, "0") != "0"
    wanted = "tensorrt_rtx" if wants_rtx else "tensorrt"
    if wanted in libraries:
        return "yes", f"Polygraphy uses {wanted}."
    reason = f"Polygraphy looks for {wanted}, and only {'tensorrt_rtx' if rtx else 'tensorrt'} is installed."
    command = f"unset {POLYGRAPHY_SWITCH}" if wants_rtx else f"export {POLYGRAPHY_SWITCH}=1"
    return "warning", reason, f"Before using Polygraphy with TensorRT, run `{command}`."


@row("Jupyter kernel", needed=True)
def kernel(answer: Answer | None) -> Found:
    """Whether the kernel that Jupyter starts is this interpreter."""
    if answer is None:
        return "no", "Jupyter is not installed.", _install("jupyterlab")
    if not is_installed("ipykernel"):
        return "no", "This environment has no ipykernel.", _install("ipykernel")
    if answer.late:
        return "no", f"Looking for the kernel python3: {answer.error}.", RUN_AGAIN
    fix = Fix(f"describe this interpreter as the kernel python3 in {_kernel_folder()}", install_kernel)
    if answer.error:
        remedy = f"{_FIX_COMMAND}: it installs the kernel's description."
        return "no", f"There is no kernel python3 ({answer.error}).", remedy, fix
    command, folder = answer.values["argv"][0], answer.values["folder"]
    # The folders, not the files: the interpreters of all virtual environments are links to the same file. By its name
    # alone, Jupyter takes the interpreter that it runs on itself.
    folders = {os.path.realpath(os.path.dirname(python)) for python in (command, sys.executable)}
    if len(folders) > 1 and not re.fullmatch(r"python(\d+(\.\d+)?)?", command):
        reason = f"The kernel python3 of {folder} starts another interpreter, {command}."
        remedy = f"{_FIX_COMMAND}, or delete that folder."
        return "no", reason, remedy, fix
    return "yes", f"python3 of {folder} starts this interpreter."


def _install(module: str) -> str:
    return f"Run `{pip_install(requirements.requirement(module))}`."


def loader_environment() -> dict[str, str]:
    """Return this process's environment with the LD_LIBRARY_PATH that this environment's Jupyter kernel gets."""
    environment = dict(os.environ)
    try:
        wanted = json.loads((_kernel_folder() / "kernel.json").read_text())["env"]["LD_LIBRARY_PATH"]
    except (OSError, ValueError, KeyError, TypeError):  # no kernel, or one that leaves the variable alone
        return environment
    # Jupyter fills in variables in the same way.
    return environment | {"LD_LIBRARY_PATH": string.Template(wanted).safe_substitute(environment)}


def make_findable(folder: Path) -> None:
    """Link TensorRT's libraries by their unversioned names, and let the Jupyter kernel's loader look for them there.

    Raises:
        OSError: The kernel's description can't be read or written to.
    """
    tensorrt_libraries.link_unversioned(folder)
    description = _kernel_folder() / "kernel.json"
    if not description.exists():
        install_kernel()
    values = json.loads(description.read_text())
    values["env"] = values.get("env", {}) | {"LD_LIBRARY_PATH": f"{folder}:${{LD_LIBRARY_PATH}}"}
    with paths.replacing(description) as temporary:
        temporary.write_text(json.dumps(values, indent=1))


def _kernel_folder() -> Path:
    return Path(sys.prefix) / "share" / "jupyter" / "kernels" / "python3"


def install_kernel() -> None:
    """Describe this interpreter as the kernel "python3" of its environment; raise CalledProcessError where it can't."""
    command = [sys.executable, "-m", "ipykernel", "install", "--sys-prefix"]
    subprocess.run(command, check=True, capture_output=True, text=True)
