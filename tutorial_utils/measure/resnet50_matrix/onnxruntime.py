"""ResNet-50 in ONNX Runtime, with its CUDA and its TensorRT provider."""

import contextlib
import functools
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from tutorial_utils.base import onnx_session
from tutorial_utils.base.errors import BackendUnavailableError, PrecisionError, first_line
from tutorial_utils.measure import on_stream
from tutorial_utils.measure.resnet50_matrix.cells import TF32_OVERRIDE, Candidate, Cell, types_of
from tutorial_utils.measure.resnet50_matrix.files import Files

_FILES = {"fp16": "fp16", "bf16": "bf16", "int8_qdq": "int8", "fp8": "fp8"}  # FP32 for the others
_TENSORRT_FILES = {"int8_qdq": "int8", "fp8": "fp8"}  # its flags make the others
_TENSORRT_FLAGS = {
    "fp16": ("trt_fp16_enable",),
    "bf16": ("trt_bf16_enable",),
    "int8_calibrated": ("trt_int8_enable", "trt_fp16_enable", "trt_int8_use_native_calibration_table"),
    "int8_qdq": ("trt_int8_enable", "trt_fp16_enable"),
}
_TYPES = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.INT8: "int8",
    TensorProto.FLOAT8E4M3FN: "fp8",
}
_NO_FALLBACK = {"session.disable_cpu_ep_fallback": "1"}  # a node on the CPU would be another library's time


@contextlib.contextmanager
def opened(cell: Cell, files: Files) -> Iterator[Candidate]:
    """Load the file into a session on PyTorch's stream, and into a second one that replays a CUDA graph.

    Raises:
        BackendUnavailableError: ONNX Runtime lacks the provider, or PyTorch is missing.
        PrecisionError: It has no such precision.
        CourseError: ONNX Runtime refuses the file.
    """
    torch = on_stream.require_torch()
    start = _tensorrt if cell.library == "onnxruntime_tensorrt" else _cuda
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        images = torch.from_numpy(files.images(cell.shape)).cuda()
        session, facts, reasons = start(cell, files, stream, False)
        call = on_stream.onnxruntime_call(session, torch, images)
        graph_times = None
        try:
            graph_session, again, _ = start(cell, files, stream, True)
            replay = on_stream.onnxruntime_call(graph_session, torch, images)
            for _ in range(3):  # ONNX Runtime captures after its first runs
                replay()
            stream.synchronize()
            graph_times = functools.partial(on_stream.event_times, torch, stream, replay)
            if "build_s" in again:
                facts["rebuild_s"] = again["build_s"]
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            reasons["graph"] = f"ONNX Runtime: {first_line(error)}."
        yield Candidate(
            infer=lambda images: session.run(None, {"x": images})[0],
            device_times=functools.partial(on_stream.event_times, torch, stream, call),
            graph_times=graph_times,
            facts=facts,
            reasons=reasons,
        )


def _cuda(cell: Cell, files: Files, stream: Any, graph: bool) -> tuple[Any, dict[str, Any], dict[str, str]]:
    if cell.precision == "int8_calibrated":
        raise PrecisionError("ONNX Runtime calibrates when it writes a Q/DQ file, not when it loads one.", "Take that.")
    options = {
        # 1 is the provider's default. 0 takes all kernels on Tensor Cores away, those of 16 bits, too.
        "use_tf32": str(int(cell.precision != "fp32")),
        "prefer_nhwc": str(int(cell.library == "onnxruntime_nhwc")),  # 0 is
        "enable_cuda_graph": str(int(graph)),
    }
    optimized = files.folder / f"{cell.name.replace('/', '-')}.onnx"
    path = files.onnx(_FILES.get(cell.precision, "fp32"), cell.shape[2])
    session = _session(path, "CUDAExecutionProvider", options, stream, optimized_path=optimized)
    types = Counter(weight_types(optimized))
    optimized.unlink()
    if cell.precision in ("fp32", "tf32"):  # the file says FP32 for both, and this setting decides
        types = Counter({cell.precision: types["fp32"]})
    no_build = "ONNX Runtime's CUDA provider builds no engine."
    return session, types_of(cell, types), dict.fromkeys(("build_s", "rebuild_s", "plan_bytes"), no_build)


def _tensorrt(cell: Cell, files: Files, stream: Any, graph: bool) -> tuple[Any, dict[str, Any], dict[str, str]]:
    of_cell = files.folder / cell.name.replace("/", "-")
    if not graph:  # the first session builds an engine from an empty timing cache; the one with graphs takes its times
        shutil.rmtree(of_cell, ignore_errors=True)
    folder, times = of_cell / str(int(graph)), of_cell / "times"
    folder.mkdir(parents=True)
    times.mkdir(exist_ok=True)
    options = {
        "trt_cuda_graph_enable": str(graph),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(times),
        **{f"trt_profile_{which}_shapes": f"x:{cell.name.rpartition('/')[2]}" for which in ("min", "opt", "max")},
        **dict.fromkeys(_TENSORRT_FLAGS.get(cell.precision, ()), "True"),
    }
    if cell.precision == "int8_calibrated":
        table = files.calibration_cache(cell.shape)
        if not table.exists():
            raise BackendUnavailableError(
                "There is no calibration table of TensorRT's yet.", "Measure tensorrt_flags/int8_calibrated first."
            )
        shutil.copy(table, folder)
        options["trt_int8_calibration_table_name"] = table.name
    if cell.precision == "fp32":
        os.environ[TF32_OVERRIDE] = "0"  # the provider has no option for it
    path = files.onnx(_TENSORRT_FILES.get(cell.precision, "fp32"), cell.shape[2])
    started = time.perf_counter()
    session = _session(path, "TensorrtExecutionProvider", options, stream)
    facts = {
        "build_s": round(time.perf_counter() - started, 2),
        "build_cache": "empty",
        "plan_bytes": sum(one.stat().st_size for one in folder.glob("*.engine")),
    }
    return session, facts, {"in_type": "ONNX Runtime builds its engines without the inspector's details."}


def _session(path: Path, provider: str, options: dict[str, str], stream: Any, **more: Any) -> Any:
    require_provider(provider)
    options = {"device_id": "0", "user_compute_stream": str(stream.cuda_stream), **options}
    return onnx_session.open_model(path, providers=[(provider, options)], entries=_NO_FALLBACK, **more)


def require_provider(provider: str) -> None:
    """Raise BackendUnavailableError unless a model of one node runs in a provider.

    ONNX Runtime skips a provider that it lacks or can't load, and with fallback to the CPU turned off the error is then
    one of the nodes, as if the provider had refused them.
    """
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnx_session.new_session(model.SerializeToString(), providers=[provider, *onnx_session.CPU])
    if session.get_providers()[0] != provider:
        raise BackendUnavailableError(
            f"ONNX Runtime has no {provider} here, or can't load it.",
            "Install onnxruntime-gpu for this CUDA, and no onnxruntime beside it.",
        )


def weight_types(optimized: Path) -> list[str]:
    """Return the type of the weights that each convolution and matrix product of an optimized file multiplies with.

    Weights that a DequantizeLinear makes of INT8 are FP32 when they are multiplied.
    """
    graph = onnx.load(optimized).graph
    weights = {one.name: one.data_type for one in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type.endswith(("Conv", "MatMul", "Gemm")):
            position = 3 if node.op_type.startswith("QLinear") else 1
            found.append(_TYPES[weights.get(node.input[position], TensorProto.FLOAT)])
    return found
