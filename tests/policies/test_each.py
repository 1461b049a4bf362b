"""`each=`: a list is answered item by item: known ones at once, running ones joined, the rest in one call."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from colours import Colour
from hypothesis import given, settings
from hypothesis import strategies as st

import scalekit
from scalekit import events


class Embedder:
    """A function of the colour that takes a list; counts its calls, and can wait, fail, and answer wrongly."""

    def __init__(self, colour: Colour, **cache: Any) -> None:
        self.colour = colour
        self.calls: list[list[Any]] = []
        self.make: Callable[[list[Any]], Any] = lambda texts: [[len(str(text)), str(text)] for text in texts]
        self.pause = 0.0
        self.gate: threading.Event | None = None

        async def embed(texts: Any, model: str = "small") -> Any:
            self.calls.append([*texts])
            if self.pause:
                await colour.sleep(self.pause)
            while self.gate is not None and not self.gate.is_set():
                await colour.sleep(0.001)
            return self.make(texts)

        self.embed = scalekit.cache(each="texts", **cache)(colour.define(embed))
        self.controls = scalekit.controls(self.embed).cache

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return await self.colour.call(self.embed, *args, **kwargs)


def vectors(texts: Iterable[Any]) -> list[Any]:
    return [[len(str(text)), str(text)] for text in texts]


async def test_only_what_is_missing_goes_inward(colour: Colour) -> None:
    """Known items are answered from memory; the others go as one list, in their order."""
    embed = Embedder(colour)
    assert await embed(["a", "bb"]) == vectors(["a", "bb"])
    assert await embed(["c", "bb", "d", "a"]) == vectors(["c", "bb", "d", "a"])
    assert embed.calls == [["a", "bb"], ["c", "d"]]
    assert await embed(["d", "a"]) == vectors(["d", "a"])
    assert len(embed.calls) == 2
    stats = embed.controls.stats()
    assert (stats.hits, stats.misses, stats.entries) == (4, 4, 4)


async def test_order_and_duplicates_are_kept(colour: Colour) -> None:
    """What stands in a list twice is asked for once, answered twice, and each answer is an object of its own."""
    embed = Embedder(colour)
    for _ in range(2):
        answer = await embed(["b", "a", "b", "b"])
        assert answer == vectors(["b", "a", "b", "b"])
        answer[0].append("changed")
        assert answer[2:] == vectors(["b", "b"])
    assert embed.calls == [["b", "a"]]


async def test_an_item_is_its_type_and_value(colour: Colour) -> None:
    """1, True and "1" are three items; equal lists are one."""
    embed = Embedder(colour)
    await embed([1, True, "1", [1], [1], None])
    assert embed.calls == [[1, True, "1", [1], None]]


async def test_the_other_arguments_count(colour: Colour) -> None:
    """The same item under another model is another one; by position or by name is the same."""
    embed = Embedder(colour)
    await embed(["a"], "large")
    await embed(["a"], model="large")
    await embed(texts=["a"], model="large")
    await embed(["a"])
    assert len(embed.calls) == 2


async def test_an_empty_list_costs_nothing(colour: Colour) -> None:
    """No items, no call."""
    embed = Embedder(colour)
    assert await embed([]) == []
    assert embed.calls == []


async def test_any_iterable_is_read_once(colour: Colour) -> None:
    """A generator, a tuple or a set of items is as good as a list; the function gets a list."""
    embed = Embedder(colour)
    assert await embed(text for text in ("a", "b")) == vectors(["a", "b"])
    assert await embed(("b", "a")) == vectors(["b", "a"])
    assert await embed({"a"}) == vectors(["a"])
    assert embed.calls == [["a", "b"]]


@pytest.mark.parametrize("wrong", ["text", b"bytes", {"a": 1}, 7, None])
async def test_what_is_no_list_is_refused(colour: Colour, wrong: Any) -> None:
    """A str is no list of letters."""
    embed = Embedder(colour)
    with pytest.raises(TypeError, match="no list of items"):
        await embed(wrong)
    assert embed.calls == []


async def test_wrong_arguments_are_python_s_error(colour: Colour) -> None:
    """A call that does not fit raises what the function itself would raise."""
    embed = Embedder(colour)
    with pytest.raises(TypeError, match="unexpected keyword argument 'wrong'"):
        await embed(["a"], wrong=1)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        await embed()


async def test_overlapping_lists_join_each_other(colour: Colour) -> None:
    """Lists that run at the same time never compute an item twice; each gets all of its answers."""
    embed = Embedder(colour)
    embed.pause = 0.02
    lists = [[f"text {number + offset}" for number in range(6)] for offset in range(6)]
    results = await colour.gather(*[functools.partial(embed, texts) for texts in lists])
    assert results == [vectors(texts) for texts in lists]
    assert max(Counter(text for call in embed.calls for text in call).values()) == 1
    assert embed.controls.stats().joined > 0


async def test_lists_that_cross_do_not_wait_for_each_other(colour: Colour) -> None:
    """A leads what B wants and B what A wants: both deliver first, then wait."""
    embed = Embedder(colour)
    embed.pause = 0.01
    for number in range(10):
        one, two = [f"{number} a", f"{number} b", f"{number} c"], [f"{number} c", f"{number} b", f"{number} d"]
        results = await colour.gather(functools.partial(embed, one), functools.partial(embed, two))
        assert results == [vectors(one), vectors(two)]


async def test_an_item_s_own_error(colour: Colour) -> None:
    """An exception in the place of an answer is given back there, is not kept, and harms no other item."""
    embed = Embedder(colour)
    embed.make = lambda texts: [ValueError(text) if text == "bad" else text.upper() for text in texts]
    for calls in (["a", "bad", "b"], ["bad"]):
        one, error, two = await embed(["a", "bad", "b"])
        assert (one, two) == ("A", "B")
        assert isinstance(error, ValueError)
        assert error.args == ("bad",)
        assert embed.calls[-1] == calls
    assert embed.controls.stats().errors == 2


async def test_an_item_s_error_that_is_an_answer(colour: Colour) -> None:
    """`negative=` keeps an item's own error; it comes back in its place."""
    embed = Embedder(colour, negative={ValueError: "1h"})
    embed.make = lambda texts: [ValueError(text) for text in texts]
    first, again = (await embed(["bad"]))[0], (await embed(["bad", "bad"]))
    assert [type(error) for error in (first, *again)] == [ValueError] * 3
    assert first is not again[0]
    assert embed.calls == [["bad"]]


