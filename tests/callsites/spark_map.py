"""A data engineer who does not want to write a Spark job, only to run the decorated function over a data set.

They expect the answers in the order of the rows, every failure kept beside its row, a run that goes on where it
stopped, and a small trial on the laptop's threads before Spark is paid for.
"""

import scalekit

NEEDS = "fleet"
GROUP = "frameworks"
ROWS = [*range(50), -1]


@scalekit.cache(ttl="1h")
@scalekit.retry(attempts=3)
@scalekit.limit(concurrency=4, name="model")
def root(number: int) -> float:
    if number < 0:
        raise ValueError(f"{number} has no root")
    return number**0.5


def main() -> None:
    for engine in ("threads", "spark"):
        results = list(scalekit.map(root, ROWS, engine=engine))
        assert [result.item for result in results] == ROWS
        assert [result.value for result in results[:-1]] == [number**0.5 for number in range(50)]
        assert isinstance(results[-1].error, ValueError)


if __name__ == "__main__":
    main()
