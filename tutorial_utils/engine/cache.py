"""The engine cache: a plan is found again only for the same model, TensorRT, targets and options, and only if intact.

A cached engine is two files. ``<model>-<key>.plan`` is the serialized engine; ``<model>-<key>.json``, its side-car, is
written after it and holds the build report and a checksum over plan and report. Both are written to a temporary file
and renamed, so that a build that dies at any moment leaves nothing that a later run would load.
"""

import contextlib
import errno
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import blake3
import filelock

from tutorial_utils.base import paths, sealed_files
from tutorial_utils.base.errors import CacheError, ModelFileError
from tutorial_utils.engine.options import BuildOptions
from tutorial_utils.engine.report import BuildReport
from tutorial_utils.model import weight_files

_NAME_BYTES = 128  # of the model's name in that of a file, which may have 255 bytes; the key tells engines apart
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)  # what reading an entry can raise
_FORMAT = 4  # of the side-car; a new number makes old entries unknown


def cache_key(onnx_path: Path, options: BuildOptions, tensorrt: str) -> str:
    """Return the key of an engine: a BLAKE3 hash over everything that decides what a build makes.

    Args:
        onnx_path: The ONNX model; external weights count with it.
        tensorrt: Flavour and version of TensorRT, and the GPU where the build depends on it.

    Raises:
        ModelFileError: The model, or a file with its weights, can't be read, or lies outside of the model's folder.
    """
    hasher = blake3.blake3(json.dumps([_FORMAT, tensorrt, asdict(options)], sort_keys=True).encode())
    _add_model(hasher, onnx_path)
    return hasher.hexdigest(length=16)


def model_hash(onnx_path: Path) -> str:
    """Return a BLAKE3 hash of a model's bytes, external weights included. It raises as `cache_key` does."""
    hasher = blake3.blake3()
    _add_model(hasher, onnx_path)
    return hasher.hexdigest(length=16)


def _add_model(hasher: blake3.blake3, onnx_path: Path) -> None:
    try:
        for path in (onnx_path, *weight_files.named_by(onnx_path)):
            hasher.update(path.stat().st_size.to_bytes(8, "little"))  # so that bytes can't move between the files
            sealed_files.add(hasher, path)
    except OSError as error:
        raise ModelFileError(
            f"The model {onnx_path.name} can't be read: {error.strerror} ({error.filename or onnx_path}).",
            "Export it again, and keep files of external weights beside it.",
        ) from error


class CacheEntry:
    """The place of one engine in the cache folder."""

    def __init__(self, folder: Path, model_name: str, key: str):
        short = model_name.encode()[:_NAME_BYTES].decode(errors="ignore")
        self.plan_path = folder / f"{short}-{key}.plan"
        self.sidecar_path = self.plan_path.with_suffix(".json")
        self._lock_path = self.plan_path.with_suffix(".lock")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the entry's lock, so that of several processes one builds and the others read."""
        with _writing(self.plan_path.parent):
            held = filelock.FileLock(self._lock_path).acquire()
        with held:
            yield

    def read(self) -> tuple[bytes, BuildReport] | None:
        """Return plan and report, or None if there is none. A damaged entry gives a warning and None."""
        if not self.sidecar_path.exists():
            return None  # no build has finished here
        try:
            return self._read()
        except _DAMAGE as error:
            warnings.warn(
                f"The cached engine {self.plan_path.name} is damaged ({error}): building it again.", stacklevel=2
            )
            return None

    def read_unlocked(self) -> tuple[bytes, BuildReport] | None:
        """Return plan and report, or None: damaged, absent, or replaced by another process just now."""
        try:
            return self._read()
        except _DAMAGE:
            return None

    def _read(self) -> tuple[bytes, BuildReport]:
        sidecar = json.loads(self.sidecar_path.read_text())
        plan = self.plan_path.read_bytes()
        if _checksum(plan, sidecar["report"]) != sidecar["blake3"]:
            raise ValueError("its checksum is wrong")
        return plan, BuildReport.from_dict(sidecar["report"])

    def write(self, plan: bytes, report: BuildReport) -> None:
        """Store an engine; where the folder is read-only or the disk full, nothing half-written stays behind."""
        values = report.to_dict()
        sidecar = {"blake3": _checksum(plan, values), "report": values}
        with _writing(self.plan_path.parent):
            self.sidecar_path.unlink(missing_ok=True)  # from here to the last line, the entry counts as absent
            with paths.replacing(self.plan_path) as temporary:
                temporary.write_bytes(plan)
            with paths.replacing(self.sidecar_path) as temporary:
                temporary.write_text(json.dumps(sidecar, indent=1))


def _checksum(plan: bytes, report: dict[str, Any]) -> str:
    """Hash plan and report. Tuples and lists are the same in JSON, so a report read back has the same hash."""
    return blake3.blake3(plan).update(json.dumps(report).encode()).hexdigest()


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        yield
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise CacheError(
            f"The engine cache {folder} can't be written: {getattr(error, 'strerror', None) or error}.",
            "Free some space, give yourself write access or name another folder, or pass use_cache=False to build "
            "without a cache.",
        ) from error
