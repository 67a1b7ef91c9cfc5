"""Lesson 03: ResNet-50 in TensorRT, ONNX Runtime and PyTorch eager on one GPU, on one stream, by the same clocks."""

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tutorial_utils import engine
from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import BackendUnavailableError, PlanError
from tutorial_utils.lessons.lesson03 import figures
from tutorial_utils.measure import on_stream, quality, timing
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.measure.timing import Measurement

BATCHES = (1, 64)
METHOD = (
    "ResNet-50 with 10 classes at 3x224x224, random weights (PyTorch's are torchvision's own); inputs and outputs stay "
    "on the GPU and are FP32, so that FP16 includes two casts; all candidates on one stream. Call: host clock until "
    "the stream is idle, warm-up until steady, then rounds in which the candidates take turns. GPU: CUDA events "
    "around the call on the stream. TensorRT: a static profile for each batch. ONNX Runtime: I/O binding, default "
    "convolution search. PyTorch: eager, NCHW, cudnn.benchmark off, inference_mode, FP16 by model.half()"
)
_SHAPE = (3, 224, 224)
_MAX_CALLS = 200


@dataclass(frozen=True)
class ResnetRow:
    """ResNet-50 in one library."""

    library: str
    precision: str  # "FP32", "TF32" or "FP16"
    variant: str  # "" or "CUDA graph"
    batch: int
    ready_ms: float  # from the model file or the built engine to before the first call
    call: Measurement  # on the host, with the first call
    gpu: Measurement  # by CUDA events
    relative_error: float  # against FP32 with the same weights: in ONNX Runtime, or in PyTorch for its own

    @property
    def label(self) -> str:
        """Library, precision and variant."""
        return " ".join(filter(None, (self.library, self.precision, self.variant)))


def measure(models: Mapping[str, Path], seconds: float = 0.4) -> list[dict[str, Any]]:
    """Time every candidate at every batch size; return the fields of a `ResnetRow` of each.

    Args:
        models: ONNX files by name: "resnet50-fp32" and "resnet50-fp16", dynamic in the first dimension.
        seconds: About how long to time each candidate with each of the two clocks.

    Raises:
        BackendUnavailableError: There is no PyTorch with a GPU, or no TensorRT that runs engines.
    """
    torch = on_stream.require_torch()
    stream = torch.cuda.Stream()
    rows = []
    with torch.inference_mode(), torch.cuda.stream(stream):
        for batch in BATCHES:
            rows += _measure_batch(torch, stream, models, batch, seconds)
    return rows


def _measure_batch(
    torch: ModuleType, stream: Any, models: dict[str, Path], batch: int, seconds: float
) -> list[dict[str, Any]]:
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((batch, *_SHAPE), dtype=np.float32)).cuda()
    makers: dict[tuple[str, str, str], Callable[[], Callable[[], Any]]] = {}
    profile = engine.Profile.batch("x", _SHAPE, min=batch, opt=batch, max=batch)
    for precision, name in (("fp32", "TF32"), ("fp16", "FP16")):  # neither TensorRT computes FP32 unless asked to
        built = engine.build(models[f"resnet50-{precision}"], engine.BuildOptions(profiles=(profile,)))
        for variant in ("", "CUDA graph"):
            make = functools.partial(tensorrt_call, torch, stream, built, images, bool(variant))
            makers["TensorRT", name, variant] = make
    for precision, name in (("fp32", "FP32"), ("fp32", "TF32"), ("fp16", "FP16")):
        path, tf32 = models[f"resnet50-{precision}"], name == "TF32"
        makers["ONNX Runtime", name, ""] = functools.partial(onnxruntime_call, torch, stream, path, images, tf32)
    for name in ("FP32", "TF32", "FP16"):
        makers["PyTorch eager", name, ""] = functools.partial(pytorch_call, torch, images, name)

    calls, ready_ms = {}, {}
    for candidate, make in makers.items():
        started = time.perf_counter()
        calls[candidate] = make()
        stream.synchronize()
        ready_ms[candidate] = round(1000 * (time.perf_counter() - started), 1)
    waiting = {candidate: functools.partial(_and_wait, call, stream) for candidate, call in calls.items()}
    on_host = timing.measure_in_turn(waiting, batch=batch, seconds=seconds, max_calls=_MAX_CALLS)
    references = {one: _result(calls[one, "FP32", ""], stream) for one in ("ONNX Runtime", "PyTorch eager")}
    rows = []
    for candidate, call in calls.items():
        event_times = functools.partial(on_stream.event_times, torch, stream, call, wait=True)
        on_gpu = timing.measure_on_device(event_times, batch=batch, seconds=seconds, max_calls=_MAX_CALLS)
        reference = references.get(candidate[0], references["ONNX Runtime"])
        error = quality.relative_error(_result(call, stream), reference)
        row = ResnetRow(*candidate, batch, ready_ms[candidate], on_host[candidate], on_gpu, error)
        rows.append({**vars(row), **timing.to_plain({"call": row.call, "gpu": row.gpu})})
    return rows


