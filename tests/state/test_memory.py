"""The memory tier keeps its bounds, loses nothing, and lets the right entries go."""

from __future__ import annotations

import gc
import pickle
import random
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cachetools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalekit._cache.stores.memory import OVERHEAD, Entry, Memory, Table
from scalekit._cache.stores.sizes import sizeof
from scalekit.errors import ConfigurationError

POLICIES: list[Any] = ["s3fifo", "lru", "lfu", "fifo", "random"]


def put(
    memory: Memory, table: Table, key: Any, value: Any = "x", now: float = 0.0, expires: float = float("inf")
) -> Entry:
    """An entry of `key`, put into `table`."""
    entry = Entry(key, value, expires=expires)
    memory.put(table, entry, now)
    return entry


def hit(memory: Memory, table: Table, key: Any) -> bool:
    """What a reader does."""
    entry = table.entries.get(key)
    if entry is None:
        return False
    entry.hit = True
    if memory.touches:
        memory.touch(entry)
    return True


def check(memory: Memory, *tables: Table) -> None:
    """The bounds hold, and every count is the sum of what is there."""
    entries = [entry for table in tables for entry in table.entries.values()]
    assert len(memory) == len(entries) <= memory.max_entries
    assert memory.nbytes == sum(entry.size for entry in entries) <= memory.max_bytes
    for table in tables:
        assert table.nbytes == sum(entry.size for entry in table.entries.values())
        assert all(entry.table is table and entry.key is key for key, entry in table.entries.items())
        assert all(table.entries.get(entry.key) is entry for entry in leaves(table.fast))
    order: Any = memory._order
    if memory.policy == "s3fifo":
        linked = [*walk(order.small), *walk(order.main)]
        assert Counter(map(id, linked)) == Counter(map(id, entries))
        assert 0.02 <= order.share <= 0.9
    else:
        assert {*map(id, order._cache)} == {*map(id, entries)}


def leaves(index: Any) -> list[Entry]:
    """The entries of a fast index, whose levels are never empty."""
    if isinstance(index, Entry):
        return [index]
    assert index is not None
    return [entry for below in index.values() for entry in leaves(below)]


def opened(table: Table, entry: Entry) -> Entry:
    """Put `entry` into the fast index."""
    entry.kind = str
    table.open_fast(entry)
    return entry


def walk(queue: Any) -> Iterator[Entry]:
    """The entries of a queue from both ends, which must agree."""
    forth, back = [], []
    entry = queue.first
    while entry is not None:
        forth.append(entry)
        entry = entry.newer
    entry = queue.last
    while entry is not None:
        back.append(entry)
        entry = entry.older
    assert forth == back[::-1]
    assert queue.count == len(forth)
    assert queue.nbytes == sum(entry.size for entry in forth)
    yield from forth


operations = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "hit", "hit", "remove", "clear", "expired", "large", "fast"]),
        st.integers(0, 1),
        st.integers(0, 12),
    ),
    max_size=120,
)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=120, deadline=None)
@given(operations=operations, max_entries=st.integers(1, 6), room=st.integers(1, 9))
def test_no_bound_is_passed_and_nothing_is_lost(policy: Any, operations: Any, max_entries: int, room: int) -> None:
    """Whatever is put, hit, removed and cleared: no bound is passed, every figure right, and only victims missing."""
    size = OVERHEAD + sizeof("k") + sizeof("x")
    memory = Memory(max_entries, room * size, policy)
    tables = Table(), Table()
    here: list[dict[str, Entry]] = [{}, {}]
    left = 0
    for what, which, number in operations:
        table, key = tables[which], f"{number:x}"
        match what:
            case "put" | "expired" | "large":
                before = sum(one.evicted for one in tables)
                entry = Entry(key, "x" * size * 10 if what == "large" else "x", expires=-1 if what == "expired" else 1)
                stored = memory.put(table, entry, 0)
                assert stored is (entry.size <= memory.max_bytes)
                here[which].pop(key, None)
                if stored:
                    here[which][key] = entry
                    assert table.entries[key] is entry, "what was just put is there"
                gone = [(k, old) for k, one in enumerate(here) for old in one if old not in tables[k].entries]
                assert sum(one.evicted for one in tables) - before == len(gone)
                left += len(gone)
                for k, old in gone:
                    del here[k][old]
            case "hit":
                assert hit(memory, table, key) is (key in here[which])
            case "remove":
                entry = here[which].pop(key, Entry(key))
                assert memory.remove(table, entry) is (entry.size > 0)
                assert not memory.remove(table, entry)
            case "clear" if number == 0:
                assert memory.clear(table) == len(here[which])
                here[which] = {}
            case "fast":
                if key in here[which] and here[which][key].kind is None:
                    opened(table, here[which][key])
            case _:
                pass
        check(memory, *tables)
        assert [{*one} for one in here] == [{*table.entries} for table in tables]
    assert memory.stats().evicted == left


