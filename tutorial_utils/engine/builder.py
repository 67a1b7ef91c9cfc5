"""ONNX to a serialized TensorRT engine (plan): every TensorRT call of a build, for TensorRT 10, 11 and RTX."""

import contextlib
import math
import resource
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx

from tutorial_utils.base import progress, shapes
from tutorial_utils.base.errors import (
    BuildError,
    CalibrationError,
    ModelFileError,
    ProfileError,
    TargetError,
    UnsupportedOperatorError,
    first_line,
)
from tutorial_utils.base.flavour import FLAVOURS
from tutorial_utils.engine import builder_flags, onnx_inputs
from tutorial_utils.engine import report as reports
from tutorial_utils.engine.cache import model_hash
from tutorial_utils.engine.layers import EngineLayer
from tutorial_utils.engine.options import BuildOptions, Configure, Profile
from tutorial_utils.engine.tensorrt import IS_RTX, MessageLog, checked, load_plan, reason_of, require_gpu, trt
from tutorial_utils.engine.timing_cache import TimingCache
from tutorial_utils.model import onnx_file

_STACK_BYTES = 120 << 20
_DOCTOR = "Run `python -m tutorial_utils doctor`."


class Interruption:
    """Ctrl+C while TensorRT works: noted inside a `with` block, and raised as KeyboardInterrupt where that ends.

    Raised at once, it would come out of one of TensorRT's calls to Python, as that of a logger, where it is swallowed.
    """

    def __init__(self):
        self.came = False
        self._handler: Any = None

    def __enter__(self) -> "Interruption":
        in_main_thread = threading.current_thread() is threading.main_thread()  # no other one may handle signals
        if in_main_thread and callable(signal.getsignal(signal.SIGINT)):
            self._handler = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, *_: Any) -> None:
        self.came = True

    def __exit__(self, *_: object) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
        if self.came:
            raise KeyboardInterrupt


class Monitor(trt.IProgressMonitor):
    """Shows how far a build is, and ends it after Ctrl+C.

    There is one bar for the outermost phase, named after the phase that is running.
    """

    def __init__(self, description: str, interruption: Interruption, shown: bool):
        trt.IProgressMonitor.__init__(self)
        self._description = description
        self._interruption = interruption
        self._shown = shown
        self._outermost: str | None = None
        self._bar = None

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Open the bar for the outermost phase, or name the inner one (called by TensorRT)."""
        if not self._shown:
            return
        if self._bar is None:
            self._outermost = phase_name
            self._bar = progress.bar(description=self._description, total=num_steps, unit="step")
        else:
            self._bar.set_postfix_str(phase_name)

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Move the bar (called by TensorRT), and return False to cancel the build."""
        if phase_name == self._outermost and self._bar is not None:
            self._bar.update(step + 1 - self._bar.n)
        return not self._interruption.came

    def phase_finish(self, phase_name: str) -> None:
        """Close the bar with the outermost phase (called by TensorRT)."""
        if phase_name == self._outermost and self._bar is not None:
            self._bar.close()


def build_plan(
    onnx_path: Path,
    options: BuildOptions,
    show_progress: bool,
    configure: Configure | None,
    times: tuple[Path, str] | None,
) -> tuple[bytes, reports.BuildReport, tuple[str, ...]]:
    """Build an engine as `engine.build` does, which also says what is raised, but without the cache.

    Args:
        onnx_path, options, configure: As of `engine.build`.
        show_progress: Show a progress bar.
        times: Folder of the timing cache, and the TensorRT and GPU that it is for; None to go without.

    Returns:
        The plan, the report of its build, and every message that TensorRT logged.
    """
    require_gpu()
    with Interruption() as interruption:
        log = MessageLog()
        builder = trt.Builder(log)
        flags = builder_flags.network_flags(options)
        network = checked(builder.create_network(flags), log, BuildError, "TensorRT can't create a network", _DOCTOR)
        started = time.perf_counter()
        _parse(network, log, onnx_path, options.profiles)
        parsed = time.perf_counter()
        config = _configure(builder, network, log, options)
        config.progress_monitor = Monitor(f"Building {onnx_path.name}", interruption, show_progress)
        timing_cache = TimingCache(config, log, *times) if times and not IS_RTX else None
        if timing_cache:
            timing_cache.attach()
        answer = configure(network, config) if configure else None
        if answer is not None:  # most calls return nothing
            checked(answer, log, BuildError, "TensorRT refuses what configure asks for", "Read its message.")
        calibrator = _prepare_calibration(builder, config, onnx_path)
        with _deep_stack():
            serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise getattr(calibrator, "failure", None) or _build_error(onnx_path, log)
        if timing_cache:
            timing_cache.save()
        plan = bytes(serialized)
        built = time.perf_counter()
        report = reports.BuildReport(
            flavour=FLAVOURS[trt.__name__],
            version=trt.__version__,
            targets=options.compute_capabilities,
            layers=_layers(plan, log, options) if config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED else (),
            **reports.memory_from_log(log.texts()),
            plan_bytes=len(plan),
            parse_seconds=parsed - started,
            build_seconds=built - parsed,
            warnings=log.warnings(),
        )
        return plan, report, tuple(log.texts())


