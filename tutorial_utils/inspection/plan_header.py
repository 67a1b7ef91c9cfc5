"""The first bytes of a TensorRT-RTX plan: what a runtime looks at before it reads any further.

The layout is not documented. It was read from plans of TensorRT-RTX 1.6.1 and 1.7.1, and may change.
"""

import struct
from dataclasses import dataclass

from tutorial_utils.base.errors import PlanError

MAGIC = b"vtrt"
_LAYOUT = struct.Struct("<4s12xI4x4B")  # magic; at byte 16 the size of the plan; at byte 24 the version


@dataclass(frozen=True)
class PlanHeader:
    """The version of the TensorRT-RTX that built a plan, such as "1.7.1.116", and the size that the plan must have."""

    version: str
    plan_bytes: int


def read(plan: bytes) -> PlanHeader:
    """Read the header of a plan.

    Raises:
        PlanError: The bytes don't begin like a plan of TensorRT-RTX.
    """
    if len(plan) < _LAYOUT.size or not plan.startswith(MAGIC):
        raise PlanError(
            f"The bytes begin with {plan[:4]!r}, a plan of TensorRT-RTX with {MAGIC!r}.",
            "Check the path; a plan of another TensorRT must be built again.",
        )
    _, size, *version = _LAYOUT.unpack_from(plan)
    return PlanHeader(".".join(map(str, version)), size)