@pytest.mark.parametrize(
    ("policy", "reference"),
    [("lru", cachetools.LRUCache), ("lfu", cachetools.LFUCache), ("fifo", cachetools.FIFOCache)],
)
def test_named_policies_keep_what_cachetools_keeps(policy: Any, reference: Any) -> None:
    """`Memory(policy="lru")` and the others hold at each moment what the class of cachetools would."""
    memory, table, other = Memory(20, "1GB", policy), Table(), reference(20)
    for key in random.Random(3).choices(range(60), [1 / (n + 1) for n in range(60)], k=2000):
        if hit(memory, table, key):
            assert other[key] == 1
        else:
            put(memory, table, key)
            other[key] = 1
        assert {*table.entries} == {*other}


def test_the_bound_is_shared_and_the_tables_are_not() -> None:
    """Functions that share a Memory share its room, and no entry of one is seen by the other."""
    memory, one, two = Memory(10, "1GB"), Table(), Table()
    for number in range(8):
        put(memory, one, number)
        put(memory, two, number)
    assert len(one.entries) + len(two.entries) == len(memory) == 10
    assert all(entry.table is one for entry in one.entries.values())
    memory.clear(one)
    assert not one.entries
    assert len(memory) == len(two.entries) > 0
    check(memory, one, two)


def test_a_value_larger_than_the_memory_is_not_kept_and_not_half_kept() -> None:
    """`put` says False to what is larger than `max_bytes`, and the old value of that key is gone."""
    memory, table = Memory(10, "10kB"), Table()
    assert memory.put(table, Entry("a", "x"), 0)
    assert not memory.put(table, Entry("a", "x" * 20_000), 0)
    assert not table.entries
    assert memory.stats().refused == 1
    check(memory, table)


def test_expired_entries_leave_before_good_ones() -> None:
    """At the end of a queue what has expired leaves, however popular it was."""
    memory, table = Memory(10, "1GB"), Table()
    for number in range(10):
        put(memory, table, number, expires=1 if number < 5 else 100)
        for _ in range(5):
            hit(memory, table, number)
    for number in range(10, 15):
        put(memory, table, number, now=50, expires=100)
    assert {*range(5, 15)} == {*table.entries}


def test_a_new_value_keeps_the_popularity_of_its_key() -> None:
    """A refreshed entry is as popular as the old one, and the old one leaves nothing behind."""
    memory, table = Memory(10, "1GB"), Table()
    old = put(memory, table, "a")
    hit(memory, table, "a")
    new = put(memory, table, "a", "y")
    assert new.hit
    assert table.entries == {"a": new}
    assert not memory.remove(table, old)
    check(memory, table)


class Value:
    pass


@pytest.mark.parametrize("policy", POLICIES)
def test_what_has_left_is_not_kept_alive(policy: Any) -> None:
    """No queue, ghost or index holds on to a value that was removed, replaced, evicted or cleared."""
    memory, table = Memory(10, "1GB", policy), Table()
    alive: list[weakref.ref[Value]] = []
    for number in range(60):
        value = Value()
        alive.append(weakref.ref(value))
        entry = opened(table, put(memory, table, ((int, int), number % 30, number % 7), value))
        del value
        if number % 3 == 0:
            memory.remove(table, entry)
        del entry
    assert sum(one() is not None for one in alive) == len(memory) == len(leaves(table.fast)) <= 10
    memory.clear(table)
    assert all(one() is None for one in alive)
    assert not table.fast


