"""Cancel a scenario at its n-th await, for every n: early, as it suspends, and late, as it is being woken.

A task that is cancelled while it waits, and one that is cancelled in the same moment in which what it waits for
arrives, are two different bugs; both are rare in a running program and certain here. The trampoline stands between
the scenario and its event loop, counts suspensions and cancels at the n-th. `aim` says whose suspensions count: the
caller's own, or those of the tasks that the runtime spawns for it (flights). In threads there is no cancellation;
there the n-th wait raises `KeyboardInterrupt`.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import trio

from scalekit._core.drive import drive
from scalekit._runtime import blocking, eventloop

Scenario = Callable[[], Coroutine[Any, Any, None]]
Check = Callable[[str], None]


class At:
    """Awaits `coroutine` and calls `cancel` at its n-th suspension."""

    def __init__(self, coroutine: Any, n: int, cancel: Callable[[], object], late: bool) -> None:
        self.coroutine, self.n, self.cancel, self.late = coroutine, n, cancel, late
        self.steps = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self.coroutine.__await__()
        send: Callable[[Any], Any] = inner.send
        value: Any = None
        while True:
            try:
                trap = send(value)
            except StopIteration as done:
                return done.value
            self.steps += 1
            if self.steps == self.n:
                if self.late and isinstance(trap, asyncio.Future):
                    trap.add_done_callback(lambda _: self.cancel())  # before the task's own wake-up
                elif self.late:
                    trio.lowlevel.current_trio_token().run_sync_soon(self.cancel)
                else:
                    self.cancel()
            try:
                value = yield trap
                send = inner.send
            except BaseException as error:
                value, send = error, inner.throw


@types.coroutine
def _await(at: At) -> Generator[Any, Any, Any]:
    return (yield from at.__await__())


def on_asyncio(scenario: Scenario, n: int, late: bool) -> bool:
    async def main() -> bool:
        async def body() -> bool:
            task = asyncio.current_task()
            assert task is not None
            at = At(scenario(), n, task.cancel, late)
            try:
                await _await(at)
            except asyncio.CancelledError:
                pass
            return at.steps >= n

        return await asyncio.wait_for(asyncio.create_task(body()), 20)

    return asyncio.run(main())


def on_trio(scenario: Scenario, n: int, late: bool) -> bool:
    async def main() -> bool:
        with trio.fail_after(20), trio.CancelScope() as scope:
            at = At(scenario(), n, scope.cancel, late)
            await _await(at)
        return at.steps >= n

    return trio.run(main)


def _in_the_flight(run: Callable[[Scenario, int, bool], bool]) -> Callable[[Scenario, int, bool], bool]:
    """Count the suspensions of spawned tasks, and cancel the task they happen in."""

    def aimed(scenario: Scenario, n: int, late: bool) -> bool:
        steps = 0
        cls = eventloop.AsyncioLoop if "asyncio" in run.__name__ else eventloop.TrioLoop
        spawn = cls.spawn

        def spawning(self: Any, body: Any, context: Any) -> Any:
            nonlocal steps
            task: Any = None

            async def watched() -> None:
                nonlocal steps
                at = At(body, n - steps, lambda: task.cancel(), late)
                try:
                    await _await(at)
                finally:
                    steps += at.steps

            task = spawn(self, watched(), context)
            return task

        cls.spawn = spawning  # type: ignore[method-assign]
        try:
            run(scenario, 1_000_000, late)
        finally:
            cls.spawn = spawn  # type: ignore[method-assign]
        return steps >= n

    return aimed


def on_thread(scenario: Scenario, n: int, late: bool) -> bool:
    """The n-th wait of the blocking runtime raises KeyboardInterrupt, before it waits or after."""
    steps = 0

    def interrupting(method: Callable[..., Any]) -> Callable[..., Any]:
        async def interrupted(self: Any, *args: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == n and not late:
                raise KeyboardInterrupt
            value = await method(self, *args)
            if steps == n and late:
                raise KeyboardInterrupt
            return value

        return interrupted

    waiter, runtime = blocking.BlockingWaiter, blocking.Blocking
    wait, sleep = waiter.wait, runtime.sleep
    waiter.wait, runtime.sleep = interrupting(wait), interrupting(sleep)  # type: ignore[method-assign]
    try:
        drive(scenario())
    except KeyboardInterrupt:
        pass
    finally:
        waiter.wait, runtime.sleep = wait, sleep  # type: ignore[method-assign]
    return steps >= n


RUNNERS = {
    "asyncio": on_asyncio,
    "asyncio, in the flight": _in_the_flight(on_asyncio),
    "trio": on_trio,
    "trio, in the flight": _in_the_flight(on_trio),
    "thread": on_thread,
}


def everywhere(runner: str, make: Callable[[], tuple[Scenario, Check]]) -> int:
    """Run a fresh scenario for every n, early and late, and `check` after each; returns how many cancellations there
    were.
    """
    run, total = RUNNERS[runner], 0
    for late in (False, True):
        n = 0
        while True:
            n += 1
            scenario, check = make()
            reached = run(scenario, n, late)
            check(f"{runner}, cancelled {'late' if late else 'early'} at await {n}")
            if not reached:
                break
            total += 1
            assert n < 500, "the scenario never ends"
    return total
