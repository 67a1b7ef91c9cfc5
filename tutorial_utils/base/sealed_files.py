"""Files that are made once and then read from the cache: each is checked before it is used, and made anew if damaged.

A file is sealed when it is complete: its checksum is written beside it, as ``.NAME.blake3``. What has no seal was never
finished. What differs from its seal was damaged since, by a full disk or by hand.
"""

import contextlib
import shutil
import warnings
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from blake3 import blake3
from filelock import FileLock

from tutorial_utils.base import paths

_CHUNK = 1 << 22  # bytes


def chunks(path: Path) -> Iterator[bytes]:
    """Read a file piece by piece. A memory map would end this process if another one cut the file short meanwhile."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def add(hasher: blake3, path: Path) -> None:
    """Add the bytes of a file to a hash."""
    for chunk in chunks(path):
        hasher.update(chunk)


def checksum(path: Path) -> str:
    """Return the BLAKE3 hash of a file's bytes, in hexadecimal."""
    hasher = blake3()
    add(hasher, path)
    return hasher.hexdigest()


@contextlib.contextmanager
def filling(files: Collection[Path], lock: Path) -> Iterator[bool]:
    """Give whether files of the cache have to be made, and seal them when the block has made them.

    Other processes wait at the lock meanwhile.

    Raises:
        CacheError: The block can't write a file.
    """
    with paths.filling_cache(), FileLock(lock):
        missing = not ready(files)
        yield missing
        if missing:
            seal(files)


def seal(files: Iterable[Path]) -> None:
    """Say that files are complete as they are now."""
    for file in files:
        with paths.replacing(_seal_of(file)) as temporary:
            temporary.write_text(checksum(file))


def ready(files: Iterable[Path]) -> bool:
    """Whether all files are there and as they were when they were sealed. What isn't so is removed.

    Of a damaged file a warning tells; of one that was never finished nothing, since its maker was interrupted.
    """
    missing = [file for file in files if not _is_intact(file)]
    for file in missing:
        if _seal_of(file).exists() and file.exists():
            warnings.warn(f"The cached file {file.name} is damaged and is made again.", stacklevel=2)
        _seal_of(file).unlink(missing_ok=True)
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            file.unlink(missing_ok=True)
    return not missing


def _is_intact(file: Path) -> bool:
    try:
        return file.is_file() and _seal_of(file).read_text() == checksum(file)
    except (OSError, ValueError):  # no seal, or one that can't be read
        return False


def _seal_of(file: Path) -> Path:
    return file.with_name(f".{file.name}.blake3")
