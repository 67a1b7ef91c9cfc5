"""The registry of experiments: what is live and what is recorded, the recordings of the course, and the command."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tutorial_utils.__main__ import main
from tutorial_utils.authoring import notebook_form
from tutorial_utils.base.errors import BackendUnavailableError, InputError, ModelFileError, RecordingError
from tutorial_utils.base.paths import ROOT
from tutorial_utils.machine import capabilities
from tutorial_utils.measure import experiment, recordings
from tutorial_utils.measure.experiment import Experiment
from tutorial_utils.plotting import Picture

STAMP = {"gpu": "NVIDIA H100 80GB", "libraries": {"tensorrt_rtx": "1.6.1"}}
MACHINE = SimpleNamespace(
    tensorrt_run=SimpleNamespace(available=True, reason=""),
    gpu=SimpleNamespace(name="NVIDIA H100 80GB"),
    machine=lambda: STAMP,
)
NO_GPU = SimpleNamespace(tensorrt_run=SimpleNamespace(available=False, reason="There is no GPU."), gpu=None)


@pytest.fixture
def counting(monkeypatch, tmp_path):
    """An experiment that counts the bytes of a file, on a machine with a GPU, its recordings in a folder of its own."""
    monkeypatch.setattr(recordings, "FOLDER", tmp_path / "recordings")
    monkeypatch.setattr(capabilities, "require_tensorrt_run", lambda: MACHINE)
    (tmp_path / "made.txt").write_text("12345")
    one = Experiment(
        name="counting",
        title="Bytes of a file",
        method="read once",
        measure=lambda models: {"bytes": {len(models["some"].read_text()): "as a key"}},
        read=lambda data: [int(key) for key in data["bytes"]],
        models=("some.txt",),
        make_models=lambda names: {"some.txt": tmp_path / "made.txt"},
        libraries=lambda: {"counter": "1.0"},
    )
    monkeypatch.setattr(experiment, "find", lambda name: {"counting": one}[name])
    monkeypatch.setattr(experiment, "names", lambda: {"counting": "nowhere"})
    return one


def test_live_where_engines_run(counting):
    found = counting.live_or_recorded(MACHINE)
    assert (found.result, found.gpu, found.method) == ([5], "NVIDIA H100 80GB", "read once")
    assert str(found.origin) == "LIVE: Bytes of a file, this machine."


def test_recorded_elsewhere(counting):
    recordings.save(
        recordings.new("t", "in another way", {"gpu": "G"}, {"bytes": {"7": ""}}), recordings.FOLDER / "counting.json"
    )
    found = counting.live_or_recorded(NO_GPU)
    assert (found.result, found.gpu, found.method) == ([7], "G", "in another way")
    assert found.origin.origin == "recording"
    assert str(found.origin).endswith("Why not live: There is no GPU.")


def test_a_recording_is_written_beside_the_one_that_ships(counting):
    path = counting.record()
    assert path.name == "counting_nvidia_h100_80gb.json"
    recording = recordings.load(path)
    assert (recording.title, recording.method) == ("Bytes of a file", "read once")
    assert recording.data == {"bytes": {"5": "as a key"}}
    assert recording.machine["libraries"] == {"tensorrt_rtx": "1.6.1", "counter": "1.0"}
    assert STAMP["libraries"] == {"tensorrt_rtx": "1.6.1"}


def test_models_from_another_machine(counting, tmp_path):
    (tmp_path / "carried").mkdir()
    with pytest.raises(ModelFileError, match=r"carried lacks some\.txt"):
        counting.record(tmp_path / "carried")
    (tmp_path / "carried" / "some.txt").write_text("123")
    assert recordings.load(counting.record(tmp_path / "carried")).data == {"bytes": {"3": "as a key"}}


def test_damaged_models_are_named_before_anything_is_measured(counting, tmp_path):
    (tmp_path / "net.onnx").write_text("no model")
    with pytest.raises(ModelFileError, match=r"net\.onnx"):
        replace(counting, models=("net.onnx",)).record(tmp_path)


def test_recording_needs_a_gpu(counting, monkeypatch):
    def refuse():
        raise BackendUnavailableError("No GPU here.", "Get one.")

    monkeypatch.setattr(capabilities, "require_tensorrt_run", refuse)
    with pytest.raises(BackendUnavailableError, match="No GPU here"):
        counting.record()


@pytest.mark.parametrize("content", ["{", json.dumps({"title": "t"}), None])
def test_damaged_recording_names_the_command_that_makes_it(counting, content):
    recordings.FOLDER.mkdir()
    path = recordings.FOLDER / "counting.json"
    if content is None:  # whole, with a stamp, and other numbers
        recordings.save(recordings.new("t", "m", {"gpu": "G"}, {"sizes": []}), path)
    else:
        path.write_text(content)
    with pytest.raises(RecordingError, match="record counting --replace"):
        counting.recorded("no GPU")


def test_command_writes_beside_or_over(counting, capsys):
    assert main(["record", "counting"]) == 0
    assert main(["record", "--all", "--replace"]) == 0
    names = ["counting.json", "counting_nvidia_h100_80gb.json"]
    assert sorted(path.name for path in recordings.FOLDER.iterdir()) == names
    assert [line.split()[1].rpartition("/")[2] for line in capsys.readouterr().out.splitlines()] == [
        "counting_nvidia_h100_80gb.json.",
        "counting.json.",
    ]
    assert main(["record", "--list"]) == 0
    assert "counting: Bytes of a file\n    measured on NVIDIA H100 80GB on " in capsys.readouterr().out


def test_several_are_measured_each_in_a_process_of_its_own():
    """One that fails, or dies, costs its own recording only. Here both are refused, each with its reason."""
    if capabilities.probe().tensorrt_run.available:
        pytest.skip("engines run here, and would be measured")
    command = [sys.executable, "-m", "tutorial_utils", "record", "lesson01_plans", "lesson01_async", "--replace"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count(capabilities.probe().tensorrt_run.reason) == 2


@pytest.mark.parametrize("statuses", [[0, 0], [0, 1], [-6, 0]])
def test_status_of_several(counting, monkeypatch, tmp_path, statuses):
    calls, answers = [], iter(statuses)
    long = replace(counting, name="long", measure=None, rows={"row": lambda models: {}})
    experiments = {"other": replace(counting, name="other"), "long": long, "counting": counting}
    monkeypatch.setattr(experiment, "find", experiments.get)
    monkeypatch.setattr(experiment, "names", lambda: dict.fromkeys(experiments, ""))
    monkeypatch.setattr(
        subprocess, "run", lambda command: calls.append(command[4:]) or SimpleNamespace(returncode=next(answers))
    )
    assert main(["record", "--all", "--models", str(tmp_path)]) == int(any(statuses))
    assert calls == [["other", "--models", str(tmp_path)], ["counting", "--models", str(tmp_path)]]


@pytest.mark.parametrize("arguments", [[], ["--list", "--all"]])
def test_command_asks_which(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["record", *arguments])
    assert stopped.value.code == 2


def test_unknown_experiment(capsys):
    with pytest.raises(InputError, match=r"no experiment 'nothing'.*deployment, .*lesson01_async"):
        experiment.find("nothing")
    assert main(["record", "nothing"]) == 1
    assert "There is no experiment 'nothing'." in capsys.readouterr().err


# --- the experiments and the recordings of the course ----------------------------------------------------------------

# Experiments that wait for a machine: the test below fails as soon as one of them has a recording.
NOT_YET_RECORDED: set[str] = set()
ON_A_CPU = {"lesson04_autocast"}  # what needs libraries of its own, and no GPU


@pytest.fixture(scope="module", params=sorted(experiment.names()))
def real(request):
    pytest.importorskip("tensorrt_rtx")
    return experiment.find(request.param)


def test_shipped_recording_is_read(real):
    if real.name in NOT_YET_RECORDED:
        pytest.skip("not recorded yet")
    measured = real.recorded("there is no GPU")
    assert measured.gpu.startswith("NVIDIA") != (real.name in ON_A_CPU)
    assert measured.result
    assert recordings.load(real.name).title
    if real.draw:
        assert isinstance(real.draw(measured), Picture)


def test_every_measured_recording_has_its_experiment():
    shipped = {path.stem: recordings.load(path.stem).source for path in recordings.FOLDER.glob("*.json")}
    assert {
        name for name, source in shipped.items() if source == "measured"
    } == experiment.names().keys() - NOT_YET_RECORDED


@pytest.mark.parametrize("name", sorted(experiment.names()))
def test_an_experiment_is_shown_by_a_notebook_of_its_own_lesson(name):
    module = experiment.names()[name]
    topic = module.rpartition(".")[2]
    number = re.search(r"lesson(\d\d)", module)
    notebooks = (ROOT / "notebooks").glob(f"{number[1] if number else ''}*.ipynb")
    code = "\n".join(cell.source for path in notebooks for cell in notebook_form.read(path).cells)
    assert re.search(rf'import .*\b{topic}\b|\b{topic} import EXPERIMENT|find\("{name}"\)', code)


def test_experiment_is_registered_under_its_own_name(real):
    assert experiment.find(real.name) is real
    assert real.name in experiment.listing()
