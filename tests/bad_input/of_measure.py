"""Bad input to timing, quality, recordings and experiments."""

import dataclasses
import json

import numpy as np
from bad_input.table import At, full_disk, rows

from tutorial_utils.base.errors import InputError, RecordingError
from tutorial_utils.measure import experiment, quality, recordings, timing
from tutorial_utils.measure import rows as recorded_rows
from tutorial_utils.measure.timing import Measurement

NAN, INFINITY = float("nan"), float("inf")
GOOD = Measurement(((1.0, 2.0),) * 10, 3.0, 11, True, 1)
LABELS, LOGITS = np.array([0, 1, 1]), np.eye(3)


def timed(**limits):
    return lambda at: timing.measure(lambda: None, **limits)


def with_rounds(*rounds) -> Measurement:
    return dataclasses.replace(GOOD, rounds_ms=rounds)


LIMITS = "positive time and batch, and max_calls of at least 10"
MEASURE_AGAIN = "Measure again"
TIMING = rows(
    lambda at: timing.compare(GOOD, GOOD),
    ("NaN seconds", timed(seconds=NAN), InputError, "for nan s", LIMITS),
    ("endless", timed(seconds=INFINITY), InputError, "for inf s", LIMITS),
    ("seconds in words", timed(seconds="1"), InputError, "for 1 s", LIMITS),
    ("seconds backwards", timed(seconds=-1), InputError, "for -1 s", LIMITS),
    ("too few calls", timed(max_calls=5), InputError, "5 calls", LIMITS),
    ("NaN calls", timed(max_calls=NAN), InputError, "nan calls", LIMITS),
    ("batch of 0", timed(batch=0), InputError, "batch 0", LIMITS),
    ("batch in words", timed(batch="two"), InputError, "batch two", LIMITS),
    ("nothing to time", lambda at: timing.measure_in_turn({}), InputError, "0 candidates", LIMITS),
    ("None to time", lambda at: timing.measure(None), InputError, "can't be called", "Give functions by name"),
    ("a list to time", lambda at: timing.measure_in_turn([print]),
     InputError, "can't be called", "Give functions by name"),
    ("a clock of NaN", lambda at: timing.measure_on_device(lambda calls: [NAN] * calls, seconds=0.01),
     InputError, "times of work are no numbers", "Look at its clock"),
    ("no rounds", lambda at: timing.compare(GOOD, with_rounds()), InputError, "of 0 rounds and 0 calls", MEASURE_AGAIN),
    ("a round without calls", lambda at: timing.compare(with_rounds(()), GOOD),
     InputError, "round without calls", MEASURE_AGAIN),
    ("NaN milliseconds", lambda at: timing.compare(with_rounds((NAN,)), GOOD),
     InputError, "no number of milliseconds", MEASURE_AGAIN),
    ("milliseconds backwards", lambda at: timing.median_interval(with_rounds((-1.0,))),
     InputError, "no number of milliseconds", MEASURE_AGAIN),
    ("endless milliseconds", lambda at: timing.median_interval(with_rounds((INFINITY,))),
     InputError, "no number of milliseconds", MEASURE_AGAIN),
    ("shorter than the clock tells", lambda at: timing.compare(with_rounds((0.0,)), GOOD),
     InputError, "took 0 ms", "Time several calls as one"),
    ("two clocks", lambda at: timing.compare(GOOD, dataclasses.replace(GOOD, clock="CUDA events")),
     InputError, "clock is 'host' in one", "in the same way"),
)  # fmt: skip

