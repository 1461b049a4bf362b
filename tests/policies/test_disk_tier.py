"""cache over a real disk: what one run paid for the next one has, and what one process ended nobody reads."""

from __future__ import annotations

import sqlite3
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from colours import Colour

import scalekit
from scalekit import events, settings
from scalekit._core.drive import drive
from scalekit._runtime.blocking import BLOCKING


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[scalekit.Disk]:
    disk = scalekit.Disk(tmp_path / "store")
    yield disk
    disk.close()


class Program:
    """A program with one cached function, that can be started anew: its memory is empty then, the disk is the same."""

    def __init__(self, colour: Colour, **policy: Any) -> None:
        self.colour = colour
        self.policy = {"version": "1", **policy}
        self.calls: list[str] = []
        self.error: BaseException | None = None
        self.answer: Any = None
        self.start()

    def start(self) -> None:
        @scalekit.cache(**self.policy)
        @self.colour.define
        async def ask(question: str = "why?") -> Any:
            self.calls.append(question)
            number = len(self.calls)
            await self.colour.sleep(0.001)
            if self.error is not None:
                raise self.error
            return self.answer if self.answer is not None else f"{question} {number}"

        self.ask = ask

    @property
    def control(self) -> Any:
        return scalekit.controls(self.ask).cache

    async def call(self, *args: Any) -> Any:
        return await self.colour.call(self.ask, *args)


def elsewhere(coroutine: Any) -> Any:
    """What another process does to the store, without a word to this one's memory."""
    return drive(coroutine)


async def test_what_one_run_paid_for_the_next_one_has(colour: Colour, disk: scalekit.Disk) -> None:
    """After a restart an answer comes from the disk, then from memory; the figures say from where."""
    program = Program(colour, ttl="1h", tiers=["memory", disk])
    assert await program.call() == "why? 1"
    disk.flush()
    program.start()
    seen: list[events.Event] = []
    unsubscribe = events.subscribe(seen.append)
    assert await colour.gather(*[program.call] * 10) == ["why? 1"] * 10
    unsubscribe()
    assert await program.call() == "why? 1"
    stats = program.control.stats()
    assert (stats.misses, stats.hits + stats.joined, stats.tiers["disk"]) == (0, 11, 1)
    assert [(event.tier, event.seconds >= 0) for event in seen if isinstance(event, events.Recalled)] == [
        ("disk", True)
    ]
    assert program.calls == ["why?"]


async def test_without_memory_every_hit_is_the_disks(colour: Colour, disk: scalekit.Disk) -> None:
    """`tiers=["disk"]` keeps nothing in memory: each caller has an answer of its own, from the disk."""
    program = Program(colour, ttl="1h", tiers=[disk])
    program.answer = [1]
    for _ in range(3):
        answer = await program.call()
        assert answer == [1]
        answer.append(2)
    assert len(program.calls) == 1
    stats = program.control.stats()
    assert (stats.entries, stats.tiers) == (0, {"memory": 0, "disk": 2})


@pytest.mark.parametrize("answer", [0, "", [], {}, False, b"", ()])
async def test_empty_answers_are_answers(colour: Colour, disk: scalekit.Disk, answer: Any) -> None:
    """What is false is kept on the disk like anything else; so is None, by `put` and by a call."""
    program = Program(colour, ttl="1h", tiers=["memory", disk])
    await colour.call(program.control.put, answer, "put")
    await colour.call(program.control.put_many, [(("none",), None)])
    program.answer = answer if answer != 0 or answer is not False else False
    program.start()
    got = await program.call("put")
    assert (got, type(got)) == (answer, type(answer))
    assert await program.call("none") is None
    kept = await colour.call(program.control.get_many, [("none",), ("put",), ("nobody",)])
    assert [None if one is None else one.value for one in kept] == [None, answer, None]
    assert not program.calls


async def test_a_filled_memory_has_the_rest_of_the_life(colour: Colour, disk: scalekit.Disk) -> None:
    """An answer does not live longer for having been read from the disk."""
    program = Program(colour, ttl="250ms", tiers=["memory", disk])
    await program.call()
    await colour.sleep(0.15)
    program.start()
    assert await program.call() == "why? 1"
    await colour.sleep(0.15)
    assert await program.call() == "why? 2"


async def test_stricter_settings_win_over_what_was_stored(colour: Colour, disk: scalekit.Disk) -> None:
    """A `ttl` that was made shorter since counts for what is on the disk already."""
    program = Program(colour, ttl="1h", tiers=["memory", disk])
    await program.call()
    await colour.sleep(0.05)
    program.policy["ttl"] = "40ms"
    program.start()
    assert await program.call() == "why? 2"


