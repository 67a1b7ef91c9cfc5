"""What a static Paddle program consists of: its operators and attributes, and which of them TensorRT has taken over.

Both forms of Paddle 3 are read without running them: ``.json`` (Paddle's intermediate representation, PIR) and the
older ``.pdmodel``. That an option asked for TensorRT proves nothing; that the program holds an engine does.
"""

import contextlib
import json
import math
import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutorial_utils.base.errors import ModelFileError

if TYPE_CHECKING:
    import paddle

# How Paddle abbreviates the first part of a name in a .json file (paddle/fluid/pir/serialize_deserialize/src/schema.cc)
_PARAMETER = "p"
_DIALECTS = {"0": "builtin", "1": "pd_op"}
# Bytes of a number by Paddle's code for its type: bool, int16, int32, int64, FP16, FP32, FP64, uint8, int8, BF16,
# complex64, complex128, and two of FP8.
_BYTES = {0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2, 23: 8, 24: 16, 32: 1, 33: 1}
ENGINES = ("pd_op.tensorrt_engine", "tensorrt_engine")  # PIR, .pdmodel
# They move or hold data; none of them computes, so none could have run in TensorRT.
BOOKKEEPING = (
    "builtin.parameter", "builtin.shadow_output", "pd_op.data", "pd_op.fetch", "pd_op.full_int_array", "feed", "fetch",
)  # fmt: skip


def require_files(model_path: str | Path, params_path: str | Path) -> None:
    """Refuse a model of which a file is missing or empty, or the weights are cut short.

    Paddle writes no weights for a program that has none.

    Raises:
        ModelFileError: It names the file.
    """
    model_path, params_path = Path(model_path), Path(params_path)
    _require_file(model_path)
    if params_path.is_dir():
        raise ModelFileError(
            f"{params_path} holds a file for each tensor of weights, as Paddle 1 could write them; one file is needed.",
            "Join them in the order of their names: "
            f"(cd {params_path} && cat $(ls -I __model__ | LC_ALL=C sort)) > weights",
        )
    if params_path.exists() or _has_weights(model_path):
        _require_file(params_path)
        _require_whole(params_path)


def _require_file(path: Path) -> None:
    if not path.is_file() or path.stat().st_size == 0:
        raise ModelFileError(f"The Paddle model file {path} is missing or empty.", "Save the model again.")


def _require_whole(params_path: Path) -> None:
    """Refuse a file of weights that doesn't end where its last tensor does: Paddle computes on with other numbers.

    Each tensor is its header, its description (the protobuf message TensorDesc) and its data, as SerializeToStream
    writes them (paddle/phi/core/framework/dense_tensor_serialize.cc).
    """
    size, at = params_path.stat().st_size, 0
    with params_path.open("rb") as file:
        while at < size:
            file.seek(at)
            _, levels, _, length = struct.unpack("<IQII", file.read(20).ljust(20, b"\0"))
            described = [*_varints(file.read(length))]  # type and sizes, each behind the number of its field
            if levels or len(described) < 2 or described[1] not in _BYTES:
                break
            at = file.tell() + math.prod(described[3::2]) * _BYTES[described[1]]
    if at != size:
        raise ModelFileError(
            f"The Paddle model file {params_path} is damaged: it holds {size:,} bytes, which aren't whole tensors.",
            "Save the model again, or copy the file again from where it was saved.",
        )


