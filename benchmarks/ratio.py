"""One ratio: two things that took turns, the ratio of their times with its spread, and the bound that it aims at."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ratio:
    """Times of two candidates that were measured in turn, round by round.

    Attributes:
        name: What is compared with what, as the table shows it: "ours / theirs".
        ours_ms: Milliseconds of our side in each round.
        theirs_ms: Milliseconds of the other side in the same rounds.
        at_most: The largest ratio to aim at; None where only the difference of the two is of interest.
        at_least: The smallest ratio to aim at, where both sides should agree.
        within_us: Where the ratio is larger, the bound is met also by so few microseconds a call.
        not_run: Why there are no times, if there are none.
    """

    name: str
    ours_ms: tuple[float, ...] = ()
    theirs_ms: tuple[float, ...] = ()
    at_most: float | None = None
    at_least: float = 0.0
    within_us: float | None = None
    not_run: str = ""

    @property
    def rounds(self) -> tuple[float, ...]:
        """The ratio in each round: neighbours in time, so that what slows the machine slows both."""
        return tuple(ours / theirs for ours, theirs in zip(self.ours_ms, self.theirs_ms, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """Between these two lies the middle half of the rounds."""
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return low, high

    @property
    def difference_us(self) -> float:
        """Median of what our side takes longer, in microseconds."""
        pairs = zip(self.ours_ms, self.theirs_ms, strict=True)
        return 1000 * statistics.median(ours - theirs for ours, theirs in pairs)

    @property
    def verdict(self) -> str:
        """Whether the bound is met; "within noise" where the middle half of the rounds lies on both sides of it."""
        difference = f"{self.difference_us:+.1f} us a call"
        if self.at_most is None:
            return difference
        if self.at_least <= self.ratio <= self.at_most:
            return "met"
        if self.within_us is not None and self.difference_us <= self.within_us:
            return f"met, {difference}"
        low, high = self.spread
        return "missed" if low > self.at_most or high < self.at_least else "missed, within noise"

    @property
    def bound(self) -> str:
        """The bound, as the table shows it."""
        if self.at_most is None:
            return "none"
        if self.at_least:
            return f"{self.at_least:g} to {self.at_most:g}"
        return f"<= {self.at_most:g}" + (f" or {self.within_us:g} us" if self.within_us else "")

    def row(self) -> dict[str, str]:
        """Return the row of the table."""
        if self.not_run:
            return {"pair": self.name, "bound": self.bound, "verdict": f"not run: {self.not_run}"}
        low, high = self.spread
        return {
            "pair": self.name,
            "ours ms": f"{statistics.median(self.ours_ms):.4g}",
            "theirs ms": f"{statistics.median(self.theirs_ms):.4g}",
            "ratio": f"{self.ratio:.3f}",
            "middle half": f"{low:.3f} to {high:.3f}",
            "rounds": str(len(self.rounds)),
            "bound": self.bound,
            "verdict": self.verdict,
        }


COLUMNS = ("pair", "ours ms", "theirs ms", "ratio", "middle half", "rounds", "bound", "verdict")


def table(ratios: Sequence[Ratio]) -> str:
    """Return the table: Markdown whose columns are aligned, so that a terminal shows it as well."""
    rows = [[ratio.row().get(column, "-") for column in COLUMNS] for ratio in ratios]
    widths = [max(map(len, cells)) for cells in zip(COLUMNS, *rows, strict=True)]
    lines = [COLUMNS, [f":{'-' * (width - 1)}" for width in widths], *rows]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def in_turn(
    ours: Callable[[], Any], theirs: Callable[[], Any], *, rounds: int, calls: int = 1
) -> dict[str, tuple[float, ...]]:
    """Time two callables round by round, each first in every other round.

    Args:
        ours: Our side.
        theirs: What it is compared with.
        rounds: How many times each has its turn.
        calls: Calls in one turn, of which the median counts.

    Returns:
        ``{"ours_ms": ..., "theirs_ms": ...}``, milliseconds of each round, for `Ratio`.
    """
    times: dict[str, list[float]] = {"ours_ms": [], "theirs_ms": []}
    sides = [("ours_ms", ours), ("theirs_ms", theirs)]
    for _ in range(rounds):
        for side, call in sides:
            times[side].append(statistics.median(_time_ms(call) for _ in range(calls)))
        sides.reverse()
    return {side: tuple(ms) for side, ms in times.items()}


def _time_ms(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def stamp(machine: Mapping[str, Any], load: Sequence[float]) -> str:
    """Return machine, software and load in a few lines.

    Args:
        machine: `Capabilities.machine()`.
        load: Processes that wanted a core, averaged over the last minute: before and after the run.
    """
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    return (
        f"{machine['gpu'] or 'no GPU'}; {machine['cpu']}, {machine['cores']} cores; Python {machine['python']}; "
        f"{libraries}. Load {load[0]:.1f} before, {load[1]:.1f} after."
    )
