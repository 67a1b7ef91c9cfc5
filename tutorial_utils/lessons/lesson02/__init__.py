"""What lesson 02 alone needs."""

from tutorial_utils.machine.capabilities import Needs

NEEDS = {
    "02a": Needs(live=("paddle",)),
    "02b": Needs(live=("paddle",), recorded=("paddle_tensorrt",)),
    "02c": Needs(
        live=("paddle", "onnx_export", "onnxruntime_cpu", "tensorrt_build"),
        recorded=("paddle_tensorrt", "tensorrt_run"),
    ),
    "02d": Needs(live=("paddle", "tensorrt_build")),
}
# Experiments by name, each with the module that holds it.
EXPERIMENTS = {
    "lesson02_article": "article",
    "lesson02_paddle_tensorrt": "paddle_engines",
}