ROWS_OF_LOGITS = "Give logits .N, C. of at least one image"
NUMBERS = "array of numbers, in rows of one length"
COUNTS = "Give 0 to total right answers"
QUALITY = rows(
    lambda at: quality.classification_metrics(LABELS, LOGITS),
    ("no logits", lambda at: quality.agreement([], []), InputError, r"a has shape \[0\]", ROWS_OF_LOGITS),
    ("NaN logits", lambda at: quality.agreement(LOGITS * NAN, LOGITS), InputError, "9 values that are NaN", "overflow"),
    ("logits of words", lambda at: quality.agreement(LOGITS, [["a"]]),
     InputError, "b is no array of real numbers", NUMBERS),
    ("logits of objects", lambda at: quality.agreement(LOGITS.astype(object), LOGITS),
     InputError, "a is no array of real", NUMBERS),
    ("complex logits", lambda at: quality.relative_error(LOGITS * 1j, LOGITS),
     InputError, "actual is no array of real", NUMBERS),
    ("rows of two lengths", lambda at: quality.sqnr_db([[1], [1, 2]], LOGITS),
     InputError, "actual is no array of real", NUMBERS),
    ("logits of None", lambda at: quality.agreement(None, None), InputError, "a is no array of real", NUMBERS),
    ("labels of fractions", lambda at: quality.classification_metrics(LABELS / 2, LOGITS),
     InputError, "type float64", "one integer label per row"),
    ("labels in a column", lambda at: quality.classification_metrics(LABELS[:, None], LOGITS),
     InputError, r"shape \[3, 1\]", "one integer label per row"),
    ("infinite logits", lambda at: quality.classification_metrics(LABELS, np.where(LOGITS > 0, np.inf, LOGITS)),
     InputError, "3 values that are NaN or infinite", "overflow"),
    ("logits of another batch", lambda at: quality.agreement(LOGITS, LOGITS[:2]),
     InputError, r"\[3, 3\] and \[2, 3\]", "same images"),
    ("an infinite reference", lambda at: quality.sqnr_db([1.0], [INFINITY]),
     InputError, "reference holds 1 values", "overflow"),
    ("labels of words", lambda at: quality.classification_metrics(["a"] * 3, LOGITS),
     InputError, "labels is no array of real", NUMBERS),
    ("labels below 0", lambda at: quality.classification_metrics(-LABELS, LOGITS),
     InputError, "from -1 to 0", "from 0 to 2"),
    ("labels of no class", lambda at: quality.classification_metrics(LABELS + 5, LOGITS),
     InputError, "from 5 to 6", "from 0 to 2"),
    ("too few labels", lambda at: quality.classification_metrics(LABELS[:2], LOGITS),
     InputError, r"shape \[2\]", r"\[3\]"),
    ("nothing to compare with", lambda at: quality.relative_error([0.0], [0.0]),
     InputError, "zero everywhere", "reference run"),
    ("two shapes", lambda at: quality.relative_error([1.0, 2.0], [1.0]), InputError, r"\[2\] and \[1\]", "same output"),
    ("more right than all", lambda at: quality.accuracy_interval(2, 1), InputError, "2 right answers of 1", COUNTS),
    ("of no images", lambda at: quality.accuracy_interval(0, 0), InputError, "0 right answers of 0", COUNTS),
    ("half an answer", lambda at: quality.accuracy_interval(1.5, 2), InputError, "1.5 right answers", COUNTS),
    ("answers in words", lambda at: quality.accuracy_interval("one", 2), InputError, "one right answers", COUNTS),
    ("NaN answers", lambda at: quality.accuracy_interval(NAN, 2), InputError, "nan right answers", COUNTS),
    ("10^400 images", lambda at: quality.accuracy_interval(1, 10**400), InputError, "1 right answers of 1000", COUNTS),
)  # fmt: skip

STAMPED = {
    "title": "t", "method": "m", "date": "2026-01-01", "source": "measured", "machine": {"cpu": "c"}, "data": {},
}  # fmt: skip


def shown(at: At, path):
    """Load a recording and show all that a lesson shows of it."""
    recording = recordings.load(path)
    origin = recordings.recorded("what", recording, "why")
    return recording.title, origin._repr_mimebundle_()


def recorded(**changes):
    return lambda at: shown(at, at.write("a.json", json.dumps({**STAMPED, **changes})))


def recording_of(content: bytes):
    return lambda at: shown(at, at.write("a.json", content))


def saved_on_a_full_disk(at: At):
    recording = recordings.new("t", "m", {"cpu": "c"}, {"times": list(range(1000))})
    with full_disk():
        return recordings.save(recording, at.out / "a.json")


