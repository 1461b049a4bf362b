"""The cache on one machine: the disk, the codec and the memory, next to what people use today. One run; ratios.

    python3 -m uv run --group bench benchmarks/cache.py [--quick] [--json FILE] [--plot FILE]

Measured, each against the current release of its peer and in the same rounds as it:

* a get from the disk: 1,000 answers of about 500 bytes, warm, keys in random order, on an event loop. scalekit finds,
  proves (key, checksum) and decodes; diskcache gives raw bytes, or the same object, which it unpickles. Then both
  through their decorator, scalekit's with the disk as its only tier.
* a put to the disk as the caller sees it, of bytes and of an object that both turn into bytes: 2,000 in a burst; one
  every 5 ms. And 5,000 until all of them are written.
* how late an event loop's timers are while it puts 200 answers a second on a disk to which another process writes as
  well. Control: the same loop and the same neighbour, with the answers kept in memory only; both in turns.
* decoding a value, which gives every caller an object of its own, next to `copy.deepcopy`.
* a list of 1,000 items of which 900 are known (`each=`), and how often it asks each tier and the function.
* a stream of 1,000 items that never has to wait: live with one reader, next to the bare async generator; replayed; read
  by 100 at once.
* the memory that 100,000 answers of 1 kB take, in the cache and in a dict: bytes by tracemalloc, each in a process of
  its own.

Which entries a full memory keeps is measured by `eviction.py`. Nothing is asserted: the table says met or MISSED, and
the exit status is 0.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import diskcache
from _draw import bars
from _items import ITEMS, crowd, lists, streams, trips
from _rounds import SEED, Contestant, Goal, Race, Spread, machine, no_collector, peers_of, run, table, teller
from openai.types.chat import ChatCompletion

import scalekit
from scalekit._cache.codec import Codec
from scalekit._cache.frame import seal, unseal
from scalekit._cache.stores.base import Record
from scalekit._core.drive import drive
from scalekit._runtime.blocking import BLOCKING
from scalekit._runtime.eventloop import EventLoop

OURS = "scalekit"
PEERS = ("diskcache", "openai")
KEYS = 1000
Told = Callable[[str], None]


def answer(number: int) -> dict[str, Any]:
    """What a tool returns: about 500 bytes."""
    return {
        "id": number,
        "title": f"Invoice {number}",
        "lines": [{"text": f"position {line} of {number}", "cents": 1000 * line + number} for line in range(6)],
        "customer": {"name": "Ada Lovelace", "city": "London", "since": 1843},
        "note": "paid in full, thank you very much for your order " * 2,
    }


def shuffled(count: int) -> list[str]:
    order = random.Random(SEED)
    return [f"question {order.randrange(KEYS)}" for _ in range(count)]


def disk_gets(folder: Path) -> Race:
    """Reads of the stores themselves, the decoding included."""
    codec, runtime = Codec("answer"), EventLoop()
    theirs, objects = diskcache.Cache(str(folder / "raw")), diskcache.Cache(str(folder / "objects"))
    ours = scalekit.Disk(folder / "ours")

    async def fill() -> None:
        now = ours.now()
        for number in range(KEYS):
            key, value = f"question {number}", answer(number)
            await ours.put(key, Record(seal(codec.encode(value)), now + number), runtime)
            theirs.set(key, codec.encode(value))
            objects.set(key, value)

    asyncio.run(fill())
    ours.flush()
    uses = {
        "get": ours.get,
        "here": runtime,
        "decode": codec.decode,
        "unseal": unseal,
        "drive": drive,
        "blocking": BLOCKING,
    }
    return Race(
        "get from the disk, 500 bytes",
        [
            Contestant("diskcache, raw bytes", "get(item)", {"get": theirs.get}, shuffled),
            Contestant("diskcache, the object", "get(item)", {"get": objects.get}, shuffled),
            Contestant(f"{OURS}, sealed bytes", "(await get(item, here)).data", uses, shuffled),
            Contestant(f"{OURS}, async", "decode(unseal((await get(item, here)).data, True))", uses, shuffled),
            Contestant(f"{OURS}, sync", "decode(unseal(drive(get(item, blocking)).data, True))", uses, shuffled),
        ],
    )


def decorated_gets(folder: Path) -> Race:
    """The same through a decorator: the key is made of the arguments."""

    def look_up(question: str) -> dict[str, Any]:
        return answer(int(question.split()[1]))

    async def look_up_later(question: str) -> dict[str, Any]:
        return look_up(question)

    theirs = diskcache.Cache(str(folder / "memoized")).memoize()(look_up)
    ours = scalekit.cache(ttl="1h", tiers=[scalekit.Disk(folder / "decorated")])
    plain, later = ours(look_up), ours(look_up_later)

    async def fill() -> None:
        for number in range(KEYS):
            theirs(f"question {number}")
            plain(f"question {number}")
            await later(f"question {number}")

    asyncio.run(fill())
    scalekit.Disk(folder / "decorated").flush()
    return Race(
        "the same through a decorator",
        [
            Contestant("diskcache.memoize", "ask(item)", {"ask": theirs}, shuffled),
            Contestant(f"{OURS}, async", "await ask(item)", {"ask": later}, shuffled),
            Contestant(f"{OURS}, sync", "ask(item)", {"ask": plain}, shuffled),
        ],
    )


def decoding() -> list[Race]:
    """What a hit pays for an object of its own."""
    chat = [{"role": "user" if n % 2 else "assistant", "content": f"message {n}: " + "word " * 100} for n in range(10)]
    embedding = [random.Random(SEED).uniform(-1, 1) for _ in range(1536)]
    usage = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}
    message = {"role": "assistant", "content": "Hello! How can I help you today?", "refusal": None, "reasoning": "none"}
    completion = ChatCompletion.model_validate(
        {
            "id": "chatcmpl-123",
            "object": "chat.completion",
            "created": 1677652288,
            "model": "gpt-5",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": usage,
            "service_tier": "default",
        }
    )
    races: list[Race] = []
    for title, value, kind in (
        ("10 chat messages", chat, list[dict[str, str]]),
        ("an embedding of 1,536 floats", embedding, list[float]),
        ("a ChatCompletion", completion, ChatCompletion),
    ):
        codec = Codec(title, types=[kind])
        payload = codec.encode(value)
        assert codec.decode(payload) == value
        uses = {"decode": codec.decode, "payload": payload, "copy": copy.deepcopy, "value": value}
        races.append(
            Race(
                f"an object of its own: {title}",
                [Contestant("copy.deepcopy", "copy(value)", uses), Contestant(OURS, "decode(payload)", uses)],
            )
        )
    return races


class Puts:
    """Ways to write, by both: seconds a put, one figure for each round."""

    def __init__(self, folder: Path) -> None:
        self.theirs = diskcache.Cache(str(folder / "puts"))
        self.disk = scalekit.Disk(folder / "our puts", max_bytes="2GB")
        self.codec, self.runtime = Codec("answer"), EventLoop()
        self.numbers = count()
        self.value = answer(7)
        self.data = seal(self.codec.encode(self.value))
        self.ways: dict[str, tuple[Any, dict[str, Any], int]] = {
            "in a burst": (self.burst, {"diskcache": self.set_bytes, OURS: self.put_bytes}, 2000),
            "in a burst, an object": (self.burst, {"diskcache": self.set_object, OURS: self.put_object}, 2000),
            "every 5 ms": (self.paced, {"diskcache": self.set_bytes, OURS: self.put_bytes}, 200),
            "every 5 ms, an object": (self.paced, {"diskcache": self.set_object, OURS: self.put_object}, 200),
            "until written": (self.written, {"diskcache": self.set_bytes, OURS: self.put_bytes}, 5000),
        }
        self.seconds: dict[str, dict[str, list[float]]] = {way: {"diskcache": [], OURS: []} for way in self.ways}

    async def put_bytes(self, key: str) -> None:
        await self.disk.put(key, Record(self.data, self.disk.now()), self.runtime)

    async def put_object(self, key: str) -> None:
        await self.disk.put(key, Record(seal(self.codec.encode(self.value)), self.disk.now()), self.runtime)

    async def set_bytes(self, key: str) -> None:
        self.theirs.set(key, self.data)

    async def set_object(self, key: str) -> None:
        self.theirs.set(key, self.value)

    async def burst(self, put: Any, many: int) -> float:
        began = time.perf_counter()
        for _ in range(many):
            await put(f"key {next(self.numbers)}")
        return (time.perf_counter() - began) / many

    async def paced(self, put: Any, many: int) -> float:
        spent: list[float] = []
        for _ in range(many):
            began = time.perf_counter()
            await put(f"key {next(self.numbers)}")
            spent.append(time.perf_counter() - began)
            await asyncio.sleep(0.005)
        return statistics.fmean(spent)

    async def written(self, put: Any, many: int) -> float:
        began = time.perf_counter()
        await self.burst(put, many)
        self.disk.flush()
        return (time.perf_counter() - began) / many

    def run(self, rounds: int, told: Told) -> None:
        order = random.Random(SEED)
        asyncio.run(self.burst(self.put_bytes, 10))  # opens the folder
        for number in range(rounds):
            for way, (go, by, many) in self.ways.items():
                told(f"puts {way}, round {number + 1} of {rounds}")
                for name in order.sample([*by], len(by)):
                    self.disk.flush()
                    time.sleep(0.05)
                    with no_collector():
                        self.seconds[way][name].append(asyncio.run(go(by[name], many)))

    def ratio(self, way: str) -> Spread:
        pairs = zip(self.seconds[way][OURS], self.seconds[way]["diskcache"], strict=True)
        return Spread.of([one / other for one, other in pairs])


NEIGHBOUR = """
import sys, time, asyncio, scalekit
@scalekit.cache(ttl="1h", tiers=[scalekit.Disk(sys.argv[1])])
async def ask(number: int) -> str:
    return "x" * 500
