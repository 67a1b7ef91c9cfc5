"""README's numbers: those of the recording, and those that the doctor compares a machine with."""

import re
from pathlib import Path

from tutorial_utils.lessons.lesson00 import headline
from tutorial_utils.machine import checks
from tutorial_utils.measure.resnet50_matrix.matrix import EXPERIMENT

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


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