def test_a_fast_entry_leaves_with_its_entry_and_no_other_does() -> None:
    """An entry that leaves takes its own place in the fast index along, not that of the one which took it over."""
    memory, table = Memory(10, "1GB"), Table()
    one, other = put(memory, table, ((int, str), 1, "a")), put(memory, table, ((bool, str), True, "a"))
    opened(table, one)
    opened(table, other)
    third = opened(table, put(memory, table, ((int, str), 3, "a")))
    memory.remove(table, one)
    assert table.fast == {"a": {1: other, 3: third}}
    memory.remove(table, other)
    memory.remove(table, third)
    assert table.fast == {}


def test_destructors_run_outside_the_lock() -> None:
    """A value whose destructor asks the same Memory does not deadlock."""
    memory, table = Memory(2, "1GB"), Table()
    seen: list[int] = []

    class Asking:
        def __del__(self) -> None:
            put(memory, other, len(seen))
            seen.append(len(memory))

    other = Table()
    for number in range(10):
        put(memory, table, number, Asking())
    memory.clear(table)
    gc.collect()
    assert len(seen) == 10
    check(memory, table, other)


def test_threads_read_without_a_lock_while_others_write() -> None:
    """Readers, writers and those who clear, all at once, break no count, no bound and no read."""
    memory, tables = Memory(50, "1GB"), (Table(), Table())
    start = threading.Barrier(6)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        start.wait()
        for _ in range(3000):
            table, key = rng.choice(tables), rng.randrange(150)
            entry = table.entries.get(key)
            if entry is None:
                put(memory, table, key, key)
            else:
                assert entry.value == key
                entry.hit = True
                if rng.random() < 0.1:
                    memory.remove(table, entry)
            if rng.random() < 0.002:
                memory.clear(table)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
    finally:
        sys.setswitchinterval(interval)
    check(memory, *tables)


def test_a_fork_has_a_lock_of_its_own() -> None:
    """After a fork the child's Memory works, and holds nothing half-done if another thread was writing."""
    memory, table = Memory(10, "1GB"), Table()
    put(memory, table, "a")
    memory._after_fork()
    assert {*table.entries} == {"a"}
    with memory._lock:
        memory._after_fork()
        assert not table.entries
        put(memory, table, "b")
        check(memory, table)


def test_a_pickled_memory_is_an_empty_one_with_the_same_settings() -> None:
    """A Memory travels by its settings; its entries stay behind."""
    memory, table = Memory(10, "1MB", "lru"), Table()
    put(memory, table, "a")
    there = pickle.loads(pickle.dumps(memory))
    assert repr(there) == repr(memory) == "Memory(max_entries=10, max_bytes='1MB', policy='lru')"
    assert (len(there), there.max_entries, there.max_bytes) == (0, 10, 1_000_000)
    assert bool(Memory())


def test_a_memory_without_bounds_takes_those_of_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that were not given are looked up when they are used, so that `configure()` reaches them."""
    from scalekit import settings as place

    memory = Memory()
    assert (memory.max_entries, memory.max_bytes) == (10_000, 64_000_000)
    place.configure(cache_max_entries=3, cache_max_bytes="1MB")
    try:
        table = Table()
        for number in range(5):
            put(memory, table, number)
        assert len(memory) == memory.max_entries == 3
        assert memory.stats().max_bytes == 1_000_000
    finally:
        place.reset()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_entries": 0}, "max_entries=0"),
        ({"max_entries": -5}, "max_entries=-5"),
        ({"max_entries": True}, "max_entries=True"),
        ({"max_entries": "10"}, "write max_entries=10"),
        ({"max_bytes": "64mb"}, 'write "64MB"'),
        ({"max_bytes": -1}, "max_bytes=-1"),
        ({"policy": "mru"}, "'s3fifo', 'lru', 'lfu', 'fifo', 'random'"),
    ],
)
def test_wrong_bounds_are_errors_at_once(given: dict[str, Any], said: str) -> None:
    """A wrong bound or policy is a ConfigurationError that says what to write."""
    with pytest.raises(ConfigurationError) as caught:
        Memory(**given)
    assert said in str(caught.value)
