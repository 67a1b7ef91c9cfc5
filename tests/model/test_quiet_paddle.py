import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Makes the article's calls in a process of its own, whose log is what is wanted.
PROGRAMS = {"article_predictors.py"}


def test_importing_paddle_says_nothing():
    """Whichever module imports it first: all take it from one place, as the next test shows."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    environment.pop("GLOG_minloglevel", None)
    code = """
import logging, os
import tutorial_utils.model.exporting.paddle2onnx_worker
assert os.environ["GLOG_minloglevel"] == "2"
logging.getLogger("matplotlib.font_manager").info("generated new fontManager")
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_module_that_imports_paddle_keeps_it_quiet():
    noisy = {path.name for path in (ROOT / "tutorial_utils").rglob("*.py") if _imports_paddle(path) == "noisily"}
    assert noisy == PROGRAMS


def _imports_paddle(path: Path) -> str | None:
    """Say how a module imports Paddle when it runs: what only the type checker reads doesn't count."""
    tree = ast.parse(path.read_text())
    unread = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    for node in unread:
        node.body = []
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    if not any(name == "paddle" or str(name).startswith("paddle.") for name in names):
        return None
    return "quietly" if path.name == "quiet_paddle.py" or "tutorial_utils.model.quiet_paddle" in names else "noisily"
