import json
import random
import re

import numpy as np
import pytest
from scipy.stats import binom

from tutorial_utils.base.errors import InputError
from tutorial_utils.measure import timing
from tutorial_utils.measure.timing import (
    Measurement,
    compare,
    measure,
    measure_in_turn,
    measure_on_device,
    measure_on_device_in_turn,
)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for what a call adds to it, so that no test depends on real time."""

    class Clock:
        now_ms = 0.0

        def tick(self, ms):
            self.now_ms += ms

        def perf_counter(self):
            return self.now_ms / 1e3

        def perf_counter_ns(self):
            return round(self.now_ms * 1e6)

    fake = Clock()
    monkeypatch.setattr(timing, "time", fake)
    return fake


def taking(clock, *times_ms, order=None, name=None):
    """Return a callable whose calls take these times, the last of them for ever."""
    left = list(times_ms)

    def call():
        if order is not None:
            order.append(name)
        clock.tick(left.pop(0) if len(left) > 1 else left[0])

    return call


def measurement(times_ms, rounds=10, **changes):
    values = {"first_call_ms": 1.0, "warmup_calls": 11, "stable": True, "batch": 1, **changes}
    return Measurement(tuple(map(tuple, np.reshape(times_ms, (rounds, -1)).tolist())), **values)


def noisy(seed, scale=1.0, drift=0.3, rounds=10, calls=20):
    """Times around 10 ms whose level also drifts from round to round, as on a real machine."""
    rng = np.random.default_rng(seed)
    level = rng.normal(10, drift, (rounds, 1))
    return scale * (level + rng.exponential(0.3, (rounds, calls)))


# --- measuring -------------------------------------------------------------------------------------------------------


def test_warm_up_stops_when_the_time_is_steady(clock):
    result = measure(taking(clock, 1400, 10), seconds=60)
    assert result.stable
    assert result.warmup_calls == 2 * timing.WINDOW + 1, "the first call and two windows"


def test_first_call_is_kept_apart(clock):
    result = measure(taking(clock, 1400, 10))
    assert result.first_call_ms == pytest.approx(1400)
    assert result.samples_ms.max() == pytest.approx(10)
    assert result.median_ms == pytest.approx(10)


def test_warm_up_goes_on_while_the_time_falls(clock):
    falling = [100 * 0.9**i for i in range(40)]
    result = measure(taking(clock, *falling), seconds=60)
    assert result.stable
    assert result.warmup_calls > 40


def test_warm_up_ends_at_its_limit(clock):
    rising = [10 * 1.1**i for i in range(100)]
    result = measure(taking(clock, *rising), seconds=0.5)
    assert not result.stable
    assert sum(rising[: result.warmup_calls - 1]) <= 500 < sum(rising[: result.warmup_calls])


def test_candidates_take_turns(clock):
    order = []
    calls = {name: taking(clock, 20, order=order, name=name) for name in "ab"}
    results = measure_in_turn(calls, seconds=1.0)
    timed = order[sum(result.warmup_calls for result in results.values()) :]
    # 50 calls each fit into a second: 25 rounds of 2, each after one that isn't counted.
    rounds = ["".join(timed[i : i + 6]) for i in range(0, len(timed), 6)]
    assert len(rounds) == 25
    assert set(rounds) == {"aaabbb", "bbbaaa"}, "each of them is first at times"
    assert [len(one) for one in results["a"].rounds_ms] == [2] * 25


def test_a_turn_ends_after_its_time_whatever_the_warm_up_took(clock):
    """Equal candidates, of which one met a slow spell as it warmed up, have as many calls in a turn."""
    calls = {"lucky": taking(clock, 1), "unlucky": taking(clock, *[4] * 11, 1)}
    results = measure_in_turn(calls, seconds=0.6, max_calls=6000)
    assert {len(one) for result in results.values() for one in result.rounds_ms} == {10}


def test_order_is_drawn_for_each_round(clock, monkeypatch):
    def firsts():
        order = []
        calls = {name: taking(clock, 20, order=order, name=name) for name in "abc"}
        results = measure_in_turn(calls, seconds=1.0)
        return order[sum(result.warmup_calls for result in results.values()) :: 9]

    monkeypatch.setattr(timing, "_CHANCE", random.Random(0))
    assert set(firsts()) == set("abc")
    assert firsts() != firsts()


@pytest.mark.parametrize(("ms", "expected"), [(0.001, 480), (20, 50), (5000, 10)])
def test_number_of_calls_fits_the_time(ms, expected, clock):
    assert len(measure(taking(clock, ms), seconds=1.0, max_calls=500).samples_ms) == expected


def test_one_slow_call_at_the_end_of_the_warm_up_costs_no_samples(clock):
    assert len(measure(taking(clock, *[10] * 10, 1000, 10), seconds=1.0).samples_ms) == 100
    assert measure(taking(clock, 10), seconds=1.0).calls == 100


def test_measure_on_device(clock):
    """The clock is the GPU's: the host's stands still."""
    asked = []

    def device_times(calls):
        asked.append(calls)
        return np.full(calls, 9.0 if len(asked) == 1 else 2.0)

    result = measure_on_device(device_times, batch=64, seconds=0.2)
    assert (result.clock, result.includes_copies, result.batch) == ("CUDA events", False, 64)
    assert (result.first_call_ms, result.median_ms) == (9.0, 2.0)
    assert asked[result.warmup_calls :] == [3] * 50, "100 calls fit into the time"
    assert result.calls == 100


def test_first_call_of_a_round_on_the_device_is_not_counted(clock):
    """It waits for the copy of the inputs. The last call counts as every other."""

    def device_times(calls):
        return np.array([50.0, *[2.0] * (calls - 2), 3.0]) if calls > 1 else np.array([2.0])

    (result,) = measure_on_device_in_turn({"work": device_times}, seconds=0.2).values()
    assert result.rounds_ms == ((2.0, 3.0),) * 50


def test_work_on_the_device_takes_turns(clock):
    order = []

    def work(name, ms):
        def device_times(calls):
            order.append(name)
            return np.full(calls, ms)

        return device_times

    results = measure_on_device_in_turn({"a": work("a", 1.0), "b": work("b", 3.0)}, seconds=0.2)
    warm_up = sum(result.warmup_calls for result in results.values())
    rounds = list(zip(order[warm_up::2], order[warm_up + 1 :: 2], strict=True))
    assert len(rounds) == 33, "66 calls of the slower one fit into the time"
    assert set(rounds) == {("a", "b"), ("b", "a")}
    assert (results["a"].median_ms, results["b"].median_ms) == (1.0, 3.0)


@pytest.mark.parametrize("bad", [{"work": {}}, {"seconds": 0}, {"max_calls": 9}], ids=str)
def test_limits_on_the_device_are_those_on_the_host(bad):
    limits = {"work": {"a": lambda *_: pytest.fail("nothing should run")}, **bad}
    with pytest.raises(InputError, match="Can't time"):
        measure_on_device_in_turn(limits.pop("work"), **limits)


# --- one measurement -------------------------------------------------------------------------------------------------


def test_statistics():
    result = measurement(np.random.default_rng(0).permutation(np.arange(1, 101)), batch=32)
    assert result.median_ms == pytest.approx(50.5)
    assert result.p90_ms == pytest.approx(90.1)
    assert result.p99_ms == pytest.approx(99.01)
    assert result.images_per_second == pytest.approx(32 * 1000 / 50.5)


def test_samples_keep_their_order():
    assert measurement(range(20)).samples_ms.tolist() == list(range(20))


def test_text_says_how_it_was_measured():
    text = str(measurement([2.0] * 20, batch=64, first_call_ms=1409.0, warmup_calls=31))
    for part in ("median 2.000 ms", "32,000 images/s", "20 calls of batch 64", "after 31 to warm up",
                 "the first of 1409.0 ms", "host clock", "with copies"):  # fmt: skip
        assert part in text


def test_measurement_survives_json():
    result = measurement([1.2345, 2.0] * 10, clock="CUDA events", includes_copies=False)
    copy = Measurement.from_dict(json.loads(json.dumps(result.to_dict())))
    assert copy == measurement([round(1.2345, 3), 2.0] * 10, clock="CUDA events", includes_copies=False)
    assert Measurement.from_dict(copy.to_dict()) == copy


# --- two measurements ------------------------------------------------------------------------------------------------


def test_drift_that_both_met_does_not_hide_a_difference():
    drift = np.random.default_rng(0).uniform(1, 2, (10, 1))  # the machine takes up to twice as long for a while
    baseline, candidate = (measurement(drift * noisy(seed, drift=0)) for seed in (1, 2))
    slower = measurement(1.1 * drift * noisy(2, drift=0))
    assert compare(baseline, candidate).is_noise
    assert compare(slower, baseline).low > 1.05


@pytest.mark.parametrize("factor", [1.5, 0.5])
def test_real_difference_is_found(factor):
    result = compare(measurement(noisy(0)), measurement(noisy(1, scale=1 / factor)))
    assert not result.is_noise
    assert result.low < factor < result.high
    assert result.high - result.low < 0.3 * factor
    assert result.speedup == pytest.approx(factor, rel=0.1)


def test_certain_but_tiny_difference_is_noise():
    result = compare(measurement([10.0] * 20), measurement([9.9] * 20))
    assert result.low > 1
    assert result.is_noise


def test_verdict():
    fast, slow = measurement([1.0] * 20), measurement([2.0] * 20)
    assert compare(slow, fast).verdict.startswith("2.00 times as fast (95 % interval 2.00")
    assert compare(fast, slow).verdict.startswith("takes 2.00 times as long (95 % interval 2.00")
    assert compare(fast, fast).verdict.startswith("no difference larger than noise")


def test_interval_of_a_slower_candidate_holds_its_factor():
    result = compare(measurement(noisy(0)), measurement(noisy(1, scale=2)))
    factor, _, low, high = map(float, re.findall(r"\d+(?:\.\d+)?", result.verdict))  # "_" is the 95 of 95 %
    assert 1.85 < low < factor < high < 2.15


def test_interval_is_that_of_the_sign_test():
    """Of 10 rounds, 8 lie between the second and the ninth ratio; a round that something disturbed moves nothing."""
    ratios = [1.3, 1.1, 1.2, 1.6, 1.5, 1.4, 1.9, 1.7, 1.8, 40.0]
    result = compare(measurement(ratios), measurement([1.0] * 10))
    assert (result.low, result.speedup, result.high) == pytest.approx((1.2, 1.55, 1.9))


@pytest.mark.parametrize("rounds", range(6, 70))
def test_as_many_ratios_are_left_out_as_chance_allows(rounds):
    left_out = timing._left_out(rounds)
    outside = 2 * binom.cdf([left_out, left_out + 1], rounds, 0.5)
    assert outside[0] <= 0.05 < outside[1]


def test_median_of_a_round_counts_once_whatever_its_calls():
    baseline = Measurement(((2.0,), (2.0, 2.0, 9.0)) * 5, 1.0, 11, True, 1)
    assert compare(baseline, measurement([1.0] * 10)).speedup == pytest.approx(2.0)
    assert timing.median_interval(baseline)[0] == 2.0


def test_of_more_rounds_the_last_are_left_out():
    result = compare(measurement([2.0] * 10 + [9.0] * 10, rounds=20), measurement([1.0] * 10))
    assert (result.low, result.speedup, result.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("other", [{"clock": "CUDA events"}, {"includes_copies": False}, {"batch": 2}])
def test_what_can_not_be_compared(other):
    (field,) = other
    with pytest.raises(InputError, match=field):
        compare(measurement([1.0] * 20), measurement([1.0] * 20, **other))
