"""What `BuildOptions` says of flags, typing, level and hardware, set in TensorRT, or refused with the reason.

Refused is what the TensorRT at hand doesn't have, and what it would accept without a word though it changes nothing.
"""

from typing import Any

from tutorial_utils.base.errors import BuildError, PrecisionError, TargetError
from tutorial_utils.base.flavour import FLAVOURS
from tutorial_utils.engine.options import BuildOptions
from tutorial_utils.engine.tensorrt import IS_RTX, MessageLog, trt

# Types of a weakly typed network, and how strictly it keeps to those of single layers.
_WEAK = {
    "fp16", "bf16", "int8", "fp8", "int4", "fp4", "obey_precision_constraints", "prefer_precision_constraints",
}  # fmt: skip
_NAME = f"{FLAVOURS[trt.__name__]} {trt.__version__}"


def weak_typing_refused(what: str) -> PrecisionError:
    """Return the error for what belongs to weakly typed networks, asked of a TensorRT that has none."""
    return PrecisionError(
        f"{_NAME} has no {what}: it knows strongly typed networks only, whose types are those of the ONNX file.",
        "Convert the file with model.half_precision (FP16, BF16) or model.quantization (INT8), and build that; or "
        "install data-centre TensorRT 10.",
    )


def network_flags(options: BuildOptions) -> int:
    """Return the flags that the network is created with.

    Raises:
        PrecisionError: A weakly typed network was asked of a TensorRT that has none.
    """
    if not options.strongly_typed and not has_weak_typing():
        raise weak_typing_refused("weakly typed networks")
    return options.strongly_typed << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def has_weak_typing() -> bool:
    """Whether this TensorRT has networks whose types the builder chooses: data-centre TensorRT up to 10."""
    return "FP16" in trt.BuilderFlag.__members__


def configure(config: "trt.IBuilderConfig", options: BuildOptions, log: MessageLog) -> None:
    """Set flags, optimization level and hardware compatibility.

    Raises:
        PrecisionError: A flag of weakly typed networks is set for a strongly typed one, or TF32 cleared in vain.
        BuildError: This TensorRT has no such flag, refuses it, or makes the same of every level.
        TargetError: TensorRT-RTX was asked for hardware compatibility.
    """
    weak = [name for name in options.flags if name in _WEAK]
    if weak and not has_weak_typing():
        raise weak_typing_refused(f"builder flag {', '.join(weak)}")
    if weak and options.strongly_typed:
        raise PrecisionError(
            f"A strongly typed network takes its types from the ONNX file alone, so it can't have {', '.join(weak)}.",
            "Pass strongly_typed=False to let TensorRT choose types; or convert the file and leave the flags out.",
        )
    if IS_RTX and "tf32" in options.without_flags:
        raise PrecisionError(
            'TensorRT-RTX computes FP32 in TF32 with or without its flag, so without_flags=("tf32",) changes nothing.',
            "Leave it out. For FP32 without TF32 take data-centre TensorRT, or ONNX Runtime with use_tf32=0.",
        )
    for name in reversed(options.flags):  # version_compatible comes before exclude_lean_runtime, which needs it
        config.set_flag(_flag(name))
        if not config.get_flag(_flag(name)):
            raise BuildError(f"TensorRT refuses to set the flag {name}: {log.last_errors(1)}.", "Read its message.")
    for name in options.without_flags:
        config.clear_flag(_flag(name))
    if options.optimization_level is not None:
        if IS_RTX:
            raise BuildError(
                "TensorRT-RTX makes the same engine at every optimization level.", "Leave optimization_level out."
            )
        config.builder_optimization_level = options.optimization_level
    if options.hardware_compatible:
        if IS_RTX:
            raise TargetError(
                "TensorRT-RTX has no hardware compatibility: an engine is built for the targets that are named.",
                'Name them, as in compute_capabilities=("8.6", "8.9").',
            )
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _flag(name: str) -> Any:
    known = {one.lower(): member for one, member in trt.BuilderFlag.__members__.items()}
    if name not in known:
        raise BuildError(f"{_NAME} has no builder flag {name}.", f"Choose from {', '.join(sorted(known))}.")
    return known[name]
