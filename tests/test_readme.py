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


def test_every_row_is_recorded():
    for name in experiment.names():
        known = experiment.find(name).rows.keys()
        assert not known or known == recordings.load(name).data["rows"].keys(), name


def test_what_the_matrix_lacks():
    said = " ".join(STACKS.split())
    warm = sum(
        getattr(row, "build_cache", "") == "rows before" for row in EXPERIMENT.recorded("").result.cells.values()
    )
    assert f"{warm} rows of the matrix were built" in said
    recorded = rows.read(recordings.load("resnet50_matrix").data)
    reasons = sum(row.values is None for row in recorded)
    assert f"{reasons} of the {len(recorded)} rows of `resnet50_matrix` are such reasons" in said
