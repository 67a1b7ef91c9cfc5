"""What lesson 01 alone needs."""

from tutorial_utils.machine.capabilities import Needs

NEEDS = {
    "01a": Needs(live=("onnxruntime_cpu", "tensorrt_build"), recorded=("tensorrt_run",)),
    "01b": Needs(live=("onnxruntime_cpu", "tensorrt_build"), recorded=("tensorrt_run",)),
    "01c": Needs(live=("paddle", "onnx_export", "onnxruntime_cpu", "tensorrt_build"), recorded=("tensorrt_run",)),
    "01d": Needs(live=("tensorrt_build",), recorded=("tensorrt_run",)),
    "01e": Needs(live=("onnxruntime_cpu", "tensorrt_build")),
}
# Experiments by name, each with the module that holds it.
EXPERIMENTS = {
    "lesson01_tf32": "tf32",
    "lesson01_plans": "plans",
    "lesson01_async": "asynchrony",
    "lesson01_calibration": "calibrated_int8",
    "lesson01_roofline": "roofline",
    "lesson01_fusion_baseline": "fused_chain",
    "lesson01_kernels": "kernels",
    "lesson01_tensor_cores": "tensor_cores",
    "lesson01_copies": "copies",
    "lesson01_clock": "clock",
    "lesson01_runtime_cache": "runtime_cache",
}