async def main():
    number = 0
    while True:
        await ask(number)
        number += 1
        await asyncio.sleep(0.005)
asyncio.run(main())
"""


def delays(folder: Path, seconds: float, told: Told) -> dict[str, list[float]]:
    """How late timers of 1 ms are, answers going to the disk or to memory only, in turns of two seconds."""

    async def ask(number: int) -> dict[str, Any]:
        return answer(number)

    disk = scalekit.Disk(folder / "shared")
    functions = {
        "disk": scalekit.cache(ttl="1h", tiers=["memory", disk])(ask),
        "control": scalekit.cache(ttl="1h", tiers=["memory"])(ask),
    }
    late: dict[str, list[float]] = {name: [] for name in functions}
    numbers = count()

    async def put(function: Any, until: float) -> None:
        while time.perf_counter() < until:
            await function(next(numbers))
            await asyncio.sleep(0.005)

    async def tick(into: list[float], until: float) -> None:
        while (now := time.perf_counter()) < until:
            await asyncio.sleep(0.001)
            into.append(time.perf_counter() - now - 0.001)

    async def main() -> None:
        for turn in range(max(1, round(seconds / 2))):
            for name, function in functions.items():
                told(f"delays, turn {turn + 1}, {name}")
                until = time.perf_counter() + 2
                await asyncio.gather(put(function, until), tick(late[name], until))

    with child(NEIGHBOUR, str(folder / "shared")):
        time.sleep(1)
        asyncio.run(main())
    return late


@contextmanager
def child(program: str, *arguments: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", program, *arguments])
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"the neighbour ended by itself, with status {process.returncode}")
    finally:
        process.kill()
        process.wait()


MEMORY = """
import sys, tracemalloc, scalekit
ENTRIES = 100_000
plain = {}
@scalekit.cache(ttl="1h", tiers=[scalekit.Memory(ENTRIES + 1, "1GB")])
def ask(question: str) -> str:
    return question.ljust(951, "x")  # 1,000 bytes