@contextlib.contextmanager
def _deep_stack() -> Iterator[None]:
    """Let this thread's stack grow further than the usual 8 MiB, where it is the process's first.

    TensorRT follows a network by calls within calls: with TensorRT-RTX 1.7.1, a chain of 5,000 operators ended the
    process by a segmentation fault. Linux leaves 128 MiB for the first stack; threads have a size of their own.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    unlimited = resource.RLIM_INFINITY
    wanted = _STACK_BYTES if hard == unlimited else min(hard, _STACK_BYTES)
    if soft == unlimited or soft >= wanted:
        yield
        return
    resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))


def _parse(network: trt.INetworkDefinition, log: MessageLog, path: Path, profiles: Sequence[Profile]) -> None:
    parser = trt.OnnxParser(network, log)
    content = onnx_inputs.content(path, profiles)
    parsed = parser.parse_from_file(str(path)) if content is None else parser.parse(content, str(path))
    if not parsed:
        raise _refusal(parser, log, path)
    if network.num_outputs == 0:  # the parser takes an empty file for an empty model
        raise ModelFileError(f"{path.name} is empty or has no outputs.", "Export the model again.")


def _refusal(parser: trt.OnnxParser, log: MessageLog, path: Path) -> ModelFileError | UnsupportedOperatorError:
    """Return the error for a file that the parser doesn't take: it is damaged, or holds what TensorRT can't convert."""
    refusals = [parser.get_error(i) for i in range(parser.num_errors)]
    reasons = "; ".join(filter(None, dict.fromkeys(reason_of(one.desc()) for one in refusals)))
    codes = {one.code() for one in refusals}
    # An operator that the parser doesn't know is "invalid": RTX 1.7 looked for a plugin in vain, RTX 1.6 didn't look.
    unknown = any("Plugin not found" in one.desc() or "is not supported in" in one.desc() for one in refusals)
    unsupported = {trt.ErrorCode.UNSUPPORTED_NODE, trt.ErrorCode.UNSUPPORTED_NODE_ATTR, trt.ErrorCode.UNSUPPORTED_GRAPH}
    fault = "" if unknown or codes & unsupported else _fault(path)
    if fault:
        return ModelFileError(
            f"TensorRT's parser refuses {path.name}: {reasons or log.last_errors()}; onnx says: {fault}.",
            "Export the model again, and keep files of external weights beside it.",
        )
    onnx_file.load(path, external_data=False)  # says so where the file is damaged, instead of an operator missing
    operators = ", ".join(sorted({one.node_operator() for one in refusals if one.node_operator()}))
    opset = next((one.version for one in onnx.load(path, load_external_data=False).opset_import if not one.domain), 0)
    cause = f"TensorRT can't convert {operators or 'part of the graph'} in {path.name}"
    remedy = "Replace the operator in the model, or run that part of it outside TensorRT."
    if 0 < opset < 7:  # the oldest that the parser supports
        cause += f", which is of opset {opset}"
        remedy = "Raise the opset: onnx.version_converter.convert_version(onnx.load(path), 13)."
    return UnsupportedOperatorError(f"{cause}: {reasons}." if reasons else f"{cause}.", remedy)


def _fault(path: Path) -> str:
    """Return why a file is no valid ONNX; "" where it is, or where TensorRT needn't mind what `onnx` says."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # protobuf, the checker and shape inference raise several kinds
        tolerated = "ir_version", "No Op registered", "Field 'shape'"  # newer than onnx; outputs of undeclared shape
        return "" if any(one in str(error) for one in tolerated) else reason_of(str(error))
    return ""


