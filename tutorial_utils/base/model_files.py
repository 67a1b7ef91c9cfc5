"""A file that holds a model, looked at before anything reads it."""

import os
import stat
from pathlib import Path

from tutorial_utils.base.errors import ModelFileError

LARGEST = 2**31 - 1  # bytes: what protobuf, and so every reader of ONNX files, takes


def require(path: str | Path) -> None:
    """Refuse a path that no ONNX model can be read from.

    A reader would wait for ever for a pipe that nobody writes to, read a device without end, or fill the memory with a
    file that is too large in any case.

    Raises:
        ModelFileError: There is no such file, it can't be read, it is a folder, a pipe or a device, or it is empty or
            larger than protobuf takes.
    """
    try:
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode):
            open(path, "rb").close()  # are there rights to read it?
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelFileError(f"There is no model {path}.", "Check the path, or export the model first.") from error
    except (OSError, ValueError) as error:  # no rights; a name with a null byte or one that is too long
        reason = getattr(error, "strerror", None) or error
        raise ModelFileError(f"The model {_short(path)} can't be read: {reason}.", "Check the path.") from error
    if stat.S_ISDIR(found.st_mode):
        raise ModelFileError(f"{path} is a folder, and no ONNX model.", "Name the .onnx file.")
    if not stat.S_ISREG(found.st_mode):
        raise ModelFileError(f"{path} is a pipe or a device, and no ONNX model.", "Name the .onnx file.")
    if found.st_size == 0:
        raise ModelFileError(f"{Path(path).name} is empty.", "Export it again.")
    if found.st_size > LARGEST:
        raise ModelFileError(
            f"{Path(path).name} has {found.st_size:,} bytes, and an ONNX file ends at 2 GiB.",
            "Export it again with its weights in a second file: onnx.save(model, path, save_as_external_data=True).",
        )


def _short(path: str | Path) -> str:
    return text if len(text := str(path)) <= 200 else f"{text[:200]}..."