async def test_an_old_answer_of_the_last_run_is_served_and_renewed(colour: Colour, disk: scalekit.Disk) -> None:
    """`stale` carries over a restart: the old answer at once, one refresh behind."""
    program = Program(colour, ttl="50ms", stale="1h", tiers=["memory", disk])
    await program.call()
    await colour.sleep(0.06)
    program.start()
    assert await program.call() == "why? 1"
    assert await program.call() == "why? 1"
    await colour.until(lambda: program.control.stats().misses == 1 and len(program.calls) == 2)
    await colour.sleep(0.02)
    assert await program.call() == "why? 2"
    assert len(program.calls) == 2


async def test_without_memory_an_old_answer_is_renewed_too(colour: Colour, disk: scalekit.Disk) -> None:
    """`stale` with the disk alone: the call that was served the old answer sets off the refresh."""
    program = Program(colour, ttl="50ms", stale="1h", tiers=[disk])
    await program.call()
    await colour.sleep(0.06)
    assert await program.call() == "why? 1"
    await colour.until(lambda: len(program.calls) == 2)
    await colour.sleep(0.02)
    assert await program.call() == "why? 2"


async def test_an_old_answer_of_the_last_run_saves_this_one(colour: Colour, disk: scalekit.Disk) -> None:
    """`stale_if_error` carries over a restart: the supplier is down, the disk still knows; with memory and without."""
    for tiers in (["memory", disk], [disk]):
        program = Program(colour, ttl="30ms", stale_if_error="1h", tiers=tiers, version=str(len(tiers)))
        program.answer = [1]
        await program.call()
        await colour.sleep(0.04)
        program.start()
        program.error = ConnectionResetError("down")
        for _ in range(3):
            answer = await program.call()
            assert answer == [1]
            answer.append(2)
        tried = len(program.calls) - 1
        assert tried == (1 if len(tiers) == 2 else 3)


class UnknownArticle(LookupError):
    pass


async def test_errors_that_are_answers_survive_a_restart(colour: Colour, disk: scalekit.Disk) -> None:
    """`negative`: the error comes back from the disk as it was, and is no run."""
    program = Program(colour, ttl="1h", negative={LookupError: "1h"}, tiers=["memory", disk])
    program.error = UnknownArticle("x", 7)
    with pytest.raises(UnknownArticle):
        await program.call()
    program.start()
    for _ in range(2):
        with pytest.raises(UnknownArticle) as raised:
            await program.call()
        assert raised.value.args == ("x", 7)
    assert len(program.calls) == 1
    assert program.control.stats().errors == 0


async def test_invalidate_reaches_the_disk(colour: Colour, disk: scalekit.Disk) -> None:
    """What was invalidated, cleared or ended by a tag does not come back after a restart; what was not does."""
    program = Program(colour, ttl="1h", tags="q:{question}", tiers=["memory", disk])
    ends = {
        "invalidate": lambda: colour.call(program.control.invalidate, "a"),
        "tag": lambda: colour.call(program.control.invalidate_tags, "q:a"),
        "clear": lambda: colour.call(program.control.clear),
    }
    for name, end in ends.items():
        program.calls.clear()
        for question in ("a", "b"):
            await program.call(question)
        program.calls.clear()
        await end()
        program.start()
        for question in ("a", "b"):
            await program.call(question)
        assert program.calls == (["a", "b"] if name == "clear" else ["a"]), name
    assert await colour.call(program.control.invalidate, "a") is True
    program.start()
    assert await colour.call(program.control.invalidate, "b") is True, "it was on the disk"
    assert await colour.call(program.control.invalidate, "b") is False


async def test_memory_hears_what_another_process_ended(colour: Colour, disk: scalekit.Disk) -> None:
    """An entry in memory is asked about once after any invalidation: dropped if it was ended, kept if it was not."""
    program = Program(colour, ttl="1h", tags="q:{question}", tiers=["memory", disk])
    for question in ("a", "b"):
        await program.call(question)
        await program.call(question)
    for end in (
        lambda: disk.invalidate([program.control.key("a")], BLOCKING),
        lambda: disk.mark([f"{settings.namespace_of(__name__)}#q:a"], BLOCKING),
    ):
        program.calls.clear()
        elsewhere(end())
        for _ in range(2):
            await program.call("a")
            await program.call("b")
        assert program.calls == ["a"]
    elsewhere(disk.mark([program.control.key("a").rsplit(":", 2)[0]], BLOCKING))  # all of this function
    program.calls.clear()
    for _ in range(2):
        await program.call("a")
        await program.call("b")
    assert program.calls == ["a", "b"]


