"""Timing that can be trusted: warm-up until stable, many calls, median and tails, candidates measured in turn.

Three mistakes make most published speed-ups worthless, and this module is built against them: timing the first call
(it loads, allocates and compiles), timing one call (it is noise), and timing candidates one after the other (the
machine's clock and load change in between).
"""

import functools
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tutorial_utils.base.errors import InputError

# Warm-up ends when the medians of two neighbouring windows of calls differ by less than this.
STABLE_WITHIN = 0.05
WINDOW = 5
# Below this, a difference is of no use even if it is certain.
SMALLEST_DIFFERENCE = 0.02
_FEWEST_ROUNDS, _MOST_ROUNDS = 10, 60
_CALLS_IN_A_ROUND = 2  # at least, where that leaves enough rounds
_RESAMPLES = 2000
_CHANCE = random.Random()  # draws the order of turns
_Timed = Callable[[int], "Sequence[float] | np.ndarray"]  # takes a number of calls, returns the milliseconds of each


@dataclass(frozen=True)
class Measurement:
    """Times of single calls.

    Attributes:
        rounds_ms: Milliseconds of each call, one tuple for each round: between two rounds, the other candidates ran.
        first_call_ms: Milliseconds of the very first call, which is not among the rounds.
        warmup_calls: Calls before the first round, the first call included.
        stable: Whether the warm-up reached a steady time before its limit.
        batch: Images in one call.
        clock: "host" for the wall clock around the call, "CUDA events" for the GPU's own time.
        includes_copies: Whether copies of inputs and outputs between host and device are included.
    """

    rounds_ms: tuple[tuple[float, ...], ...]
    first_call_ms: float
    warmup_calls: int
    stable: bool
    batch: int
    clock: str = "host"
    includes_copies: bool = True

    @property
    def samples_ms(self) -> np.ndarray:
        """All times in milliseconds, in the order in which they were taken."""
        return np.concatenate([np.asarray(one) for one in self.rounds_ms])

    @property
    def calls(self) -> int:
        """How many calls were timed."""
        return sum(len(one) for one in self.rounds_ms)

    @property
    def median_ms(self) -> float:
        """Half of the calls took less than this."""
        return float(np.median(self.samples_ms))

    @property
    def p90_ms(self) -> float:
        """Nine calls in ten took less than this."""
        return float(np.percentile(self.samples_ms, 90))

    @property
    def p99_ms(self) -> float:
        """All but one in a hundred calls took less than this. Of fewer than 100 calls, it is nearly the maximum."""
        return float(np.percentile(self.samples_ms, 99))

    @property
    def images_per_second(self) -> float:
        """Throughput of calls one after the other, at the median."""
        median = self.median_ms  # 0 where all calls took less than the half microsecond that `to_dict` rounds away
        return 1000 * self.batch / median if median else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement as plain values for JSON, times to the microsecond."""
        rounds = [[round(ms, 3) for ms in one] for one in self.rounds_ms]
        return {**asdict(self), "rounds_ms": rounds, "first_call_ms": round(self.first_call_ms, 3)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Measurement":
        """Read a measurement back from `to_dict`."""
        return cls(**{**values, "rounds_ms": tuple(tuple(one) for one in values["rounds_ms"])})

    def __str__(self) -> str:
        copies = "with" if self.includes_copies else "without"
        return (
            f"median {self.median_ms:.3f} ms, p90 {self.p90_ms:.3f} ms, p99 {self.p99_ms:.3f} ms, "
            f"{self.images_per_second:,.0f} images/s ({self.calls} calls of batch {self.batch} after "
            f"{self.warmup_calls} to warm up{'' if self.stable else ' and not steady then'}, the first of "
            f"{self.first_call_ms:.1f} ms; {self.clock} clock, {copies} copies)"
        )


def to_plain(measured: Mapping[str, Measurement]) -> dict[str, dict[str, Any]]:
    """Return measurements by name as plain values for JSON."""
    return {name: one.to_dict() for name, one in measured.items()}


def from_plain(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Measurement]:
    """Read measurements back from `to_plain`."""
    return {name: Measurement.from_dict(one) for name, one in values.items()}


def measure(call: Callable[[], Any], *, batch: int = 1, seconds: float = 1.0, max_calls: int = 500) -> Measurement:
    """Time one callable with the host's clock. See `measure_in_turn`, which also says what is raised."""
    return measure_in_turn({"call": call}, batch=batch, seconds=seconds, max_calls=max_calls)["call"]


