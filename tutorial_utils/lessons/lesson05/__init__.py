"""What lesson 05 alone needs."""

from tutorial_utils.machine.needs import Needs

NEEDS = {
    "05": Needs(live=("tensorrt_build",)),
}
