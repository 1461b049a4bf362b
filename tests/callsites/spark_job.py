"""A data engineer with a Spark job over a million rows and a geocoder that is paid by the call.

The function is defined in the job's own file, so Spark ships it by value to its workers. The engineer decorates it as
on a laptop and expects that the job runs unchanged, that dropped connections do not fail a stage, that a worker
process asks for a city once although it runs many tasks, and that its copies of the function together keep the limit.
"""

import os
import sys
import time
from typing import NamedTuple
from uuid import uuid4

from pyspark.sql import SparkSession
from tenacity import wait_fixed

import scalekit

GROUP = "frameworks"
CITIES = ["Oslo", "Lima", "Pune", "Kobe"] * 25
failed: set[str] = set()


class Place(NamedTuple):
    city: str
    process: int
    answer: str


@scalekit.cache(ttl="1h")
@scalekit.retry(attempts=3, wait=wait_fixed(0.01))
@scalekit.limit(concurrency=2, name="geocoder")
def locate(city: str) -> Place:
    time.sleep(0.005)
    if city not in failed:
        failed.add(city)
        raise ConnectionResetError("the geocoder hung up")
    return Place(city, os.getpid(), uuid4().hex)


def main() -> None:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        places = spark.sparkContext.parallelize(CITIES, 10).map(locate).collect()
    finally:
        spark.stop()
    assert [place.city for place in places] == CITIES
    workers = {place.process for place in places}
    assert os.getpid() not in workers
    asked = {(place.process, place.city) for place in places}
    assert len({place.answer for place in places}) == len(asked), "a worker looked a city up twice"
    assert len(asked) <= 4 * len(workers)


if __name__ == "__main__":
    main()