def measure_in_turn(
    calls: Mapping[str, Callable[[], Any]], *, batch: int = 1, seconds: float = 1.0, max_calls: int = 500
) -> dict[str, Measurement]:
    """Time several callables with the host's clock, in turn: a few calls of each, round after round.

    In each round the candidates have their turns in an order drawn anew, and a turn ends after a time, not after a
    number of calls that the warm-up set: what else the machine does then meets each of them with the same chance,
    which is what `compare` stands on. The first call of a turn is not counted: switching between candidates is no part
    of what they do in service. Each callable must return only when its result is complete: an asynchronous one must
    synchronize.

    Args:
        calls: What to time, by name.
        batch: Images in one call, for the throughput.
        seconds: About how long to measure each, after a warm-up of at most as long. A slow callable takes longer: the
            warm-up is at least 11 calls, and there are at least 10 rounds of one timed call.
        max_calls: The most calls to time for each.

    Raises:
        InputError: There is nothing to time, or a limit is not positive.
    """
    _require_callables(calls)
    timed = {name: functools.partial(_times, call) for name, call in calls.items()}

    def turn(name: str, turn_ms: float, least: int, most: int, _: float) -> list[float]:
        times = _times(calls[name], 1 + least)[1:]
        while len(times) < most and sum(times) < turn_ms:
            times += _times(calls[name], 1)
        return times

    return _in_turn(timed, turn, batch, seconds, max_calls, clock="host", includes_copies=True)


def measure_on_device(
    device_times: _Timed, *, batch: int = 1, seconds: float = 1.0, max_calls: int = 500
) -> Measurement:
    """Time work on a GPU with CUDA events, copies left out. See `measure_on_device_in_turn`."""
    candidates = {"work": device_times}
    return measure_on_device_in_turn(candidates, batch=batch, seconds=seconds, max_calls=max_calls)["work"]


def measure_on_device_in_turn(
    device_times: Mapping[str, _Timed], *, batch: int = 1, seconds: float = 1.0, max_calls: int = 500
) -> dict[str, Measurement]:
    """Time several pieces of work on a GPU with CUDA events, copies left out, in turn: round after round.

    As in `measure_in_turn`, but for the end of a turn: the calls of one are enqueued together, so that the warm-up has
    to tell how many fill it.

    Args:
        device_times: By name, what takes a number of calls and returns the milliseconds of each: a `TensorRTRunner`'s
            ``functools.partial(runner.device_times, feeds)``.
        batch, seconds, max_calls: As for `measure_in_turn`, which also says what is raised.
    """

    _require_callables(device_times)

    def turn(name: str, turn_ms: float, least: int, most: int, call_ms: float) -> list[float]:
        calls = int(np.clip(turn_ms / call_ms, least, most))
        return [float(ms) for ms in device_times[name](calls + 1)[1:]]  # the first waits for the copy of the inputs

    return _in_turn(device_times, turn, batch, seconds, max_calls, clock="CUDA events", includes_copies=False)


def _require_callables(calls: Mapping[str, Callable[..., Any]]) -> None:
    if not isinstance(calls, Mapping) or not all(map(callable, calls.values())):
        raise InputError(f"There is something that can't be called in {calls!r}.", "Give functions by name.")


