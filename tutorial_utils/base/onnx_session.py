"""ONNX Runtime's sessions: every module of the package makes them here, so that all of them give the same numbers.

On a CPU with AVX2 or AVX-512 and no VNNI, ONNX Runtime's fused INT8 operators add pairs of products in 16 bits, which
saturate. The same file would give another answer there than on a newer CPU, and a reader would blame INT8 or TensorRT,
whose arithmetic doesn't saturate. A session of this module computes exactly on every CPU.

ONNX Runtime itself is imported with the first session.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tutorial_utils.base.errors import InputError, ModelFileError, UnsupportedOperatorError

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime

CPU: tuple[str, ...] = ("CPUExecutionProvider",)
# Add products of unsigned integers in 32 bits. Only CPUs whose INT8 instructions saturate become slower by it.
_EXACT_INT8 = ("session.x64quantprecision", "1")
# Warnings name graph details that a learner can't act on. Errors are raised, and need not be printed besides: only what
# keeps a GPU from being used is an error that is printed and no more.
_ERRORS, _FATAL = 3, 4
# What to do about values or sizes that a node refuses, by what is said of them.
_REMEDIES = {
    "indices element out of|index .*out of (data )?bounds|out of range": (
        "Give ids below the number of rows of the table that they index."
    ),
    "broadcast|dimension|axis|shape": "Give sizes that the strides of the network divide, and that fit each other.",
    "": "Give sizes and values that the model was made for; the node above is the first that couldn't compute.",
}


def new_session(
    model: str | Path | bytes,
    *,
    providers: Sequence[str | tuple[str, dict[str, Any]]] = CPU,
    optimize: bool | Literal["basic"] = True,
    threads: int | None = None,
    profile_prefix: str | Path | None = None,
    optimized_path: str | Path | None = None,
    left_out: Sequence[str] = (),
    entries: Mapping[str, str] | None = None,
) -> "onnxruntime.InferenceSession":
    """Return a session that is exact in INT8 on every CPU, and prints nothing on the CPU, on a GPU errors only.

    Args:
        model: The path of an ONNX model, or its bytes.
        providers: Where it runs, in the order of preference, as ONNX Runtime takes them.
        optimize: Whether ONNX Runtime fuses nodes before it runs; "basic" for those changes alone that leave a
            model of ONNX operators.
        threads: Threads within an operator on the CPU; None for one for each core.
        profile_prefix: Profile the calls, into a file with such a name. None for no profile.
        optimized_path: Where to write the model as it was optimized, or None.
        left_out: Optimizations that are not done, by ONNX Runtime's names.
        entries: Further settings of the session, by ONNX Runtime's names.
    """
    import onnxruntime

    names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
    if "CUDAExecutionProvider" in names and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # finds CUDA and cuDNN where pip put them
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL if tuple(names) == CPU else _ERRORS
    options.add_session_config_entry(*_EXACT_INT8)
    for name, value in (entries or {}).items():
        options.add_session_config_entry(name, value)
    options.intra_op_num_threads = threads or 0
    if optimize == "basic":
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    elif not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, list(providers), disabled_optimizers=list(left_out))


def open_model(onnx_path: str | Path, **options: Any) -> "onnxruntime.InferenceSession":
    """Return a session for a file that a reader gave, which may be missing or damaged.

    The options are those of `new_session`.

    Raises:
        ModelFileError: The model is missing or ONNX Runtime can't load it.
        UnsupportedOperatorError: ONNX Runtime has no operator of that name, or not for that data type.
    """
    try:
        return new_session(onnx_path, **options)
    except ImportError:  # no fault of the model
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        cause = f"ONNX Runtime can't load {Path(onnx_path).name}: {_reason(error)}."
        if "NOT_IMPLEMENTED" in cause or "is not a registered function/op" in cause:
            raise UnsupportedOperatorError(
                cause, "Replace the operator, or run the model with TensorRT or the framework that it comes from."
            ) from error
        raise ModelFileError(cause, "Check the path, or export the model again.") from error


def run(session: "onnxruntime.InferenceSession", feeds: Mapping[str, "np.ndarray"]) -> list["np.ndarray"]:
    """Run a session once on arrays by input name, and return its outputs in their order.

    Raises:
        InputError: An operator of the model can't compute from these sizes or values, or ONNX Runtime not at all.
    """
    try:
        return session.run(None, dict(feeds))
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        given = ", ".join(f"{name} {list(getattr(array, 'shape', ()))}" for name, array in feeds.items())
        reason = _reason(error)
        remedy = next(text for pattern, text in _REMEDIES.items() if re.search(pattern, reason, re.IGNORECASE))
        raise InputError(f"ONNX Runtime can't run the model on {given or 'no inputs'}: {reason}.", remedy) from error


def _reason(error: Exception) -> str:
    """Return what an error of ONNX Runtime says, in one line and without the place in its source code."""
    text = " ".join(str(error).split()).rstrip(".")
    return re.sub(r"/\S*onnxruntime/\S+:\d+ (\S+ )?[\w:~]+\(.*?\)( const)?( \[with.*?\])?(::<lambda\(\)>)? ?", "", text)
