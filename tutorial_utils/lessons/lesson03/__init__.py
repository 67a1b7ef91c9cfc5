"""What lesson 03 alone needs."""

from tutorial_utils.machine.capabilities import Needs

NEEDS = {
    "03a": Needs(live=("tensorrt_build",), recorded=("tensorrt_run",)),
    "03b": Needs(live=("tensorrt_build",), recorded=("tensorrt_run",)),
    "03c": Needs(live=("tensorrt_build",), recorded=("tensorrt_run",)),
    "03d": Needs(live=("tensorrt_build",), recorded=("tensorrt_run",)),
    "03e": Needs(live=("tensorrt_build",)),
}
# Experiments by name, each with the module that holds it.
EXPERIMENTS = {
    "lesson03_article": "article",
    "lesson03_builder": "builder",
    "lesson03_program": "one_program",
}
