import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tutorial_utils.__main__ import main
from tutorial_utils.base.errors import InputError
from tutorial_utils.machine import doctor
from tutorial_utils.machine.checks import Check, Fix

ROOT = Path(__file__).parents[1]
WORKING = {
    "paddle": "__version__ = '3.3.1'\ndef is_compiled_with_cuda(): return False",
    "paddle/inference": "def get_trt_compile_version(): return (0, 0, 0)",
    "paddle/version": "full_version = '3.3.1'\ndef cuda(): return 'False'",
    "paddle2onnx": "import paddle\n__version__ = '2.1.0'",
    "onnxruntime": "__version__ = '1.32.0'\ndef get_available_providers(): return ['CPUExecutionProvider']",
    "polygraphy": "__version__ = '0.53.6'",
    "tensorrt_rtx": "__version__ = '1.7.1.116'",
}


@pytest.fixture
def cli(tmp_path):
    """Run the command line with light stand-ins for the heavy libraries, and without a GPU."""

    def run(*arguments: str, **broken: str) -> subprocess.CompletedProcess[str]:
        for name, source in (WORKING | broken).items():
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "__init__.py").write_text(source)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
            "CUDA_VISIBLE_DEVICES": "",
            "TUTORIAL_UTILS_TENSORRT": "tensorrt_rtx",
            "COLUMNS": "100",
        }
        command = [sys.executable, "-m", "tutorial_utils", *arguments]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )

    return run


def test_doctor_says_ready_where_the_default_works(cli):
    result = cli("doctor")
    assert result.returncode == 0, result.stderr
    assert "TensorRT builds engines  yes      TensorRT-RTX 1.7.1.116." in result.stdout
    assert "TensorRT runs engines    no " in result.stdout
    assert "\nReady:" in result.stdout
    assert result.stderr == ""


def test_doctor_fails_where_the_default_is_broken(cli):
    result = cli("doctor", paddle2onnx="import os; os.abort()")
    assert result.returncode == 1
    assert "Not ready. Mend this first: Paddle to ONNX. Run `python -m pip install --force-reinstall" in result.stdout
    assert result.stderr == ""


def test_doctor_prints_json(cli):
    result = cli("doctor", "--json", tensorrt_rtx="raise SystemError('broken')")
    assert result.returncode == 1
    found = json.loads(result.stdout)
    assert set(found) == {"ready", "checks", "lessons", "machine"}
    assert found["ready"] is False
    checks = {check["name"]: check for check in found["checks"]}
    assert checks["Paddle on the CPU"]["status"] == "yes"
    assert checks["TensorRT builds engines"]["status"] == "no"
    assert "SystemError: broken" in checks["TensorRT builds engines"]["reason"]


@pytest.mark.parametrize(("words", "status"), [(["--fix"], 1), (["--fix", "--yes"], 0)])
def test_doctor_mends_and_looks_again(words, status, monkeypatch, capsys):
    """Where nobody can be asked, it changes nothing."""
    done = []

    def examine():
        broken = Check("Thing", "no", "It is broken.", "Mend it.", Fix("mend it", lambda: done.append(1)), needed=True)
        return doctor.Diagnosis([Check("Thing", "yes", "It works.") if done else broken], [], {})

    monkeypatch.setattr(doctor, "examine", examine)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert main(["doctor", *words]) == status
    said = capsys.readouterr().out
    assert ("Thing: done (mend it)." in said and "It works." in said) == bool(done) == (status == 0)
    assert ("stdin is no terminal" in said) == (status == 1)


def test_a_command_is_required(cli):
    result = cli()
    assert result.returncode == 2
    assert "COMMAND" in result.stderr


@pytest.mark.parametrize("cache", ["file", "file/below", "a" * 5000, "/dev/null", "模型 文件夹"])
def test_doctor_looks_at_any_cache(cli, cache, tmp_path, monkeypatch):
    """What can't be a folder is said in the table, and never with a traceback."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TUTORIAL_UTILS_CACHE", str(tmp_path / cache))
    result = cli("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    wrong = cache != "模型 文件夹"
    assert (checks["Cache"]["status"] == "no") == (cache in ("file", "file/below", "/dev/null"))
    assert not wrong or checks["Cache"]["reason"]
    assert result.stderr == ""


def test_yes_without_fix_is_a_wrong_call(cli):
    result = cli("doctor", "--yes")
    assert result.returncode == 2
    assert "--yes is for --fix" in result.stderr


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "Stopped.\n"),
        (OSError(28, "No space left on device", "out.html"), 1, "out.html: No space left on device.\n"),
        (InputError("A name: \x1b]0;x\x07.", "Rename it."), 1, "A name: \\u001b]0;x\\u0007. Remedy: Rename it. See "),
    ],
    ids=["Ctrl+C", "full disk", "control characters"],
)
def test_a_command_ends_in_one_line(monkeypatch, capsys, raised, status, said):
    def fail(**_):
        raise raised

    monkeypatch.setattr(doctor, "run", fail)
    assert main(["doctor"]) == status
    assert capsys.readouterr().err.startswith(said)