def _configure(
    builder: trt.Builder, network: trt.INetworkDefinition, log: MessageLog, options: BuildOptions
) -> trt.IBuilderConfig:
    config = checked(builder.create_builder_config(), log, BuildError, "TensorRT gives no build configuration", _DOCTOR)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the log then has the layers
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    _check_profiles({tensor.name: tuple(tensor.shape) for tensor in inputs}, options.profiles)
    _check_values({tensor.name: tuple(tensor.shape) for tensor in inputs if tensor.is_shape_tensor}, options.profiles)
    for wanted in options.profiles:
        profile = checked(builder.create_optimization_profile(), log, BuildError, "TensorRT gives no profile", _DOCTOR)
        try:
            for name, given in wanted.ranges:
                profile.set_shape(name, given.min, given.opt, given.max)
            for name, values in wanted.values:
                profile.set_shape_input(name, values.min, values.opt, values.max)
        except (RuntimeError, ValueError, TypeError) as error:  # as of more elements than TensorRT counts
            raise ProfileError(
                f"TensorRT refuses the profile of {name}: {first_line(error)}.", "Give sizes that a tensor can have."
            ) from error
        checked(
            config.add_optimization_profile(profile),
            log, ProfileError, f"TensorRT refuses the profile {wanted.ranges}", "Check its shapes against the model.",
        )  # fmt: skip
    if options.compute_capabilities:
        _set_targets(config, log, options.compute_capabilities)
    builder_flags.configure(config, options, log)
    return config


def _prepare_calibration(builder: trt.Builder, config: trt.IBuilderConfig, onnx_path: Path) -> Any:
    """Let TensorRT calibrate at the batch that the hook's calibrator feeds; it would take the first profile's best.

    Returns:
        The calibrator, or None where there is none.
    """
    if IS_RTX or not builder_flags.has_weak_typing():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TensorRT's, of every word about calibration
        calibrator = config.int8_calibrator
        if calibrator is not None and not config.get_flag(trt.BuilderFlag.INT8):
            raise CalibrationError(
                "The build has a calibrator, and INT8 isn't among its flags: TensorRT would never ask it.",
                'Pass strongly_typed=False, flags=("int8", "fp16").',
            )
        if calibrator is not None and getattr(calibrator, "model", None) not in (None, model_hash(onnx_path)):
            raise CalibrationError(
                f"The calibrator was made for another model than {onnx_path.name}.", "Make one for this model."
            )
        given = getattr(calibrator, "batch_shapes", {})  # a calibrator of somebody's own has to fit the profile
        if given and config.get_calibration_profile() is None:
            profile = builder.create_optimization_profile()
            for name, shape in given.items():
                profile.set_shape(name, shape, shape, shape)
            config.set_calibration_profile(profile)
    return calibrator


def _check_profiles(inputs: dict[str, tuple[int, ...]], profiles: Sequence[Profile]) -> None:
    dynamic = {name: shape for name, shape in inputs.items() if -1 in shape}
    if dynamic and not profiles:
        name, shape = next(iter(dynamic.items()))
        raise ProfileError(
            f"The input {name} has the dynamic shape {shape}, and there is no profile for it.",
            f"Pass profiles=[Profile.of({name}=(min_shape, opt_shape, max_shape))].",
        )
    for profile in profiles:
        names = dict(profile.ranges).keys()
        if not dynamic.keys() <= names <= inputs.keys():
            raise ProfileError(
                f"A profile gives ranges for {', '.join(names) or 'nothing'}, but the dynamic inputs are "
                f"{', '.join(dynamic) or 'none'}.",
                "Give one range for each dynamic input, under the name that the ONNX file uses.",
            )
        for name, given in profile.ranges:
            declared = inputs[name]
            if not all(shapes.fits(shape, declared, zero_is_open=False) for shape in (given.min, given.max)):
                raise ProfileError(
                    f"The profile's range {given.min} to {given.max} doesn't fit the input {name} of shape {declared}.",
                    "Only the dimensions of -1 may vary; the others must be as in the model.",
                )


def _check_values(inputs: dict[str, tuple[int, ...]], profiles: Sequence[Profile]) -> None:
    wanted = {name: math.prod(shape) for name, shape in inputs.items()}
    for profile in profiles or [Profile(())]:
        given = {name: len(values.opt) for name, values in profile.values}
        if given != wanted:
            needs, has = (", ".join(f"{one[name]} of {name}" for name in one) or "none" for one in (wanted, given))
            raise ProfileError(
                f"TensorRT needs the values of inputs that it reads as shapes ({needs}), and a profile gives {has}.",
                "Give Profile.with_values the smallest, usual and largest values of each such input, or `inspect` the "
                "option --values NAME:1,3,64,64.",
            )


