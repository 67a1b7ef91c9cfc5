"""The migration card: calls written for TensorRT 8.6, and what to write instead for TensorRT 10, 11 and RTX.

The right-hand side is code that runs: the card's tests run what needs only a builder, anywhere, and what needs a loaded
engine where there is a GPU. `missing_names` looks every name of some code up in the installed TensorRT.
"""

from dataclasses import dataclass
from typing import Literal

from tutorial_utils.engine.tensorrt import trt
from tutorial_utils.lessons.lesson03 import api_names


@dataclass(frozen=True)
class Change:
    """One line of the card."""

    topic: str  # what the code is for
    old: str  # code as it was written for TensorRT 8.6
    new: str  # what to write now
    old_in_10: bool = False  # whether TensorRT 10 still has the old names, most of them deprecated; 11 has none
    needs: Literal["builder", "engine"] = "builder"  # what must exist before: only a builder, or an engine on a GPU


# 10 was checked against the type stubs of 10.13, 11 was read in the wheel of tensorrt-cu12-bindings 11.4.0.106.
CARD = (
    Change(
        "network",
        "network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))",
        "network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))",
        old_in_10=True,
    ),
    Change(
        "batch size",
        "builder.max_batch_size = 64",
        "profile.set_shape('x', (1, 3, 32, 32), (32, 3, 32, 32), (64, 3, 32, 32))",
    ),
    Change(
        "workspace",
        "config.max_workspace_size = 1 << 30",
        "config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 30)",
    ),
    Change(
        "FP16", "config.set_flag(trt.BuilderFlag.FP16)", "onnx_path = to_fp16(onnx_path, fp16_path)", old_in_10=True
    ),
    Change(
        "INT8",
        "config.int8_calibrator = calibrator",
        "onnx_path = to_int8(onnx_path, int8_path, images)",
        old_in_10=True,
    ),
    Change(
        "what the GPU is fast at",
        "half, int8 = builder.platform_has_fast_fp16, builder.platform_has_fast_int8",
        "inspector = engine.create_engine_inspector()\n"
        "layers = inspector.get_engine_information(trt.LayerInformationFormat.JSON)",
        old_in_10=True,
        needs="engine",
    ),
    Change(
        "precision of a layer",
        "layer.precision = trt.float16",
        "half = network.add_cast(tensor, trt.float16).get_output(0)",
        old_in_10=True,
    ),
    Change(
        "range of a tensor",
        "tensor.dynamic_range = (-1, 1)",
        "quantized = network.add_quantize(tensor, scale, trt.int8).get_output(0)",
        old_in_10=True,
    ),
    Change(
        "pooling",
        "layer = network.add_pooling(tensor, trt.PoolingType.MAX, (2, 2))",
        "layer = network.add_pooling_nd(tensor, trt.PoolingType.MAX, (2, 2))",
    ),
    Change(
        "build",
        "engine = builder.build_engine(network, config)",
        "plan = builder.build_serialized_network(network, config)",
    ),
    Change("number of tensors", "count = engine.num_bindings", "count = engine.num_io_tensors", needs="engine"),
    Change(
        "input or output",
        "is_input = engine.binding_is_input(0)",
        "is_input = engine.get_tensor_mode('x') == trt.TensorIOMode.INPUT",
        needs="engine",
    ),
    Change(
        "limits of a profile",
        "limits = engine.get_profile_shape(0, 'x')",
        "limits = engine.get_tensor_profile_shape('x', 0)",
        needs="engine",
    ),
    Change(
        "memory of a context",
        "size = engine.device_memory_size",
        "size = engine.device_memory_size_v2",
        old_in_10=True,
        needs="engine",
    ),
    Change(
        "input shape",
        "context.set_binding_shape(0, (8, 3, 32, 32))",
        "context.set_input_shape('x', (8, 3, 32, 32))",
        needs="engine",
    ),
    Change(
        "are all shapes known?",
        "ready = context.all_shape_inputs_specified",
        "ready = not context.infer_shapes()",
        old_in_10=True,
        needs="engine",
    ),
    Change(
        "run",
        "context.execute_async_v2(list(addresses.values()), stream)",
        "for name, address in addresses.items():\n"
        "    context.set_tensor_address(name, address)\n"
        "context.execute_async_v3(stream)",
        needs="engine",
    ),
)


def missing_names(code: str) -> list[str]:
    """Return the names of TensorRT's API that some code uses and the installed TensorRT lacks: see `api_names`."""
    return [name for name in api_names.used(code) if not api_names.exists(name, trt)]


def markdown() -> str:
    """Return the card as the table that lesson 03d has in its text."""
    lines = ["| for | written for 8.6, and below what to write instead | still in 10 |", "|:--|:--|:--|"]
    for change in CARD:
        code = f"{_code(change.old)}<br>{_code(change.new)}"
        lines.append(f"| {change.topic} | {code} | {'yes' if change.old_in_10 else 'no'} |")
    return "\n".join(lines)


def _code(text: str) -> str:
    return "<br>".join(f"`{line}`" for line in text.splitlines())
