"""Small notebooks that tests write."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


def notebook_file(folder: Path, name: str, *sources: str, text: str = "intro") -> Path:
    """Write a notebook with a text, the heading "A lesson" and a code cell for each source, and return its path."""
    path = folder / f"{name}.ipynb"
    cells = [new_markdown_cell(f"{text}\n\n# A lesson"), *(new_code_cell(source) for source in sources)]
    nbformat.write(new_notebook(cells=cells), path)
    return path
