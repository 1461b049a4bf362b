"""A notebook's author who sends decorated functions to another machine's Python, as Spark, Ray and Dask do.

The functions live in `__main__`, so cloudpickle carries them by value; a fresh interpreter stands where the executor
stands (spark_job.py is the same with a real one). The author expects that they work there as here, that the answers
remembered on the laptop stay there, and that two functions under one named limit, sent one by one, meet under it again
where they arrive.
"""

import os
import pickle
import subprocess
import sys
import time
from typing import NamedTuple
from uuid import uuid4

import cloudpickle  # type: ignore[import-untyped]
from tenacity import wait_fixed

import scalekit

CITIES = ["Oslo", "Lima", "Pune", "Kobe"] * 8
EXECUTOR = """
import pickle, sys
from concurrent.futures import ThreadPoolExecutor
jobs = [(pickle.loads(function), rows) for function, rows in pickle.load(sys.stdin.buffer)]
with ThreadPoolExecutor(12) as pool:
    futures = [pool.submit(function, row) for function, rows in jobs for row in rows]
    answers = [future.result() for future in futures]
pickle.dump([tuple(answer) for answer in answers], sys.stdout.buffer)
"""
failed: set[str] = set()


class Place(NamedTuple):
    city: str
    process: int
    answer: str
    began: float
    ended: float


def lookup(city: str) -> Place:
    began = time.monotonic()
    time.sleep(0.01)
    if city not in failed:
        failed.add(city)
        raise ConnectionResetError("the geocoder hung up")
    return Place(city, os.getpid(), uuid4().hex, began, time.monotonic())


@scalekit.cache(ttl="1h")
@scalekit.retry(attempts=3, wait=wait_fixed(0.01))
@scalekit.limit(concurrency=2, name="geocoder")
def locate(city: str) -> Place:
    return lookup(city)


@scalekit.retry(attempts=3, wait=wait_fixed(0.01))
@scalekit.limit(concurrency=2, name="geocoder")
def verify(city: str) -> Place:
    return lookup(city)


def on_executor(*jobs: tuple[object, list[str]]) -> list[Place]:
    parcel = pickle.dumps([(cloudpickle.dumps(function), rows) for function, rows in jobs])
    run = subprocess.run([sys.executable, "-c", EXECUTOR], input=parcel, stdout=subprocess.PIPE, check=True)
    return [Place(*answer) for answer in pickle.loads(run.stdout)]


def at_once(places: set[Place]) -> int:
    return max(sum(other.began <= place.began < other.ended for other in places) for place in places)


def main() -> None:
    here = locate("Oslo")
    assert here == locate("Oslo")

    there = on_executor((locate, CITIES), (verify, [f"{city} {number}" for number, city in enumerate(CITIES)]))
    places, checks = there[: len(CITIES)], there[len(CITIES) :]
    assert [place.city for place in places] == CITIES
    assert len({place.answer for place in places}) == 4, "a city was looked up twice"
    assert len({check.answer for check in checks}) == len(CITIES)
    assert here.process not in {place.process for place in there}, "the laptop's answers travelled"
    assert at_once(set(there)) == 2, f"{at_once(set(there))} requests at once under a limit of 2"
    assert locate("Oslo") == here


if __name__ == "__main__":
    main()
