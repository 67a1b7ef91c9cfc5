"""Where the package keeps what it makes (models, engines, datasets) and finds what it ships (recordings)."""

import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tutorial_utils.base.errors import CacheError

CACHE_VARIABLE = "TUTORIAL_UTILS_CACHE"
# Set by a headless run of the lessons: the name of the folder, below "runs", that holds what its lessons write.
RUN_VARIABLE = "TUTORIAL_UTILS_RUN"
_OF_A_RUN = ("lesson", "exercises", "fault_lab")  # beginnings of the names of folders that lessons write to
ROOT = Path(__file__).resolve().parents[2]  # the clone, or the folder that the package was installed in


def cache_root() -> Path:
    """Return the folder of all generated files, missing or not.

    It is ``$TUTORIAL_UTILS_CACHE``; else ``build/cache`` of a clone whose ``.venv`` this Python is, as `make` sets it;
    else the user's cache.
    """
    if root := os.environ.get(CACHE_VARIABLE):
        return Path(root).absolute()
    if Path(sys.prefix) == ROOT / ".venv":
        return ROOT / "build" / "cache"
    from platformdirs import user_cache_path  # here, so that the doctor works where nothing is installed

    return user_cache_path("tutorial_utils").absolute()


def cache_dir(*parts: str) -> Path:
    """Return a folder below `cache_root`, such as ``"engines"``, created if it is missing.

    Folders that lessons write to, such as ``"lesson04"``, are another one in each headless run: it may run beside
    another, or beside a reader's JupyterLab, and lessons write files of fixed names.

    Raises:
        CacheError: The folder can't be created or written to.
    """
    run = os.environ.get(RUN_VARIABLE)
    if run and parts and parts[0].startswith(_OF_A_RUN):
        parts = ("runs", run, *parts)
    folder = cache_root().joinpath(*parts)
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK) or not folder.is_dir():
        raise CacheError(
            f"The cache folder {folder} can't be written to.",
            f"Give yourself write access, or set {CACHE_VARIABLE} to a folder that you can write to.",
        )
    return folder


# What a full disk, a quota, a read-only file system, missing rights, or something in the way answer.
_UNWRITABLE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
}


@contextlib.contextmanager
def filling_cache() -> Iterator[None]:
    """Raise CacheError where the block can't write a file, and say which."""
    try:
        yield
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise CacheError(
            f"The cache folder {cache_root()} can't be written to: {error.strerror}{where}.",
            f"Free some space or give yourself write access, or set {CACHE_VARIABLE} to another folder.",
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to ``path`` when the block ends without an error.

    The name keeps its ending, since some writers look at it. After an error, or if the process dies, ``path`` is as it
    was before: absent or old, never half-written. What is a link stays one: the file that it leads to is replaced.

    Raises:
        OSError: It can't be written; or it is a pipe or a device, ``/dev/null`` for one, whose place a file would take.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "It is a pipe or a device", str(path))
    target = Path(os.path.realpath(path))
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, target)
