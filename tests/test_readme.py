"""Numbers of README.md and STACKS.md: those of the recordings, and those that the doctor compares a machine with."""

import re
from pathlib import Path

from tutorial_utils.lessons.lesson00 import headline
from tutorial_utils.machine import checks
from tutorial_utils.measure import experiment, recordings, rows
from tutorial_utils.measure.resnet50_matrix.matrix import EXPERIMENT

README, STACKS = ((Path(__file__).parents[1] / name).read_text(encoding="utf-8") for name in ("README.md", "STACKS.md"))


def test_the_table_of_times_is_the_recordings():
    shown = re.findall(r"^\| ([^|]+) \| ([\d.]+) ms \| ([\d.]+) \|$", README, re.MULTILINE)
    measured = headline.rows(EXPERIMENT.recorded("").result)
    baseline = measured[shown[0][0]].host.median
    assert len(shown) > 3
    assert shown == [
        (name, f"{measured[name].host.median:.2f}", f"{baseline / measured[name].host.median:.1f}")
        for name, *_ in shown
    ]


def test_memory_is_what_the_doctor_wants():
    assert f"{checks.MEMORY_BYTES / checks.GIB:.1f} GiB of free memory" in " ".join(README.split())


def recorded_rows(name, kind):
    """Return how many rows of an experiment its recording holds, and how many there are; of all, or of the trials."""
    counted = {row for row in experiment.find(name).rows if kind == "rows" or row.startswith("trial/")}
    return len(counted & recordings.load(name).data["rows"].keys()), len(counted)


def test_rows_said_to_be_recorded_in_part_are():
    (paragraph,) = re.findall(r"^Recorded in part: .*?\n\n", STACKS, re.MULTILINE | re.DOTALL)
    said = " ".join(paragraph.split())
    named = re.findall(r"of `(\w+)`[^\d`]*(\d+) of (\d+) (rows|trials)", said)
    assert len(named) == said.count("of `") > 0
    for name, recorded, total, kind in named:
        assert (name, int(recorded), int(total)) == (name, *recorded_rows(name, kind))
        assert recorded != total
    (reasons,) = re.findall(r"\((\d+) of them are reasons", said)
    assert int(reasons) == sum(row.values is None for row in rows.read(recordings.load("resnet50_matrix").data))


def test_trials_said_to_be_still_to_be_recorded_are():
    ((missing, total),) = re.findall(r"(\d+) of (\d+) trials of options are still to be recorded", README)
    recorded, known = recorded_rows("lesson02_paddle_tensorrt", "trials")
    assert (int(missing), int(total)) == (known - recorded, known)
