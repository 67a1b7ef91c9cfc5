"""Lets Paddle find pip's TensorRT: `python -m tutorial_utils.machine.tensorrt_libraries` prints the folder.

Paddle opens TensorRT at run time as ``libnvinfer.so`` and ``libnvinfer_plugin.so``, by the loader path alone. NVIDIA's
wheel puts them into ``site-packages/tensorrt_libs``, which is on no loader path, and only under names with a version
(``libnvinfer.so.10``). So two links are made, and the folder goes into ``LD_LIBRARY_PATH`` before Python starts: in a
conda environment by conda/activate.d/tensorrt_libraries.sh, elsewhere by what README says.

Source: paddle/phi/backends/dynload/tensorrt.cc and python/paddle/tensorrt/converter.py of Paddle 3.3. Tested with
libraries of these names that hold nothing: this project has not run Paddle with NVIDIA's.
"""

import contextlib
import sys
from importlib.util import find_spec
from pathlib import Path

from tutorial_utils.base.errors import BackendUnavailableError

OPENED_BY_PADDLE = ("libnvinfer", "libnvinfer_plugin")


def libraries_folder() -> Path | None:
    """Return the folder of TensorRT's libraries in this environment, or None if NVIDIA's wheel isn't installed."""
    spec = find_spec("tensorrt_libs")
    locations = spec.submodule_search_locations if spec else None
    return Path(locations[0]) if locations else None


def missing_links(folder: Path) -> list[Path]:
    """Return the names without a version that Paddle would look for in vain, of libraries that are in the folder."""
    links = {folder / f"{name}.so": _versioned(folder, name) for name in OPENED_BY_PADDLE}
    return [link for link, library in links.items() if library and not link.exists()]


def link_unversioned(folder: Path) -> list[Path]:
    """Link the names that Paddle opens to the libraries with a version, and return the new links. Links that work stay.

    Raises:
        BackendUnavailableError: The folder can't be written to.
    """
    missing = missing_links(folder)
    for link in missing:
        try:
            link.unlink(missing_ok=True)  # it may point to a version that is gone
            with contextlib.suppress(FileExistsError):  # another process was faster
                link.symlink_to(_versioned(folder, link.stem))
        except OSError as error:
            raise BackendUnavailableError(
                f"TensorRT's folder {folder} can't be written to: {error.strerror}.",
                "Run `python -m tutorial_utils.machine.tensorrt_libraries` once as the owner of this environment.",
            ) from error
    return missing


def _versioned(folder: Path, name: str) -> str | None:
    return next(iter(sorted(path.name for path in folder.glob(f"{name}.so.*"))), None)


def main() -> int:
    """Make the links and print the folder, for ``LD_LIBRARY_PATH``. Return 1 where there is no TensorRT to find."""
    folder = libraries_folder()
    if folder is None:
        print("No libraries of TensorRT's wheel are installed (package tensorrt-cu12).", file=sys.stderr)
        return 1
    try:
        link_unversioned(folder)
    except BackendUnavailableError as error:
        print(error, file=sys.stderr)
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
