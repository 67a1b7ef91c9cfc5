"""Ctrl+C at each stage: nothing half-written stays, a command says one line, and the next run works.

A hook sends the signal at the moment that is meant. Only where a child process is at work, a moment has to do.
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from bad_input.table import IMAGES, At, no_longer_than, temporary_files_in
from small_models import options, save_paddle

from tutorial_utils.__main__ import main
from tutorial_utils.base import child_process, paths
from tutorial_utils.engine import build
from tutorial_utils.inspection import drawings
from tutorial_utils.model import data, onnx_file, quantization
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

MOMENT = 1.0  # seconds until a child process, which takes several, is at work


@pytest.fixture
def at(tmp_path):
    at = At(tmp_path)
    with temporary_files_in(at.temporary), no_longer_than(60):
        yield at


@pytest.fixture
def interrupting(monkeypatch):
    """Return what lets a function send Ctrl+C to this process when it is called the n-th time."""

    def replace(owner, name: str, call: int = 1) -> None:
        function, calls = getattr(owner, name), []

        def interrupted(*args, **kwargs):
            calls.append(name)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGINT)
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, interrupted)

    return replace


def test_quantization(at, interrupting, monkeypatch):
    target = at.out / "int8.onnx"
    model = at.model
    with monkeypatch.context():
        interrupting(quantization, "_largest_magnitudes")
        with pytest.raises(KeyboardInterrupt):
            quantization.to_int8(model, target, IMAGES)
    assert at.left() == []
    assert OnnxRuntimeRunner(quantization.to_int8(model, target, IMAGES)).infer({"x": IMAGES})


@pytest.mark.parametrize("moment", ["while it is written", "before it is renamed"])
def test_writing_a_model(moment, at, interrupting):
    target, model = at.write("old.onnx", b"old"), onnx_file.load(at.model)
    interrupting(*((Path, "write_bytes") if moment == "while it is written" else (os, "replace")))
    with pytest.raises(KeyboardInterrupt):
        onnx_file.save(model, target)
    assert target.read_bytes() == b"old"
    assert at.left() == []
    assert onnx_file.load(onnx_file.save(model, target))


@pytest.mark.parametrize("step", ["log", "step_complete"])
def test_build(step, at, interrupting, monkeypatch):
    """TensorRT swallows what its callbacks raise: the build would go on as if nothing had been."""
    from tutorial_utils.engine import builder
    from tutorial_utils.engine.tensorrt import MessageLog

    model, folder = at.model, at.given / "engines"
    interrupting(MessageLog if step == "log" else builder.Monitor, step, call=20)
    with pytest.raises(KeyboardInterrupt):
        build(model, options(), cache_folder=folder)
    assert [path.suffix for path in folder.iterdir()] == [".lock"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not build(model, options(), cache_folder=folder).from_cache
    assert build(model, options(), cache_folder=folder).from_cache


@pytest.mark.parametrize(
    ("owner", "name"),
    [(onnx_file, "name_nodes"), (drawings, "overview"), (paths, "replacing"), (os, "replace")],
    ids=["reading", "drawing", "opening the page", "renaming the page"],
)
def test_inspect(owner, name, at, interrupting, capfd):
    model, target = at.tiny, at.out / "page.html"
    interrupting(owner, name)
    assert main(["inspect", str(model), "--html", str(target)]) == 130
    assert capfd.readouterr() == ("", "Stopped.\n")
    assert at.left() == []
    assert main(["inspect", str(model), "--html", str(target)]) == 0
    assert target.exists()


def test_debug_and_the_process_that_works_for_it(at):
    """The terminal sends Ctrl+C to both: neither prints a traceback, and none is left running."""
    ready = at.given / "ready"
    code = f"""
import pathlib, sys, time
from tutorial_utils.__main__ import main
from tutorial_utils.base import child_process

def slow(call, changes, **streams):
    return original((time.sleep, (60,), {{}}), changes, **streams)

original, child_process._call = child_process._call, slow
pathlib.Path({str(ready)!r}).touch()
sys.exit(main(["debug", {str(at.tiny)!r}, "--output", {str(at.out / "low.onnx")!r}]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=child_process.environment(), stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    while not ready.exists():
        assert process.poll() is None
    threading.Event().wait(MOMENT)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "Stopped.\n")
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert at.left() == []


@pytest.fixture
def paddle_files(at):
    paddle = pytest.importorskip("paddle")
    return save_paddle(paddle.nn.Linear(4, 4), [None, 4], at.given / "net")


def test_export(at, paddle_files, monkeypatch):
    from tutorial_utils.model import export

    original = subprocess.run

    def slow(command, **streams):  # the export itself may be done before the signal, which would then end the tests
        return original([sys.executable, "-c", "import time; time.sleep(60)"], **streams)

    target = at.out / "net.onnx"
    timer = threading.Timer(MOMENT, os.kill, (os.getpid(), signal.SIGINT))
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "run", slow)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            export.to_onnx(*paddle_files, target)
    assert at.left() == []
    assert onnx_file.load(export.to_onnx(*paddle_files, target, verify=False))


def test_training(at, interrupting, monkeypatch):
    pytest.importorskip("paddle")
    from tutorial_utils.model import classifier, trained

    monkeypatch.setenv(paths.CACHE_VARIABLE, str(at.out))
    few = data.load("digits")
    few = data.Dataset(few.name, few.inputs[:64], few.labels[:64], few.class_names)
    trainings = []
    monkeypatch.setattr(data, "load", lambda *_: trainings.append(1) or few)
    with monkeypatch.context():
        interrupting(classifier, "save_weights")
        with pytest.raises(KeyboardInterrupt):
            trained.load_or_train("quick", epochs=1)
    assert [path for path in at.out.rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    assert [trained.load_or_train("quick", epochs=1).saved for _ in range(2)]
    assert len(trainings) == 2  # the interrupted one, and the next
