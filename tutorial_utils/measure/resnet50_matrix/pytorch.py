"""ResNet-50 in PyTorch, eager and compiled: torchvision's, with the weights of the course's ONNX file."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx

from tutorial_utils.base.errors import ModelFileError, PrecisionError, first_line
from tutorial_utils.measure import on_stream
from tutorial_utils.measure.resnet50_matrix.cells import PRECISIONS, Candidate, Cell
from tutorial_utils.measure.resnet50_matrix.files import Files
from tutorial_utils.model import onnx_file

_EIGHT_BITS = {"int8_calibrated": "int8", "int8_qdq": "int8", "fp8": "float8_e4m3fn"}  # types of PyTorch


@contextlib.contextmanager
def opened(cell: Cell, files: Files) -> Iterator[Candidate]:
    """Load the network, compile it if asked to, and capture a second call as a CUDA graph.

    Raises:
        BackendUnavailableError: PyTorch, torchvision or a GPU is missing.
        PrecisionError: PyTorch has no convolution of this type on a GPU.
    """
    torch = on_stream.require_torch()
    if cell.precision in _EIGHT_BITS:
        _refuse(torch, cell.precision)
    tf32 = cell.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(cell.precision, torch.float32)
    stream = torch.cuda.Stream()
    with torch.inference_mode(), torch.cuda.stream(stream):
        model = with_weights(torch, files.onnx("fp32", cell.shape[2])).cuda().to(dtype)
        images = torch.from_numpy(files.images(cell.shape)).cuda()
        no_build = "PyTorch builds no engine."
        facts: dict[str, Any] = {}
        reasons = dict.fromkeys(("rebuild_s", "plan_bytes"), no_build) | {
            "in_type": "PyTorch has no inspector: which kernels it runs, a profiler would have to say."
        }
        if cell.library == "pytorch_compiled":
            model = torch.compile(model)
            started = time.perf_counter()
            model(images.to(dtype))
            stream.synchronize()
            facts["build_s"] = round(time.perf_counter() - started, 2)
        else:
            reasons["build_s"] = no_build

        def call(images: Any = images) -> Any:
            return model(images.to(dtype)).float()

        graph_times = None
        try:
            replay = _captured(torch, stream, call)
            graph_times = functools.partial(on_stream.event_times, torch, stream, replay)
        except Exception as error:  # PyTorch and CUDA raise whatever they like
            reasons["graph"] = f"PyTorch: {first_line(error)}."
        yield Candidate(
            infer=lambda images: call(torch.from_numpy(images).cuda()).cpu().numpy(),
            device_times=functools.partial(on_stream.event_times, torch, stream, call),
            graph_times=graph_times,
            facts=facts,
            reasons=reasons,
        )


def _captured(torch: ModuleType, stream: Any, call: Callable[[], Any]) -> Callable[[], None]:
    for _ in range(3):  # what happens only in the first calls must not be captured
        call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        call()
    return graph.replay


def _refuse(torch: ModuleType, precision: str) -> None:
    """Ask PyTorch for a convolution in an 8-bit type, and raise what it says."""
    dtype = getattr(torch, _EIGHT_BITS[precision])
    images, weight = (torch.ones(1, 16, *size, device="cuda").to(dtype) for size in ((8, 8), (3, 3)))
    try:
        torch.nn.functional.conv2d(images, weight)
    except Exception as error:  # RuntimeError and NotImplementedError, in some versions others
        raise PrecisionError(
            f"PyTorch has no {PRECISIONS[precision]} convolution on a GPU: {first_line(error)}.", "Take TensorRT."
        ) from error
    raise PrecisionError(f"PyTorch convolves {dtype} on this GPU, and this row doesn't know how.", "Write it.")


def with_weights(torch: ModuleType, onnx_path: Path) -> Any:
    """Return torchvision's ResNet-50 with the weights of Paddle's: both list their layers in the same order.

    Raises:
        ModelFileError: The file holds another network.
    """
    import torchvision

    model = torchvision.models.resnet50(weights=None, num_classes=10).eval()
    graph = onnx.load(onnx_path).graph
    weights = {one.name: onnx_file.array_of(one) for one in graph.initializer}
    nodes = {kind: [node for node in graph.node if node.op_type == kind] for kind in ("Conv", "BatchNormalization")}
    layers: dict[str, list[Any]] = {"Conv": [], "BatchNormalization": []}
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layers["Conv"].append((layer.weight,))
        elif isinstance(layer, torch.nn.BatchNorm2d):
            layers["BatchNormalization"].append((layer.weight, layer.bias, layer.running_mean, layer.running_var))
    try:
        for kind, of_kind in layers.items():
            for node, parameters in zip(nodes[kind], of_kind, strict=True):
                for name, parameter in zip(node.input[1:], parameters, strict=True):
                    _fill(torch, parameter, weights[name])
        product, addition = (node for node in graph.node[-3:] if node.op_type in ("MatMul", "Add"))
        _fill(torch, model.fc.weight, weights[product.input[1]].T)
        _fill(torch, model.fc.bias, weights[addition.input[1]])
    except (ValueError, KeyError, RuntimeError) as error:
        raise ModelFileError(
            f"{onnx_path.name} isn't the ResNet-50 of the course: {first_line(error)}.", "Give resnet50-fp32.onnx."
        ) from error
    return model


def _fill(torch: ModuleType, parameter: Any, values: np.ndarray) -> None:
    if tuple(parameter.shape) != values.shape:
        raise ValueError(f"a weight of {values.shape} where torchvision has {tuple(parameter.shape)}")
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.array(values)))