async def test_an_error_of_the_whole_call_is_raised(colour: Colour) -> None:
    """It is nobody's answer: raised to the caller, kept by no `negative=`, and the next call asks again."""
    embed = Embedder(colour, negative={ValueError: "1h"})

    def fail(texts: list[Any]) -> Any:
        raise ValueError("down")

    good, embed.make = embed.make, fail
    with pytest.raises(ValueError, match="down"):
        await embed(["a", "b"])
    embed.make = good
    assert await embed(["a", "b"]) == vectors(["a", "b"])
    assert embed.controls.stats().errors == 1


async def test_who_joined_is_not_harmed_by_another_s_item(colour: Colour) -> None:
    """A call that failed with an item that is not mine proves nothing about mine: I ask once more."""
    embed = Embedder(colour)
    embed.gate = threading.Event()

    def picky(texts: list[Any]) -> Any:
        if "poison" in texts:
            raise ValueError("poison")
        return vectors(texts)

    embed.make = picky
    poisoned = await colour.start(functools.partial(embed, ["a", "poison"]))
    await colour.until(lambda: len(embed.calls) == 1)
    mine = await colour.start(functools.partial(embed, ["a", "b"]))
    await colour.until(lambda: embed.controls.stats().joined == 1)
    embed.gate.set()
    assert isinstance(await poisoned.error(), ValueError)
    assert await mine.result() == vectors(["a", "b"])
    assert embed.calls.count(["a"]) == 1


async def test_an_outage_is_shared(colour: Colour) -> None:
    """Those who asked for the same items hear the same error; the supplier is asked once."""
    embed = Embedder(colour)
    embed.gate = threading.Event()

    def fail(texts: list[Any]) -> Any:
        raise ConnectionResetError("down")

    embed.make = fail
    jobs = [await colour.start(functools.partial(embed, ["a", "b"])) for _ in range(4)]
    await colour.until(lambda: embed.controls.stats().joined == 6)
    embed.gate.set()
    errors = [await job.error() for job in jobs]
    assert all(isinstance(error, ConnectionResetError) for error in errors)
    assert len({id(error) for error in errors}) == 4
    assert len(embed.calls) == 1


