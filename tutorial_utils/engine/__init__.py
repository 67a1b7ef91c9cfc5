"""ONNX model to TensorRT engine: one call that builds, caches and reports, for TensorRT 10, 11 and TensorRT-RTX.

::

    options = BuildOptions(profiles=[Profile.batch("x", (3, 32, 32), opt=32, max=64)], compute_capabilities=["8.6"])
    engine = build("model.onnx", options)
    engine.report.kernels  # what the optimizer made of the ONNX nodes

What `BuildOptions` doesn't have, a hook sets with TensorRT's own call, for this build alone::

    build("model.onnx", options, configure=lambda network, config: setattr(config, "max_aux_streams", 0))

The parts: `options` (what to build), `onnx_inputs` (for which inputs), `builder` (the TensorRT calls), `builder_flags`
(which flags, and which are refused), `calibrators` (INT8 scales for weakly typed networks), `layers` and `report`
(what came out), `computed_types` (in which precision), `cache` (not again), `timing_cache` (faster the next time),
`plan_header` (why a plan isn't loaded).
"""

import warnings
from dataclasses import dataclass, field
from pathlib import Path

from tutorial_utils.base import flavour, paths
from tutorial_utils.base.errors import BuildError
from tutorial_utils.base.gpu import find_gpu
from tutorial_utils.engine.cache import CacheEntry, cache_key
from tutorial_utils.engine.layers import EngineLayer, EngineTensor
from tutorial_utils.engine.options import BuildOptions, Configure, Profile, ShapeRange
from tutorial_utils.engine.report import BuildReport
from tutorial_utils.model import weight_files

__all__ = ["BuildOptions", "BuildReport", "Engine", "EngineLayer", "EngineTensor", "Profile", "ShapeRange", "build"]


@dataclass(frozen=True)
class Engine:
    """A serialized engine and what is known about it.

    Attributes:
        plan: The serialized engine, for `runners.tensorrt.TensorRTRunner` or any TensorRT runtime of the same version.
        report: What the build said. A cached engine has the report of the build that made it.
        onnx_path, options, configure: What it was built from.
        cache_folder: The folder of the engine cache, or None where the engine was built without one.
        from_cache: Whether this call found the engine in the cache.
        messages: What TensorRT logged while it built, in order; empty where the engine came from the cache.
    """

    plan: bytes
    report: BuildReport
    onnx_path: Path
    options: BuildOptions
    cache_folder: Path | None
    from_cache: bool
    messages: tuple[str, ...] = field(default=(), repr=False)
    configure: Configure | None = None

    def rebuilt(self) -> "Engine":
        """Build the engine again and replace what the cache holds: for a plan that the runtime refused."""
        cache = {"cache_folder": self.cache_folder, "use_cache": self.cache_folder is not None, "rebuild": True}
        return build(self.onnx_path, self.options, configure=self.configure, **cache)


