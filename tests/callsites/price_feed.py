"""A threaded price service before a supplier whose API is slow, sometimes down, and charges for every call.

The owner expects that nobody waits for a price that is merely old, that an outage of the supplier shows nobody an
error while an old price is known, that an unknown article is not asked for again and again, and that when an article
changes, everything that was computed from it is gone at once.
"""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import scalekit


class Price(NamedTuple):
    article: str
    cents: int


class UnknownArticle(LookupError):
    pass


prices = {"pen": 100, "ink": 700}
calls: Counter[str] = Counter()
supplier_is_up = threading.Event()
supplier_is_up.set()


@scalekit.cache(
    ttl="200ms",
    stale="1m",  # from 0.2 s to a minute: the old price now, the new one soon
    stale_if_error="1h",  # and for an hour if the supplier is down
    negative={UnknownArticle: "1m"},
    tags="article:{article}",
)
def price(article: str) -> Price:
    calls[article] += 1
    time.sleep(0.02)
    if not supplier_is_up.is_set():
        raise ConnectionResetError("supplier")
    if article not in prices:
        raise UnknownArticle(article)
    return Price(article, prices[article])


@scalekit.cache(ttl="1h", tags=lambda answer: [f"article:{item.article}" for item in answer])
def basket(*articles: str) -> list[Price]:
    return [price(article) for article in articles]


def wait_for_refresh(of: str, count: int) -> None:
    deadline = time.monotonic() + 10
    while calls[of] < count and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)


def main() -> None:
    with ThreadPoolExecutor(8) as pool:
        assert {answer.cents for answer in pool.map(price, ["pen"] * 100)} == {100}
        assert calls["pen"] == 1

        prices["pen"] = 120
        time.sleep(0.25)
        began = time.monotonic()
        assert {answer.cents for answer in pool.map(price, ["pen"] * 50)} <= {100, 120}
        assert time.monotonic() - began < 5
        wait_for_refresh("pen", 2)
        assert price("pen").cents == 120
        assert calls["pen"] == 2, "more than one refresher"

        supplier_is_up.clear()
        time.sleep(0.25)
        assert {answer.cents for answer in pool.map(price, ["pen"] * 50)} == {120}
        wait_for_refresh("pen", 3)
        assert price("pen").cents == 120
        supplier_is_up.set()

        for _ in range(3):
            try:
                price("quill")
            except UnknownArticle:
                continue
            raise AssertionError("an article that nobody knows")
        assert calls["quill"] == 1

        assert [item.article for item in basket("pen", "ink")] == ["pen", "ink"]
        prices["ink"] = 777
        assert basket("pen", "ink")[1].cents == 700
        scalekit.controls(price).cache.invalidate_tags("article:ink")
        assert basket("pen", "ink")[1].cents == 777, "something computed from the old price survived"


if __name__ == "__main__":
    main()
