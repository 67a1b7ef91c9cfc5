"""What lesson 03 alone needs."""

from tutorial_utils.machine.needs import Needs

NEEDS = {
    "03": Needs(live=("tensorrt_build",), recorded=("tensorrt_run",)),
}