def build(
    onnx_path: str | Path,
    options: BuildOptions | None = None,
    *,
    configure: Configure | None = None,
    cache_folder: str | Path | None = None,
    use_cache: bool = True,
    rebuild: bool = False,
    timing_cache: bool = True,
    progress: bool = True,
) -> Engine:
    """Build a TensorRT engine from an ONNX model, or read it from the cache if it was built before.

    A failed build can change the engines that the same process builds after it (seen with TensorRT-RTX 1.7.1: another
    layer more or less, the same results). Where sizes are compared, build in a fresh process after a failure.

    Args:
        onnx_path: The model. Its data types are the engine's: networks are strongly typed.
        options: Profiles, workspace, target GPUs; the defaults do for a model with static shapes.
        configure: Called once with TensorRT's `INetworkDefinition` and `IBuilderConfig`, just before the build. What it
            raises comes through; where it returns TensorRT's answer to a call, that answer is checked. A key can't tell
            what a hook does, so such a build is always made, and never stored in the cache.
        cache_folder: Where engines are kept; the package's cache folder unless given.
        use_cache: Read the engine from the cache folder and store it there.
        rebuild: Build also if the cache holds the engine.
        timing_cache: Take what earlier builds measured of kernels from a file in the cache folder, and add to it: a
            build then takes seconds instead of minutes. It counts without `use_cache` and for hooks, too. Pass False to
            measure a build. TensorRT-RTX has none.
        progress: Show a progress bar.

    Raises:
        ModelFileError: The model is missing or is no valid ONNX file, or its weights lie outside of its folder.
        UnsupportedOperatorError: TensorRT can't convert an operator of the model.
        ProfileError: The profiles don't fit the model's inputs.
        PrecisionError, TargetError: The options ask for what this TensorRT doesn't have.
        CalibrationError: INT8 was asked for, and there are no scales.
        BuildError: TensorRT refused the build or the hook's call; its last messages are in the text.
        CacheError: The engine has to be built, and the cache folder can't be written to.
        BackendUnavailableError: No TensorRT is installed, or it can't be used: data-centre TensorRT without a GPU.
    """
    onnx_path = Path(onnx_path)
    options = options or BuildOptions()
    if not isinstance(options, BuildOptions):
        raise BuildError(f"The options are {options!r}.", "Give BuildOptions(...).")
    if configure is not None and not callable(configure):
        raise BuildError(f"configure is {configure!r}.", "Give a function of the network and the configuration.")
    weight_files.named_by(onnx_path)  # refuses what TensorRT's parser would open wherever it lies
    times = None
    if timing_cache:  # whose folder needn't exist, nor be one that can be written
        times = Path(cache_folder or paths.cache_root() / "engines"), _tensorrt_identity()
    if configure or not use_cache:
        plan, report, messages = _build(onnx_path, options, progress, configure, times)
        return Engine(plan, report, onnx_path, options, None, False, messages, configure)

    cache_folder = Path(cache_folder or paths.cache_dir("engines"))
    key = cache_key(onnx_path, options, _tensorrt_identity())
    entry = CacheEntry(cache_folder, onnx_path.stem, key)
    cached = None if rebuild else entry.read_unlocked()  # also from a folder that can't be written
    if cached is not None:
        return Engine(*cached, onnx_path, options, cache_folder, from_cache=True)
    with entry.locked():
        cached = None if rebuild else entry.read()
        if cached is not None:
            return Engine(*cached, onnx_path, options, cache_folder, from_cache=True)
        plan, report, messages = _build(onnx_path, options, progress, None, times)
        if cache_key(onnx_path, options, _tensorrt_identity()) == key:
            entry.write(plan, report)
        else:  # stored, it would be found for the model that the file held before
            warnings.warn(f"{onnx_path.name} changed while its engine was built: it is not cached.", stacklevel=2)
    return Engine(plan, report, onnx_path, options, cache_folder, False, messages)


def _build(
    onnx_path: Path,
    options: BuildOptions,
    show_progress: bool,
    configure: Configure | None,
    times: tuple[Path, str] | None,
) -> tuple[bytes, BuildReport, tuple[str, ...]]:
    from tutorial_utils.engine import builder  # imports TensorRT, which a cached engine doesn't need

    return builder.build_plan(onnx_path, options, show_progress, configure, times)


def _tensorrt_identity() -> str:
    """Name what a plan depends on besides model and options: TensorRT's version and, for `tensorrt`, the GPU."""
    name = flavour.installed_flavour()
    wrong = flavour.mistyped(name)  # an engine in the cache would be found for a TensorRT that doesn't exist
    if wrong:
        raise wrong
    version = flavour.installed_version(name) if name else None
    if version is None:
        version = flavour.load().__version__  # raises the fitting error where there is no TensorRT
    gpu = find_gpu()[0] if name == "tensorrt" else None  # the driver knows; importing every library would take seconds
    return f"{name} {version} {gpu.name} {gpu.compute_capability}" if gpu else f"{name} {version}"
