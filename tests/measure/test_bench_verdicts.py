"""The program that counts verdicts: its arithmetic and its load. What is measured is no matter for a test."""

import contextlib
import os

import pytest

from benchmarks import verdicts
from benchmarks.verdicts import Count
from tutorial_utils.measure.timing import Comparison

NOISE, DIFFERENT = Comparison(1.01, 0.9, 1.1), Comparison(1.2, 1.1, 1.3)


def count(different, equal):
    return Count("A/A", "none", [DIFFERENT] * different + [NOISE] * equal)


@pytest.mark.parametrize(
    ("different", "equal", "interval"),
    [(0, 200, (0, 0.0183)), (3, 21, (0.0266, 0.3236)), (10, 190, (0.0242, 0.0900)), (24, 0, (0.8575, 1))],
)
def test_interval_is_exact(different, equal, interval):
    assert count(different, equal).interval == pytest.approx(interval, abs=1e-4)


def test_line():
    line = str(count(3, 21))
    for part in ("A/A", "load: none", "3 of 24 different (12.5%; 2.7% to 32.4%)", "1.010"):
        assert part in line


def test_one_pair_is_compared_again_and_again(models):
    with verdicts.pairs(models["fp32"])["A/A: one session twice"]() as candidates:
        kept = verdicts.again(contextlib.nullcontext(candidates), 0.01)
    assert len(kept) == 10


def test_persistence_counts_who_was_the_faster():
    slower = Comparison(0.9, 0.8, 1.1)
    always, half = [DIFFERENT] * 10, [slower, NOISE] * 5
    line = verdicts.persistence([always, half])
    assert "the faster in 10, 5 of 10 comparisons (variance 12.50; of 10 tosses of a coin 2.5)" in line
    assert "10 of 20 different (50.0%" in line


def test_load_runs_and_is_ended():
    with verdicts.bursts(2) as started:
        assert [process.poll() for process in started] == [None, None]
    assert all(process.returncode is not None for process in started)
    with pytest.raises(KeyboardInterrupt), verdicts.bursts(1) as started:
        raise KeyboardInterrupt
    with pytest.raises(ProcessLookupError):
        os.kill(started[0].pid, 0)


def test_every_pair_is_compared(monkeypatch, models):
    """Each opens two candidates that can be called; names say which of them are equal."""
    opened = verdicts.pairs(models["fp32"])
    assert [name[:3] for name in opened] == ["A/A"] * 3 + ["3 %"] * 3
    for one in opened.values():
        with one() as (first, second):
            first(), second()