def _varints(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield value
            value = shift = 0


def _has_weights(model_path: Path) -> bool:
    """Tell whether a program needs a file of weights."""
    names = operators(model_path)  # refuses a damaged program
    if model_path.suffix == ".json":
        return "builtin.parameter" in names
    program = _program_desc(model_path)  # kept in a variable: its blocks die with it
    return any(value.persistable() and value.name() not in BOOKKEEPING for value in program.block(0).all_vars())


def existing(params_path: str | Path) -> str:
    """Return the path of the weights as Paddle and paddle2onnx take it: empty where a model has none."""
    return str(params_path) if Path(params_path).exists() else ""


def create_predictor(config: "paddle.inference.Config") -> "paddle.inference.Predictor":
    """Load a model with Paddle.

    Raises:
        ModelFileError: Paddle can't load it; it says why.
    """
    from tutorial_utils.model.quiet_paddle import paddle

    try:
        return paddle.inference.create_predictor(config)
    except Exception as error:  # Paddle raises RuntimeError, ValueError and its own types here
        raise ModelFileError(
            f"Paddle can't load {Path(config.prog_file()).name} with {Path(config.params_file()).name}: "
            f"{reason(error)}.",
            "Save the model again: both files must come from one `paddle.jit.save` of Paddle 3.",
        ) from error


def reason(error: Exception) -> str:
    """Return the one line of a Paddle error that says what is wrong, without its full stop."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    told = [line for line in lines if re.match(r"(\w+Error: |\(\w+\) )", line)]
    return re.sub(r"\s*\(at /.*", "", (told or lines)[-1]).rstrip(".")


def operators(program_path: str | Path) -> list[str]:
    """Return the names of a program's operators as Paddle writes them, in order; those of its main block.

    Raises:
        ModelFileError: The file is missing, cut short or not a Paddle program.
    """
    path = Path(program_path)
    with _reading(path):
        names = _of_json(path) if path.suffix == ".json" else _of_pdmodel(path)
        if not names:
            raise ValueError
    return names


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise ModelFileError for whatever reading a damaged program leads to."""
    try:
        yield
    except OSError as error:
        raise ModelFileError(f"{path} can't be read: {error.strerror}.", "Check the path.") from error
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise ModelFileError(
            f"Paddle can't load {path.name}: it is damaged or not a Paddle program.", "Save the model again."
        ) from error


def _of_json(path: Path) -> list[str]:
    return [_full_name(operation["#"]) for operation in _main_block(path)["ops"]]


def _main_block(program_path: Path) -> dict[str, Any]:
    """Return the main block of a ``.json`` program as it is written there."""
    return json.loads(program_path.read_text(encoding="utf-8"))["program"]["regions"][0]["blocks"][0]


@dataclass(frozen=True)
class Operation:
    """An operator of a program with what its file says of it.

    Attributes:
        attributes: Values by name; lists of numbers as lists.
        inputs: Data type, as Paddle abbreviates it (f32, i64), and shape of each input, -1 for a size that may vary.
    """

    name: str
    attributes: dict[str, Any]
    inputs: tuple[tuple[str, tuple[int, ...]], ...]


def operations(program_path: str | Path) -> list[Operation]:
    """Return the operators of a ``.json`` program, those of its branches and loops too; of a ``.pdmodel`` the names.

    Raises:
        ModelFileError: As `operators` does.
    """
    path = Path(program_path)
    if path.suffix != ".json":
        return [Operation(name, {}, ()) for name in operators(path)]
    with _reading(path):
        return list(_operations(_main_block(path), {}))


def _operations(block: dict[str, Any], tensors: dict[int, tuple[str, tuple[int, ...]]]) -> Iterator[Operation]:
    for written in block["ops"]:
        results = written["O"] if isinstance(written["O"], list) else [written["O"]]
        for result in results:
            kind = result.get("TT") or {}
            if kind.get("#") == "0.t_dtensor":
                tensors[result["%"]] = kind["D"][0]["#"].removeprefix("0.t_"), tuple(kind["D"][1])
        stored = {item["N"]: item["AT"] for item in written.get("A", ()) if isinstance(item, dict)}
        yield Operation(
            _full_name(written["#"]),
            {name: _value(given) for name, given in stored.items()},
            tuple(tensors.get(read["%"], ("", ())) for read in written.get("I", ())),
        )
        for region in written.get("regions", ()):
            for inner in region["blocks"]:
                yield from _operations(inner, tensors)


def _value(stored: Any) -> Any:
    """Return the value of an attribute, which is stored with its type."""
    if isinstance(stored, dict) and "D" in stored:
        return _value(stored["D"])
    return [_value(item) for item in stored] if isinstance(stored, list) else stored


def _full_name(written: str) -> str:
    if written == _PARAMETER:
        return "builtin.parameter"
    dialect, _, name = written.partition(".")
    return f"{_DIALECTS.get(dialect, dialect)}.{name}"


def _program_desc(path: Path) -> Any:
    from tutorial_utils.model.quiet_paddle import paddle

    return paddle.base.core.ProgramDesc(path.read_bytes())


def _of_pdmodel(path: Path) -> list[str]:
    program = _program_desc(path)  # kept in a variable: its blocks die with it
    if program.num_blocks() == 0:  # as an empty file is read: asking for a block would end the process
        return []
    block = program.block(0)
    return [block.op(index).type() for index in range(block.op_size())]


@dataclass(frozen=True)
class TensorRTUse:
    """How much of a program runs in TensorRT."""

    engines: int
    fell_back: Counter[str]  # operators left to Paddle, without those that only move or hold data

    def __str__(self) -> str:
        left = ", ".join(f"{count} {name}" for name, count in sorted(self.fell_back.items()))
        return f"{self.engines} TensorRT engine{'' if self.engines == 1 else 's'}; left to Paddle: {left or 'nothing'}"


def tensorrt_use(names: list[str]) -> TensorRTUse:
    """Count the engines among a program's operators, and list what fell back to Paddle.

    Args:
        names: From `operators`, of the program that runs: what ``paddle.tensorrt.convert`` saved, or what a predictor
            with ``enable_save_optim_model(True)`` saved as ``_optimized.pdmodel``.
    """
    fell_back = Counter(name for name in names if name not in ENGINES and name not in BOOKKEEPING)
    return TensorRTUse(sum(name in ENGINES for name in names), fell_back)