async def test_answers_that_cannot_be_told_apart_are_an_error(colour: Colour) -> None:
    """One answer too few: nothing is kept, and the message says what is wrong."""
    embed = Embedder(colour)
    embed.make = lambda texts: texts[1:]
    with pytest.raises(scalekit.ConfigurationError, match="1 answers to 2 items"):
        await embed(["a", "b"])
    assert embed.controls.stats().entries == 0
    embed.make = lambda texts: iter(texts)
    with pytest.raises(scalekit.ConfigurationError, match="list_iterator"):
        await embed(["a", "b"])


async def test_a_dict_by_item(colour: Colour) -> None:
    """A function that answers by a dict gets a dict back; what it leaves out is asked for again, and left out."""
    embed = Embedder(colour)
    embed.make = lambda texts: {text: [text] for text in reversed(texts) if text != "unknown"}
    for _ in range(2):
        answer = await embed(["b", "unknown", "a", "b"])
        assert answer == {"b": ["b"], "a": ["a"]}
        assert [*answer] == ["b", "a"]
    assert await embed(["a"]) == {"a": ["a"]}
    assert embed.calls == [["b", "unknown", "a"], ["unknown"]]


async def test_a_tuple_stays_a_tuple(colour: Colour) -> None:
    """The form of the answers is the function's."""
    embed = Embedder(colour)
    embed.make = tuple
    for _ in range(2):
        assert await embed(["a", "b"]) == ("a", "b")


async def test_none_is_an_answer(colour: Colour) -> None:
    """None in the place of an answer is kept as one."""
    embed = Embedder(colour)
    embed.make = lambda texts: [None for _ in texts]
    for _ in range(2):
        assert await embed(["a", "b"]) == [None, None]
    assert len(embed.calls) == 1


async def test_policies_judge_each_item(colour: Colour) -> None:
    """`when=`, `ttl=` and `tags=` of an answer get one item's answer; texts of `tags=` name one item."""
    embed = Embedder(
        colour,
        when=lambda answer: answer[1] != "skip",
        ttl=lambda answer: "1h" if answer[1] != "brief" else 0.02,
        tags=["text:{texts}", lambda answer: f"size:{answer[0]}"],
    )
    await embed(["a", "skip", "brief", "bb"])
    await colour.sleep(0.03)
    await embed(["a", "skip", "brief", "bb"])
    assert embed.calls[1:] == [["skip", "brief"]]
    await colour.call(embed.controls.invalidate_tags, "text:a")
    await embed(["a", "bb"])
    assert embed.calls[2:] == [["a"]]
    await colour.call(embed.controls.invalidate_tags, "size:2")
    await embed(["a", "bb"])
    assert embed.calls[3:] == [["bb"]]


async def test_scopes_and_bypass(colour: Colour) -> None:
    """A scope has items of its own; `bypass` passes the list on as it is."""
    embed = Embedder(colour)
    await embed(["a"])
    with scalekit.scope("acme"):
        await embed(["a", "b"])
        await embed(["a", "b"])
    with scalekit.bypass():
        await embed(["a", "a"])
    assert embed.calls == [["a"], ["a", "b"], ["a", "a"]]


async def test_key_and_ignore_are_about_one_item(colour: Colour) -> None:
    """`key=` is a function of the call with one item in the place of the list."""
    embed = Embedder(colour, key=lambda texts, model="small": texts.lower())
    await embed(["A", "b"])
    assert await embed(["a", "B"], "large") == vectors(["A", "b"])
    assert embed.calls == [["A", "b"]]


async def test_no_store_concerns_the_whole_call(colour: Colour) -> None:
    """`no_store` inside keeps out what this call computes."""
    embed = Embedder(colour)

    def make(texts: list[Any]) -> Any:
        scalekit.no_store("draft")
        return texts

    embed.make = make
    for _ in range(2):
        await embed(["a", "b"])
    assert embed.calls == [["a", "b"]] * 2
    assert embed.controls.stats().unstored == 4


async def test_stale_items_are_renewed_behind(colour: Colour) -> None:
    """`stale=`: old answers at once; those that are out of date are renewed by one call behind."""
    embed = Embedder(colour, ttl=0.05, stale="1h")
    await embed(["a", "b"])
    await colour.sleep(0.06)
    embed.make = lambda texts: [text.upper() for text in texts]
    assert await embed(["a", "b", "c"]) == [*vectors(["a", "b"]), "C"]
    await colour.until(lambda: sorted(map(len, embed.calls)) == [1, 2, 2])
    await colour.sleep(0.02)
    assert await embed(["a", "b"]) == ["A", "B"]


