"""What caches meet: sequences of keys, each sized to the cache that is to answer it.

A trace is made for a cache of `room` entries, so that a hit ratio means the same thing at every size: Zipf over ten
times as many keys as there is room, a loop of 1.2 times the room, popularity that moves by so much of the room. Keys
are whole numbers, and all chance comes from the generator that is passed in. Where a trace needs keys that are never
asked for again, they are numbers from `ONCE` on.

The families: static popularity, popularity that moves, scans and loops (LRU's worst), recency (LRU's best), and what an
agent does: asks something a few times within a while, then never again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import accumulate, chain

Trace = Callable[[random.Random, int, int], list[int]]

ONCE = 10**9


def ranks(rng: random.Random, keys: int, skew: float, count: int) -> list[int]:
    """`count` ranks of `keys`, the n-th in proportion to n ** -skew."""
    return rng.choices(range(keys), cum_weights=[*accumulate((n + 1) ** -skew for n in range(keys))], k=count)


def zipf(skew: float, wide: int = 10) -> Trace:
    """Popularity that stays as it is."""
    return lambda rng, room, count: ranks(rng, wide * room, skew, count)


def jumps(wide: int, often: int, skew: float = 1.0) -> Trace:
    """Zipf over `wide` times the room; all keys are replaced at once after each `often` times the room requests."""

    def trace(rng: random.Random, room: int, count: int) -> list[int]:
        lives = max(2, count // (often * room))
        return [wide * room * n + key for n in range(lives) for key in ranks(rng, wide * room, skew, count // lives)]

    return trace


def ages(speed: float) -> Trace:
    """The newer, the more popular; a new key after each 1 / `speed` requests."""
    return lambda rng, room, count: [
        int(n * speed) - rank for n, rank in enumerate(ranks(rng, 8 * room, 0.9, count))
    ]  # fmt: skip


def churn(share: float) -> Trace:
    """Zipf, of which single ranks, mostly popular ones, change hands with that probability at each request."""

    def trace(rng: random.Random, room: int, count: int) -> list[int]:
        holders = [*range(10 * room)]
        keys: list[int] = []
        for n, rank in enumerate(ranks(rng, 10 * room, 1.0, count)):
            if rng.random() < share:
                holders[int(len(holders) * rng.random() ** 3)] = ONCE + n
            keys.append(holders[rank])
        return keys

    return trace


def runs(rng: random.Random, room: int, count: int) -> list[int]:
    """Zipf over twice the room, which moves on by six tenths of it and is shuffled after each `room` requests."""
    keys: list[int] = []
    for step in range(count // room):
        holders = [*range(int(0.6 * room) * step, int(0.6 * room) * step + 2 * room)]
        rng.shuffle(holders)
        keys += [holders[rank] for rank in ranks(rng, 2 * room, 1.0, room)]
    return keys


def scanned(rng: random.Random, room: int, count: int) -> list[int]:
    """Zipf, and after each request one for a key that never comes again."""
    return alternating(ranks(rng, 8 * room, 1.0, count // 2), range(ONCE, ONCE + count))


def interrupted(rng: random.Random, room: int, count: int) -> list[int]:
    """Zipf, interrupted by scans as long as the cache."""
    keys = ranks(rng, 5 * room, 1.0, count)
    parts = [[*keys[n : n + 2 * room], *range(ONCE + n, ONCE + n + room)] for n in range(0, count, 2 * room)]
    return [*chain.from_iterable(parts)][:count]


def loop(length: float) -> Trace:
    """The same keys over and over, `length` times as many as there is room."""
    return lambda rng, room, count: [n % int(length * room) for n in range(count)]


def fitting(length: float) -> Trace:
    """A Zipf, then for as long a loop that fits, then both again with other keys. Who resists scans has to see such a
    loop twice before it is more than a scan; LRU, which resists nothing, does not."""
    parts = (zipf(1.0), loop(length)) * 2
    return lambda rng, room, count: [
        ONCE * n + key for n, part in enumerate(parts) for key in part(rng, room, count // len(parts))
    ]


def loop_and_zipf(rng: random.Random, room: int, count: int) -> list[int]:
    """A loop of 1.2 times the room, and after each request one of a Zipf."""
    keys = ranks(rng, 5 * room, 1.0, count // 2)
    return alternating([ONCE + n % int(1.2 * room) for n in range(count)], keys)


def recency(again: float, age: float) -> Trace:
    """A new key, or, with probability `again`, one whose age is exponential with a mean of `age` times the room."""

    def trace(rng: random.Random, room: int, count: int) -> list[int]:
        keys: list[int] = []
        newest = 0
        for _ in range(count):
            back = int(rng.expovariate(1 / (age * room))) if rng.random() < again else -1
            newest += back < 0
            keys.append(newest - max(back, 0))
        return keys

    return trace


def distances(spread: float) -> Trace:
    """Each request reaches back over a log-normal number of distinct keys: the model of which LRU is the optimum."""

    def trace(rng: random.Random, room: int, count: int) -> list[int]:
        stack: list[int] = []
        keys: list[int] = []
        for n in range(count):
            back = int(0.3 * room * rng.lognormvariate(0, spread))
            new = rng.random() < 0.1 or back >= len(stack)
            stack.append(n if new else stack.pop(-1 - back))
            if len(stack) > 20 * room:
                del stack[: 10 * room]
            keys.append(stack[-1])
        return keys

    return trace


def bursts(within: float, mean: float, core: float) -> Trace:
    """Questions that come some `mean` times, `within` times the room apart, then never again; and a `core` share of
    Zipf."""

    def trace(rng: random.Random, room: int, count: int) -> list[int]:
        asked: list[tuple[float, int]] = []
        clock = 0.0
        while len(asked) < count * (1 - core):
            key, at = ONCE + len(asked), clock
            while True:
                asked.append((at, key))
                at += rng.expovariate(1 / (within * room))
                clock += 1 / (1 - core)
                if rng.random() < 1 / mean:
                    break
        popular = ranks(rng, 3 * room, 1.0, int(count * core))
        return in_order(chain(asked, ((rng.random() * clock, key) for key in popular)))

    return trace


def twice(nearest: float, farthest: float) -> Trace:
    """Every key comes twice, that many times the room apart."""
    return lambda rng, room, count: in_order(
        (at, key)
        for key in range(0, count, 2)
        for at in (float(key), key + rng.uniform(nearest, farthest) * room)
    )  # fmt: skip


def sessions(rng: random.Random, room: int, count: int) -> list[int]:
    """Agents at work, a quarter as many as there is room, each with one to six questions of its own until it leaves."""

    def questions() -> list[int]:
        return [rng.randrange(ONCE) for _ in range(rng.randint(1, 6))]

    agents = [questions() for _ in range(room // 4)]
    keys: list[int] = []
    for _ in range(count):
        agent = rng.randrange(len(agents))
        keys.append(rng.choice(agents[agent]))
        if rng.random() < 0.06:
            agents[agent] = questions()
    return keys


def phases(rng: random.Random, room: int, count: int) -> list[int]:
    """Zipf, then a loop, then recency, and all that again with other keys."""
    parts = (zipf(1.0), loop(1.2), recency(0.7, 0.5)) * 2
    return [ONCE * n + key for n, part in enumerate(parts) for key in part(rng, room, count // len(parts))]


def alternating(one: Iterable[int], other: Iterable[int]) -> list[int]:
    """A key of the one, a key of the other, until one ends."""
    return [*chain.from_iterable(zip(one, other, strict=False))]


def in_order(asked: Iterable[tuple[float, int]]) -> list[int]:
    """Keys by the time at which they are asked for."""
    return [key for _, key in sorted(asked)]


TRACES: dict[str, Trace] = {
    "zipf 0.6": zipf(0.6),
    "zipf 0.8": zipf(0.8),
    "zipf 1.0": zipf(1.0),
    "zipf 1.2": zipf(1.2),
    "zipf 1.0, three times the room": zipf(1.0, wide=3),
    "popularity changes hands": churn(0.05),
    "popularity changes hands quickly": churn(0.3),
    "popularity ages": ages(0.05),
    "popularity ages quickly": ages(0.5),
    "popularity runs": runs,
    "all keys replaced, seldom": jumps(8, 50),
    "all keys replaced": jumps(4, 10),
    "all keys replaced, often": jumps(2, 4),
    "all keys replaced, flat": jumps(1, 6, skew=0.5),
    "zipf and a scan": scanned,
    "zipf, then a scan, then again": interrupted,
    "a loop, 1.05 of the room": loop(1.05),
    "a loop, 1.2 of the room": loop(1.2),
    "a loop and zipf": loop_and_zipf,
    "zipf, then a loop that fits": fitting(0.9),
    "recency": recency(0.7, 0.5),
    "recency, farther": recency(0.6, 1.5),
    "stack distances": distances(1.5),
    "stack distances, wider": distances(2.5),
    "bursts and zipf": bursts(0.3, 3, 0.2),
    "short bursts and zipf": bursts(0.05, 2, 0.3),
    "long bursts and zipf": bursts(0.8, 4, 0.1),
    "everything twice": twice(0.1, 0.9),
    "sessions of agents": sessions,
    "phases": phases,
}
