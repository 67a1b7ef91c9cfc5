"""Lesson 03a and 03d: what TensorRT's builder makes of one small network, option by option.

Its rows need data-centre TensorRT: levels, flags of weak typing, plugins, refitting and compatibility are what
TensorRT-RTX lacks, or has on a GPU only. The network is the quick classifier, for up to 64 images of 3x32x32.
"""

import functools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from tutorial_utils import engine
from tutorial_utils.base import flavour
from tutorial_utils.engine import computed_types
from tutorial_utils.engine.options import Configure
from tutorial_utils.lessons.lesson03 import snake_plugin
from tutorial_utils.measure import quality, rows, timing
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.timing import Measurement
from tutorial_utils.model import data
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

if TYPE_CHECKING:
    import pandas

    from tutorial_utils.engine.tensorrt import trt

METHOD = (
    "each row in a process of its own; build time by the host's clock, without a timing cache where rows are compared "
    "by it; types from TensorRT's inspector; engine time by CUDA events, copies excluded, median over rounds after a "
    "warm-up until steady"
)
BATCH = 64
LEVELS = range(6)


@dataclass(frozen=True)
class Layer:
    """A kernel of an engine, by `computed_types`: what it does, in which type, what says so, and its ONNX nodes."""

    name: str
    operation: str
    dtype: str
    evidence: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """An engine.

    Attributes:
        build_s: Seconds of the build, without reading the file.
        plan_bytes: Of the plan.
        line: What it computes in: `computed_types.line`.
        layers: Its kernels.
        times: Of the engine alone, by batch.
    """

    build_s: float
    plan_bytes: int
    line: str
    layers: tuple[Layer, ...]
    times: dict[int, Measurement]


@dataclass(frozen=True)
class Result:
    """What the experiment found, by name of the row.

    Attributes:
        engines: Of the rows that are engines: ``level/3``, ``typing/weak_fp16``, ``profile/opt_1``.
        facts: What the other rows found, as their functions return it.
        reasons: Of rows that failed, why.
    """

    engines: dict[str, Built]
    facts: dict[str, dict[str, Any]]
    reasons: dict[str, str]


def _require_tensorrt() -> None:
    from tutorial_utils.engine.tensorrt import require_gpu

    flavour.require("tensorrt")
    require_gpu()


def _profile(opt: int = BATCH) -> engine.Profile:
    return engine.Profile.batch("x", data.IMAGE_SHAPE, opt=opt, max=BATCH)


def _images() -> np.ndarray:
    return data.load("digits", "test").images[:BATCH]


# --- engines ---------------------------------------------------------------------------------------------------------


def _fields(built: engine.Engine, batches: tuple[int, ...] = (BATCH,)) -> dict[str, Any]:
    """Return the fields of a `Built`, with times of these batches."""
    from tutorial_utils.runners.tensorrt import TensorRTRunner

    kernels = built.report.kernels
    found = [computed_types.of_layer(kernel) for kernel in kernels]
    layers = [
        {"name": kernel.name, "operation": one.operation, "dtype": one.dtype, "evidence": one.evidence,
         "nodes": kernel.onnx_nodes}
        for kernel, one in zip(kernels, found, strict=True)
    ]  # fmt: skip
    times = {}
    with TensorRTRunner(built) as runner:
        for batch in batches:
            call = functools.partial(runner.device_times, {next(iter(runner.inputs)): _images()[:batch]})
            times[batch] = timing.measure_on_device(call, batch=batch, seconds=0.2, max_calls=100).to_dict()
    return {
        "build_s": round(built.report.build_seconds, 3),
        "plan_bytes": len(built.plan),
        "line": built.report.precision_line,
        "layers": layers,
        "times": times,
    }


def level(number: int, models: Mapping[str, Path]) -> dict[str, Any]:
    """Build the FP32 file at an optimization level, without a timing cache."""
    _require_tensorrt()
    options = engine.BuildOptions((_profile(),), optimization_level=number)
    return _fields(engine.build(models["quick-fp32"], options, use_cache=False, timing_cache=False, progress=False))


def first_convolution_in_fp32(network: "trt.INetworkDefinition", config: "trt.IBuilderConfig") -> None:
    """Ask a weakly typed network to keep one layer in FP32."""
    from tutorial_utils.engine.tensorrt import IS_RTX, trt

    layers = (network.get_layer(i) for i in range(network.num_layers))
    layer = next(layer for layer in layers if layer.type == trt.LayerType.CONVOLUTION)
    if not IS_RTX:
        layer.precision = trt.float32


