import contextlib
import os
import re
import select
import tempfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tutorial_utils.base import flavour
from tutorial_utils.base.errors import BackendUnavailableError, InputError
from tutorial_utils.debug import polygraphy_cli


@pytest.fixture
def model(tmp_path):
    """A folder with a model that divides 1 by its input."""
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Div", ["one", "x"], ["y"])], "divide", info[:1], info[1:], [one])
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "model.onnx")
    return tmp_path


def test_output_names_neither_time_nor_machine(model):
    good, bad = polygraphy_cli.run_all(
        [
            "polygraphy run model.onnx --onnxrt --validate",
            "polygraphy run model.onnx --onnxrt --validate --val-range [0,0]",
        ],
        model,
    )
    assert good.returncode == 0
    assert good.lines("PASSED") == ["[I] PASSED | Output: y is valid", "[I] PASSED"]
    assert bad.returncode == 1
    assert bad.lines(r"^\[E\]")[-1] == "[E] FAILED"
    again = polygraphy_cli.run(good.command, model)
    assert again.text == good.text
    assert str(model) not in good.text + bad.text


def test_show_prints_command_and_chosen_lines(model, capsys):
    polygraphy_cli.run("polygraphy inspect model model.onnx", model).show("Node", width=30)
    assert capsys.readouterr().out == (
        "$ polygraphy inspect model \\\n    model.onnx\n  ---- 1 Node(s) ----\n  (return code 0)\n"
    )


def test_a_crash_names_no_folder_of_this_machine_and_show_says_its_cause(model, capsys):
    (model / "model.onnx").write_bytes(b"no model")
    crash = polygraphy_cli.run("polygraphy run model.onnx --onnxrt", model)
    assert crash.returncode == 1
    assert "Traceback" in crash.text
    assert '"/' not in crash.text
    crash.show("no such line")
    _, cause, ended = capsys.readouterr().out.splitlines()
    assert "INVALID_PROTOBUF" in cause
    assert ended == "  (return code 1)"


def test_installs_nothing_and_takes_the_courses_tensorrt(model, monkeypatch):
    monkeypatch.setenv("POLYGRAPHY_AUTOINSTALL_DEPS", "1")
    for name, expected in (("tensorrt_rtx", "True"), ("tensorrt", "False")):
        monkeypatch.setenv(flavour.FLAVOUR_VARIABLE, name)
        (model / "check.py").write_text(
            "from polygraphy import config\nprint(config.AUTOINSTALL_DEPS, config.USE_TENSORRT_RTX)"
        )
        result = polygraphy_cli.run("polygraphy debug repeat --until 1 --show-output --check python check.py", model)
        assert f"False {expected}" in result.text
        assert result.lines("Iteration") == ["[I] RUNNING | Iteration 1", "[I] PASSED | Iteration 1"]


def test_assignments_before_the_command(model):
    (model / "shim").mkdir()
    (model / "shim" / "tensorrt.py").write_text("raise ImportError('found the shim')")
    command = "PYTHONPATH=shim POLYGRAPHY_USE_TENSORRT_RTX=0 polygraphy convert model.onnx -o model.engine"
    assert "found the shim" in polygraphy_cli.run(command, model).text


def test_refusals(model, monkeypatch):
    with pytest.raises(InputError, match="no command of Polygraphy"):
        polygraphy_cli.run("trtexec --onnx=model.onnx", model)
    with pytest.raises(InputError, match="no folder"):
        polygraphy_cli.run("polygraphy --version", model / "missing")
    monkeypatch.setattr(flavour, "is_installed", lambda module: module != "polygraphy")
    with pytest.raises(BackendUnavailableError, match='pip install "polygraphy'):
        polygraphy_cli.run("polygraphy --version", model)


def test_no_copies_of_models_are_left_behind(model, monkeypatch, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("TMPDIR", str(scratch))
    done = polygraphy_cli.run("polygraphy surgeon sanitize model.onnx --fold-constants -o folded.onnx", model)
    assert done.returncode == 0, done.text
    assert (model / "folded.onnx").exists()
    assert list(scratch.iterdir()) == []


def test_a_command_that_takes_too_long_is_ended_with_what_it_started(model):
    (model / "wait.py").write_text("import os, signal\nopen('pid', 'w').write(str(os.getpid()))\nsignal.pause()")
    result = polygraphy_cli.run("polygraphy debug repeat --until 1 --check python wait.py", model, timeout=2)
    assert result.returncode == -9
    assert result.lines("Iteration") == ["[I] RUNNING | Iteration 1"]
    assert result.lines("Ended") == ["[E] Ended after 2 seconds, before it was done"]
    with contextlib.suppress(ProcessLookupError):  # gone already
        process = os.pidfd_open(int((model / "pid").read_text()))
        assert select.select([process], [], [], 10)[0]  # a busy machine takes a moment to end it
        os.close(process)


def test_checks_take_the_polygraphy_of_this_python(model, monkeypatch):
    monkeypatch.setattr(polygraphy_cli, "_MAIN", "print('of this Python')")
    done = polygraphy_cli.run("polygraphy run", model)
    assert done.text == "of this Python"
    monkeypatch.undo()
    (model / "which.py").write_text("import shutil; print('found', shutil.which('polygraphy'))")
    check = polygraphy_cli.run("polygraphy debug repeat --until 1 --show-output --check python which.py", model)
    (line,) = check.lines("found")
    assert line.startswith(f"found {tempfile.gettempdir()}/")


def test_what_is_printed_keeps_the_times(model):
    result = polygraphy_cli.run("polygraphy run model.onnx --onnxrt", model)
    assert re.search(r"PASSED \| Runtime: [\d.]+s", result.printed)
    assert "Runtime: " not in result.text
