"""What a static Paddle program consists of: its operators, and which of them TensorRT has taken over.

Both forms of Paddle 3 are read without running them: ``.json`` (Paddle's intermediate representation, PIR) and the
older ``.pdmodel``. That an option asked for TensorRT proves nothing; that the program holds an engine does.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tutorial_utils.base.errors import ModelFileError

if TYPE_CHECKING:
    import paddle

# How Paddle abbreviates the first part of a name in a .json file (paddle/fluid/pir/serialize_deserialize/src/schema.cc)
_PARAMETER = "p"
_DIALECTS = {"0": "builtin", "1": "pd_op"}
ENGINES = ("pd_op.tensorrt_engine", "tensorrt_engine")  # PIR, .pdmodel
# They move or hold data; none of them computes, so none could have run in TensorRT.
BOOKKEEPING = (
    "builtin.parameter", "builtin.shadow_output", "pd_op.data", "pd_op.fetch", "pd_op.full_int_array", "feed", "fetch",
)  # fmt: skip


def require_files(*paths: str | Path) -> None:
    """Refuse a model of which a file is missing or empty.

    Raises:
        ModelFileError: It names the file.
    """
    for path in map(Path, paths):
        if not path.is_file() or path.stat().st_size == 0:
            raise ModelFileError(f"The Paddle model file {path} is missing or empty.", "Save the model again.")


def create_predictor(config: "paddle.inference.Config") -> "paddle.inference.Predictor":
    """Load a model with Paddle.

    Raises:
        ModelFileError: Paddle can't load it; it says why.
    """
    from tutorial_utils.model.quiet_paddle import paddle

    try:
        return paddle.inference.create_predictor(config)
    except Exception as error:  # Paddle raises RuntimeError, ValueError and its own types here
        reason = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()]
        raise ModelFileError(
            f"Paddle can't load {Path(config.prog_file()).name} with {Path(config.params_file()).name}: "
            f"{reason[-1] if reason else type(error).__name__}.",
            "Save the model again: both files must come from one `paddle.jit.save` of Paddle 3.",
        ) from error


def operators(program_path: str | Path) -> list[str]:
    """Return the names of a program's operators as Paddle writes them, in order; those of its main block.

    Raises:
        ModelFileError: The file is missing, cut short or not a Paddle program.
    """
    path = Path(program_path)
    try:
        names, cause = (_of_json(path) if path.suffix == ".json" else _of_pdmodel(path)), None
    except OSError as error:
        raise ModelFileError(f"{path} can't be read: {error.strerror}.", "Check the path.") from error
    except (ValueError, LookupError, TypeError, RuntimeError) as error:  # whatever a damaged file leads to
        names, cause = [], error
    if not names:
        raise ModelFileError(
            f"Paddle can't load {path.name}: it is damaged or not a Paddle program.", "Save the model again."
        ) from cause
    return names


def _of_json(path: Path) -> list[str]:
    block = json.loads(path.read_text(encoding="utf-8"))["program"]["regions"][0]["blocks"][0]
    return [_full_name(operation["#"]) for operation in block["ops"]]


def _full_name(written: str) -> str:
    if written == _PARAMETER:
        return "builtin.parameter"
    dialect, _, name = written.partition(".")
    return f"{_DIALECTS.get(dialect, dialect)}.{name}"


def _of_pdmodel(path: Path) -> list[str]:
    from tutorial_utils.model.quiet_paddle import paddle

    program = paddle.base.core.ProgramDesc(path.read_bytes())  # kept in a variable: its blocks die with it
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
