"""Experiments of rows: each in a process of its own, merged into a recording that grows, whatever happens to a row."""

import dataclasses
import functools
import json
import os
import re
import subprocess
from types import SimpleNamespace

import pytest
from measured_rows import die, fail, misspell, misuse_c, no_plain_values, not_here, refuse, size

from tutorial_utils.__main__ import main
from tutorial_utils.base.errors import BackendUnavailableError, InputError, RecordingError
from tutorial_utils.machine import capabilities
from tutorial_utils.measure import experiment, recordings, rows
from tutorial_utils.measure.experiment import Experiment


def stamp(gpu="NVIDIA H100 80GB", **libraries):
    return {"gpu": gpu, "cpu": "a CPU", "python": libraries.pop("python", "3.12"), "libraries": libraries}


@pytest.fixture
def sizes(monkeypatch, tmp_path):
    """An experiment of six rows, on a machine whose stamp the test may change."""
    monkeypatch.setattr(recordings, "FOLDER", tmp_path / "recordings")
    machine = SimpleNamespace(stamp=stamp(tensorrt="10.6.0"))
    monkeypatch.setattr(capabilities, "probe", lambda: SimpleNamespace(machine=lambda: machine.stamp))
    (tmp_path / "some.txt").write_text("12345")
    of_rows = {
        "a/size": size,
        "a/refused": refuse,
        "b/size": functools.partial(size, kind="other"),
        "b/failed": fail,
        "b/dead": die,
        "c/absent": not_here,
    }
    one = Experiment(
        name="sizes",
        title="Bytes of a file",
        method="read once",
        rows=of_rows,
        read=rows.read,
        models=("some.txt",),
        make_models=lambda names: {"some.txt": tmp_path / "some.txt"},
        needs_tensorrt=False,
    )
    monkeypatch.setattr(experiment, "find", lambda name: {"sizes": one, "other": one}[name])
    return SimpleNamespace(experiment=one, machine=machine, path=tmp_path / "new" / "sizes.json", said=[])


def record(sizes, *patterns, **options):
    path, added = sizes.experiment.record_rows(patterns, path=sizes.path, report=sizes.said.append, **options)
    assert path == sizes.path
    return added


def recorded(sizes):
    return {row.name: row for row in rows.read(recordings.load(sizes.path).data)}


def test_a_row_is_measured_in_another_process_and_stamped(sizes):
    assert record(sizes, "a/size") == 1
    (row,) = recorded(sizes).values()
    assert (row.values["bytes"], row.reason) == (5, "")
    assert row.values["process"] != os.getpid()
    assert row.machine == sizes.machine.stamp
    recording = recordings.load(sizes.path)
    assert (recording.title, recording.method, recording.date) == ("Bytes of a file", "read once", row.date)
    assert recording.stamp.startswith("measured on NVIDIA H100 80GB on ")


def test_a_row_that_is_refused_fails_or_dies_costs_only_itself(sizes):
    assert record(sizes, "*") == 5
    assert {name: row.reason for name, row in recorded(sizes).items()} == {
        "a/size": "",
        "a/refused": "This library has no FP8.",
        "b/size": "",
        "b/failed": "RuntimeError: CUDA error 700.",
        "b/dead": "The process ended with SIGABRT: terminate called after throwing.",
    }
    assert [row.values is None for row in recorded(sizes).values()] == [False, True, False, True, True]
    assert sizes.said[-1] == "c/absent: not measured here. The library isn't installed."


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (misspell, AttributeError, "'dict' object has no attribute 'value'"),
        (misuse_c, TypeError, "object of type 'int' has no len()"),  # C functions raise it, from our line
    ],
)
def test_an_error_that_may_be_the_package_s_is_no_reason_of_a_library(sizes, capsys, wrong, error, message):
    """What a library's own lines raise is one."""
    changed = {"a/wrong": wrong, "a/library": json.loads, "a/size": size}
    sizes.experiment.rows.clear()
    sizes.experiment.rows.update(changed)
    with pytest.raises(error, match=re.escape(message)) as raised:
        main(["record", "sizes", "--add", str(sizes.path)])
    assert {name: row.reason.partition(":")[0] for name, row in recorded(sizes).items()} == {
        "a/library": "TypeError",
        "a/size": "",
    }
    said, *traceback = capsys.readouterr().out.partition("\na/library: ")[0].splitlines()
    assert said == f"a/wrong: not recorded, since its code may be wrong. {error.__name__}: {message}"
    (note,) = vars(raised.value)["__notes__"]
    assert traceback == note.splitlines()
    assert f'rows_of_a_test.py", line {wrong.__code__.co_firstlineno + 2}, in {wrong.__name__}\n' in note


