"""A disk that is full, and one that is read-only: a small file system of its own, where this process may mount one."""

import os
import subprocess
import time
from pathlib import Path

import pytest
from bad_input.table import IMAGES, At, temporary_files_in
from small_models import options

from tutorial_utils.base import paths
from tutorial_utils.base.errors import CacheError, CourseError, ExportError, InputError, RecordingError
from tutorial_utils.debug import diagnosis
from tutorial_utils.engine import build
from tutorial_utils.inspection import page
from tutorial_utils.measure import recordings
from tutorial_utils.model import data, half_precision, quantization

MOUNT = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"]
STATES = {"full": "No space left on device", "read-only": "Read-only file system"}


@pytest.fixture
def disk(tmp_path):
    """A folder for 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        done = subprocess.run([*MOUNT, folder], capture_output=True)
    except OSError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip("mounting a file system takes more rights")
    yield folder
    for _ in range(20):
        if subprocess.run(["umount", folder], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    pytest.fail("the file system is still in use")


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


@pytest.fixture(params=STATES)
def unwritable(request, disk):
    """The folder as it takes no more, and what the system says of it."""
    if request.param == "full":
        with pytest.raises(OSError, match="No space"):
            (disk / "filling").write_bytes(bytes(10**6))
    else:
        remount(disk, "ro")
    return disk, STATES[request.param]


def train(at: At, folder: Path):
    from tutorial_utils.model import trained

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(paths.CACHE_VARIABLE, str(folder))
        return trained.load_or_train("quick", epochs=1)


def engine(at: At, folder: Path):
    return build(at.model, options(), cache_folder=folder)


def recording(at: At, folder: Path):
    return recordings.save(recordings.new("t", "m", {"cpu": "c"}, {"times": [*range(20_000)]}), folder / "a.json")


def diagnose(at: At, folder: Path):
    return diagnosis.diagnose(at.model, "fp16", None, 0, folder / "low.onnx", write_healthy=True)


WRITERS = {
    "FP16": (lambda at, folder: half_precision.to_fp16(at.model, folder / "half.onnx"), ExportError),
    "INT8": (lambda at, folder: quantization.to_int8(at.model, folder / "int8.onnx", IMAGES), ExportError),
    "engine": (engine, CacheError),
    "page": (lambda at, folder: page.write_page(page.inspect(at.tiny), folder / "a.html"), InputError),
    "recording": (recording, RecordingError),
    "diagnosis": (diagnose, ExportError),
}


@pytest.mark.parametrize(("write", "error"), WRITERS.values(), ids=WRITERS)
def test_the_error_says_why_nothing_stays_and_the_next_run_works(write, error, unwritable, tmp_path):
    folder, said = unwritable
    at = At(tmp_path)
    before = sorted(os.listdir(folder))
    with temporary_files_in(at.temporary):
        with pytest.raises(error, match=f"can't be written.*{said}.*Remedy: ") as caught:
            write(at, folder)
        assert "\n" not in str(caught.value)
        assert sorted(name for name in os.listdir(folder) if not name.endswith(".lock")) == before
        remount(folder, "rw,size=50m")
        assert write(at, folder)


def test_training(unwritable, tmp_path, monkeypatch):
    pytest.importorskip("paddle")
    folder, said = unwritable
    few = data.load("digits")
    few = data.Dataset(few.name, few.inputs[:64], few.labels[:64], few.class_names)
    trainings = []
    monkeypatch.setattr(data, "load", lambda *_: trainings.append(1) or few)
    at = At(tmp_path)
    with pytest.raises(
        CourseError, match=f"{said}|can't be written|Paddle saved only a part.*Free some space"
    ) as caught:
        train(at, folder)
    assert "\n" not in str(caught.value)
    remount(folder, "rw,size=50m")
    del trainings[:]
    assert [train(at, folder).saved for _ in range(2)]
    assert len(trainings) == 1