def rows_of(at: At, data):
    return recorded_rows.load(at.write("a.json", json.dumps({**STAMPED, "data": data})), "t")


RESTORE = "Restore it with git"
RECORDINGS = rows(
    lambda at: recorded()(at),
    ("no recording", lambda at: recordings.load("nope"),
     RecordingError, "no recording nope", "Shipped with the course: .*deployment"),
    ("recording elsewhere", lambda at: recordings.load("../../etc/passwd"),
     RecordingError, "no recording", "Shipped with the course"),
    ("recording: empty", recording_of(b""), RecordingError, "damaged", RESTORE),
    ("recording: cut short", recording_of(b'{"title": "cut'), RecordingError, "damaged", RESTORE),
    ("recording: no UTF-8", recording_of(b"\xff\xfe\0"), RecordingError, "damaged", RESTORE),
    ("recording: a list", recording_of(b"[]"), RecordingError, "damaged", RESTORE),
    ("recording: a number of 5,000 digits", recording_of(b'{"a": 1' + b"0" * 5000 + b"}"),
     RecordingError, "damaged", RESTORE),
    ("recording: nested 100,000 times", recording_of(b"[" * 100_000), RecordingError, "damaged", RESTORE),
    ("recording: a pipe", lambda at: recordings.load(at.pipe("pipe.json")), RecordingError, ".", "."),
    ("recording: name too long", lambda at: recordings.load("a" * 300), RecordingError, ".", "."),
    ("recording: date as a number", recorded(date=5), RecordingError, "damaged|stamp", "."),
    ("recording: date that is none", recorded(date="yesterday"), RecordingError, "damaged|stamp", "."),
    ("recording: machine in a list", recorded(machine=[1]), RecordingError, "damaged|stamp", "."),
    ("recording: machine of text", recorded(machine="gpu"), RecordingError, "damaged|stamp", "."),
    ("recording: machine without a processor", recorded(machine={"os": "Linux"}), RecordingError, "damaged|stamp", "."),
    ("recording: libraries in a list", recorded(machine={"cpu": "c", "libraries": [1]}),
     RecordingError, "damaged|stamp", "."),
    ("recording: GPU in a list", recorded(machine={"gpu": ["H100"]}), RecordingError, "damaged|stamp", "."),
    ("recording: version as a number", recorded(machine={"cpu": "c", "libraries": {"paddle": 3}}),
     RecordingError, "damaged|stamp", "."),
    ("recording: source as a number", recorded(source=7), RecordingError, "damaged|stamp", "."),
    ("recording: data in a list", recorded(data=[]), RecordingError, "damaged|stamp", "."),
    ("recording: another form", recording_of(b'{"another": "form"}'), RecordingError, "damaged", RESTORE),
    ("recording: null", recording_of(b"null"), RecordingError, "damaged", RESTORE),
    ("recording: title as a number", recorded(title=5), RecordingError, "damaged|stamp", "."),
    ("recording: method in a list", recorded(method=["m"]), RecordingError, "damaged|stamp", "."),
    ("recording: data of nothing", recorded(data=None), RecordingError, "damaged|stamp", "."),
    ("recording: made up", recorded(source="simulated"), RecordingError, "damaged|stamp|simulated", "."),
    ("recording: full disk", saved_on_a_full_disk, RecordingError, "can't be written: File too large", "."),
    ("rows: of another experiment", lambda at: rows_of(at, {}),
     RecordingError, "no rows of this experiment", "another file"),
    ("rows: without a stack",
     lambda at: rows_of(at, {"stacks": [], "rows": {"a": {"stack": 0, "date": "x"}}}),
     RecordingError, "damaged", "another file"),
    ("rows: no such row", lambda at: recorded_rows.choose(["a", "b"], ["z*"], "e"),
     InputError, r"No row of e matches 'z\*'", r"\* and \? stand for others"),
    ("no such experiment", lambda at: experiment.find("nope"), InputError, "no experiment 'nope'", "deployment"),
)  # fmt: skip

ROWS = [*TIMING, *QUALITY, *RECORDINGS]