async def test_an_invalidation_elsewhere_beats_what_is_being_computed(colour: Colour, disk: scalekit.Disk) -> None:
    """A flight that began before another process's invalidation is answered and kept nowhere."""
    gate, calls = threading.Event(), list[int]()

    @scalekit.cache(ttl="1h", version="1", tiers=["memory", disk])
    @colour.define
    async def ask() -> int:
        calls.append(1)
        number = len(calls)
        while not gate.is_set():
            await colour.sleep(0.001)
        return number

    first = await colour.start(ask)
    await colour.until(lambda: len(calls) == 1)
    elsewhere(disk.invalidate([scalekit.controls(ask).cache.key()], BLOCKING))
    late = await colour.start(ask)
    await colour.until(lambda: scalekit.controls(ask).cache.stats().joined == 1)
    gate.set()
    assert await first.result() == 1
    assert await late.result() == 2, "an answer that was invalidated before it was asked for"
    disk.flush()
    assert await colour.call(ask) == 2
    ask.cache_clear()
    assert await colour.call(ask) == 2


async def test_a_refresh_takes_what_another_process_refreshed(colour: Colour, disk: scalekit.Disk) -> None:
    """One process has renewed the answer: the other one reads it instead of paying again."""
    one = Program(colour, ttl="80ms", stale="1h", tiers=["memory", disk])
    other = Program(colour, ttl="80ms", stale="1h", tiers=["memory", disk])
    assert await one.call() == await other.call() == "why? 1"
    await colour.sleep(0.09)
    await one.call()
    await colour.until(lambda: len(one.calls) == 2)
    await colour.sleep(0.01)
    await other.call()
    await colour.until(lambda: other.control.stats().tiers.get("disk") == 2)
    assert await other.call() == "why? 2"
    assert not other.calls


