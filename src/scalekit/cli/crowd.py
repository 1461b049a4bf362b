"""A crowd: users who call one function, each of them one call after the other, and what they saw.

Latency is what a user waited for one answer, measured where the user sits, queues and retries included. A call is
answered or it failed; failures are counted by the type of the exception. What happened *behind* the function (calls
that went through, refusals, tokens paid) is known only to whoever counts there, so it arrives as `Upstream`.

Tokens are read off results by duck type, as every SDK writes them. *Tokens saved* is the usage of all answers that
users received minus the tokens paid upstream.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from scalekit._signals.reading import get

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Plan = Sequence[Sequence[Arguments]]


@dataclass(frozen=True)
class Upstream:
    """What went through to the undecorated function or its provider; None is unknown."""

    calls: int | None = None
    rejected: int | None = None
    tokens: int | None = None


@dataclass
class Tally:
    """What one crowd saw so far. Users of a thread crowd add to it at the same time."""

    subject: str
    users: int
    planned: int
    seconds: list[float] = field(default_factory=list[float])
    failures: Counter[str] = field(default_factory=Counter[str])
    tokens: int | None = None
    upstream: Upstream = Upstream()
    started: float = field(default_factory=time.perf_counter)
    ended: float | None = None
    complete: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def answer(self, seconds: float, result: Any) -> None:
        tokens = tokens_of(result)
        with self._lock:
            self.seconds.append(seconds)
            if tokens is not None:
                self.tokens = (self.tokens or 0) + tokens

    def failure(self, error: BaseException) -> None:
        with self._lock:
            self.failures[type(error).__name__] += 1

    @property
    def answered(self) -> int:
        return len(self.seconds)

    @property
    def failed(self) -> int:
        return self.failures.total()

    @property
    def wall(self) -> float:
        return (time.perf_counter() if self.ended is None else self.ended) - self.started

    @property
    def saved(self) -> int | None:
        """None while the crowd runs: what is paid for is then not yet delivered."""
        if not self.complete or self.upstream.tokens is None or (self.tokens is None and self.answered):
            return None
        return (self.tokens or 0) - self.upstream.tokens


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile: an observed value, or None of none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def deal(arguments: Sequence[Arguments], users: int, calls: int) -> Plan:
    """Give each user `calls` arguments, in their order and from the start again when they run out."""
    return [[arguments[(user * calls + call) % len(arguments)] for call in range(calls)] for user in range(users)]


async def run_on_loop(function: Callable[..., Any], plan: Plan, tally: Tally) -> None:
    """Every user is a task; returns when all are through."""

    async def user(calls: Sequence[Arguments]) -> None:
        for args, kwargs in calls:
            began = time.perf_counter()
            try:
                result = await _read(function(*args, **kwargs))
            except Exception as error:
                tally.failure(error)
            else:
                tally.answer(time.perf_counter() - began, result)

    async with asyncio.TaskGroup() as crowd:
        for calls in plan:
            crowd.create_task(user(calls))


def run_in_threads(function: Callable[..., Any], plan: Plan, tally: Tally) -> None:
    """Every user is a thread. Ctrl-C leaves them behind: a blocked thread cannot be interrupted."""
    stopped = threading.Event()

    def user(calls: Sequence[Arguments]) -> None:
        for args, kwargs in calls:
            if stopped.is_set():
                return
            began = time.perf_counter()
            try:
                result = _drain(function(*args, **kwargs))
            except Exception as error:
                tally.failure(error)
            else:
                tally.answer(time.perf_counter() - began, result)

    users = [threading.Thread(target=user, args=(calls,), daemon=True) for calls in plan]
    try:
        for thread in users:
            thread.start()
        for thread in users:
            while thread.is_alive():
                thread.join(0.2)
    except BaseException:
        stopped.set()
        raise


async def _read(given: Any) -> Any:
    """Await what was returned, and read a stream to its end: its value is the last item."""
    value = await given if inspect.isawaitable(given) else given
    if not hasattr(value, "__anext__"):
        return value
    last: Any = None
    async for item in value:
        last = item
    return last


def _drain(value: Any) -> Any:
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise TypeError("a plain `def` returned an awaitable: load an `async def` that awaits it")
    if not hasattr(value, "__next__"):
        return value
    last: Any = None
    for item in value:
        last = item
    return last


def tokens_of(result: Any) -> int | None:
    """The tokens that a result says it cost: openai, anthropic, google-genai, langchain, or a dict like theirs."""
    for name in ("usage", "usage_metadata"):
        usage = get(result, name)
        if usage is None or callable(usage):
            continue
        for total in ("total_tokens", "total_token_count"):
            count = get(usage, total)
            if isinstance(count, int):
                return count
        given, made = get(usage, "input_tokens"), get(usage, "output_tokens")
        if isinstance(given, int) and isinstance(made, int):
            return given + made
    return None