def test_values_that_cannot_be_handed_over_are_no_reason_of_a_library(sizes):
    sizes.experiment.rows.clear()
    sizes.experiment.rows.update({"a/wrong": no_plain_values, "a/size": size})
    with pytest.raises(subprocess.CalledProcessError) as raised:
        record(sizes, "*")
    assert list(recorded(sizes)) == ["a/size"]
    (note,) = vars(raised.value)["__notes__"]
    assert "In the row's process:\nTraceback " in note
    assert "pickle" in note


def test_stacks_come_together_in_one_file(sizes):
    record(sizes, "a/*")
    first = sizes.machine.stamp
    sizes.machine.stamp = stamp(tensorrt_rtx="1.6.1", tensorrt="8.6.1", paddle="", python="3.11")
    record(sizes, "b/size")
    found = recorded(sizes)
    assert [row.machine for row in found.values()] == [first, first, sizes.machine.stamp]
    recording = recordings.load(sizes.path)
    assert len(recording.data["stacks"]) == 2
    assert recording.machine["libraries"] == {"tensorrt": "10.6.0 and 8.6.1", "tensorrt_rtx": "1.6.1"}
    assert "python" not in recording.machine  # they differ
    assert recording.machine["cpu"] == "a CPU"


def test_rows_that_are_there_are_skipped_unless_asked_for(sizes, tmp_path):
    record(sizes, "a/*")
    before = recorded(sizes)
    assert record(sizes, "a/*", "b/size") == 1
    assert sizes.said[-2] == "2 of 3 rows are there already: --again measures them anew."
    assert recorded(sizes)["a/size"] == before["a/size"]
    assert record(sizes, "a/size") == 0
    (tmp_path / "some.txt").write_text("123")
    sizes.machine.stamp = stamp(tensorrt="10.7.0")
    assert record(sizes, "a/size", again=True) == 1
    assert recorded(sizes)["a/size"].values["bytes"] == 3
    assert list(recorded(sizes)) == ["a/size", "a/refused", "b/size"]
    assert [one["libraries"]["tensorrt"] for one in recordings.load(sizes.path).data["stacks"]] == ["10.7.0", "10.6.0"]


def test_a_new_row_brings_the_method_of_today(sizes):
    record(sizes, "a/size")
    sizes.experiment = dataclasses.replace(sizes.experiment, method="read once, or twice")
    record(sizes, "a/size")
    assert recordings.load(sizes.path).method == "read once"
    record(sizes, "b/size")
    assert recordings.load(sizes.path).method == "read once, or twice"


def test_a_failure_never_replaces_a_measurement(sizes):
    record(sizes, "a/size")
    sizes.experiment.rows["a/size"] = die
    record(sizes, "a/size", again=True)
    assert recorded(sizes)["a/size"].values["bytes"] == 5


def test_each_row_is_written_at_once(sizes):
    there = []
    sizes.experiment.record_rows(["a/*"], path=sizes.path, report=lambda _: there.append(sizes.path.exists()))
    assert there == [False, True]


def test_rows_that_another_process_adds_meanwhile_stay(sizes):
    def add_another(_):
        now = rows.load(sizes.path, "Bytes of a file") or recordings.new(
            "Bytes of a file", "m", stamp(), {"stacks": [], "rows": {}}
        )
        recordings.save(rows.merged(now, "b/size", {"values": {"bytes": 1}}, stamp(), "2026-01-01"), sizes.path)

    sizes.experiment.record_rows(["a/size"], path=sizes.path, report=add_another)
    assert recorded(sizes).keys() == {"a/size", "b/size"}


