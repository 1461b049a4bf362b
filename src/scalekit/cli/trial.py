"""A trial: crowds of growing size before each subject, every crowd on a fresh start, seen live and kept for the table.

The commands differ only in what a subject is. `prepare` is called before each crowd, so no crowd profits from the cache
or suffers from the queue of the one before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from scalekit.cli.crowd import Plan, Tally, Upstream, run_in_threads, run_on_loop


@dataclass(frozen=True)
class Start:
    """One subject ready for one crowd: the function users call, and the count of what went through it."""

    function: Callable[..., Any]
    upstream: Callable[[], Upstream]


@dataclass(frozen=True)
class Subject:
    """What is compared: `plain`, `decorated`."""

    name: str
    prepare: Callable[[], Start]


@dataclass
class Trial:
    """The crowds and what they saw; `tallies` grows while it runs, so an interrupted trial has a table too."""

    subjects: Sequence[Subject]
    crowds: Sequence[int]
    plan: Callable[[int], Plan]
    finished: Callable[[Tally], None]
    tallies: list[Tally] = field(default_factory=list[Tally])

    async def on_loop(self) -> None:
        """Run everything on this event loop."""
        for subject, plan in self._rounds():
            with self._tally(subject, plan) as (start, tally):
                await run_on_loop(start.function, plan, tally)

    def in_threads(self) -> None:
        """Run everything in threads."""
        for subject, plan in self._rounds():
            with self._tally(subject, plan) as (start, tally):
                run_in_threads(start.function, plan, tally)

    def _rounds(self) -> Iterator[tuple[Subject, Plan]]:
        for users in self.crowds:
            plan = self.plan(users)
            for subject in self.subjects:
                yield subject, plan

    @contextmanager
    def _tally(self, subject: Subject, plan: Plan) -> Generator[tuple[Start, Tally]]:
        start = subject.prepare()
        tally = Tally(subject.name, len(plan), sum(map(len, plan)))
        self.tallies.append(tally)
        try:
            yield start, tally
            tally.complete = True
        finally:
            tally.ended = time.perf_counter()
            tally.upstream = start.upstream()
        self.finished(tally)


def calls_each(users: int, wanted: int, most: int) -> int:
    """How many calls each of `users` makes: as many as wanted, fewer if the crowd would make more than `most`."""
    return max(1, min(wanted, most // users))
