"""The first bytes of a plan, which a runtime looks at before it reads any further, and what they say of a refusal.

NVIDIA documents no layout. That of TensorRT-RTX was read from plans of 1.6.1 and 1.7.1; tag and version stand at the
same bytes in plans of data-centre TensorRT, where `trtexec --getPlanVersionOnly` reads them (its public source). The
runtime doesn't compare that version: with another one in its header, a plan of 10.6 or RTX 1.6.1 still loads there. It
refuses what another TensorRT really built.
"""

import re
import struct
from dataclasses import dataclass

from tutorial_utils.base.errors import PlanError
from tutorial_utils.base.flavour import FLAVOURS

_MAGICS = {b"vtrt": "tensorrt_rtx", b"ftrt": "tensorrt"}
_LAYOUT = struct.Struct("<4s12xQ4B")  # magic; at byte 16 the size of the plan; at byte 24 the version


@dataclass(frozen=True)
class PlanHeader:
    """What a plan says of itself.

    Attributes:
        version: Of the TensorRT that built it, such as "1.7.1.116".
        plan_bytes: The size that it must have.
        flavour: Of that TensorRT, a name of `base.flavour.FLAVOURS`.
    """

    version: str
    plan_bytes: int
    flavour: str


def read(plan: bytes) -> PlanHeader:
    """Read the header of a plan.

    Raises:
        PlanError: The bytes don't begin like a plan of TensorRT or TensorRT-RTX.
    """
    flavour = _MAGICS.get(plan[:4])
    if len(plan) < _LAYOUT.size or flavour is None:
        begins = f"The bytes begin with {plan[:4]!r}" if len(plan) >= _LAYOUT.size else f"There are {len(plan)} bytes"
        known = ", ".join(f"of {FLAVOURS[name]} with {magic!r}" for magic, name in _MAGICS.items())
        raise PlanError(
            f"{begins}, and a plan begins with a header of {_LAYOUT.size} bytes: one {known}.",
            "Check the path; an ONNX file must be built first.",
        )
    _, size, *version = _LAYOUT.unpack_from(plan)
    return PlanHeader(".".join(map(str, version)), size, flavour)


def refusal(plan: bytes, flavour: str, version: str) -> str:
    """Return why a TensorRT can't load a plan, as its header shows: "" where the header is as it should be.

    Args:
        plan: The plan.
        flavour: The TensorRT that should load it: a name of `base.flavour.FLAVOURS`.
        version: Its version.
    """
    try:
        header = read(plan)
    except PlanError as error:
        return error.cause.rstrip(".")
    built, here = (re.findall(r"\d+", one)[:3] for one in (header.version, version))  # 10.6.0.post1 is 10.6.0.26
    if header.flavour != flavour or built != here:
        return f"{FLAVOURS[header.flavour]} {header.version} built the plan, and this is {FLAVOURS[flavour]} {version}"
    if len(plan) < header.plan_bytes:
        return f"The plan was cut short: {len(plan):,} of {header.plan_bytes:,} bytes are there"
    if len(plan) > header.plan_bytes:
        return f"The plan has {header.plan_bytes:,} bytes, and {len(plan):,} are there"
    return ""