# By name of the row: the file, the options, and what TensorRT's network is asked for beside them.
TYPING: dict[str, tuple[str, dict[str, Any], Configure | None]] = {
    "typing/strong_fp32": ("quick-fp32", {}, None),
    "typing/strong_fp16": ("quick-fp16", {}, None),
    "typing/weak_fp32": ("quick-fp32", {"strongly_typed": False}, None),
    "typing/weak_fp16": ("quick-fp32", {"strongly_typed": False, "flags": ("fp16",)}, None),
    "typing/weak_fp16_one_in_fp32": (
        "quick-fp32",
        {"strongly_typed": False, "flags": ("fp16", "obey_precision_constraints")},
        first_convolution_in_fp32,
    ),
}


def typing(name: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """Build one of `TYPING`."""
    _require_tensorrt()
    model, chosen, configure = TYPING[name]
    options = engine.BuildOptions((_profile(),), **chosen)
    return _fields(engine.build(models[model], options, configure=configure, use_cache=False, progress=False))


def profile(opts: tuple[int, ...], models: Mapping[str, Path]) -> dict[str, Any]:
    """Build the FP16 file with a profile for each of these batches; time the first profile with 1 and 64 images."""
    _require_tensorrt()
    options = engine.BuildOptions(tuple(map(_profile, opts)))
    return _fields(engine.build(models["quick-fp16"], options, use_cache=False, progress=False), (1, BATCH))


def compatible(chosen: Mapping[str, Any], models: Mapping[str, Path]) -> dict[str, Any]:
    """Build the FP16 file for more than this GPU, or for more than this version."""
    _require_tensorrt()
    options = engine.BuildOptions((_profile(),), **chosen)
    return _fields(engine.build(models["quick-fp16"], options, use_cache=False, progress=False))


# --- everything else -------------------------------------------------------------------------------------------------


def refused(models: Mapping[str, Path]) -> dict[str, Any]:
    """Ask for what contradicts strong typing, with TensorRT's own calls: whether there is a plan, and what is logged.

    Also what the builder says of this GPU, which code for TensorRT 8.6 asks.
    """
    _require_tensorrt()
    from tutorial_utils.engine.tensorrt import IS_RTX, MessageLog, trt

    found: dict[str, Any] = {}
    if IS_RTX:  # never: see above. It tells the type checker that what follows is data-centre TensorRT's.
        return found
    flags = {"FP16 flag": trt.BuilderFlag.FP16, "INT8 flag": trt.BuilderFlag.INT8, "layer.precision": None}
    for what, flag in flags.items():
        log = MessageLog()
        builder = trt.Builder(log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        parser.parse_from_file(str(models["quick-fp32"]))
        shape_range = builder.create_optimization_profile()
        shape_range.set_shape("x", (1, 3, 32, 32), (BATCH, 3, 32, 32), (BATCH, 3, 32, 32))
        config = builder.create_builder_config()
        config.add_optimization_profile(shape_range)
        if flag is None:
            network.get_layer(0).precision = trt.float16
        else:
            config.set_flag(flag)
        built = builder.build_serialized_network(network, config) is not None
        found[what] = {"built": built, "said": log.last_errors(5), "flag_is_set": flag and config.get_flag(flag)}
        names = ("platform_has_fast_fp16", "platform_has_fast_int8", "platform_has_tf32")
        found["platform"] = {name: getattr(builder, name) for name in names}
    return found


def again(models: Mapping[str, Path]) -> dict[str, Any]:
    """Build the FP32 file without times, with those of that build, and without again: seconds, kernels and bytes."""
    _require_tensorrt()

    def build(folder: str | None, optimization_level: int | None = None) -> engine.Engine:
        options = engine.BuildOptions((_profile(),), optimization_level=optimization_level)
        how = {"use_cache": False, "progress": False, "timing_cache": folder is not None, "cache_folder": folder}
        return engine.build(models["quick-fp32"], options, configure=_named, **how)

    build(None, optimization_level=0)  # the first build of a process also loads libraries
    with tempfile.TemporaryDirectory() as folder:
        built = {"first": build(folder), "with its times": build(folder), "without again": build(None)}
        cache_bytes = sum(path.stat().st_size for path in Path(folder).rglob("*.cache"))
    first = built["first"]
    tactics = {name: [layer.tactic for layer in one.report.layers] for name, one in built.items()}
    return {
        "cache_bytes": cache_bytes,
        **{
            name: {
                "build_s": round(one.report.build_seconds, 3),
                "same_kernels": tactics[name] == tactics["first"],
                "same_bytes": one.plan == first.plan,
            }
            for name, one in built.items()
        },
    }


def _named(network: Any, config: Any) -> None:
    network.name = "classifier"  # else the builder numbers its networks, and the number is in the plan


def plugin(with_plugin: bool, models: Mapping[str, Path]) -> dict[str, Any]:
    """Build two convolutions with Snake between them, as a plugin or in operators of ONNX; compare with ONNX Runtime.

    Returns:
        The fields of `Built`, and ``relative_error``.
    """
    _require_tensorrt()
    from tutorial_utils.runners.tensorrt import TensorRTRunner, primary_context

    with tempfile.TemporaryDirectory() as folder, primary_context():
        standard, custom = snake_plugin.save_models(Path(folder))
        with OnnxRuntimeRunner(standard) as runner:
            (expected,) = runner.infer({"x": _images()}).values()
        if with_plugin:
            snake_plugin.registered()
        options = engine.BuildOptions(without_flags=("tf32",))
        built = engine.build(custom if with_plugin else standard, options, use_cache=False, progress=False)
        with TensorRTRunner(built) as runner:
            (found,) = runner.infer({"x": _images()}).values()
        return {**_fields(built), "relative_error": quality.relative_error(found, expected)}


def refit(flag: str, models: Mapping[str, Path]) -> dict[str, Any]:
    """Build with a flag that lets weights be replaced, and refit the engine: with other weights, or a stripped plan's.

    Returns:
        Sizes of the plans as built and after refitting, seconds of both, errors of the refitted engine's logits against
        ONNX Runtime's for the weights that it got, and against those for the weights that it was built with.
    """
    _require_tensorrt()
    import time

    from tutorial_utils.engine.tensorrt import MessageLog, checked, load_plan, trt
    from tutorial_utils.runners.tensorrt import TensorRTRunner, primary_context

    with tempfile.TemporaryDirectory() as folder, primary_context():
        new = models["quick-fp32"]
        if flag == "refit":
            new = Path(folder) / "retrained.onnx"
            onnx.save(other_bias(onnx.load(models["quick-fp32"])), new)
        options = engine.BuildOptions((_profile(),), flags=(flag,), without_flags=("tf32",))
        built = engine.build(models["quick-fp32"], options, use_cache=False, progress=False)
        log = MessageLog()
        loaded = load_plan(built.plan, log)
        started = time.perf_counter()
        refitter = trt.Refitter(loaded, log)
        parser = trt.OnnxParserRefitter(refitter, log)
        checked(parser.refit_from_file(str(new)), log)
        missing = len(refitter.get_missing_weights())
        checked(refitter.refit_cuda_engine(), log)
        seconds = time.perf_counter() - started
        serialization = loaded.create_serialization_config()
        serialization.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
        whole = bytes(loaded.serialize_with_config(serialization))
        weights = len(refitter.get_all_weights())
        del parser, refitter, loaded
        with TensorRTRunner(whole) as runner:
            (found,) = runner.infer({"x": _images()}).values()
        errors = {}
        for name, path in (("new", new), ("old", models["quick-fp32"])):
            with OnnxRuntimeRunner(path) as runner:
                errors[name] = quality.relative_error(found, next(iter(runner.infer({"x": _images()}).values())))
        return {
            "build_s": round(built.report.build_seconds, 3),
            "refit_s": round(seconds, 4),
            "plan_bytes": len(built.plan),
            "whole_bytes": len(whole),
            "weights": weights,
            "missing": missing,
            "errors": errors,
        }


def other_bias(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let a classifier of ten classes vote for the seventh, whatever the image: as if it had been trained again."""
    bias = next(weight for weight in model.graph.initializer if list(weight.dims) == [10])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.eye(10, dtype=np.float32)[7] * 1000, bias.name))
    return model


def memory(models: Mapping[str, Path]) -> dict[str, Any]:
    """Make four contexts of one engine, each with memory of its own, then sharing one block: bytes, equal logits."""
    _require_tensorrt()
    import pycuda.driver as cuda

    from tutorial_utils.engine.tensorrt import MessageLog, load_plan, trt
    from tutorial_utils.runners.tensorrt import primary_context

    user_managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    built = engine.build(models["quick-fp32"], engine.BuildOptions((_profile(),)), use_cache=False, progress=False)
    with primary_context():
        loaded = load_plan(built.plan, MessageLog())
        contexts = [loaded.create_execution_context()]  # what only the first one takes isn't counted
        free = [cuda.mem_get_info()[0]]
        contexts += [loaded.create_execution_context() for _ in range(4)]
        free.append(cuda.mem_get_info()[0])
        size = loaded.device_memory_size_v2
        block = cuda.mem_alloc(max(size, 1))
        sharing = [loaded.create_execution_context(user_managed) for _ in range(4)]
        free.append(cuda.mem_get_info()[0])
        for context in sharing:
            context.set_device_memory(int(block), size)
        logits = [_called(context) for context in (*contexts, *sharing)]
        equal = all(np.array_equal(logits[0], other) for other in logits)
        del context, contexts, sharing, block, loaded
    return {"size": size, "own": free[0] - free[1], "shared": free[1] - free[2], "equal": equal}


def _called(context: Any) -> np.ndarray:
    """Return the logits of 64 images by a context, one call at a time."""
    import pycuda.driver as cuda

    images, logits = np.ascontiguousarray(_images()), np.empty((BATCH, 10), np.float32)
    stream = cuda.Stream()
    memory = {"x": cuda.to_device(images), "logits": cuda.mem_alloc(logits.nbytes)}
    names = [context.engine.get_tensor_name(i) for i in range(context.engine.num_io_tensors)]
    (output,) = [name for name in names if name != "x"]
    if not context.set_input_shape("x", images.shape) or not context.set_tensor_address("x", int(memory["x"])):
        raise RuntimeError("TensorRT refused the input.")
    if not context.set_tensor_address(output, int(memory["logits"])) or not context.execute_async_v3(stream.handle):
        raise RuntimeError("TensorRT refused the call.")
    stream.synchronize()
    cuda.memcpy_dtoh(logits, memory["logits"])
    return logits


ROWS: dict[str, rows.MeasureRow] = {  # the most telling first: measuring all of them takes ten minutes
    "refused": refused,
    "plugin/snake": functools.partial(plugin, True),
    "plugin/operators": functools.partial(plugin, False),
    "memory": memory,
    "refit/strip_plan": functools.partial(refit, "strip_plan"),
    "refit/refit": functools.partial(refit, "refit"),
    **{name: functools.partial(typing, name) for name in TYPING},
    **{f"level/{number}": functools.partial(level, number) for number in LEVELS},
    "compatible/no": functools.partial(compatible, {}),
    "compatible/hardware": functools.partial(compatible, {"hardware_compatible": True}),
    "compatible/version": functools.partial(compatible, {"flags": ("version_compatible",)}),
    "profile/opt_1": functools.partial(profile, (1,)),
    "profile/opt_64": functools.partial(profile, (BATCH,)),
    "profile/both": functools.partial(profile, (1, BATCH)),
    "again": again,
}


def read(values: Mapping[str, Any]) -> Result:
    """Return what a recording holds."""
    found = rows.read(values)
    measured = {row.name: row.values for row in found if row.values is not None}
    engines = {name: _built(one) for name, one in measured.items() if "layers" in one}
    return Result(
        engines,
        {name: one for name, one in measured.items() if "layers" not in one or "relative_error" in one},
        {row.name: row.reason for row in found if row.values is None},
    )


def _built(values: Mapping[str, Any]) -> Built:
    layers = tuple(Layer(**{**layer, "nodes": tuple(layer["nodes"])}) for layer in values["layers"])
    times = {int(batch): Measurement.from_dict(one) for batch, one in values["times"].items()}
    return Built(values["build_s"], values["plan_bytes"], values["line"], layers, times)


def table(result: Result, *names: str) -> "pandas.DataFrame":
    """Return seconds of the build and milliseconds of the engine alone, with the 95 % interval of the median.

    Args:
        result: Of this experiment.
        names: Rows of `Result.engines`, or beginnings of names such as ``"level/"``, which stand for all that have it.
    """
    import pandas

    lines = {}
    for wanted in names:
        for name, one in result.engines.items():
            if name.startswith(wanted):
                lines[name] = {"build s": f"{one.build_s:.1f}"}
                for batch, times in one.times.items():
                    low, high = timing.median_interval(times)
                    images = "image" if batch == 1 else "images"
                    lines[name][f"{batch} {images}, ms"] = f"{times.median_ms:.3f} ({low:.3f} to {high:.3f})"
    return pandas.DataFrame(lines).T.fillna("")


EXPERIMENT = Experiment(
    name="lesson03_builder",
    title="TensorRT's builder, option by option, with one small network",
    method=METHOD,
    rows=ROWS,
    read=read,
    models=("quick-fp32.onnx", "quick-fp16.onnx"),
)
