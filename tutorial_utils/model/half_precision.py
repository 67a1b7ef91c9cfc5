"""FP32 ONNX to its 16-bit variants, FP16 and BF16.

TensorRT networks are strongly typed: the ONNX file decides which layer runs in which precision. So a precision is made
here, in the file, where ONNX Runtime can run it and Polygraphy can look at it, and not by a flag of the builder.
"""

from collections.abc import Iterable
from pathlib import Path

import onnx
from onnx import TensorProto, inliner

from tutorial_utils.base.errors import CourseError, ExportError, PrecisionError, first_line
from tutorial_utils.model import onnx_file
from tutorial_utils.model.converting.mixed_types import Narrowing

_BF16_OPSET = 22  # the first in which ONNX allows BF16 for convolutions


def to_fp16(onnx_path: str | Path, target_path: str | Path, *, keep_fp32: Iterable[str] = ()) -> Path:
    """Convert weights and activations to FP16. Inputs and outputs stay FP32, so that callers need not change.

    What no 16-bit number can say stays in FP32 as well: sizes and positions that follow from shapes alone, and
    operators that ONNX doesn't define for FP16. A mask or bound beyond FP16's range, such as -3.4e38, becomes its
    largest number. Weights are constants of the result, even where the model let a caller replace them.

    Args:
        onnx_path: The FP32 model.
        target_path: Where to write the FP16 model. It is returned.
        keep_fp32: Names of nodes that go on computing in FP32, with casts around them: mixed precision. Nodes without
            a name of their own have that of `onnx_file.name_nodes`.

    Raises:
        ModelFileError: The model is missing or damaged.
        PrecisionError: The model can't be converted, has a weight beyond FP16's largest number, or lacks a node that is
            named in ``keep_fp32``.
    """
    return _converted(onnx_path, target_path, TensorProto.FLOAT16, keep_fp32)


def to_bf16(onnx_path: str | Path, target_path: str | Path, *, keep_fp32: Iterable[str] = ()) -> Path:
    """Convert weights and activations to BF16, which has the range of FP32 and 8 bits of resolution.

    All else is as in `to_fp16`. The opset becomes 22, if it isn't yet: most operators take BF16 only from there on.

    Raises:
        ModelFileError: The model is missing or damaged.
        PrecisionError: The model can't be converted, or lacks a node that is named in ``keep_fp32``.
    """
    return _converted(onnx_path, target_path, TensorProto.BFLOAT16, keep_fp32)


def _converted(onnx_path: str | Path, target_path: str | Path, half: int, keep_fp32: Iterable[str]) -> Path:
    name = Path(onnx_path).name
    # What follows copies a model some times, and can't take one above 2 GB: its external data are read last.
    model = onnx_file.load(onnx_path, external_data=False)
    onnx_file.require_fp32(model, name)
    try:
        if model.functions:
            model = inliner.inline_local_functions(model)
        if half == TensorProto.BFLOAT16:
            model = _with_opset(model, _BF16_OPSET)
        onnx_file.name_nodes(model)
        kept = onnx_file.names_in(keep_fp32)
        onnx_file.require_nodes(kept, model, name)
        narrowing = Narrowing(model, half, kept)
        onnx_file.load_external_data(model, onnx_path)
        narrowing.apply()
    except CourseError:
        raise
    except Exception as error:
        raise PrecisionError(
            f"{name} can't be converted to 16 bits: {first_line(error)}.",
            f"Export it again, with opset {_BF16_OPSET} or an earlier one and operators that ONNX Runtime knows.",
        ) from error
    try:
        return onnx_file.save(model, target_path)
    except ExportError as error:
        flaw = onnx_file.flaw(Path(onnx_path))
        if flaw is None:
            raise
        raise PrecisionError(
            f"{name} is not valid ONNX itself: {flaw}.",
            f'Export it again, and check it: onnx.checker.check_model("{name}", full_check=True) must pass.',
        ) from error


def _with_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return a model in an opset at least so new. onnx's version converter forgets where external data lie."""
    if any(entry.domain in ("", "ai.onnx") and entry.version >= opset for entry in model.opset_import):
        return model
    converted = onnx.version_converter.convert_version(model, opset)
    external = {tensor.name: tensor for tensor in model.graph.initializer if tensor.external_data}
    for tensor in converted.graph.initializer:
        if tensor.name in external:
            tensor.CopyFrom(external[tensor.name])
    return converted