ask("warm-up")
questions = (f"question {n}" for n in range(ENTRIES))
tracemalloc.start()
if sys.argv[1] == "dict":
    for question in questions:
        plain[question] = question.ljust(951, "x")
else:
    for question in questions:
        ask(question)
    assert ask.cache.stats().entries >= ENTRIES
print(tracemalloc.get_traced_memory()[0])
"""


def memory() -> dict[str, int]:
    """Bytes of 100,000 answers of 1 kB, with their keys."""
    return {
        name: int(subprocess.check_output([sys.executable, "-c", MEMORY, name], text=True)) for name in ("dict", OURS)
    }


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def goals(
    races: dict[str, Race],
    puts: Puts,
    late: dict[str, list[float]],
    taken: dict[str, int],
    asked: dict[str, int],
    read: tuple[int, int],
) -> list[Goal]:
    gets, _, chat, floats, completion, listed, streamed = races.values()
    blocks = {share: [quantile(part, share) * 1e3 for part in tenths(late["disk"])] for share in (0.99, 0.999)}

    def delay(share: float) -> Spread:
        return Spread(quantile(late["disk"], share) * 1e3, min(blocks[share]), max(blocks[share]))

    return [
        *[
            Goal(
                f"disk get, decoded, {colour}",
                f"diskcache, {what}",
                gets.ratio(f"{OURS}, {colour}", f"diskcache, {what}"),
                bound,
            )
            for what, bound in (("raw bytes", 0.85), ("the object", 0.5))
            for colour in ("sync", "async")
        ],
        Goal("disk put, burst", "diskcache", puts.ratio("in a burst"), 0.05),
        Goal("disk put, every 5 ms", "diskcache", puts.ratio("every 5 ms"), 0.15),
        Goal("disk put, 5,000 until written", "diskcache", puts.ratio("until written"), 0.25),
        Goal("timers late, 200 puts/s: p99", f"{quantile(late['control'], 0.99) * 1e3:.2f} ms", delay(0.99), 1.5, "ms"),
        Goal("timers late: p99.9", f"{quantile(late['control'], 0.999) * 1e3:.2f} ms", delay(0.999), 5, "ms"),
        Goal("decode, 10 chat messages", "copy.deepcopy", chat.ratio(OURS, "copy.deepcopy"), 0.15),
        Goal("decode, 1,536 floats", "copy.deepcopy", floats.ratio(OURS, "copy.deepcopy"), 0.15),
        Goal("decode, ChatCompletion", "copy.deepcopy", completion.ratio(OURS, "copy.deepcopy"), 0.7),
        Goal("list of 1,000, 900 on the disk", "calls inward", _exactly(asked["function"]), 1, "call"),
        Goal("", "look-ups of the disk", _exactly(asked["disk get_many"] + asked["disk get"]), 1, "call"),
        Goal("", "writes to the disk", _exactly(asked["disk put_many"] + asked["disk put"]), 1, "call"),
        Goal("list of 1,000, 900 in memory, an item", "", _each(listed.time(f"{OURS}, 9 in 10 known")), 3, "µs"),
        Goal("stream, replayed, an item", "", _each(streamed.time(f"{OURS}, replayed")), 1, "µs"),
        Goal("stream, replayed, first item", "", _scaled(streamed.time(f"{OURS}, the first item"), 1e3), 1, "ms"),
        Goal("stream, live, one reader", "async generator", streamed.ratio(f"{OURS}, live", "async generator"), 8),
        Goal("stream, 100 readers", f"{read[1]} read it all", _exactly(read[0]), 1, "source"),
        Goal("100,000 answers of 1 kB", "dict, bytes", Spread.of([taken[OURS] / taken["dict"]]), 1.3),
    ]


def _exactly(number: int) -> Spread:
    return Spread.of([number])


def _scaled(spread: Spread, factor: float) -> Spread:
    return Spread(*[value * factor for value in spread])


def _each(spread: Spread) -> Spread:
    return _scaled(spread, 1e6 / ITEMS)


def tenths(values: Sequence[float]) -> list[Sequence[float]]:
    size = max(1, len(values) // 10)
    return [values[start : start + size] for start in range(0, size * 10, size) if values[start : start + size]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few rounds: to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them")
    arguments = parser.parse_args()
    began, told = time.perf_counter(), teller()
    rounds, put_rounds, delay_seconds = (3, 2, 4.0) if arguments.quick else (30, 8, 30.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chat, floats, completion = decoding()
        races = {
            "gets": disk_gets(folder),
            "decorated": decorated_gets(folder),
            "chat": chat,
            "floats": floats,
            "completion": completion,
            "lists": lists(),
            "streams": streams(),
        }
        run([*races.values()], rounds, told)
        puts = Puts(folder)
        puts.run(put_rounds, told)
        late = delays(folder, delay_seconds, told)
        told("memory")
        taken = memory()
        asked, read = trips(folder), crowd()
        told("")
        scalekit.Disk(folder / "ours").flush()

    here, peers = machine(), {name: version(name) for name in PEERS}
    about = f"{here['python']}, {here['cores']} cores, {here['cpu']}"
    print(f"{about}, {here['platform']}")
    print(f"scalekit {version('agent-scalekit')}; {', '.join(f'{name} {number}' for name, number in peers.items())}")
    print(f"{rounds} rounds, {time.perf_counter() - began:.0f} s; medians, and the quartiles of the rounds\n")
    head = ["call", "by", "µs", "quartiles", "× scalekit"]
    print(table([head, *[line for race in races.values() for line in peers_of(race, OURS)]], right=(2, 4)), end="\n\n")
    lines = [
        [f"put {way}" if name == "diskcache" else "", name, f"{Spread.of(seconds).median * 1e6:.3g}"]
        for way, by in puts.seconds.items()
        for name, seconds in by.items()
    ]
    print(table([["put, 500 bytes", "by", "µs"], *lines], right=(2,)), end="\n\n")
    lines = [
        [name, *(f"{quantile(values, share) * 1e3:.2f}" for share in (0.5, 0.99, 0.999)), f"{max(values) * 1e3:.1f}"]
        for name, values in late.items()
    ]
    print(table([["timers are late by, ms", "p50", "p99", "p99.9", "max"], *lines], right=(1, 2, 3, 4)), end="\n\n")
    rows = goals(races, puts, late, taken, asked, read)
    head = ["it must reach", "against", "measured", "quartiles", "goal", ""]
    print(table([head, *[row.cells() for row in rows]], right=(2,)))

    if arguments.json:
        calls = {race.title: {name: race.seconds(name) for name in race.names} for race in races.values()}
        figures = {"goals": [row.figures() for row in rows], "calls": calls, "puts": puts.seconds, "bytes": taken}
        about_run = {"machine": here, "versions": {"scalekit": version("agent-scalekit"), **peers}, "rounds": rounds}
        arguments.json.write_text(json.dumps({**about_run, **figures}, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        bars(
            [[races["gets"], races["decorated"]], [chat, completion], [races["streams"], races["lists"]]],
            OURS,
            about,
            arguments.plot,
        )


if __name__ == "__main__":
    main()
