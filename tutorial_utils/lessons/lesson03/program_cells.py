"""The program that stands in the cells of lessons 03b and 03c, as one file and as a module.

``python -m tutorial_utils.lessons.lesson03.program_cells`` prints it. It imports nothing of this package.
"""

import functools
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from tutorial_utils.base import flavour, paths
from tutorial_utils.base.errors import LessonError

NOTEBOOKS = [paths.ROOT / "notebooks" / f"{name}.ipynb" for name in ("03b_one_program", "03c_threads_and_gpu_data")]


def source(notebooks: Sequence[Path] = NOTEBOOKS, tag: str = "program") -> str:
    """Return the cells with a tag, such as those of the program, of lesson 03b and of what 03c adds, as one file.

    Raises:
        LessonError: A notebook has none.
    """
    found = []
    for notebook in notebooks:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        tagged = ["".join(cell["source"]).strip() for cell in cells if tag in cell["metadata"].get("tags", ())]
        if not tagged:
            raise LessonError(f"{notebook.name} has no cells with the tag {tag}.", "Restore the notebook with git.")
        found += tagged
    return "\n\n\n".join(found) + "\n"


@functools.cache
def load() -> ModuleType:
    """Return the program as a module, with the TensorRT that the package uses."""
    path = paths.cache_dir("lesson03b") / "one_program.py"
    with paths.replacing(path) as unfinished:
        unfinished.write_text(source(), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("one_program", path)
    module = importlib.util.module_from_spec(spec)
    hidden = "tensorrt_rtx" if flavour.installed_flavour() == "tensorrt" else None  # the program tries that first
    kept = sys.modules.get(hidden)
    try:
        if hidden:
            sys.modules[hidden] = None
        spec.loader.exec_module(module)
    finally:
        if hidden:
            sys.modules.pop(hidden)
            sys.modules.update({hidden: kept} if kept else {})
    return module


if __name__ == "__main__":
    print(source(), end="")
