"""What lesson 04 alone needs."""

from tutorial_utils.machine.capabilities import Needs

NEEDS = {
    "04a": Needs(live=("polygraphy", "onnxruntime_cpu", "tensorrt_build"), recorded=("tensorrt_run",)),
    "04b": Needs(live=("paddle", "polygraphy", "onnxruntime_cpu", "tensorrt_build"), recorded=("tensorrt_run",)),
    "04c": Needs(live=("polygraphy", "onnxruntime_cpu", "tensorrt_build")),
    "04d": Needs(live=("polygraphy", "onnxruntime_cpu")),
}
# Experiments by name, each with the module that holds it.
EXPERIMENTS = {
    "lesson04_article": "article_commands",
    "lesson04_autocast": "autocast",
    "lesson04_polygraphy": "gpu_commands",
    "lesson04_polygraphy_tools": "polygraphy_tools",
    "lesson04_remedies": "remedies_on_gpu",
}
