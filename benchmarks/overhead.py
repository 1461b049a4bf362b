"""What scalekit costs when it has nothing to do, next to what people use today. One run; ratios, not promises in µs.

    python3 -m uv run --group bench benchmarks/overhead.py [--json FILE] [--plot FILE] [--rounds N]

Measured, in interleaved rounds (how: `_rounds.py`), each against the current release of its peers:

* a memory hit: one string; three arguments; a method; async; a chat of 20 messages (a list of dicts, 18 kB).
  Scalekit's key is typed, its entries have a TTL, its hits are counted, as always. The peers run as they come, which is
  without typed keys, and `lru_cache` and `async-lru` without a TTL. The chat is asked with the very strings that were
  stored, and with strings just parsed from JSON, whose hashes nobody has computed and which share no memory with the
  stored ones. The goal is judged on the latter, the harder one.
* a miss of an async function that answers at once, a new key each time: what the cache adds to a bare await, for both
  sides, with room left and with every new entry driving an old one out, each with a TTL and without.
* a permit nobody else wants, around an async function; and a retry of an async function that never fails.
* `import scalekit` in a new process, from its start to its end, the bytecode being there; and with the names that a
  program uses, because a package may put its own import off. (Installed for editing or not: the one line of its .pth
  file is read by all the processes compared here.)
* how often the function runs when 1,000 callers ask one question at the same moment: asyncio tasks, threads, tasks of
  two asyncio loops and trio together, plain threads and asyncio.to_thread together.

Nothing is asserted: the table says met or MISSED, and the exit status is 0.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import aiocache
import aiolimiter
import anyio
import async_lru
import cachebox
import cachetools
import cashews
import pyrate_limiter
import stamina
import tenacity
import trio
from _draw import bars
from _rounds import EMPTY, SEED, Contestant, Goal, Race, Spread, machine, peers_of, run, table, teller

import scalekit

ROUNDS, PROCESSES = 40, 21
ROOM, HOUR, PLENTY = 10_000, 3_600.0, 1_000_000_000
PEERS = (
    *("aiocache", "aiolimiter", "anyio", "async-lru", "cachebox", "cachetools", "cashews"),
    *("pyrate-limiter", "stamina", "tenacity", "trio"),
)
OURS = "scalekit"
MISSES: dict[str, tuple[bool, float | None]] = {
    "misses": (False, None),
    "misses_ttl": (False, HOUR),
    "misses_full": (True, None),
    "misses_full_ttl": (True, HOUR),
}
IMPORT, IMPORT_NAMES = "import scalekit", "from scalekit import cache, limit, retry"
QUESTION = "How does a decorator with arguments differ from one without?"


def answer(question: str) -> str:
    return "an answer"


async def answer_later(question: str) -> str:
    return "an answer"


def hits() -> Race:
    locked = cachetools.cached(cachetools.TTLCache(ROOM, HOUR), lock=threading.Lock())
    return _asked(
        "hit, sync",
        "f(question)",
        {
            "bare call": answer,
            "lru_cache": functools.lru_cache(ROOM)(answer),
            OURS: scalekit.cache(ttl=HOUR)(answer),
            "cachebox": cachebox.cached(cachebox.TTLCache(ROOM, HOUR))(answer),
            "cachetools": locked(answer),
        },
    )


def hits_of_three() -> Race:
    def complete(prompt: str, model: str, tokens: int) -> str:
        return "an answer"

    call, uses = "f(prompt, model, tokens)", {"prompt": QUESTION, "model": "small", "tokens": 256}
    functions = {
        "lru_cache": functools.lru_cache(ROOM)(complete),
        "lru_cache, typed": functools.lru_cache(ROOM, typed=True)(complete),
        OURS: scalekit.cache(ttl=HOUR)(complete),
        f"{OURS}, no ttl": scalekit.cache(complete),
        "cachebox": cachebox.cached(cachebox.TTLCache(ROOM, HOUR))(complete),
    }
    return Race("hit, three arguments", [Contestant(name, call, {"f": f, **uses}) for name, f in functions.items()])


class Agent:
    @functools.lru_cache(ROOM)  # noqa: B019  # one agent, which lives as long as the program
    def remember(self, question: str) -> str:
        return "an answer"

    @scalekit.cache(ttl=HOUR)
    def ask(self, question: str) -> str:
        return "an answer"


def hits_of_a_method() -> Race:
    uses = {"agent": Agent(), "question": QUESTION}
    calls = {"lru_cache": "agent.remember(question)", OURS: "agent.ask(question)"}
    return Race("hit, a method", [Contestant(name, call, uses) for name, call in calls.items()])


def async_hits() -> Race:
    shared = cashews.Cache()
    shared.setup("mem://")
    return _asked(
        "hit, async",
        "await f(question)",
        {
            "bare await": answer_later,
            OURS: scalekit.cache(ttl=HOUR)(answer_later),
            "async-lru": async_lru.alru_cache(ROOM)(answer_later),
            "cachebox": cachebox.cached(cachebox.TTLCache(ROOM, HOUR))(answer_later),
            "aiocache": aiocache.cached(ttl=HOUR)(answer_later),
            "cashews": shared(ttl=HOUR)(answer_later),
        },
    )


def chats() -> Race:
    """A hit on a chat of 20 messages, against the digest that others make of it to have a key."""
    choice = random.Random(SEED)
    body = json.dumps(
        [
            {
                "role": ("user", "assistant")[turn % 2],
                "content": " ".join(choice.choices(QUESTION.split(), k=250))[:860],
            }
            for turn in range(20)
        ]
    )

    @scalekit.cache(ttl=HOUR)
    def ask(messages: list[dict[str, str]]) -> str:
        return "an answer"

    def parsed(number: int) -> list[Any]:
        return [json.loads(body) for _ in range(number)]

    digest = "sha256(dumps(item, sort_keys=True).encode()).hexdigest()"
    digest_uses = {"sha256": hashlib.sha256, "dumps": json.dumps}
    history = parsed(1)[0]
    ask(history)
    return Race(
        f"hit, a chat of {len(body) / 1000:.0f} kB",
        [
            Contestant(f"{OURS}, as stored", "f(messages)", {"f": ask, "messages": history}),
            Contestant(f"{OURS}, just built", "f(item)", {"f": ask}, parsed),
            Contestant("json + sha256, as stored", digest.replace("item", "m"), {**digest_uses, "m": history}),
            Contestant("json + sha256, just built", digest, digest_uses, parsed),
        ],
    )


def misses(*, full: bool, ttl: float | None) -> Race:
    """A new key each time. `full`: the caches are so small that every entry drives another one out."""
    numbers = count()
    room = 500 if full else 10_000_000

    def questions(number: int) -> list[str]:
        return [f"{QUESTION} ({next(numbers)})" for _ in range(number)]

    functions: dict[str, Callable[..., Any]] = {
        "bare await": answer_later,
        OURS: scalekit.cache(ttl=ttl, tiers=[scalekit.Memory(room, "8GB")])(answer_later),
        "async-lru": async_lru.alru_cache(room, ttl=ttl)(answer_later),
    }
    if full and ttl:
        store = cashews.Cache()
        store.setup("mem://", size=room)
        functions["cachebox"] = cachebox.cached(cachebox.TTLCache(room, ttl))(answer_later)
        functions["aiocache"] = aiocache.cached(ttl=ttl)(answer_later)
        functions["cashews"] = store(ttl=ttl)(answer_later)
    title = f"miss, async, {'full' if full else 'not full'}{', ttl' if ttl else ''}"
    return Race(title, [Contestant(name, "await f(item)", {"f": f}, questions) for name, f in functions.items()])


def permits() -> Race:
    semaphore, capacity = asyncio.Semaphore(8), anyio.CapacityLimiter(8)
    leaky = aiolimiter.AsyncLimiter(PLENTY, 1)
    window: Any = pyrate_limiter.Limiter(pyrate_limiter.Rate(PLENTY, pyrate_limiter.Duration.SECOND))

    async def by_hand(question: str) -> str:
        async with semaphore:
            return await answer_later(question)

    async def by_capacity(question: str) -> str:
        async with capacity:
            return await answer_later(question)

    async def by_bucket(question: str) -> str:
        async with leaky:
            return await answer_later(question)

    return _asked(
        "a free permit, async",
        "await f(question)",
        {
            "bare await": answer_later,
            "asyncio.Semaphore": by_hand,
            OURS: scalekit.limit(concurrency=8)(answer_later),
            "aiolimiter": by_bucket,
            "anyio CapacityLimiter": by_capacity,
            "pyrate-limiter": window.as_decorator(name="answer")(answer_later),
        },
    )


def retries() -> Race:
    patient = tenacity.retry(
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_random_exponential(0.5, max=20),
        retry=tenacity.retry_if_exception_type(OSError),
    )
    return _asked(
        "retry, nothing to retry, async",
        "await f(question)",
        {
            "bare await": answer_later,
            OURS: scalekit.retry(attempts=3)(answer_later),
            "stamina": stamina.retry(on=OSError, attempts=3)(answer_later),
            "tenacity": patient(answer_later),
        },
    )


def _asked(title: str, call: str, functions: dict[str, Any]) -> Race:
    return Race(title, [Contestant(name, call, {"f": f, "question": QUESTION}) for name, f in functions.items()])


def imports(processes: int, told: Callable[[str], None]) -> dict[str, list[float]]:
    """Seconds of whole processes, one by one in turn. The first round compiles and is not counted."""
    seconds: dict[str, list[float]] = {program: [] for program in ("pass", "import asyncio", IMPORT, IMPORT_NAMES)}
    with tempfile.TemporaryDirectory() as bytecode:
        place = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        place["PYTHONPYCACHEPREFIX"] = bytecode
        for number in range(processes + 1):
            told(f"process {number} of {processes}")
            for program in seconds:
                began = time.perf_counter()
                subprocess.run([sys.executable, "-c", program], env=place, check=True)
                if number:
                    seconds[program].append(time.perf_counter() - began)
    return seconds


class Crowd:
    """A function that counts how often it runs, and callers that ask it the same thing at the same moment."""

    def __init__(self) -> None:
        self.calls: list[str] = []

        @scalekit.cache(ttl=HOUR)
        def ask(prompt: str) -> str:
            self.calls.append(prompt)
            time.sleep(0.3)
            return "an answer"

        @scalekit.cache(ttl=HOUR)
        async def ask_later(prompt: str) -> str:
            self.calls.append(prompt)
            await anyio.sleep(0.3)
            return "an answer"

        self.ask, self.ask_later = ask, ask_later

    def in_tasks(self, callers: int = 1_000) -> None:
        async def main() -> None:
            await asyncio.gather(*[self.ask_later(QUESTION) for _ in range(callers)])

        asyncio.run(main())

    def in_threads(self, callers: int = 200) -> None:
        gate = threading.Barrier(callers)
        _at_once([functools.partial(self._after, gate) for _ in range(callers)])

    def in_loops(self, callers: int = 1_000) -> None:
        gate = threading.Barrier(3)
        share = callers // 3

        def in_asyncio(number: int) -> None:
            gate.wait()
            self.in_tasks(number)

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(callers - 2 * share):
                    nursery.start_soon(self.ask_later, QUESTION)

        def in_trio() -> None:
            gate.wait()
            trio.run(main)

        _at_once([functools.partial(in_asyncio, share), functools.partial(in_asyncio, share), in_trio])

    def in_threads_of_both_kinds(self, callers: int = 200) -> None:
        gate = threading.Barrier(callers)

        async def main() -> None:
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(callers // 2))
            await asyncio.gather(*[asyncio.to_thread(self._after, gate) for _ in range(callers // 2)])

        plain = [functools.partial(self._after, gate) for _ in range(callers - callers // 2)]
        _at_once([*plain, lambda: asyncio.run(main())])

    def _after(self, gate: threading.Barrier) -> None:
        gate.wait()
        self.ask(QUESTION)


def _at_once(jobs: Sequence[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def flights() -> dict[str, int]:
    """How often the function ran."""
    crowds: dict[str, Callable[[Crowd], None]] = {
        "1,000 asyncio tasks": Crowd.in_tasks,
        "200 threads": Crowd.in_threads,
        "1,000 in two asyncio loops and trio": Crowd.in_loops,
        "200 threads, half by asyncio.to_thread": Crowd.in_threads_of_both_kinds,
    }
    ran: dict[str, int] = {}
    for name, together in crowds.items():
        crowd = Crowd()
        together(crowd)
        ran[name] = len(crowd.calls)
    return ran


def goals(races: dict[str, Race], processes: dict[str, list[float]]) -> list[Goal]:
    """The goals, in the order in which they were set."""
    sync, three, method = races["hits"], races["three"], races["method"]
    later, chat, permit, retry = races["async_hits"], races["chats"], races["permits"], races["retries"]
    rows = [
        Goal("sync hit, one str, ttl", "functools.lru_cache", sync.ratio(OURS, "lru_cache"), 3.0),
        Goal("", "cachebox", sync.ratio(OURS, "cachebox"), 0.45),
        Goal("async hit", "a bare await", later.ratio(OURS, "bare await"), 2.6),
        Goal("", "async-lru", later.ratio(OURS, "async-lru"), 0.4),
        Goal("hit, three arguments, ttl", "functools.lru_cache", three.ratio(OURS, "lru_cache"), 2.0),
        Goal("hit, three arguments, no ttl", "functools.lru_cache", three.ratio(f"{OURS}, no ttl", "lru_cache"), 2.0),
        Goal("hit, a method, ttl", "functools.lru_cache", method.ratio(OURS, "lru_cache"), 3.0),
    ]
    for state in ("just built", "as stored"):
        ratio = chat.ratio(f"{OURS}, {state}", f"json + sha256, {state}")
        rows.append(Goal(f"hit, chat of 18 kB, strings {state}", "json.dumps + sha256", ratio, 0.35))
    for key in MISSES:
        ratio = races[key].ratio(OURS, "async-lru", minus="bare await")
        rows.append(Goal(f"what the cache adds: {races[key].title}", "async-lru", ratio, 1.2))
    rows += [
        Goal("limit, a free permit, async", "asyncio.Semaphore", permit.ratio(OURS, "asyncio.Semaphore"), 1.3),
        Goal("", "anyio CapacityLimiter", permit.ratio(OURS, "anyio CapacityLimiter"), 0.2),
        Goal("retry, nothing to retry, async", "tenacity", retry.ratio(OURS, "tenacity"), 0.03),
    ]
    for program in (IMPORT, IMPORT_NAMES):
        ratios = [a / b for a, b in zip(processes[program], processes["import asyncio"], strict=True)]
        rows.append(Goal(program, "import asyncio", Spread.of(ratios), 0.7))
    return rows


DRAWN = (("hits", "permits"), ("async_hits", "misses_full_ttl"), ("chats", "retries"))


def figures_of(races: dict[str, Race], rows: Sequence[Goal], processes: dict[str, list[float]]) -> dict[str, Any]:
    """Everything measured, as plain data; seconds, and a list has one item a round."""
    return {
        "goals": [row.figures() for row in rows],
        "calls": {race.title: {name: race.seconds(name) for name in race.names} for race in races.values()},
        "empty_loops": {race.title: race.rounds[EMPTY] for race in races.values()},
        "processes": processes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What scalekit costs when it has nothing to do, next to its peers.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds (default {ROUNDS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them")
    arguments = parser.parse_args()
    began = time.perf_counter()
    told = teller()
    races = {
        "hits": hits(),
        "three": hits_of_three(),
        "method": hits_of_a_method(),
        "async_hits": async_hits(),
        "chats": chats(),
        **{key: misses(full=full, ttl=ttl) for key, (full, ttl) in MISSES.items()},
        "permits": permits(),
        "retries": retries(),
    }
    run([*races.values()], arguments.rounds, told)
    processes = imports(min(PROCESSES, arguments.rounds), told)
    told("crowds")
    ran = flights()
    told("")

    here, peers = machine(), {name: version(name) for name in PEERS}
    rows = goals(races, processes)
    spent = time.perf_counter() - began
    about = f"{here['python']}, {here['cores']} cores, {here['cpu']}"
    print(f"{about}, {here['platform']}")
    print(f"scalekit {version('agent-scalekit')}; {', '.join(f'{name} {number}' for name, number in peers.items())}")
    print(f"{arguments.rounds} rounds, {spent:.0f} s; medians, and the quartiles of the rounds\n")
    head = ["call", "by", "µs", "quartiles", "× scalekit"]
    print(table([head, *[line for race in races.values() for line in peers_of(race, OURS)]], right=(2, 4)), end="\n\n")
    lines = [[name, *(f"{seconds * 1e3:.1f}" for seconds in Spread.of(values))] for name, values in processes.items()]
    print(table([["whole process", "ms", "from", "to"], *lines], right=(1, 2, 3)), end="\n\n")
    crowds = [
        [f"one prompt, {name}", "", f"{calls} call{'s' * (calls > 1)}", "", "1 call", "met" if calls == 1 else "MISSED"]
        for name, calls in ran.items()
    ]
    head = ["it must reach", "against", "measured", "quartiles", "goal", ""]
    print(table([head, *[row.cells() for row in rows], *crowds], right=(2,)))

    if arguments.json:
        versions = {"scalekit": version("agent-scalekit"), **peers}
        about_run = {"machine": here, "versions": versions, "rounds": arguments.rounds, "duration": spent}
        figures = {**about_run, **figures_of(races, rows, processes), "calls_of_a_crowd": ran}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        bars([[races[key] for key in row] for row in DRAWN], OURS, about, arguments.plot)


if __name__ == "__main__":
    main()
