"""A team that has its caches already: a tuned TTLCache in one service, a diskcache folder shared by two workers.

They expect to keep them, that an answer is computed once however many ask, that an edited document is gone from all of
them, and that nothing in the folder can make their program run code.
"""

import pickle
import tempfile
import threading
from collections import Counter
from typing import Any

import cachetools
import diskcache  # type: ignore[import-untyped]  # it has no types

import scalekit

NEEDS = 4
computed: Counter[str] = Counter()
ran: list[str] = []

folders: list[diskcache.Cache] = []
tuned: cachetools.TTLCache[str, bytes] = cachetools.TTLCache(1_000, 600)
folder = tempfile.mkdtemp()


@scalekit.cache(ttl="10m", tiers=[tuned])
def price(item: str) -> float:
    computed[f"price {item}"] += 1
    return len(item) * 1.5


def worker() -> Any:
    """One of two workers, each with a diskcache object of its own over one folder."""
    cache = diskcache.Cache(folder)
    folders.append(cache)

    @scalekit.cache(ttl="1d", version="1", tiers=["memory", cache], tags="doc:{doc}")
    def summary(doc: str) -> list[str]:
        computed[f"summary {doc}"] += 1
        return [doc, f"version {computed[f'summary {doc}']}"]

    return summary


class Poison:
    def __reduce__(self) -> Any:
        return (ran.append, ("code",))


def main() -> None:
    threads = [threading.Thread(target=price, args=("pen",)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert computed["price pen"] == 1, computed
    assert len(tuned) == 1

    one, two = worker(), worker()
    assert one("contract") == two("contract") == ["contract", "version 1"]
    assert computed["summary contract"] == 1, computed
    one.cache.invalidate_tags("doc:contract")
    assert two("contract") == one("contract") == ["contract", "version 2"]

    folders[0]._sql("UPDATE Cache SET mode = 4, value = ?, filename = NULL", (pickle.dumps(Poison()),))
    assert worker()("contract") == ["contract", "version 3"]
    assert not ran, "a row of the folder ran code"
    for cache in folders:
        cache.close()


if __name__ == "__main__":
    main()
