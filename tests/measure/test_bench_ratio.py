"""The table of `make bench`: its arithmetic and its verdicts. What is measured is no matter for a test."""

from types import SimpleNamespace

import pytest

from benchmarks import overhead, ratio
from benchmarks.ratio import Ratio, in_turn, table


def of(*rounds, **bounds):
    return Ratio("ours / theirs", tuple(100.0 * one for one in rounds), (100.0,) * len(rounds), **bounds)


def test_ratio_is_the_median_of_neighbours():
    """The machine slows down tenfold after the first round: ratios of neighbours don't notice."""
    slowing = Ratio("", ours_ms=(1.1, 11, 11), theirs_ms=(1, 10, 10))
    assert slowing.ratio == pytest.approx(1.1)
    assert slowing.spread == pytest.approx((1.1, 1.1))
    assert of(1.0, 1.5, 1.1).ratio == pytest.approx(1.1)
    assert of(1.0, 1.0, 1.01).difference_us == 0
    assert of(1.01).difference_us == pytest.approx(1000)


@pytest.mark.parametrize(
    ("rounds", "bounds", "verdict"),
    [
        ((0.9, 1.0, 1.1), {"at_most": 1.0}, "met"),
        ((1.1, 1.2, 1.3), {"at_most": 1.0}, "missed"),
        ((0.9, 1.01, 1.1), {"at_most": 1.0}, "missed, within noise"),
        ((0.98, 1.0, 1.02), {"at_most": 1.03, "at_least": 0.97}, "met"),
        ((0.8, 0.9, 0.9), {"at_most": 1.03, "at_least": 0.97}, "missed"),
        ((0.9, 0.96, 1.1), {"at_most": 1.03, "at_least": 0.97}, "missed, within noise"),
        ((5.0, 5.0, 5.0), {}, "+400000.0 us a call"),
        ((1.0001, 1.0002, 1.0003), {"at_most": 1.0, "within_us": 30}, "met, +20.0 us a call"),
        ((1.0004, 1.0005, 1.0006), {"at_most": 1.0, "within_us": 30}, "missed"),
    ],
)
def test_verdict(rounds, bounds, verdict):
    assert of(*rounds, **bounds).verdict == verdict


def test_table_has_a_row_for_each_pair():
    ratios = [of(1.0, 1.1, 1.2, at_most=1.0), of(1.0, 1.001, 1.002), Ratio("a / b", at_most=0.7, not_run="no GPU")]
    header, line, measured, unbounded, left_out = table(ratios).splitlines()
    assert len({len(row) for row in (header, line, measured, unbounded, left_out)}) == 1, "columns are aligned"
    cells = [cell.strip() for cell in measured.strip("|").split("|")]
    assert cells == ["ours / theirs", "110", "100", "1.100", "1.050 to 1.150", "3", "<= 1", "missed"]
    assert "+100.0 us a call" in unbounded
    assert "not run: no GPU" in left_out
    assert "<= 0.7" in left_out


def test_sides_take_turns_and_each_is_first_in_every_other_round(monkeypatch):
    order, clock = [], [0.0]

    def side(name, seconds):
        def call():
            order.append(name)
            clock[0] += seconds

        return call

    monkeypatch.setattr(ratio, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    times = in_turn(side("ours", 0.002), side("theirs", 0.001), rounds=3)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert times["ours_ms"] == pytest.approx((2, 2, 2))
    assert times["theirs_ms"] == pytest.approx((1, 1, 1))


def test_without_a_gpu_the_pycuda_row_says_why(monkeypatch):
    without = SimpleNamespace(tensorrt_run=SimpleNamespace(available=False, reason="There is no GPU."))
    monkeypatch.setattr(overhead.capabilities, "probe", lambda: without)
    row = overhead.tensorrt_call("quick.onnx", (1, 3, 32, 32))
    assert (row.not_run, row.bound) == ("There is no GPU.", "<= 1.02 or 15 us")
