"""What lesson 05 alone needs."""

from tutorial_utils.machine.capabilities import Needs

NEEDS = {
    "05a": Needs(live=("tensorrt_build",), recorded=("tensorrt_run",)),
    "05b": Needs(live=("onnxruntime_cpu", "tensorrt_build"), recorded=("tensorrt_run",)),
    "05c": Needs(live=("tensorrt_build",)),
}
# Experiments by name, each with the module that holds it.
EXPERIMENTS = {
    "lesson05_identity": "identity",
    "lesson05_inspector": "inspector",
    "lesson05_layers": "profile",
    "lesson05_ncu": "kernel_counters",
    "lesson05_trtexec": "trtexec_runs",
    "transformer_precisions": "transformer_precisions",
}
