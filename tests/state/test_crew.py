"""crew: threads for what nobody waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from scalekit._core import crew as module
from scalekit._core.crew import Crew


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_work_is_done_by_few_threads() -> None:
    """As many at once as the crew is large, the next one is refused, and who is free is used again."""
    crew, gate, done = Crew(3), threading.Event(), list[int]()

    def work() -> None:
        gate.wait()
        done.append(threading.get_ident())

    assert [crew.offer(work) for _ in range(5)] == [True, True, True, False, False]
    gate.set()
    until(lambda: len(done) == 3 and crew._free == 3)
    assert crew.offer(work)
    until(lambda: len(done) == 4)
    assert crew.threads == 3
    assert done[3] in done[:3]


def test_work_that_raises_costs_no_thread() -> None:
    """After any exception the thread is free again."""
    crew, done = Crew(1), list[int]()

    def fail() -> None:
        done.append(1)
        raise SystemExit

    for count in range(1, 4):
        assert crew.offer(fail)
        until(lambda count=count: len(done) == count and crew._free == 1)  # type: ignore[misc]


def test_idle_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that had nothing to do for a while ends, another one begins when there is work, and none is lost."""
    monkeypatch.setattr(module, "IDLE", 0.005)
    crew, done = Crew(2), list[int]()
    assert crew.offer(lambda: done.append(0))
    until(lambda: crew.threads == 0)
    for count in range(200):
        while not crew.offer(lambda: done.append(1)):
            time.sleep(0.001)
        if count % 5 == 0:
            time.sleep(0.0051)
    until(lambda: len(done) == 201)
