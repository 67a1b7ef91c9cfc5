"""Which TensorRT this process uses: `tensorrt_rtx` (TensorRT-RTX 1.x) or `tensorrt` (10.x, 11.x), under one name.

Both flavours share the API that the course uses. Everything that differs between them is in `engine.builder`.
"""

import functools
import importlib
import os
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType

from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.base.requirements import pip_install, requirement

FLAVOUR_VARIABLE = "TUTORIAL_UTILS_TENSORRT"
FLAVOURS = {"tensorrt_rtx": "TensorRT-RTX", "tensorrt": "TensorRT"}


def installed_flavour() -> str | None:
    """Return the module name of the TensorRT flavour to use, without importing it.

    It is ``$TUTORIAL_UTILS_TENSORRT`` where that is set, also a mistyped one (see `mistyped`): the doctor has to show
    it. Else ``"tensorrt_rtx"`` if installed (it builds engines on every machine), else ``"tensorrt"``, else None.
    """
    return os.environ.get(FLAVOUR_VARIABLE) or next((name for name in FLAVOURS if is_installed(name)), None)


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