def _in_turn(
    timed: Mapping[str, _Timed],
    turn: Callable[[str, float, int, int, float], list[float]],
    batch: int,
    seconds: float,
    max_calls: int,
    **how: Any,
) -> dict[str, Measurement]:
    """Warm up, then have the candidates take turns.

    A turn gets a name, milliseconds to fill, the fewest and the most calls, and what a call took at last.
    """
    given = (seconds, max_calls, batch)
    are_numbers = all(isinstance(one, int | float | np.number) and math.isfinite(one) for one in given)
    if not timed or not are_numbers or seconds <= 0 or max_calls < _FEWEST_ROUNDS or batch < 1:
        raise InputError(
            f"Can't time {len(timed)} candidates for {seconds} s, {max_calls} calls and batch {batch}.",
            f"Give at least one callable, a positive time and batch, and max_calls of at least {_FEWEST_ROUNDS}.",
        )
    warm = {name: _warm_up(times, seconds) for name, times in timed.items()}
    for name, (times, _) in warm.items():
        if not np.isfinite(times).all():
            raise InputError(f"The times of {name} are no numbers of milliseconds: {times[-1]}.", "Look at its clock.")
    # The median of the last calls: a single one may be an outlier.
    call_ms = {name: max(float(np.median(times[-WINDOW:])), 1e-3) for name, (times, _) in warm.items()}
    fitting = min(seconds * 1000 / max(call_ms.values()), max_calls)
    count = int(np.clip(fitting // _CALLS_IN_A_ROUND, _FEWEST_ROUNDS, _MOST_ROUNDS))
    limits = (seconds * 1000 / count, int(np.clip(fitting // count, 1, _CALLS_IN_A_ROUND)), max_calls // count)
    rounds: dict[str, list[tuple[float, ...]]] = {name: [] for name in timed}
    order = list(timed)
    for _ in range(count):
        _CHANCE.shuffle(order)
        for name in order:
            rounds[name].append(tuple(turn(name, *limits, call_ms[name])))
    return {
        name: Measurement(tuple(rounds[name]), times[0], len(times), stable, batch, **how)
        for name, (times, stable) in warm.items()
    }


def _times(call: Callable[[], Any], count: int) -> list[float]:
    times = []
    for _ in range(count):
        start = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times


def _warm_up(timed: _Timed, limit_seconds: float) -> tuple[list[float], bool]:
    """Call until the time is steady or the limit is over; return the times and whether they became steady."""
    times: list[float] = []
    deadline = time.perf_counter() + limit_seconds
    while True:
        times.append(float(timed(1)[0]))
        if len(times) > 2 * WINDOW:  # the first call is never part of a window
            before, now = np.median(times[-2 * WINDOW : -WINDOW]), np.median(times[-WINDOW:])
            if abs(now - before) <= STABLE_WITHIN * before:
                return times, True
            if time.perf_counter() > deadline:
                return times, False


@dataclass(frozen=True)
class Comparison:
    """A speed-up (2.0 means half of the baseline's time), and the ends of its 95 % interval. See `compare`."""

    speedup: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether the difference is not larger than what chance makes, or too small to matter."""
        return self.low <= 1 <= self.high or abs(self.speedup - 1) < SMALLEST_DIFFERENCE

    @property
    def verdict(self) -> str:
        """The comparison in one phrase."""
        if self.is_noise:
            return f"no difference larger than noise (95 % interval {self.low:.2f} to {self.high:.2f})"
        if self.speedup > 1:
            return f"{self.speedup:.2f} times as fast (95 % interval {self.low:.2f} to {self.high:.2f})"
        return f"takes {1 / self.speedup:.2f} times as long (95 % interval {1 / self.high:.2f} to {1 / self.low:.2f})"


def compare(baseline: Measurement, candidate: Measurement) -> Comparison:
    """Say how much faster a candidate is than a baseline, and whether the difference is more than noise.

    Each round gives one ratio: the median of the baseline's calls over that of the candidate's, neighbours in time,
    so that slow spells of the machine meet both. The speed-up is the median of these ratios. Its interval is that of
    the sign test: from the k-th smallest to the k-th largest ratio, with the largest k for which so many tosses of a
    coin show fewer than k heads, or fewer than k tails, at most 5 times in 100 (W. R. Thompson, 1936; Hollander, Wolfe
    and Chicken, "Nonparametric Statistical Methods", section 3.6). Of 10 rounds, the outermost ratio at either end is
    left out, of 60 the outermost 21. How far off these are, and how the ratios are distributed, doesn't matter.

    More than noise means that the interval is on one side of 1, and the speed-up at least 2 % away from it. If the two
    candidates are equal, which of them has the better turn in a round is such a toss, as their order is drawn anew,
    however the machine drifts: at most 5 % of the intervals are then on one side of 1. That takes measurements made
    together, in turn; for others, the interval has only the scatter within each of them. Where one of them has more
    rounds, its last are left out.

    A verdict is about the two callables that were measured, such as two sessions. To say of two models that they differ
    by little, open both anew and compare again. On a busy machine, measure for a second or more: a worker thread of one
    session that shares its core with other work slows all its turns for as long as that lasts (benchmarks/README.md).

    Raises:
        InputError: The measurements differ in clock, copies or batch, so that they can't be compared, or hold no times.
    """
    _require_times(baseline, candidate)
    for field in ("clock", "includes_copies", "batch"):
        one, other = getattr(baseline, field), getattr(candidate, field)
        if one != other:
            raise InputError(
                f"The measurements can't be compared: {field} is {one!r} in one and {other!r} in the other.",
                "Measure both in the same way.",
            )
    rounds = zip(baseline.rounds_ms, candidate.rounds_ms, strict=False)
    medians = [(np.median(one), np.median(other)) for one, other in rounds]
    if not all(one and other for one, other in medians):
        raise InputError("A round took 0 ms: its calls are shorter than the clock tells.", "Time several calls as one.")
    ratios = np.sort([one / other for one, other in medians])
    beyond = _left_out(len(ratios))
    return Comparison(float(np.median(ratios)), float(ratios[beyond]), float(ratios[-1 - beyond]))


def _require_times(*measurements: Measurement) -> None:
    for one in measurements:
        times = [ms for calls in one.rounds_ms for ms in calls]
        if not times or not all(one.rounds_ms) or not all(0 <= ms < math.inf for ms in times):
            raise InputError(
                f"A measurement of {len(one.rounds_ms)} rounds and {len(times)} calls has a round without calls, or a "
                "time that is no number of milliseconds.",
                "Measure again, with `measure_in_turn`.",
            )


def _left_out(rounds: int) -> int:
    """Return how many ratios lie beyond each end of the interval. Fewer than 6 rounds are too few for 95 %."""
    tails = np.cumsum([math.comb(rounds, heads) * 0.5**rounds for heads in range(rounds)])
    return max(0, int(np.searchsorted(tails, 0.025, side="right")) - 1)


def median_interval(measurement: Measurement) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a median, in milliseconds, by a bootstrap over rounds.

    Neighbouring calls share the state of the machine, so that single calls are no independent samples.

    Raises:
        InputError: The measurement holds no times.
    """
    _require_times(measurement)
    rounds = [np.asarray(one) for one in measurement.rounds_ms]
    drawn = np.random.default_rng(0).integers(len(rounds), size=(_RESAMPLES, len(rounds)))
    medians = [np.median(np.concatenate([rounds[i] for i in one])) for one in drawn]
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)
