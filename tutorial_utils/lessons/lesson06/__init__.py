"""What lesson 06 alone needs."""

from tutorial_utils.machine.needs import Needs

NEEDS = {"06": Needs(live=("onnxruntime_cpu", "tensorrt_build"), recorded=("tensorrt_run",))}
