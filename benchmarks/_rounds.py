"""Interleaved rounds: how the benchmarks compare calls that take from 50 ns to 50 µs on a machine that is never quiet.

A *race* is a set of contestants that do the same thing. A contestant's call is a statement, compiled into a loop of its
own as timeit does, so that no lambda and no foreign inline cache stands between the clock and the call:

    for item in items:
        ask(question)

A round runs every contestant of every race, several passes each, in a shuffled order (fixed seed), and keeps a
contestant's best pass: what a neighbour on the machine did to the others is not its cost. Next to them runs an empty
loop, which is subtracted from all alike (it makes every ratio above one a little larger). What is reported is the
median over the rounds: of the times, and of the ratios *within* a round, so that a slow second of the machine slows
both sides of a ratio.

Arguments are built outside of the loop. The garbage collector is off while the clock runs, for everybody, and runs
between the rounds. Each race has an event loop of its own, so that one's timers are not another's burden.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, NamedTuple

EMPTY = "(empty loop)"
SEED = 20261123
PASSES = 3
PASS_SECONDS = 0.002

LOOP = """\
{colour}def loop({names}):
    _began = _clock()
    for item in _items:
        {call}
    return _clock() - _began
"""

Fresh = Callable[[int], list[Any]]


class Spread(NamedTuple):
    """The median of the rounds, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
        return cls(median, low, high)


@dataclass(frozen=True)
class Contestant:
    """One way to make a call: `call`, in the names of `uses`. `fresh(n)` makes n arguments, each of them `item`."""

    name: str
    call: str
    uses: Mapping[str, object] = field(default_factory=dict)
    fresh: Fresh | None = None

    @property
    def is_async(self) -> bool:
        return "await " in self.call or "async for" in self.call

    def loop(self) -> Callable[..., Any]:
        """The compiled loop: `loop(items)` gives the seconds, or a coroutine that does."""
        names = ", ".join(["_items", "_clock", *self.uses])
        source = LOOP.format(colour="async " if self.is_async else "", names=names, call=self.call)
        space: dict[str, Any] = {}
        exec(compile(source, f"<benchmark: {self.name}>", "exec"), space)
        return space["loop"]  # type: ignore[no-any-return]


class Race:
    """Contestants that do the same thing, and the seconds a call took them, one for each round."""

    def __init__(self, title: str, contestants: Sequence[Contestant]) -> None:
        self.title = title
        self.contestants = [Contestant(EMPTY, "pass"), *contestants]
        self.rounds: dict[str, list[float]] = {one.name: [] for one in self.contestants}
        self.names = [one.name for one in contestants]
        self._loops = {one.name: one.loop() for one in self.contestants}
        self._counts: dict[str, int] = {}

    def seconds(self, name: str) -> list[float]:
        """Seconds a call, one for each round, without the loop."""
        return [time - empty for time, empty in zip(self.rounds[name], self.rounds[EMPTY], strict=True)]

    def time(self, name: str) -> Spread:
        """Seconds a call."""
        return Spread.of(self.seconds(name))

    def ratio(self, ours: str, theirs: str, minus: str | None = None) -> Spread:
        """`ours` / `theirs`, round by round; with `minus`, what both add to that."""
        base = self.seconds(minus) if minus else [0.0] * len(self.rounds[ours])
        triples = zip(self.seconds(ours), self.seconds(theirs), base, strict=True)
        return Spread.of([(one - less) / (other - less) for one, other, less in triples])

    async def warm_up(self) -> None:
        """Let every cache fill and every inline cache settle, and find how many calls make a pass."""
        for one in self.contestants:
            count = 1
            while True:
                seconds = min([await self._run(one, count) for _ in range(3)])  # the first one may import things
                if seconds >= PASS_SECONDS / 2:
                    break
                count *= 2
            self._counts[one.name] = max(1, round(count * PASS_SECONDS / seconds))

    async def round(self, order: random.Random) -> None:
        """Every contestant, its best of some passes."""
        best = dict.fromkeys(self._loops, float("inf"))
        for _ in range(PASSES):
            for one in order.sample(self.contestants, len(self.contestants)):
                count = self._counts[one.name]
                best[one.name] = min(best[one.name], await self._run(one, count) / count)
        for name, seconds in best.items():
            self.rounds[name].append(seconds)

    async def _run(self, one: Contestant, count: int) -> float:
        items: Iterable[Any] = repeat(None, count) if one.fresh is None else one.fresh(count)
        result = self._loops[one.name](items, time.perf_counter, *one.uses.values())
        return float(await result if one.is_async else result)


@dataclass(frozen=True)
class Goal:
    """A line of the table of goals: a ratio, or a figure with its unit."""

    what: str
    against: str
    measured: Spread
    at_most: float
    unit: str = "×"

    @property
    def met(self) -> bool:
        return self.measured.median <= self.at_most

    def cells(self) -> list[str]:
        digits = 3 if self.at_most < 0.1 else 2
        measured, low, high = (f"{value:.{digits}f}" for value in self.measured)
        return [
            *(
                self.what,
                self.against,
                f"{measured} {self.unit}",
                f"{low} to {high}",
                f"<= {self.at_most:g} {self.unit}",
            ),
            "met" if self.met else "MISSED",
        ]

    def figures(self) -> dict[str, Any]:
        """As plain data."""
        about = {"what": self.what, "against": self.against, "unit": self.unit, "at_most": self.at_most}
        return {**about, **self.measured._asdict(), "met": self.met}


def run(races: Sequence[Race], rounds: int, told: Callable[[str], None]) -> None:
    """All races, round by round."""
    order = random.Random(SEED)
    with ExitStack() as stack:
        runners = [stack.enter_context(asyncio.Runner()) for _ in races]
        for runner, race in zip(runners, races, strict=True):
            told(f"warming up: {race.title}")
            runner.run(race.warm_up())
        with no_collector():
            for number in range(rounds):
                told(f"round {number + 1} of {rounds}")
                gc.collect()
                for runner, race in zip(runners, races, strict=True):
                    runner.run(race.round(order))


@contextmanager
def no_collector() -> Iterator[None]:
    """Without automatic collections, and with what exists already left out of those that are asked for."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def teller() -> Callable[[str], None]:
    """Shows on a terminal what is being done, on one line; silent elsewhere. Tell it "" at the end."""

    def told(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    return told


def machine() -> dict[str, object]:
    """Where the figures come from."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "cores": cores,
        "cpu": _cpu(),
        "platform": platform.platform(terse=True),
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def peers_of(race: Race, ours: str) -> list[list[str]]:
    """A race as lines of a table: µs a call, and how many times that of the first whose name begins with `ours`."""
    mine = next(name for name in race.names if name.startswith(ours))
    lines: list[list[str]] = []
    for name in race.names:
        median, low, high = (f"{seconds * 1e6:.3g}" for seconds in race.time(name))
        times = f"{race.ratio(name, mine).median:.2f} ×"
        lines.append(["" if lines else race.title, name, median, f"{low} to {high}", times])
    return lines


def table(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Aligned columns; the first row is the head."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    to_right = {*right}
    lines = [
        "  ".join(
            cell.rjust(width) if place in to_right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
