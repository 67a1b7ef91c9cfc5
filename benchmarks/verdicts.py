"""How often `timing.compare` is wrong: verdicts on candidates whose difference is known, idle and under load.

``python -m benchmarks.verdicts [--verdicts 200] [--seconds 0.2]`` counts how many verdicts say that a candidate differs
from itself, and how many see 3 %: on the machine as it is, and while processes come and go on all of its cores. The
two take turns, and the counts so far are printed each time. ``--load none`` leaves the second out.

``--again 20`` asks instead whether two sessions of one model really differ, by their places in memory or their threads:
it opens so many pairs, and compares each ten times. If they differ, the same one of a pair is the faster each time.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from benchmarks.ratio import stamp
from tutorial_utils.machine import capabilities
from tutorial_utils.measure import timing
from tutorial_utils.model import networks
from tutorial_utils.runners.onnx_runtime import OnnxRuntimeRunner

Call = Callable[[], Any]
Opened = contextlib.AbstractContextManager[list[Call]]
LOADS = ("none", "bursts")
BLOCK = 10  # verdicts on each pair between two changes of the load
_AGAIN = 10  # comparisons of one pair of sessions

# A process that wants a core for a while, then none for a while. Lengths are drawn evenly on a scale of powers: from a
# hundredth of a second, shorter than a round, to two seconds, longer than a comparison.
_BURSTS = """
import os, random, time
parent = os.getppid()
while os.getppid() == parent:  # it may have been killed
    end = time.perf_counter() + 10 ** random.uniform(-2, 0.3)
    while time.perf_counter() < end:
        pass
    time.sleep(10 ** random.uniform(-2, 0.3))
"""


@dataclass(frozen=True)
class Count:
    """Verdicts on one pair under one load."""

    pair: str
    load: str
    verdicts: list[timing.Comparison] = field(default_factory=list)

    @property
    def different(self) -> int:
        """How many verdicts say that the two differ."""
        return sum(not one.is_noise for one in self.verdicts)

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the exact (Clopper-Pearson) 95 % interval of their share."""
        interval = binomtest(self.different, len(self.verdicts)).proportion_ci(0.95, method="exact")
        return interval.low, interval.high

    def __str__(self) -> str:
        (low, high), number = self.interval, len(self.verdicts)
        speedup = statistics.median(one.speedup for one in self.verdicts)
        return (
            f"{self.pair:<43} load: {self.load:<6} {self.different:>3} of {number} different "
            f"({self.different / number:.1%}; {low:.1%} to {high:.1%}), speed-up {speedup:.3f}"
        )


def busy_wait(milliseconds: float) -> None:
    """Keep a core busy for so long, or until the machine gives it back after that."""
    end = time.perf_counter_ns() + round(milliseconds * 1e6)
    while time.perf_counter_ns() < end:
        pass


@contextlib.contextmanager
def bursts(processes: int) -> Iterator[list[subprocess.Popen]]:
    """Run so many processes that spin in bursts of random length; end them, and only them, on leaving."""
    started = [subprocess.Popen([sys.executable, "-c", _BURSTS]) for _ in range(processes)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _runners(model: Path, *batches: int, threads: int | None = None) -> Iterator[list[Call]]:
    """Open a session for each batch. Each verdict has new ones, lest chance in how two were opened counts for all."""
    with contextlib.ExitStack() as stack:
        calls = []
        for batch in batches:
            runner = stack.enter_context(OnnxRuntimeRunner(model, threads=threads))
            feeds = {"x": np.random.default_rng(0).standard_normal((batch, 3, 32, 32), dtype=np.float32)}
            calls.append(lambda runner=runner, feeds=feeds: runner.infer(feeds))
        yield calls


@contextlib.contextmanager
def _session_twice(model: Path) -> Iterator[list[Call]]:
    with _runners(model, 32) as (call,):
        yield [call, call]


def _waits(*milliseconds: float) -> Opened:
    return contextlib.nullcontext([lambda ms=ms: busy_wait(ms) for ms in milliseconds])


def pairs(model: Path) -> dict[str, Callable[[], Opened]]:
    """Return by name what opens two candidates; those of the first three are equal."""
    return {
        "A/A: two sessions of one model": lambda: _runners(model, 32, 32),
        "A/A: one session twice": lambda: _session_twice(model),
        "A/A: busy wait of 1.00 ms twice": lambda: _waits(1.0, 1.0),
        "3 %: busy wait of 1.03 ms against 1.00 ms": lambda: _waits(1.03, 1.0),
        "3 %: one model, 33 images against 32": lambda: _runners(model, 33, 32),
        "3 %: the same, each session with one thread": lambda: _runners(model, 33, 32, threads=1),
    }


def compared(opened: Opened, seconds: float) -> timing.Comparison:
    """Compare two candidates as a lesson does."""
    with opened as candidates:
        return _verdict(candidates, seconds)


def _verdict(candidates: list[Call], seconds: float) -> timing.Comparison:
    times = timing.measure_in_turn(dict(zip("ab", candidates, strict=True)), seconds=seconds)
    return timing.compare(times["a"], times["b"])


def again(opened: Opened, seconds: float) -> list[timing.Comparison]:
    """Compare the same two candidates ten times."""
    with opened as candidates:
        return [_verdict(candidates, seconds) for _ in range(_AGAIN)]


def persistence(kept: list[list[timing.Comparison]]) -> str:
    """Say in how many of its ten comparisons the second of each pair was the faster, beside tosses of a coin."""
    faster = [sum(one.speedup > 1 for one in verdicts) for verdicts in kept]
    spread = f"{statistics.variance(faster):.2f}" if len(faster) > 1 else "none"
    count = Count(f"{len(kept)} pairs of sessions", "none", [one for verdicts in kept for one in verdicts])
    return (
        f"the second was the faster in {', '.join(map(str, faster))} of {_AGAIN} comparisons (variance {spread}; of "
        f"{_AGAIN} tosses of a coin {_AGAIN / 4})\n{count}"
    )


def main() -> None:
    """Take the pairs in turn, with and without a load of one process for each core, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verdicts", type=int, default=200, help="on each pair (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.2, help="for each candidate (default: %(default)s)")
    parser.add_argument("--load", choices=LOADS, action="append", help="one of them alone (default: both in turn)")
    parser.add_argument("--again", type=int, metavar="PAIRS", help="compare so many pairs of sessions ten times each")
    arguments = parser.parse_args()
    model, machine = networks.quick()["fp32"], capabilities.probe().machine()
    if arguments.again:
        kept = []
        for _ in range(arguments.again):
            kept.append(again(_runners(model, 32, 32), arguments.seconds))
            print(persistence(kept), flush=True)
        return
    counts = {load: {name: Count(name, load) for name in pairs(model)} for load in arguments.load or LOADS}
    before = os.getloadavg()[0]
    for first in range(0, arguments.verdicts, BLOCK):
        for load, here in counts.items():
            with bursts(machine["cores"] if load == "bursts" else 0):
                for _ in range(min(BLOCK, arguments.verdicts - first)):
                    for name, opened in pairs(model).items():
                        here[name].verdicts.append(compared(opened(), arguments.seconds))
        found = [count for here in counts.values() for count in here.values()]
        print(*found, sep="\n", end="\n\n", flush=True)
    print(stamp(machine, [before, os.getloadavg()[0]]))


if __name__ == "__main__":
    main()
