"""What lesson 02 alone needs."""

from tutorial_utils.machine.needs import Needs

NEEDS = {
    "02": Needs(live=("paddle",), recorded=("paddle_gpu", "paddle_tensorrt")),
}
# Experiments by name, each with the module that holds it.
EXPERIMENTS = {
    "lesson02_article": "article",
}