async def test_old_items_for_a_call_that_fails(colour: Colour) -> None:
    """`stale_if_error=`: the old answers, if there is one for each item; else the error, and the old ones stay."""
    embed = Embedder(colour, ttl=0.02, stale_if_error="1h")
    scalekit.configure(cache_throttle=0.01)
    await embed(["a", "b"])
    await colour.sleep(0.03)

    def fail(texts: list[Any]) -> Any:
        raise ConnectionResetError("down")

    embed.make = fail
    assert await embed(["a", "b"]) == vectors(["a", "b"])
    await colour.sleep(0.03)
    with pytest.raises(ConnectionResetError):
        await embed(["a", "new"])
    assert await embed(["a"]) == vectors(["a"])


async def test_controls_speak_of_lists(colour: Colour) -> None:
    """peek, lookup, contains, put, invalidate, refresh and key take the list, and give one answer for each item."""
    embed = Embedder(colour)
    controls = embed.controls
    await embed(["a", "bb"])
    assert await colour.call(controls.peek, ["a", "new", "bb"]) == [[1, "a"], None, [2, "bb"]]
    kept = await colour.call(controls.lookup, ["a", "new"])
    assert [one and one.value for one in kept] == [[1, "a"], None]
    assert await colour.call(controls.contains, ["a", "bb"])
    assert not await colour.call(controls.contains, ["a", "new"])
    many = await colour.call(controls.get_many, [(["a"],), (["new", "bb"],)])
    assert [[one and one.value for one in call] for call in many] == [[[1, "a"]], [None, [2, "bb"]]]
    await colour.call(controls.put, ["A", "NEW"], ["a", "new"])
    assert await embed(["a", "new"]) == ["A", "NEW"]
    assert await colour.call(controls.invalidate, ["a", "unknown"])
    assert not await colour.call(controls.invalidate, ["a"])
    assert await embed(["a", "new"]) == [[1, "a"], "NEW"]
    assert await colour.call(controls.refresh, ["a", "new"]) == vectors(["a", "new"])
    assert await embed(["new"]) == vectors(["new"])
    names = controls.key(["a", "new"])
    assert len(set(names)) == 2
    assert names[0] == controls.key(["a"])[0]


async def test_an_invalidation_while_it_runs(colour: Colour) -> None:
    """What was invalidated while it was computed is handed out and not kept; its neighbours are kept."""
    embed = Embedder(colour)
    embed.gate = threading.Event()
    job = await colour.start(functools.partial(embed, ["a", "b"]))
    await colour.until(lambda: len(embed.calls) == 1)
    await colour.call(embed.controls.invalidate, ["a"])
    embed.gate.set()
    assert await job.result() == vectors(["a", "b"])
    await embed(["a", "b"])
    assert embed.calls == [["a", "b"], ["a"]]


