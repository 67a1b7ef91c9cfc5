"""Paddle-TRT's log and what follows from it: what is refused, what is kept, and what a process leaves that ends."""

import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tutorial_utils.base.errors import BackendUnavailableError, BuildError

paddle = pytest.importorskip("paddle")
from tutorial_utils.model.classifier import SavedModel  # noqa: E402 - they need Paddle
from tutorial_utils.runners import (  # noqa: E402
    legacy_program,
    paddle_kernels,
    paddle_tensorrt,
    paddle_tensorrt_build,
    paddle_tensorrt_log,
)

LOGS = {path.stem: path.read_text() for path in Path(__file__).with_name("paddle_logs").glob("*.log")}
SHAPES = {"x": ((1, 3, 32, 32), (8, 3, 32, 32), (64, 3, 32, 32))}
WHOLE = "---  detect a sub-graph with 123 nodes\nThe entire graph is offloaded to TensorRT.\n"
NO_KERNELS = "Paddle 2.6.2 holds kernels for compute capability 6.1, and none for 9.0 (A GPU)"


# --- the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "subgraphs", "whole"),
    [
        ("fp16", (50,), True),
        ("cut_short", (23,), False),  # the engine was still being built
        ("nothing_offloaded", (), False),
        ("explicit", (8,), False),
    ],
)
def test_recorded_logs(name, subgraphs, whole):
    """Parts of what Paddle 2.6.2 with TensorRT 8.6.1 printed on an H100."""
    log = paddle_tensorrt_log.parse(LOGS[name])
    assert (log.subgraphs, log.whole) == (subgraphs, whole)
    assert str(log).endswith(f"and {'nothing' if whole else 'something'} stays with Paddle")


def test_what_was_warned_of_and_refused():
    warned = paddle_tensorrt_log.parse(LOGS["fp16"]).warnings
    assert len(warned) == 5
    assert "- 21 weights are affected by this issue: Detected subnormal FP16 values." in warned
    (reason,) = paddle_tensorrt_log.parse(LOGS["explicit"]).reasons  # for each of nine convolutions
    assert reason.startswith("Trt below 8.6 not support conv2d's filter")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("calibration", "(InvalidArgument) Cannot get x min/max/opt shape"),
        ("explicit", "ValueError: (InvalidArgument) Cannot get conv2d_1.tmp_0 min/max/opt shape"),
        ("nothing_offloaded", "Could not load library libcudnn_cnn_infer.so.8. Error: "),
    ],
)
def test_last_words(name, said):
    assert paddle_tensorrt_log.last_line(LOGS[name]).startswith(said)
    assert "/paddle" not in paddle_tensorrt_log.last_line(LOGS[name])


def test_last_words_of_nothing():
    assert paddle_tensorrt_log.last_line("\n") == "it printed nothing"


# --- what follows ----------------------------------------------------------------------------------------------------


def test_what_stays_outside_is_refused_without_kernels_and_said_with_them(tmp_path, monkeypatch):
    log = paddle_tensorrt_log.parse(LOGS["nothing_offloaded"])
    shutil.copy(legacy_program.untrained("quick").model_path, tmp_path / paddle_tensorrt_build.OPTIMIZED_NAME)
    monkeypatch.setattr(paddle_kernels, "missing", lambda: NO_KERNELS)
    with pytest.raises(BackendUnavailableError, match=r"0 TensorRT engines.*9 conv2d.*none for 9\.0") as caught:
        paddle_tensorrt_build.require_runnable(log, tmp_path)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(paddle_kernels, "missing", lambda: None)
    with pytest.warns(UserWarning, match="left to Paddle: .*9 conv2d"):
        paddle_tensorrt_build.require_runnable(log, tmp_path)


def test_a_whole_program_runs_anywhere(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(paddle_kernels, "missing", lambda: NO_KERNELS)
    paddle_tensorrt_build.require_runnable(paddle_tensorrt_log.parse(WHOLE), tmp_path)
    assert not recwarn.list


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two files and a Paddle that takes the calls; what the other process does is each test's."""
    monkeypatch.setenv("TUTORIAL_UTILS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paddle_tensorrt, "legacy_config", lambda *_, **__: None)
    monkeypatch.setattr(paddle.inference, "get_trt_runtime_version", lambda: (8, 6, 1))
    paths = tmp_path / "net.pdmodel", tmp_path / "net.pdiparams"
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


def other_process(monkeypatch, text, status=0):
    calls = []

    def run(log, changes, function, *arguments):
        calls.append(arguments)
        assert changes["GLOG_minloglevel"] == "0"
        log.write_text(text)
        if status:
            raise subprocess.CalledProcessError(status, "python")
        return 12.5

    monkeypatch.setattr(paddle_tensorrt_build.child_process, "run_with_log", run)
    return calls


def test_engines_are_built_once_for_files_options_and_gpu(files, monkeypatch):
    calls = other_process(
        monkeypatch, "---  detect a sub-graph with 123 nodes\nThe entire graph is offloaded to TensorRT."
    )
    first = paddle_tensorrt_build.cached(*files, shapes=SHAPES)
    again = paddle_tensorrt_build.cached(*files, shapes=SHAPES)
    assert again == first
    assert (first.seconds, first.log.subgraphs, first.log.whole) == (12.5, (123,), True)
    assert len(calls) == 1
    other = paddle_tensorrt_build.cached(*files, shapes=SHAPES, precision="fp16")
    files[1].write_bytes(b"weights of another training")
    trained = paddle_tensorrt_build.cached(*files, shapes=SHAPES)
    assert len({first.folder, other.folder, trained.folder}) == len(calls) == 3


@pytest.mark.parametrize("damage", [lambda log: log.write_text("cut"), lambda log: log.unlink()], ids=["cut", "gone"])
def test_damaged_engines_are_built_again(files, monkeypatch, damage, recwarn):
    calls = other_process(
        monkeypatch, "---  detect a sub-graph with 123 nodes\nThe entire graph is offloaded to TensorRT."
    )
    first = paddle_tensorrt_build.cached(*files, shapes=SHAPES)
    damage(first.folder / paddle_tensorrt_build.LOG_NAME)
    assert paddle_tensorrt_build.cached(*files, shapes=SHAPES) == first
    assert len(calls) == 2


def test_a_process_that_ends_leaves_a_sentence_and_no_engine(files, monkeypatch):
    text = LOGS["calibration"]
    other_process(monkeypatch, text, -signal.SIGABRT)
    with pytest.raises(
        BuildError, match=r"ended the process that made the engines \(SIGABRT\).*Cannot get x"
    ) as caught:
        paddle_tensorrt_build.cached(*files, shapes=SHAPES)
    assert "\n" not in str(caught.value)
    assert "/paddle" not in str(caught.value)
    (folder,) = {path.parent for path in files[0].parent.glob("cache/paddle_tensorrt/*")}
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def test_a_network_is_quantized_once_for_the_same_images(tmp_path, monkeypatch):
    calls = []

    def quantize(model_path, params_path, images, prefix):
        calls.append((model_path.name, params_path.name))
        prefix.with_suffix(".pdmodel").touch()
        prefix.with_suffix(".pdiparams").touch()

    saved = SavedModel(tmp_path / "model.pdmodel", tmp_path / "model.pdiparams")
    monkeypatch.setattr(legacy_program, "untrained", lambda network: saved)
    monkeypatch.setattr(legacy_program.paddle_quantization, "quantize", quantize)
    one, again, other = (legacy_program.quantized("quick", np.full((32, 3), value)) for value in (0, 0, 1))
    assert one == again != other
    assert calls == [("model.pdmodel", "model.pdiparams")] * 2
