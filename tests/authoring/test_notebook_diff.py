"""Differences between notebooks are text, with the command that CONTRIBUTING gives."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, writes

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_difference_shows_sources_alone(tmp_path):
    def git(*arguments):
        environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    def write(title, code, count):
        output = new_output("stream", text=f"output {count}")
        cells = [new_markdown_cell(title), new_code_cell(code, execution_count=count, outputs=[output])]
        for number, cell in enumerate(cells):
            cell["id"] = f"cell-{number}"
        (tmp_path / "lesson.ipynb").write_text(writes(new_notebook(cells=cells)))

    documented = (ROOT / "CONTRIBUTING.md").read_text()
    (command,) = re.findall(r"^git config diff.notebook.textconv '\.venv/bin/python (.+)'$", documented, re.MULTILINE)
    git("init", "--quiet")
    git("config", "diff.notebook.textconv", f"{sys.executable} {command}")
    shutil.copy(ROOT / ".gitattributes", tmp_path)
    write("# Old", "print(1)", 1)
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    write("# New", "print(2)", 2)
    changed = [line for line in git("diff", "--unified=0").splitlines() if re.match(r"[+-](?![+-])", line)]
    assert changed == ["-# # Old", "+# # New", "-print(1)", "+print(2)"]
    assert json.loads((tmp_path / "lesson.ipynb").read_text())["cells"][1]["execution_count"] == 2