def tensorrt_call(
    torch: ModuleType, stream: Any, built: engine.Engine, images: Any, cuda_graph: bool
) -> Callable[[], Any]:
    """Return a call of a TensorRT engine on PyTorch's stream. PyTorch's tensors are its buffers: no PyCUDA needed.

    Raises:
        BackendUnavailableError: A CUDA graph can't be captured.
        PlanError: TensorRT refuses a call.
    """
    from tutorial_utils.engine.tensorrt import IS_RTX, MessageLog, checked
    from tutorial_utils.lessons.lesson03 import by_hand
    from tutorial_utils.runners.cuda_graph import CudaGraph

    log = MessageLog()
    context = by_hand.new_context(by_hand.load(built.plan, log), log, cuda_graph=cuda_graph and IS_RTX)
    checked(context.set_input_shape("x", tuple(images.shape)), log)
    (output,) = by_hand.tensors(context.engine).keys() - {"x"}
    logits = torch.empty(tuple(context.get_tensor_shape(output)), dtype=torch.float32, device="cuda")
    checked(context.set_tensor_address("x", images.data_ptr()), log)
    checked(context.set_tensor_address(output, logits.data_ptr()), log)

    def call() -> Any:
        checked(context.execute_async_v3(stream.cuda_stream), log, PlanError, "TensorRT can't run", "Build it again.")
        return logits

    if not cuda_graph or IS_RTX:  # which captures by itself
        return call
    call()
    stream.synchronize()  # what happens only once must not be captured
    graph = CudaGraph(call, stream.cuda_stream)

    def replay() -> Any:
        graph.launch()
        return logits

    return replay


def onnxruntime_call(torch: ModuleType, stream: Any, onnx_path: Path, images: Any, tf32: bool) -> Callable[[], Any]:
    """Return a call of ONNX Runtime on PyTorch's stream and tensors.

    Raises:
        BackendUnavailableError: ONNX Runtime can't use CUDA here.
    """
    provider = {"device_id": "0", "user_compute_stream": str(stream.cuda_stream), "use_tf32": str(int(tf32))}
    session = onnx_session.new_session(onnx_path, providers=[("CUDAExecutionProvider", provider)])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise BackendUnavailableError("ONNX Runtime can't use CUDA here.", "Install onnxruntime-gpu for this CUDA.")
    return on_stream.onnxruntime_call(session, torch, images)


def pytorch_call(torch: ModuleType, images: Any, precision: str) -> Callable[[], Any]:
    """Return a call of torchvision's ResNet-50 as PyTorch runs it without compilation."""
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None, num_classes=10).eval().cuda()
    for name, weight in model.named_parameters():
        if name.endswith("bn3.weight"):
            weight.fill_(0.2)  # untrained batch norms normalize nothing, and 16 residual sums would overflow FP16
    tf32 = precision == "TF32"
    if precision == "FP16":
        model.half()

    def call() -> Any:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32  # global: set for every call
        return model(images.half()).float() if precision == "FP16" else model(images)

    return call


def _and_wait(call: Callable[[], Any], stream: Any) -> None:
    call()
    stream.synchronize()


def _result(call: Callable[[], Any], stream: Any) -> np.ndarray:
    logits = call()
    stream.synchronize()
    return logits.cpu().numpy()


EXPERIMENT = Experiment(
    name="lesson03_resnet50",
    title="ResNet-50 in TensorRT, ONNX Runtime and PyTorch eager on one GPU",
    method=METHOD,
    measure=lambda models: {"rows": measure(models)},
    read=lambda data: [
        ResnetRow(**{**row, **timing.from_plain({clock: row[clock] for clock in ("call", "gpu")})})
        for row in data["rows"]
    ],
    draw=lambda measured: figures.resnet50(measured.result),
    models=("resnet50-fp32.onnx", "resnet50-fp16.onnx"),
    libraries=lambda: {"PyTorch": on_stream.require_torch().__version__},
)
