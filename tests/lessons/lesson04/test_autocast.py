"""AutoCast in an environment of its own: what is asked of it, what is read of its words, and the recording."""

import sys

import numpy as np
import onnx
import pytest

from tutorial_utils.base.errors import BackendUnavailableError, PrecisionError
from tutorial_utils.lessons.lesson04 import autocast
from tutorial_utils.model import onnx_file

# A Python of the name that AUTOCAST_PYTHON gives: it copies the model, and says what AutoCast says.
STAND_IN = """#!{python}
import shutil, sys
arguments = sys.argv
shutil.copy(arguments[arguments.index("--onnx_path") + 1], arguments[arguments.index("--output_path") + 1])
assert arguments[1:3] == ["-m", "modelopt.onnx.autocast"]
print("INFO - Converted 3/5 nodes (60.00%) to fp16" if "{works}" else "RuntimeError: no shapes")
"""


@pytest.fixture
def models(tmp_path):
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        small (int64[batch, 3] ids) => (float[batch, 3] y) { y = Cast <to = 1> (ids) }""")
    ids = np.arange(12).reshape(4, 3)
    np.savez(tmp_path / "remedies.npz", **{"transformer/inputs": ids, "transformer/expected": ids.astype(np.float32)})
    path = onnx_file.save(model, tmp_path / "transformer-fp32.onnx")
    return {"transformer-fp32": path, "remedies": tmp_path / "remedies.npz"}


def stand_in(folder, monkeypatch, works="yes"):
    path = folder / "python"
    path.write_text(STAND_IN.format(python=sys.executable, works=works))
    path.chmod(0o755)
    monkeypatch.setenv("AUTOCAST_PYTHON", str(path))


def test_its_file_is_judged(models, tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch)
    row = autocast.convert(models, "transformer", "real inputs, FP32 from 32,000", tmp_path / "made.onnx")
    (cast,) = autocast.read({"casts": [row]})
    assert cast.command.endswith("--calibration_data transformer.npz --data_max 32000")
    assert (cast.converted, cast.nodes, cast.casts) == (3, 5, 1)
    assert (cast.outcome.finite, cast.outcome.rel_l2, cast.outcome.task) == (1, 0, 1)
    assert (tmp_path / "made.onnx").is_file()


def test_its_failure_is_quoted(models, tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, works="")
    with pytest.raises(PrecisionError, match="AutoCast failed on transformer: RuntimeError: no shapes"):
        autocast.convert(models, "transformer", "random inputs", tmp_path / "made.onnx")


def test_without_it_nothing_is_measured(models, tmp_path, monkeypatch):
    monkeypatch.delenv("AUTOCAST_PYTHON", raising=False)
    with pytest.raises(BackendUnavailableError, match="environment of its own"):
        autocast.convert(models, "transformer", "random inputs", tmp_path / "made.onnx")


def test_the_recording_has_both_patients_in_every_way():
    casts = autocast.EXPERIMENT.recorded("a test").result
    assert len(casts) == 2 * len(autocast.OPTIONS)
    assert "| detector | real inputs | 305 of 326 | 17 | 5.2e-03 | 98.3% |" in autocast.table(casts).splitlines()
