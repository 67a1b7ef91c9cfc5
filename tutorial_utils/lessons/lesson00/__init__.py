"""What lesson 00 alone needs."""

from tutorial_utils.machine.capabilities import Needs

NEEDS = {
    "00": Needs(
        live=("paddle", "onnx_export", "onnxruntime_cpu", "tensorrt_build"), recorded=("tensorrt_int8", "tensorrt_run")
    ),
}
