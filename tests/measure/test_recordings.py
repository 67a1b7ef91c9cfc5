import json
import os

import pytest

from tutorial_utils.base.errors import RecordingError
from tutorial_utils.measure import recordings
from tutorial_utils.measure.recordings import Origin, Recording

MACHINE = {"gpu": "NVIDIA H200", "cpu": "Some CPU", "libraries": {"tensorrt_rtx": "1.6.1.120"}}


@pytest.fixture
def recording():
    data = {"times_ms": [0.5, 1.25e-3, -2], "nested": {"names": ["a", "b"]}, "text": "100 µs < 1 ms"}
    return recordings.new("A title", "median of 100 calls", MACHINE, data)


def test_round_trip(recording, tmp_path):
    path = recordings.save(recording, tmp_path / "new" / "numbers.json")
    assert recordings.load(path) == recording
    assert list(path.parent.iterdir()) == [path]


def test_numbers_take_one_line_for_each_list(recording, tmp_path):
    lines = recordings.save(recording, tmp_path / "numbers.json").read_text().splitlines()
    assert any(line.strip() == '"times_ms": [ 0.5, 0.00125, -2 ],' for line in lines)


def test_new_recording_is_stamped(recording):
    assert recording.source == "measured"
    assert recording.date.endswith("+00:00")
    for part in ("measured", "NVIDIA H200", recording.date[:10], "tensorrt_rtx 1.6.1.120"):
        assert part in recording.stamp


def test_stamp_of_a_machine_without_gpu():
    assert "Some CPU" in recordings.new("t", "m", {"cpu": "Some CPU"}, {}).stamp


def test_missing_recording_names_those_that_exist(recording, tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "FOLDER", tmp_path)
    with pytest.raises(RecordingError, match=r"no recording fast\. .*Shipped with the course: none"):
        recordings.load("fast")
    for name in ("two", "one"):
        recordings.save(recording, tmp_path / f"{name}.json")
    with pytest.raises(RecordingError, match="Shipped with the course: one, two"):
        recordings.load("fast")
    assert recordings.load("one") == recording


def test_every_shipped_recording_loads():
    for path in recordings.FOLDER.glob("*.json"):
        assert recordings.load(path.stem).stamp


@pytest.mark.parametrize("field", ["title", "method", "date", "source", "machine", "data"])
def test_recording_without_a_field_is_refused(field, recording, tmp_path):
    path = recordings.save(recording, tmp_path / "numbers.json")
    values = json.loads(path.read_text())
    del values[field]
    path.write_text(json.dumps(values))
    with pytest.raises(RecordingError, match=r"numbers\.json is damaged or lacks part of its stamp"):
        recordings.load(path)


@pytest.mark.parametrize("field", ["method", "date", "machine"])
def test_empty_stamp_is_refused(field, recording, tmp_path):
    values = {**recording.__dict__, field: type(getattr(recording, field))()}
    path = recordings.save(Recording(**values), tmp_path / "numbers.json")
    with pytest.raises(RecordingError, match="empty stamp"):
        recordings.load(path)


def test_what_nobody_measured_is_refused(recording, tmp_path):
    (tmp_path / "numbers.json").write_text(json.dumps({**recording.__dict__, "source": "simulated"}))
    with pytest.raises(RecordingError, match="says that it is 'simulated', and not measured or published"):
        recordings.load(tmp_path / "numbers.json")


def test_an_altered_number_is_refused(recording, tmp_path):
    path = recordings.save(recording, tmp_path / "numbers.json")
    path.write_text(path.read_text().replace("0.00125", "0.00025"))
    with pytest.raises(RecordingError, match=r"was altered after it was made.*Restore it with git"):
        recordings.load(path)


def test_what_is_no_ordinary_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "numbers.json")
    with pytest.raises(RecordingError, match="is damaged"):
        recordings.load(tmp_path / "numbers.json")


def test_without_the_course_it_is_said_where_recordings_are(tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "FOLDER", tmp_path / "notebooks" / "recordings")
    for call in (recordings.folder_to_write, lambda: recordings.load("deployment")):
        with pytest.raises(RecordingError, match="files of the course, not of the package: clone it"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_origin_of_a_live_result():
    bundle = recordings.live("engine built")._repr_mimebundle_()
    assert bundle["text/plain"] == "LIVE: engine built, this machine."
    assert "<b>LIVE</b> engine built" in bundle["text/html"]
    assert bundle[recordings.ORIGIN_MIME_TYPE]["origin"] == "live"


def test_origin_of_a_recording(recording):
    bundle = recordings.recorded("engine timed", recording, "no GPU here")._repr_mimebundle_()
    assert bundle["text/plain"] == f"RECORDING: engine timed, {recording.stamp}. Why not live: no GPU here"
    assert json.loads(json.dumps(bundle))[recordings.ORIGIN_MIME_TYPE] == {
        "origin": "recording",
        "what": "engine timed",
        "machine": recording.stamp,
        "reason": "no GPU here",
    }


def test_html_is_escaped():
    html = Origin("recording", "a < b", "<script>", "R&D: 'no'")._repr_mimebundle_()["text/html"]
    assert "<script>" not in html
    for part in ("a &lt; b", "&lt;script&gt;", "R&amp;D"):
        assert part in html
    assert Origin("live", "a < b")._repr_mimebundle_()["text/plain"] == "LIVE: a < b, this machine."
