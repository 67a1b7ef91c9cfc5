"""TensorRT reports trouble by logging it and returning None, False or -1: keep the log, and check what is returned."""

import re
from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

from tutorial_utils.base import flavour
from tutorial_utils.base.errors import BackendUnavailableError, CourseError, PlanError
from tutorial_utils.base.gpu import find_gpu
from tutorial_utils.base.requirements import pip_install, requirement
from tutorial_utils.engine import plan_header

if TYPE_CHECKING:
    import tensorrt as trt  # tests/engine/test_tensorrt_api.py lets this be TensorRT 10 and TensorRT-RTX in turn
else:
    trt = flavour.load()

IS_RTX: bool = trt.__name__ == "tensorrt_rtx"  # guards what only one of the two has; the type checker knows its value
_NO_DRIVER = "cudaError 35"  # said on every machine without a driver, beside the reason
T = TypeVar("T")


class MessageLog(trt.ILogger):
    """A TensorRT logger that keeps every message instead of printing it.

    TensorRT may log from several threads; appending to a list is safe in Python.
    """

    def __init__(self):
        trt.ILogger.__init__(self)
        self.messages: list[tuple[int, str]] = []

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        """Keep one message (called by TensorRT)."""
        self.messages.append((int(severity), message))

    def texts(self) -> list[str]:
        """Return all messages in order, without their severity."""
        return [text for _, text in self.messages]

    def warnings(self) -> tuple[str, ...]:
        """Return the warnings, each once."""
        wanted = int(trt.ILogger.Severity.WARNING)
        return tuple(dict.fromkeys(text for severity, text in self.messages if severity == wanted))

    def last_errors(self, count: int = 3) -> str:
        """Return TensorRT's last error messages in one line, or its last warnings where it logged no error."""
        limit = int(trt.ILogger.Severity.ERROR)  # INTERNAL_ERROR is 0, ERROR 1, WARNING 2
        errors = [text for severity, text in self.messages if severity <= limit]
        told = [text for text in errors if _NO_DRIVER not in text] or errors or self.warnings()
        texts = list(dict.fromkeys(told))[-count:]
        return "; ".join(" ".join(text.split()) for text in texts) or "TensorRT gave no message"


class LayerTimes(trt.IProfiler):
    """Collects what TensorRT reports after each call: a name and milliseconds for every layer."""

    def __init__(self):
        trt.IProfiler.__init__(self)
        self.milliseconds: dict[str, list[float]] = defaultdict(list)

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        """Take the time of one layer in one call (called by TensorRT)."""
        self.milliseconds[layer_name].append(ms)


def reason_of(text: str) -> str:
    """Return what a message of the ONNX parser says, in one line: "" for a bare condition of its source code."""
    lines = [line for line in text.splitlines() if _NO_DRIVER not in line and not line.startswith("Invalid Node")]
    reason = " ".join(" ".join(lines or [text]).split()).rstrip(".")
    quoted = re.search(r'&& "(.*)"$', reason)  # convertDtype(onnxType, &newType) && "Unsupported data type for the ..."
    return quoted[1].rstrip(".!") if quoted else reason.removeprefix("false")


def checked(
    result: T | None,
    log: MessageLog,
    error: type[CourseError] = PlanError,
    failure: str = "TensorRT refused a call",
    remedy: str = "Its message says why.",
) -> T:
    """Return what a TensorRT call returned, unless that means failure: None, False and negative numbers do.

    Args:
        result: Of the call.
        log: The log that the call wrote to.
        error: What to raise then, with TensorRT's own last messages.
        failure: What failed, as the beginning of a sentence.
        remedy: What the user can do about it.
    """
    if result is None or result is False or (isinstance(result, int) and result < 0):
        raise error(f"{failure}: {log.last_errors()}.", remedy)
    return result


def require_gpu() -> None:
    """Let data-centre TensorRT be called on a machine with a GPU only.

    Without a driver `trt.Builder` of 10.6 ends the process, and `trt.Runtime` at its first call. TensorRT-RTX builds
    without a GPU, and answers there.

    Raises:
        BackendUnavailableError: The driver shows no GPU.
    """
    gpu, found = (None, None) if IS_RTX else find_gpu()
    if found is not None and gpu is None:
        raise BackendUnavailableError(
            f"TensorRT {trt.__version__} needs a GPU to build and to load engines. {found.reason}",
            f"Go to a machine with one. TensorRT-RTX builds without: `{pip_install(requirement('tensorrt_rtx'))}`, and "
            f"set {flavour.FLAVOUR_VARIABLE} to tensorrt_rtx.",
        )


def load_plan(plan: bytes, log: MessageLog, *, host_code: bool = False) -> "trt.ICudaEngine":
    """Load a plan in the current CUDA context. The engine keeps its runtime alive.

    Args:
        plan: The plan.
        log: Where TensorRT writes what it has to say.
        host_code: Load a plan that brings its own runtime, which is a program: one that was built with the flag
            `version_compatible`. Trust who built it.

    Raises:
        PlanError: TensorRT refuses the plan, for the reason that its header shows, or else in TensorRT's own words.
        BackendUnavailableError: There is no GPU.
    """
    require_gpu()
    runtime = trt.Runtime(log)
    if host_code:
        runtime.engine_host_code_allowed = True
    loaded = runtime.deserialize_cuda_engine(plan) if plan else None
    if loaded is None:
        reason = plan_header.refusal(plan, trt.__name__, trt.__version__)
        raise PlanError(
            f"TensorRT can't load the engine: {reason or log.last_errors()}.",
            "Build it again on this machine, with the TensorRT version that runs it.",
        )
    return loaded