def _set_targets(config: trt.IBuilderConfig, log: MessageLog, targets: Sequence[str]) -> None:
    if not IS_RTX:
        raise TargetError(
            "Only TensorRT-RTX builds for other GPUs than the one at hand.",
            "Name no compute capability, or install tensorrt-rtx.",
        )
    members = trt.ComputeCapability.__members__.items()  # SM86 is 8.6, SM120 is 12.0
    known = {f"{name[2:-1]}.{name[-1]}": value for name, value in members if name[-1].isdigit()}
    unknown = [target for target in targets if target not in known]
    if unknown:
        raise TargetError(
            f"TensorRT-RTX {trt.__version__} can't build for compute capability {', '.join(unknown)}.",
            f"Choose from {', '.join(known)}, or name none, for TensorRT-RTX's own choice.",
        )
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        checked(
            config.set_compute_capability(known[target], index),
            log, TargetError, f"TensorRT-RTX refuses the target {target}", "Choose another target.",
        )  # fmt: skip


def _layers(plan: bytes, log: MessageLog, options: BuildOptions) -> tuple[EngineLayer, ...]:
    if not IS_RTX:  # it builds with a GPU only, and its log says less: TensorRT 10.6 leaves memory formats out
        return inspect_plan(plan, host_code="version_compatible" in options.flags)
    if layers := reports.layers_from_log(log.texts()):
        return layers
    text = f"The report has no layers: the log of {trt.__version__} has an unknown form."
    warnings.warn_explicit(text, UserWarning, __file__, 1, registry={})  # each time: `warn` would say it once
    return ()


def inspect_plan(plan: bytes, *, host_code: bool = False) -> tuple[EngineLayer, ...]:
    """Read the layers of a plan with the engine inspector, which needs a GPU that can load the plan.

    Args:
        plan: The plan.
        host_code: As of `engine.tensorrt.load_plan`.

    Raises:
        PlanError: The plan can't be loaded on this machine.
        BackendUnavailableError: There is no GPU.
        BuildError: TensorRT's inspector says nothing.
    """
    log = MessageLog()
    engine = load_plan(plan, log, host_code=host_code)
    inspector = checked(engine.create_engine_inspector(), log, BuildError, "TensorRT gives no inspector", _DOCTOR)
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    layers = reports.layers_from_inspector(checked(text, log, BuildError, "TensorRT's inspector says nothing", _DOCTOR))
    if not IS_RTX and layers and (context := _context_at_best_shapes(engine)):
        inspector.execution_context = context  # TensorRT 10 tells memory formats with one only
        in_context = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        layers = reports.with_formats(layers, reports.layers_from_inspector(in_context or "{}"))
        del inspector, context  # before the engine
    return layers


def _context_at_best_shapes(engine: trt.ICudaEngine) -> trt.IExecutionContext | None:
    """Return a context with the shapes of the first profile that it is best at; None where one can't be had."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    if any(engine.is_shape_inference_io(name) for name in inputs):
        return None  # their values would be needed, too
    context = engine.create_execution_context()  # None where the GPU's memory doesn't hold it
    fits = context and all(
        context.set_input_shape(name, engine.get_tensor_profile_shape(name, 0)[1]) for name in inputs
    )
    return context if fits else None


def _build_error(onnx_path: Path, log: MessageLog) -> BuildError | CalibrationError:
    text = " ".join(log.texts()[-50:])
    if "no scaling factors detected" in text:
        return CalibrationError(
            f"{onnx_path.name} was to become INT8, and nothing gives the scales: neither Q/DQ nodes in the file nor a "
            f"calibrator. TensorRT: {log.last_errors(1)}.",
            "Quantize the file with model.quantization.to_int8, or let configure set one of engine.calibrators.",
        )
    remedy = "Read TensorRT's message above; `polygraphy inspect capability` names nodes that TensorRT can't convert."
    if "workspace" in text or "OutOfMemory" in text:
        remedy = "Raise workspace_bytes, or leave it out: the default is all of the GPU's memory."
    if "HW-specific datatypes" in text:
        remedy = "Choose a target that has the model's data types (FP8 needs 8.9 or later), or another precision."
    return BuildError(f"TensorRT can't build an engine from {onnx_path.name}: {log.last_errors()}.", remedy)
