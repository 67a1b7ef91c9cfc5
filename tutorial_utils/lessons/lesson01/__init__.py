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
    "lesson01_precision": "precision",
    "lesson01_plans": "plans",
    "lesson01_async": "asynchrony",
    "lesson01_calibration": "calibrated_int8",
    "transformer_precisions": "transformer_precisions",
    "lesson01_roofline": "roofline",
    "lesson01_fusion_baseline": "fusion_baseline",
    "lesson01_kernels": "kernels",
    "lesson01_copies": "copies",
}