async def test_one_round_trip_to_the_disk(colour: Colour, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hits of a slower tier come in one look-up, what is missing goes inward once and to the tier in one put."""
    disk = scalekit.Disk(tmp_path / "store")
    trips: Counter[str] = Counter()
    for name in ("get", "get_many", "put", "put_many"):
        real = getattr(disk, name)

        def counted(*args: Any, real: Any = real, name: str = name) -> Any:
            trips[name] += 1
            return real(*args)

        monkeypatch.setattr(disk, name, counted)
    given: dict[str, Any] = {"ttl": "1h", "version": "1", "tiers": ["memory", disk]}
    first, second = Embedder(colour, **given), Embedder(colour, **given)
    texts = [f"text {number}" for number in range(100)]
    assert await first(texts[:90]) == vectors(texts[:90])
    assert trips == {"get_many": 1, "put_many": 1}
    trips.clear()
    assert await second(texts) == vectors(texts)
    assert second.calls == [texts[90:]]
    assert trips == {"get_many": 1, "put_many": 1}
    assert second.controls.stats().tiers == {"memory": 0, "disk": 90}
    third = Embedder(colour, **given)
    assert await third(texts[::-1]) == vectors(texts[::-1])
    assert third.calls == []


async def test_an_invalidation_elsewhere_is_heard(colour: Colour, tmp_path: Any) -> None:
    """Copies in memory are asked about after an invalidation by another function object, and only its item is gone."""
    given: dict[str, Any] = {"ttl": "1h", "version": "1", "tiers": ["memory", scalekit.Disk(tmp_path / "store")]}
    one, two = Embedder(colour, **given), Embedder(colour, **given)
    await one(["a", "b"])
    await two(["a", "b"])
    await colour.call(one.controls.invalidate, ["a"])
    assert await two(["a", "b"]) == vectors(["a", "b"])
    assert two.calls == [["a"]]


async def test_a_dict_from_the_disk_must_be_declared(colour: Colour, tmp_path: Any) -> None:
    """A process that finds all answers in a shared tier cannot know the form: the annotation says it, or an error."""
    given: dict[str, Any] = {"ttl": "1h", "version": "1", "tiers": ["disk"], "each": "texts"}
    scalekit.configure(disk_dir=str(tmp_path / "store"))
    ran = Embedder(colour)

    async def undeclared(texts: list[str]):  # type: ignore[no-untyped-def]
        return dict.fromkeys(texts, 1)

    async def declared(texts: list[str]) -> dict[str, int]:
        ran.calls.append(texts)
        return dict.fromkeys(texts, 1)

    with pytest.raises(scalekit.ConfigurationError, match="annotation"):
        await colour.call(scalekit.cache(**given)(colour.define(undeclared)), ["a"])
    for _ in range(2):
        assert await colour.call(scalekit.cache(**given)(colour.define(declared)), ["a"]) == {"a": 1}
    assert ran.calls == [["a"]]


async def test_a_limit_below_sees_one_call(colour: Colour) -> None:
    """`cache(each=)` around `limit`: one permit for the list, and a waiting parent lends its permit."""
    pool = scalekit.limit(concurrency=1, queue_timeout="5s")

    @scalekit.cache(each="texts")
    @pool
    @colour.define
    async def embed(texts: list[str]) -> list[str]:
        return [text.upper() for text in texts]

    @pool
    @colour.define
    async def parent(texts: list[str]) -> Any:
        return await colour.call(embed, texts)

    lists = [["a", "b"], ["b", "c"], ["c", "a"]]
    results = await colour.gather(*[functools.partial(colour.call, parent, texts) for texts in lists])
    assert results == [["A", "B"], ["B", "C"], ["C", "A"]]
    assert scalekit.controls(parent).limit.state().in_flight == 0


async def test_a_list_that_asks_for_itself_raises(colour: Colour) -> None:
    """Any item of the list that runs, asked for inside of it, would wait for itself."""

    @scalekit.cache(each="texts")
    @colour.define
    async def embed(texts: list[str]) -> list[str]:
        await colour.call(embed, ["b"])
        return texts

    with pytest.raises(scalekit.ReentryError):
        await colour.call(embed, ["a", "b"])
    assert not scalekit.controls(embed).cache._site.flights.flying


async def test_a_list_inside_a_list(colour: Colour) -> None:
    """Other items may be asked for inside."""
    calls: list[list[int]] = []

    @scalekit.cache(each="numbers")
    @colour.define
    async def halved(numbers: list[int]) -> list[int]:
        calls.append(numbers)
        smaller = [number // 2 for number in numbers if number > 1]
        return numbers if not smaller else [*numbers[: -len(smaller)], *(await colour.call(halved, smaller))]

    await colour.call(halved, [16])
    assert calls == [[16], [8], [4], [2], [1]]


async def test_a_hung_list_is_given_up(colour: Colour) -> None:
    """flight_timeout: who waits for one of its items hears of it, and the keys are free."""
    embed = Embedder(colour, flight_timeout=0.1)
    embed.gate = threading.Event()
    job = await colour.start(functools.partial(embed, ["a", "b"]))
    await colour.until(lambda: len(embed.calls) == 1)
    with pytest.raises(scalekit.DeadlineExceeded):
        await embed(["b", "a"])
    gate, embed.gate = embed.gate, None
    assert await embed(["a", "b"]) == vectors(["a", "b"])
    gate.set()
    await job.error()
    assert not embed.controls._site.flights.flying


async def test_a_cancelled_caller_harms_nobody(loop_colour: Colour) -> None:
    """The first caller leaves; those who joined get their answers. With the last one the call is cancelled."""
    embed = Embedder(loop_colour)
    embed.gate = threading.Event()
    first = await loop_colour.start(functools.partial(embed, ["a", "b", "c"]))
    await loop_colour.until(lambda: len(embed.calls) == 1)
    second = await loop_colour.start(functools.partial(embed, ["c", "d"]))
    await loop_colour.until(lambda: len(embed.calls) == 2)
    first.cancel()
    await first.error()
    embed.gate.set()
    assert await second.result() == vectors(["c", "d"])
    assert embed.calls == [["a", "b", "c"], ["d"]]

    embed.gate = threading.Event()
    ended: list[bool] = []
    embed.make = lambda texts: ended.append(True)
    alone = await loop_colour.start(functools.partial(embed, ["x", "y"]))
    await loop_colour.until(lambda: len(embed.calls) == 3)
    alone.cancel()
    await alone.error()
    assert not embed.controls._site.flights.flying
    embed.gate.set()
    await loop_colour.sleep(0.01)
    assert not ended


async def test_methods_and_events(colour: Colour) -> None:
    """A method's list is per object; one event tells of one call of the function."""
    told: list[events.Computed] = []
    unsubscribe = events.subscribe(lambda event: told.append(event) if isinstance(event, events.Computed) else None)

    class Model:
        def __init__(self) -> None:
            self.calls: list[Any] = []

        @scalekit.cache(each="texts")
        @colour.define
        async def embed(self, texts: list[str]) -> list[str]:
            self.calls.append(texts)
            return texts

    try:
        one, two = Model(), Model()
        for model in (one, one, two):
            await colour.call(model.embed, ["a", "b"])
    finally:
        unsubscribe()
    assert (one.calls, two.calls) == ([["a", "b"]], [["a", "b"]])
    assert len(told) == 2


@pytest.mark.parametrize(
    ("each", "text"),
    [("words", "none of its parameters"), ("args", "none of its parameters"), (3, "none of its parameters")],
)
def test_a_wrong_each_is_an_error_at_decoration(each: Any, text: str) -> None:
    """The name must be that of a parameter that can be a list."""
    with pytest.raises(scalekit.ConfigurationError, match=text):

        @scalekit.cache(each=each)
        def embed(texts: list[str], *args: Any) -> list[str]:
            return texts


def test_each_refuses_what_it_cannot_do() -> None:
    """An ignored list, and a generator function."""
    with pytest.raises(scalekit.ConfigurationError, match="ignored"):

        @scalekit.cache(each="texts", ignore="texts")
        def embed(texts: list[str]) -> list[str]:
            return texts

    with pytest.raises(scalekit.ConfigurationError, match="generator"):

        @scalekit.cache(each="texts")
        def stream(texts: list[str]) -> Any:
            yield from texts


LISTS = st.lists(st.lists(st.integers(0, 12), max_size=8), min_size=1, max_size=8)


@settings(deadline=None, max_examples=150)
@given(lists=LISTS, pauses=st.lists(st.integers(0, 3), min_size=8, max_size=8), later=LISTS)
def test_no_item_is_computed_twice_on_a_loop(lists: list[list[int]], pauses: list[int], later: list[list[int]]) -> None:
    """Whatever lists run at the same time, begun at any moments: each item is computed once, everybody is answered."""
    computed: Counter[int] = Counter()

    @scalekit.cache(each="numbers")
    async def double(numbers: list[int]) -> list[int]:
        computed.update(numbers)
        for _ in range(len(numbers) % 3):
            await asyncio.sleep(0)
        return [2 * number for number in numbers]

    async def call(numbers: list[int], pause: int) -> None:
        for _ in range(pause):
            await asyncio.sleep(0)
        assert await double(numbers) == [2 * number for number in numbers]

    async def main() -> None:
        await asyncio.gather(*[call(numbers, pause) for numbers, pause in zip(lists, pauses, strict=False)])
        for numbers in later:
            await call(numbers, 0)

    asyncio.run(main())
    assert not computed or max(computed.values()) == 1
    assert computed.keys() == {number for numbers in (*lists[:8], *later) for number in numbers}


@settings(deadline=None, max_examples=30)
@given(lists=LISTS)
def test_no_item_is_computed_twice_in_threads(lists: list[list[int]]) -> None:
    """The same in threads."""
    computed: Counter[int] = Counter()
    counting = threading.Lock()

    @scalekit.cache(each="numbers")
    def double(numbers: list[int]) -> list[int]:
        with counting:
            computed.update(numbers)
        time.sleep(0.0005)
        return [2 * number for number in numbers]

    results: dict[int, list[int]] = {}
    start = threading.Barrier(len(lists))

    def call(place: int) -> None:
        start.wait()
        results[place] = double(lists[place])

    threads = [threading.Thread(target=call, args=(place,)) for place in range(len(lists))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {place: [2 * number for number in numbers] for place, numbers in enumerate(lists)}
    assert not computed or max(computed.values()) == 1
