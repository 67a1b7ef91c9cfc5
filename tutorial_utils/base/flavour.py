"""Which TensorRT this process uses: `tensorrt_rtx` (TensorRT-RTX 1.x) or `tensorrt` (10.x, 11.x), under one name.

Both flavours share the API that the course uses. Everything that differs between them is in `engine.builder`.
"""

import functools
import importlib
import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType

from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.base.gpu import find_gpu
from tutorial_utils.base.requirements import pip_install, requirement

FLAVOUR_VARIABLE = "TUTORIAL_UTILS_TENSORRT"
FLAVOURS = {"tensorrt_rtx": "TensorRT-RTX", "tensorrt": "TensorRT"}
# NVIDIA's support matrix of TensorRT-RTX 1.5, docs.nvidia.com/deeplearning/tensorrt-rtx: Turing, Ampere, Ada and
# Blackwell of GeForce RTX and RTX PRO. Data-centre chips of their own kind are not in it: A100 (8.0), H100 (9.0), B200
# (10.0), also where an engine happens to run.
LISTED_FOR_RTX = ("7.5", "8.6", "8.9", "12.0", "12.1")


@dataclass(frozen=True)
class Choice:
    """The TensorRT that the course uses here, and why."""

    name: str | None  # its module; None where none is installed
    reason: str  # one sentence


def choice() -> Choice:
    """Choose a TensorRT flavour without importing one; where both are installed, the driver is asked for its GPU.

    ``$TUTORIAL_UTILS_TENSORRT`` decides where it is set, also mistyped (see `mistyped`): the doctor has to show it.
    Else the flavour that is installed. Of two, TensorRT-RTX where NVIDIA lists it for the GPU, and without a GPU.
    """
    if asked := os.environ.get(FLAVOUR_VARIABLE):
        return Choice(asked, f"{FLAVOUR_VARIABLE} asks for it.")
    installed = [name for name in FLAVOURS if is_installed(name)]
    if not installed:
        return Choice(None, "None is installed.")
    if len(installed) == 1:
        return Choice(installed[0], "No other one is installed.")
    gpu, _ = find_gpu()
    if gpu is None:
        return Choice("tensorrt_rtx", "Without a GPU, only this one builds engines.")
    if gpu.compute_capability in LISTED_FOR_RTX:
        return Choice("tensorrt_rtx", f"NVIDIA lists it for compute capability {gpu.compute_capability}.")
    reason = f"NVIDIA doesn't list TensorRT-RTX for compute capability {gpu.compute_capability} ({gpu.name})."
    return Choice("tensorrt", reason)


def installed_flavour() -> str | None:
    """Return the module name of the flavour to use: that of `choice`."""
    return choice().name


def require(flavour: str) -> None:
    """Raise BackendUnavailableError unless this process uses the TensorRT of this module name."""
    if installed_flavour() != flavour:
        name = {"tensorrt": "data-centre TensorRT"}.get(flavour, FLAVOURS[flavour])
        raise BackendUnavailableError(
            f"This is measured with {name}.", f"Install it, and set {FLAVOUR_VARIABLE}={flavour}: see STACKS.md."
        )


def mistyped(flavour: str | None) -> BackendUnavailableError | None:
    """Return the error for a name that no flavour has, or None for one that is right, or for none at all.

    Who asks for a flavour in the environment must not get the other one without a word.
    """
    if flavour is None or flavour in FLAVOURS:
        return None
    names = " or ".join(FLAVOURS)
    return BackendUnavailableError(
        f"{FLAVOUR_VARIABLE} is {flavour!r}, which is no TensorRT.",
        f"Set {FLAVOUR_VARIABLE} to {names}, or unset it for the one that is installed.",
    )


def is_installed(module: str) -> bool:
    """Whether a top-level module can be found, without importing it."""
    try:
        spec = find_spec(module)
    except ValueError:  # a module of that name was put into sys.modules by hand
        return False
    return spec is not None and spec.origin is not None  # no origin: an empty folder that an uninstall left behind


def installed_version(package: str) -> str | None:
    """Return the version of a package, such as a flavour, without importing it; None where the package says none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def load() -> ModuleType:
    """Import the TensorRT flavour of this process: the module `tensorrt_rtx` or `tensorrt`.

    Raises:
        BackendUnavailableError: None is installed, the import fails, the version is older than 10, or the environment
            asks for one that doesn't exist.
    """
    name = installed_flavour()
    if wrong := mistyped(name):
        raise wrong
    if name is None:
        raise BackendUnavailableError(
            "No TensorRT is installed.",
            f"Run `{pip_install(requirement('tensorrt_rtx'))}`: it builds engines on any x86-64 Linux machine.",
        )
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a broken native library raises whatever it likes
        raise BackendUnavailableError(
            f"{FLAVOURS[name]} is installed but can't be imported: {error}.",
            f"Reinstall it with `{pip_install(requirement(name), options='--force-reinstall')}`.",
        ) from error
    if name == "tensorrt" and int(module.__version__.split(".")[0]) < 10:
        raise BackendUnavailableError(
            f"TensorRT {module.__version__} is too old: networks can't be strongly typed before 10.0.",
            "Install TensorRT 10 or 11, or TensorRT-RTX.",
        )
    return module