def test_another_gpu_is_refused(sizes):
    record(sizes, "a/size")
    sizes.machine.stamp = stamp(gpu="NVIDIA H200", tensorrt="10.6.0")
    with pytest.raises(RecordingError, match="is of NVIDIA H100 80GB, and this GPU is NVIDIA H200"):
        record(sizes, "b/size")
    assert recorded(sizes).keys() == {"a/size"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{", "damaged"),
        ({"bytes": 3}, "holds no rows of this experiment"),
        ({"stacks": [], "rows": {"a/size": {"stack": 0, "date": "2026"}}}, "damaged"),
        ({"stacks": [{}], "rows": {"a/size": {"stack": 0}}}, "damaged"),
        ([], "damaged"),
        (None, "damaged"),
        ({"stacks": [5], "rows": {"a/size": {"stack": 0, "date": "2026"}}}, "damaged"),
        ({"stacks": [{}], "rows": {"a/size": {"stack": -1, "date": "2026"}}}, "damaged"),
    ],
)
def test_a_damaged_file_is_left_alone_and_nothing_is_measured(sizes, data, said):
    sizes.path.parent.mkdir()
    if isinstance(data, str):
        sizes.path.write_text(data)
    else:
        recordings.save(recordings.new("Bytes of a file", "m", stamp(), data), sizes.path)
    before = sizes.path.read_bytes()
    with pytest.raises(RecordingError, match=said):
        record(sizes, "b/size")
    assert sizes.path.read_bytes() == before
    assert not sizes.said


def test_the_recording_of_another_experiment_is_refused(sizes):
    recordings.save(recordings.new("Other", "m", stamp(), {"stacks": [], "rows": {}}), sizes.path)
    with pytest.raises(RecordingError, match=r"sizes\.json holds no rows of this experiment, but 'Other'"):
        record(sizes, "a/size")


def test_a_pattern_that_matches_nothing_is_named(sizes):
    with pytest.raises(InputError, match=r"No row of sizes matches 'd/\*'.*6 rows are named as a/size"):
        record(sizes, "a/size", "d/*")
    assert not sizes.path.exists()


def test_without_a_gpu_nothing_is_started(sizes):
    sizes.machine.stamp = stamp(gpu=None)
    with pytest.raises(BackendUnavailableError, match="no NVIDIA GPU"):
        record(sizes, "*")


def test_where_no_row_can_be_measured_the_reason_is_raised(sizes):
    with pytest.raises(BackendUnavailableError, match="isn't installed"):
        record(sizes, "c/*")
    assert not sizes.path.exists()


def test_an_experiment_without_rows_says_so(sizes):
    whole = Experiment(name="whole", title="t", method="m", measure=dict, read=dict, needs_tensorrt=False)
    with pytest.raises(InputError, match="whole isn't measured row by row"):
        whole.record_rows(["a"])


def test_live_is_the_recording(sizes):
    sizes.experiment.record_rows(["a/*"], path=recordings.FOLDER / "sizes.json")
    found = sizes.experiment.live_or_recorded(SimpleNamespace(tensorrt_run=SimpleNamespace(available=True)))
    assert [row.name for row in found.result] == ["a/size", "a/refused"]
    assert str(found.origin).endswith("Its 6 rows are measured by `python -m tutorial_utils record sizes`.")


def test_command(sizes, capsys):
    assert main(["record", "sizes", "--rows", "a/size,b/s*", "--add", str(sizes.path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"2 rows added to {sizes.path}. Look at it, then commit it."
    assert recorded(sizes).keys() == {"a/size", "b/size"}
    assert main(["record", "sizes", "--rows", "a/size", "--add", str(sizes.path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"0 rows added to {sizes.path}."
    assert main(["record", "sizes", "--rows", "a/size", "--again", "--add", str(sizes.path)]) == 0
    assert main(["record", "sizes", "--rows", "a/size"]) == 0
    assert main(["record", "sizes", "--rows", "a/size", "--replace"]) == 0
    assert {path.name for path in recordings.FOLDER.iterdir()} == {"sizes.json", "sizes_nvidia_h100_80gb.json"}
    assert main(["record", "sizes", "--rows", "c/*"]) == 1
    assert main(["record", "sizes", "other", "--rows", "a/*"]) == 1
    assert "for one experiment at a time" in capsys.readouterr().err


def test_a_recording_stays_small_and_plain(sizes):
    record(sizes, "a/*")
    values = json.loads(sizes.path.read_text())["data"]["rows"]["a/size"]
    assert values.keys() == {"stack", "date", "values"}


def test_a_folder_is_no_recording(sizes):
    sizes.path.mkdir(parents=True)
    with pytest.raises(RecordingError, match="is damaged"):
        record(sizes, "a/size")
