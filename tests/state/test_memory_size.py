"""How many bytes a value is thought to take, and how many an entry really does."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

import scalekit
from scalekit._cache.stores.sizes import sizeof

COUNT = 20_000


def test_sizes_are_exact_for_text_and_bytes_and_close_for_the_rest() -> None:
    """The bytes that count are those of the objects: exact for text, sampled for large containers."""
    assert sizeof("é" * 1000) == sys.getsizeof("é" * 1000)
    assert sizeof(b"x" * 1000) == sys.getsizeof(b"x" * 1000)
    rows = [{"role": "user", "content": f"{n:0100}"} for n in range(10_000)]
    exact = sys.getsizeof(rows) + sum(sys.getsizeof(row) + sys.getsizeof(row["content"]) for row in rows)
    assert 0.8 * exact < sizeof(rows) < 1.2 * exact
    assert sizeof(np.zeros(1000)) >= 8000
    assert sizeof(np.zeros(1000)[::2]) >= 4000
    deep: list[Any] = []
    deep.append(deep)
    assert sizeof(deep) < 1000
    assert sizeof((int, str, len)) < 200


def allocated(fill: Callable[[], object]) -> int:
    """The bytes of what `fill` returns."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = fill()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] * (kept is not None)
    finally:
        tracemalloc.stop()


def text(number: int) -> str:
    return f"{number:09}" * 105


def question(number: int) -> str:
    return f"question-{number:09}"


def one() -> object:
    @scalekit.cache(ttl="1h", tiers=[scalekit.Memory(max_entries=200_000, max_bytes="1GB")])
    def ask(question: str) -> str:
        return text(len(question))

    for number in range(COUNT):
        ask(question(number))
    return ask


def two() -> object:
    @scalekit.cache(ttl="1h", tiers=[scalekit.Memory(max_entries=200_000, max_bytes="1GB")])
    def ask(question: str, model: str) -> str:
        return text(len(question))

    for number in range(COUNT):
        ask(question(number), "model")
    return ask


def rows() -> object:
    @scalekit.cache(ttl="1h", tiers=[scalekit.Memory(max_entries=200_000, max_bytes="1GB")])
    def ask(question: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text(len(question))}]

    for number in range(COUNT):
        ask(question(number))
    return ask


PLAIN: dict[Callable[[], object], Callable[[], object]] = {
    one: lambda: {question(n): text(n) for n in range(COUNT)},
    two: lambda: {(question(n), "model"): text(n) for n in range(COUNT)},
    rows: lambda: {question(n): msgspec.msgpack.encode([{"role": "user", "content": text(n)}]) for n in range(COUNT)},
}


@pytest.mark.parametrize("fill", PLAIN)
def test_many_entries_cost_little_more_than_a_dict(fill: Callable[[], object]) -> None:
    """Entries of 1 kB, kept by the decorator and there for the hot path, take at most 1.3 times a dict's bytes."""
    fill()  # what is imported when first needed
    assert allocated(fill) <= 1.3 * allocated(PLAIN[fill])
