"""What lesson 01 alone needs."""

from tutorial_utils.machine.needs import Needs

NEEDS = {
    "01": Needs(live=("onnxruntime_cpu", "tensorrt_build"), recorded=("tensorrt_run", "onnxruntime_cuda")),
}
