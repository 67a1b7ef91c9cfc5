import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("module", ["classifier", "runners.paddle", "paddle2onnx_worker"])
def test_importing_paddle_says_nothing(module):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    environment.pop("GLOG_minloglevel", None)
    code = f"import os, tutorial_utils.{module}; assert os.environ['GLOG_minloglevel'] == '2'"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_paddle_is_imported_in_one_place():
    modules = (ROOT / "tutorial_utils").rglob("*.py")
    importers = {path.name for path in modules for line in path.read_text().splitlines() if _imports_paddle(line)}
    assert importers == {"quiet_paddle.py"}


def _imports_paddle(line: str) -> bool:
    return line.strip().startswith(("import paddle ", "import paddle.", "from paddle ", "from paddle.")) or (
        line.strip() == "import paddle"
    )
