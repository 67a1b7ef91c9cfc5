"""What lesson 03 alone needs."""

from tutorial_utils.machine.needs import Needs

NEEDS = {
    "03": Needs(live=("tensorrt_build",), recorded=("tensorrt_run",)),
    "03b": Needs(live=("tensorrt_build",), recorded=("tensorrt_run",)),
    "03c": Needs(live=("tensorrt_build",), recorded=("tensorrt_run",)),
}
# Experiments by name, each with the module that holds it.
EXPERIMENTS = {
    "lesson03_article": "article",
    "lesson03_clock": "clock",
    "lesson03_inference": "inference",
    "lesson03_program": "one_program",
    "lesson03_resnet50": "resnet50",
}
