"""How often a comparison is wrong, on machines that exist only here: their times are drawn, and no clock runs."""

import math
import random

import numpy as np
import pytest

from tutorial_utils.measure import timing


class Machine:
    """A machine whose calls take what is drawn, on a clock of its own.

    Args:
        seed: Of what is drawn.
        noise: Mean of what a call takes longer than the shortest, as a share of it.
        drift: What the level of all times changes by from call to call, as a share.
        back: Share of the level's distance from 1 that remains at the next call.
        bursts: Share of the time in which other processes want the cores. Half of the calls then take 8 times as long.
        period_ms: Every second of such periods is slower by a half.
    """

    def __init__(self, seed, noise=0.05, drift=0.0, back=0.98, bursts=0.0, period_ms=0.0):
        self.now_ms, self.level, self.busy, self.until_ms = 0.0, 0.0, False, 0.0
        self.noise, self.drift, self.back, self.bursts, self.period_ms = noise, drift, back, bursts, period_ms
        self.chance = random.Random(seed)

    def perf_counter(self):
        return self.now_ms / 1e3

    def perf_counter_ns(self):
        return round(self.now_ms * 1e6)

    def call(self, ms):
        """Return a callable that takes about so long."""
        return lambda: self._tick(ms)

    def _tick(self, ms):
        if self.bursts and self.now_ms > self.until_ms:
            self.busy = self.chance.random() < self.bursts
            self.until_ms = self.now_ms + self.chance.expovariate(1 / 100)
        self.level = self.back * self.level + self.chance.gauss(0, self.drift)
        ms *= math.exp(self.level) * (1 + self.noise * self.chance.expovariate(1))
        if self.busy and self.chance.random() < 0.5:
            ms *= 8
        if self.period_ms and self.now_ms // self.period_ms % 2:
            ms *= 1.5
        self.now_ms += ms


MACHINES = {
    "quiet": {},
    "noisy": {"noise": 0.5},
    "drift": {"drift": 0.01, "back": 1.0},
    "autocorrelation": {"drift": 0.05, "back": 0.9},
    "bursts": {"bursts": 0.5},
    "periods as long as a turn": {"period_ms": 3.6},
}


def different(monkeypatch, machine, baseline_ms, candidate_ms, *, seconds, comparisons):
    """Return the share of comparisons which say that two candidates of these times differ."""
    monkeypatch.setattr(timing, "_CHANCE", random.Random(0))
    found = []
    for seed in range(comparisons):
        clock = Machine(seed, **MACHINES[machine])
        monkeypatch.setattr(timing, "time", clock)
        calls = {"a": clock.call(baseline_ms), "b": clock.call(candidate_ms)}
        times = timing.measure_in_turn(calls, seconds=seconds)
        found.append(not timing.compare(times["a"], times["b"]).is_noise)
    return np.mean(found)


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_equal_differs_at_most_5_times_in_100(machine, monkeypatch):
    assert different(monkeypatch, machine, 1.0, 1.0, seconds=0.1, comparisons=300) <= 0.05


@pytest.mark.parametrize(
    ("machine", "ms", "share"),
    [
        ("quiet", (1.03, 1.0), 0.9),
        ("quiet", (1.0, 1.03), 0.9),
        ("drift", (1.03, 1.0), 0.9),
        ("noisy", (1.33, 1.0), 0.9),
        ("bursts", (1.33, 1.0), 0.9),
    ],
)
def test_true_difference_is_seen(machine, ms, share, monkeypatch):
    assert different(monkeypatch, machine, *ms, seconds=0.3, comparisons=100) >= share