async def test_what_has_no_bytes_stays_in_memory(colour: Colour, disk: scalekit.Disk) -> None:
    """An answer that cannot be encoded is returned and kept in memory; one warning and an event say why."""
    program = Program(colour, ttl="1h", tiers=["memory", disk])
    program.answer = {"lock": threading.Lock()}
    seen: list[events.Event] = []
    unsubscribe = events.subscribe(seen.append)
    with pytest.warns(scalekit.ScalekitWarning, match=r"ask: an answer cannot be kept outside of memory: .*lock"):
        assert (await program.call())["lock"] is program.answer["lock"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await program.call("another")
    unsubscribe()
    await program.call()
    assert program.calls == ["why?", "another"]
    reasons = [event.reason for event in seen if isinstance(event, events.NotStored)]
    assert len(reasons) == 2
    assert "in memory only" in reasons[0]


@dataclass
class Answer:
    text: str
    score: float


async def test_bytes_that_are_no_answer_are_a_miss(colour: Colour, disk: scalekit.Disk) -> None:
    """What this function may not decode is computed anew, counted and told; never an error, never a wrong object."""
    program = Program(colour, ttl="1h", tiers=["memory", disk])
    program.answer = Answer("x", 1.0)
    with pytest.warns(scalekit.ScalekitWarning, match=r"annotation does not name: .*Answer.*types="):
        assert await program.call() == program.answer
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        await program.call("once")
    program.calls.pop()
    program.start()  # knows nothing of the class, and its annotation names none
    seen: list[events.Event] = []
    unsubscribe = events.subscribe(seen.append)
    with pytest.warns(scalekit.ScalekitWarning, match="annotation does not name"):
        assert await program.call() == program.answer
    unsubscribe()
    assert len(program.calls) == 2
    assert program.control.stats().undecodable == 1
    assert ["Answer" in event.reason for event in seen if isinstance(event, events.Undecodable)] == [True]
    program.policy["types"] = [Answer]
    program.start()
    assert await program.call() == program.answer
    assert len(program.calls) == 2


async def test_flipped_bytes_are_a_miss(colour: Colour, disk: scalekit.Disk, tmp_path: Path) -> None:
    """Bytes that the disk gives back otherwise than they were written are computed anew."""
    program = Program(colour, ttl="1h", tiers=["memory", disk])
    program.answer = "the answer " * 20
    await program.call()
    disk.close()
    (database,) = [*(tmp_path / "store").rglob("*.db"), *(tmp_path / "store").rglob("*.sqlite*")][:1]
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(database.read_bytes())
    place = data.index(b"the answer the answer")
    data[place + 3] ^= 1
    database.write_bytes(data)
    program.start()
    assert await program.call() == program.answer
    assert len(program.calls) == 2


async def test_a_codec_of_ones_own(colour: Colour, disk: scalekit.Disk) -> None:
    """`codec=` makes the bytes and reads them; what it raises is no caller's business."""

    class Shouting:
        def encode(self, value: Any, /) -> bytes:
            if value == ["silence"]:
                raise RuntimeError("mute")
            return str(value[0]).upper().encode()

        def decode(self, payload: bytes, /) -> Any:
            if payload == b"BROKEN":
                raise RuntimeError("deaf")
            return [payload.decode()]

    program = Program(colour, ttl="1h", tiers=[disk], codec=Shouting())
    program.answer = ["hello"]
    assert await program.call() == ["hello"]
    assert await program.call() == ["HELLO"]
    program.answer = ["broken"]
    for _ in range(2):
        assert await program.call("b") == ["broken"]
    program.answer = ["silence"]
    with pytest.warns(scalekit.ScalekitWarning, match="mute"):
        assert await program.call("s") == ["silence"]
    assert program.calls == ["why?", "b", "b", "s"]


async def test_sliding_on_the_disk(colour: Colour, disk: scalekit.Disk) -> None:
    """What is asked for lives on, also on the disk, with memory and without."""
    for tiers in (["memory", disk], [disk]):
        program = Program(colour, sliding="300ms", tiers=tiers, version=str(len(tiers)))
        for _ in range(5):
            assert await program.call() == "why? 1"
            await colour.sleep(0.1)
        program.start()
        assert await program.call() == "why? 1", "it did not slide on the disk"
        await colour.sleep(0.4)
        assert await program.call() == "why? 2"


async def test_scopes_and_samples_on_the_disk(colour: Colour, disk: scalekit.Disk) -> None:
    """Scopes and samples are kept apart on the disk too, and a scope's answers are cleared there."""
    program = Program(colour, ttl="1h", tiers=["memory", disk])

    async def ask_all() -> list[str]:
        answers = [await program.call()]
        for name in ("acme", "globex"):
            with scalekit.scope(name):
                answers.append(await program.call())
                with scalekit.sample(1):
                    answers.append(await program.call())
        return answers

    first = await ask_all()
    assert len(set(first)) == 5
    program.start()
    assert await ask_all() == first
    with scalekit.scope("acme"):
        await colour.call(program.control.clear)
    program.start()
    again = await ask_all()
    assert [one == other for one, other in zip(first, again, strict=True)] == [True, False, False, True, True]


async def test_an_unscoped_look_up_can_be_forbidden(colour: Colour, disk: scalekit.Disk) -> None:
    """`require_scope`: outside of any scope a shared tier is not asked, and memory alone is."""
    scalekit.configure(require_scope=True)
    program = Program(colour, ttl="1h", tiers=["memory", disk])
    with pytest.raises(scalekit.ConfigurationError, match="outside of any scope"):
        await program.call()
    with pytest.raises(scalekit.ConfigurationError, match="outside of any scope"):
        await colour.call(program.control.peek)
    with scalekit.scope("acme"):
        assert await program.call() == "why? 1"
    alone = Program(colour, ttl="1h", tiers=["memory"])
    assert await alone.call() == "why? 1"


async def test_the_place_brings_the_disk(colour: Colour, tmp_path: Path) -> None:
    """With `disk_dir` set, a function with a `ttl` keeps its answers there; one without, or with `tiers`, does not."""
    scalekit.configure(disk_dir=tmp_path / "place")
    for policy, kept in (({"ttl": "1h"}, True), ({}, False), ({"ttl": "1h", "tiers": ["memory"]}, False)):
        program = Program(colour, **policy, version=repr(policy))
        await program.call()
        program.start()
        assert await program.call() == ("why? 1" if kept else "why? 2")
    explained = str(scalekit.explain(Program(colour, ttl="1h").ask))
    assert str(tmp_path / "place") in explained


async def test_what_another_process_could_not_name_stays_in_memory(colour: Colour, tmp_path: Path) -> None:
    """Where the place brings the disk, a closure or an argument without a value means memory only, with one warning;
    where the code asks for it, the argument is an error."""
    scalekit.configure(disk_dir=tmp_path / "place")
    unnamed = Program(colour, ttl="1h", version=None)
    with pytest.warns(scalekit.ScalekitWarning, match="memory only"):
        assert await unnamed.call() == "why? 1"
    assert await unnamed.call() == "why? 1"

    class Client:
        @scalekit.cache(ttl="1h", version="1")
        @colour.define
        async def ask(self, question: str) -> str:
            return question

        @scalekit.cache(ttl="1h", version="1", tiers=["memory", "disk"])
        @colour.define
        async def insist(self, question: str) -> str:
            return question

    client = Client()
    with pytest.warns(scalekit.ScalekitWarning, match="memory only"):
        await colour.call(client.ask, "a")
    assert await colour.call(client.ask, "a") == "a"
    assert scalekit.controls(client.ask).cache.stats().hits == 1
    with pytest.raises(scalekit.UnkeyableArgument, match="identity"):
        await colour.call(client.insist, "a")


async def test_a_disk_that_cannot_be_used_costs_nobody_an_answer(colour: Colour, tmp_path: Path) -> None:
    """A path that is no folder: one warning, and memory does the work; an invalidation still holds here."""
    (tmp_path / "file").write_text("")
    program = Program(colour, ttl="1h", tiers=["memory", scalekit.Disk(tmp_path / "file" / "store")])
    with pytest.warns(scalekit.ScalekitWarning):
        assert await program.call() == "why? 1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scalekit.ScalekitWarning)
        assert await program.call() == "why? 1"
        await colour.call(program.control.invalidate)
        assert await program.call() == "why? 2"
        assert await program.call() == "why? 2"


async def test_stale_answers_and_stores_do_not_outlive_what_ended_them(colour: Colour, disk: scalekit.Disk) -> None:
    """`stale` and `stale_if_error` serve nothing that was invalidated, wherever that was done."""
    program = Program(colour, ttl="20ms", stale="1h", stale_if_error="1h", tiers=["memory", disk])
    await program.call()
    await colour.sleep(0.03)
    elsewhere(disk.invalidate([program.control.key()], BLOCKING))
    program.error = ConnectionResetError("down")
    with pytest.raises(ConnectionResetError):
        await program.call()


def test_functions_of_one_name_do_not_share_answers(disk: scalekit.Disk) -> None:
    """Closures of one factory, edited defaults and edited constants are functions of their own on the disk too."""

    def made(prompt: str, suffix: str = "!") -> Any:
        @scalekit.cache(ttl="1h", tiers=["memory", disk])
        def ask(question: str, end: str = suffix) -> str:
            return prompt + question + end

        return ask

    assert made("A: ")("x") == "A: x!"
    assert made("B: ")("x") == "B: x!"
    assert made("A: ", "?")("x") == "A: x?"
    again = made("A: ")
    assert again("x") == "A: x!"
    assert again.cache.stats().tiers["disk"] == 1


def test_a_real_sdk_stream_is_refused(disk: scalekit.Disk) -> None:
    """The OpenAI SDK's stream object yields nothing the second time, so it is no answer to keep."""
    import openai

    for cls in (openai.Stream, openai.AsyncStream):

        @scalekit.cache(ttl="1h", version="1", tiers=["memory", disk])
        def ask(question: str) -> Any:
            return object.__new__(cls)  # noqa: B023

        with pytest.raises(scalekit.ConfigurationError, match="a stream that can be read once"):
            ask("why?")


async def test_an_explicit_tier_that_cannot_name_its_function_is_an_error(colour: Colour, disk: scalekit.Disk) -> None:
    """A client in the closure: another process could not tell the function; nothing is silently kept nowhere."""
    client = object()

    @scalekit.cache(ttl="1h", tiers=[disk])
    @colour.define
    async def ask(question: str) -> str:
        return question if client else ""

    with pytest.raises(scalekit.ConfigurationError, match="cannot keep its answers in Disk"):
        await colour.call(ask, "a")


def test_a_bound_of_streams_on_something_else_is_an_error() -> None:
    """`max_bytes=` of cache is not the size of the memory."""
    with pytest.raises(scalekit.ConfigurationError, match="Memory"):

        @scalekit.cache(max_bytes="64MB")
        def ask(question: str) -> str:
            return question

    with pytest.raises(scalekit.ConfigurationError, match="no tag was given"):
        scalekit.controls(scalekit.cache(lambda: 1)).cache.invalidate_tags()
