"""What the provider decides, without a clock or a socket: who gets a slot, how long it takes, what is refused.

`now` is always an argument, and every draw comes from one seeded generator in the order of admission, so a run can be
repeated call by call. Three things refuse a call: no free slot, no request left in the minute, no token left in the
minute. All three are checked before any is charged. The counts are the truth that the demo's table is made of.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Settings:
    """How the provider behaves; every field is a flag of `python -m scalekit.cli.provider`."""

    slots: int = 10
    median: float = 0.2
    sigma: float = 0.4
    failures: float = 0.01
    broken: float = 0.0
    seed: int = 1
    requests_per_minute: int = 60_000
    tokens_per_minute: int = 60_000_000

    def __post_init__(self) -> None:
        bounds = {
            "slots": (1, math.inf),
            "median": (0, 3600),
            "sigma": (0, 5),
            "failures": (0, 1),
            "broken": (0, 1),
            "requests_per_minute": (1, math.inf),
            "tokens_per_minute": (1, math.inf),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"provider setting {name}={value!r} is out of range: give {low} to {high}")


@dataclass
class Counts:
    """What happened since the start or the last reset. `calls` = accepted + rejected; the rest is of the accepted."""

    calls: int = 0
    accepted: int = 0
    rejected: int = 0
    failed: int = 0
    cancelled: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, eq=False)
class Ticket:
    """An accepted call: it holds a slot until `ends`, and `fails` if it drew a 500; a stream that `breaks` has its
    connection dropped half-way.
    """

    seconds: float
    ends: float
    fails: bool
    breaks: bool = False


@dataclass(frozen=True)
class Refusal:
    """A 429: what ran out, and when to come back."""

    kind: str
    message: str
    retry_after: float


class Budget:
    """A quota per minute that refills continuously, as the providers' own do."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._spent = 0.0
        self._at = 0.0

    def _settle(self, now: float) -> float:
        self._spent = max(0.0, self._spent - (now - self._at) * self.per_minute / 60)
        self._at = now
        return self._spent

    def wait(self, cost: int, now: float) -> float:
        """Seconds until `cost` fits; a cost above the whole quota fits when nothing is spent."""
        return max(0.0, self._settle(now) + min(cost, self.per_minute) - self.per_minute) * 60 / self.per_minute

    def take(self, cost: int) -> None:
        self._spent += cost

    def headers(self, what: str, now: float) -> dict[str, str]:
        spent = self._settle(now)
        return {
            f"x-ratelimit-limit-{what}": str(self.per_minute),
            f"x-ratelimit-remaining-{what}": str(max(0, math.floor(self.per_minute - spent))),
            f"x-ratelimit-reset-{what}": duration(spent * 60 / self.per_minute),
        }


class State:
    """Slots, quotas, draws and counts of one provider."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Back to the first call: same seed, full quotas, zero counts. Calls in flight keep their slots."""
        held: set[Ticket] = getattr(self, "_held", set())
        self._held = held
        self._random = random.Random(self.settings.seed)
        self._requests = Budget(self.settings.requests_per_minute)
        self._tokens = Budget(self.settings.tokens_per_minute)
        self.counts = Counts(in_flight=len(held), peak_in_flight=len(held))

    def admit(self, tokens: int, now: float) -> Ticket | Refusal:
        """One call that will cost about `tokens`: a ticket to `finish`, or the 429 it gets."""
        self.counts.calls += 1
        refusal = self._refusal(tokens, now)
        if refusal is not None:
            self.counts.rejected += 1
            return refusal
        self._requests.take(1)
        self._tokens.take(tokens)
        seconds = self.settings.median * math.exp(self._random.gauss(0.0, self.settings.sigma))
        fails = self._random.random() < self.settings.failures
        breaks = self.settings.broken > 0 and self._random.random() < self.settings.broken
        ticket = Ticket(seconds, now + seconds, fails, breaks)
        self._held.add(ticket)
        self.counts.accepted += 1
        self.counts.in_flight += 1
        self.counts.peak_in_flight = max(self.counts.peak_in_flight, self.counts.in_flight)
        return ticket

    def _refusal(self, tokens: int, now: float) -> Refusal | None:
        if len(self._held) >= self.settings.slots:
            wait = max(0.001, min(ticket.ends for ticket in self._held) - now)
            message = f"Rate limit reached: {self.settings.slots} requests are already in progress."
            return Refusal("requests", f"{message} Please try again in {duration(wait)}.", wait)
        for kind, budget, cost in (("requests", self._requests, 1), ("tokens", self._tokens, tokens)):
            wait = budget.wait(cost, now)
            if wait > 0:
                message = f"Rate limit reached on {kind} per min: limit {budget.per_minute}, requested {cost}."
                return Refusal(kind, f"{message} Please try again in {duration(wait)}.", wait)
        return None

    def finish(self, ticket: Ticket, *, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """The call was answered (its tokens are paid) or drew its 500 (nothing is)."""
        self._release(ticket)
        if ticket.fails:
            self.counts.failed += 1
            return
        self.counts.prompt_tokens += prompt_tokens
        self.counts.completion_tokens += completion_tokens

    def drop(self, ticket: Ticket) -> None:
        """The connection of its stream was dropped half-way: nothing is paid."""
        self._release(ticket)
        self.counts.failed += 1

    def cancel(self, ticket: Ticket) -> None:
        """The client went away: the slot is free at once."""
        self._release(ticket)
        self.counts.cancelled += 1

    def _release(self, ticket: Ticket) -> None:
        self._held.remove(ticket)
        self.counts.in_flight -= 1

    def limit_headers(self, now: float) -> dict[str, str]:
        return self._requests.headers("requests", now) | self._tokens.headers("tokens", now)

    def stats(self) -> Mapping[str, int]:
        return asdict(self.counts)


def duration(seconds: float) -> str:
    """As the provider writes it in `x-ratelimit-reset-*`: `17ms`, `8.64s`, `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    tail = f"{math.ceil(rest * 1000) / 1000:g}s"
    return f"{int(minutes)}m{tail}" if minutes else tail
