"""TensorRT's timing cache: what the builder measured of kernels, so that the next build needn't measure them again.

Data-centre TensorRT times every kernel that could compute a layer, which is most of a build. One file for each version
and GPU, beside the engine cache, holds the times: a line that says for what they are good, with a checksum over the
rest, which is TensorRT's own. TensorRT-RTX compiles its kernels when an engine is loaded, and times none here.
"""

import json
import warnings
from pathlib import Path

import blake3
import filelock

from tutorial_utils.base import paths
from tutorial_utils.engine.tensorrt import MessageLog, trt


class TimingCache:
    """The times of one TensorRT and GPU, for one build: `attach` before it, `save` after it.

    Args:
        config: The configuration of the build.
        log: The log that the builder writes to.
        folder: Where the file lies, or is written to.
        identity: The TensorRT and the GPU, as the key of the engine cache has them.
    """

    def __init__(self, config: "trt.IBuilderConfig", log: MessageLog, folder: Path, identity: str):
        self.path = folder / f"timing-{identity.replace(' ', '-')}.cache"
        self._identity = identity
        self._config = config
        self._log = log
        self._seen = b""  # the times that the file held before the build, as TensorRT writes them
        self._cache: trt.ITimingCache | None = None

    def attach(self) -> None:
        """Give the builder the times of earlier builds. What can't be used is left out, with a warning."""
        self._seen, wrong = self._read()
        self._cache = self._usable(self._seen)
        if self._cache is None:
            wrong = f"TensorRT refuses it: {self._log.last_errors()}"
            self._cache = self._usable(b"")
        if wrong:
            _warn(f"The timing cache {self.path.name} isn't used: {wrong}. This build measures all kernels again.")

    def save(self) -> None:
        """Write the times, with those that other processes have added since `attach`."""
        if self._cache is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.path.with_suffix(".lock")):
                written, _ = self._read()
                if written and written != self._seen:
                    other = self._config.create_timing_cache(written)
                    if other:
                        self._cache.combine(other, ignore_mismatch=False)
                times = bytes(self._cache.serialize())
                if times != written:
                    head = {"tensorrt": self._identity, "blake3": blake3.blake3(times).hexdigest()}
                    with paths.replacing(self.path) as temporary:
                        temporary.write_bytes(json.dumps(head).encode() + b"\n" + times)
        except OSError as error:
            _warn(f"The timing cache {self.path} can't be written: {error.strerror or error}. Later builds go without.")

    def _usable(self, times: bytes) -> "trt.ITimingCache | None":
        cache = self._config.create_timing_cache(times)
        return cache if cache and self._config.set_timing_cache(cache, ignore_mismatch=False) else None

    def _read(self) -> tuple[bytes, str]:
        """Return the times that the file holds; where they aren't for this TensorRT and GPU, none and the reason."""
        try:
            first, _, times = self.path.read_bytes().partition(b"\n")
            head = json.loads(first)
            made_for, checksum = head["tensorrt"], head["blake3"]
        except (FileNotFoundError, NotADirectoryError):  # of a folder that can't be made, `save` tells
            return b"", ""
        except OSError as error:
            return b"", f"it can't be read: {error.strerror or error}"
        except (ValueError, KeyError, TypeError):
            return b"", "it doesn't begin as one: cut short, or written by another program"
        if made_for != self._identity:
            return b"", f"it was made for {made_for}, and this is {self._identity}"
        if blake3.blake3(times).hexdigest() != checksum:
            return b"", "it was cut short or altered: its checksum is wrong"
        return times, ""


def _warn(text: str) -> None:
    warnings.warn_explicit(text, UserWarning, __file__, 1, registry={})  # each time: `warn` would say it once
