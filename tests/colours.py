"""The three colours in which every promise is tested: a scenario is written once, as `async def`, and run in each.

In the colour "thread" nothing of it ever suspends: `sleep` blocks, a function is a plain `def`, and what runs at the
same time runs in threads. So a scenario says `await colour.call(f, 1)` and does not know which world it is in.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import trio

from scalekit._core.drive import drive

PATIENCE = 30.0
Scenario = Callable[[], Coroutine[Any, Any, Any]]


class Job:
    """Something that was started and is waited for: `result()` gives its value or raises its error."""

    def __init__(self) -> None:
        self.outcome: tuple[str, Any] | None = None
        self.cancel: Callable[[], None] = lambda: None
        self.join: Callable[[], Awaitable[None]] = _nothing

    async def record(self, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            self.outcome = ("value", await call())
        except BaseException as error:
            self.outcome = ("error", error)
            if isinstance(error, trio.Cancelled):
                raise

    async def result(self) -> Any:
        await self.join()
        assert self.outcome is not None, "the job did not end"
        kind, value = self.outcome
        if kind == "error":
            raise value
        return value

    async def error(self) -> BaseException | None:
        """What it raised; None if it returned."""
        await self.join()
        assert self.outcome is not None, "the job did not end"
        return self.outcome[1] if self.outcome[0] == "error" else None


async def _nothing() -> None:
    return None


class Colour:
    """What a scenario needs of its world."""

    name: str

    def __repr__(self) -> str:
        return self.name

    def run(self, scenario: Scenario) -> Any:
        """Run a scenario to its end; one that hangs is a failure."""
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    def define(self, body: Callable[..., Any]) -> Callable[..., Any]:
        """The function of this colour that does what `body`, an `async def` or an async generator, says."""
        return body

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    async def collect(self, generator: Any) -> list[Any]:
        return [item async for item in generator]

    async def next(self, generator: Any) -> Any:
        return await anext(generator)

    async def close(self, generator: Any) -> None:
        await generator.aclose()

    async def start(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Job:
        """Begin a call beside this one."""
        raise NotImplementedError

    async def gather(self, *calls: Callable[[], Any]) -> list[Any]:
        """Begin all, wait for all; an error is in the list in place of a result."""
        jobs = [await self.start(call) for call in calls]
        results = []
        for job in jobs:
            error = await job.error()
            results.append(error if error is not None else await job.result())
        return results

    async def until(self, condition: Callable[[], Any], what: str = "") -> None:
        """Wait until something is so; never being so is a failure."""
        deadline = time.monotonic() + PATIENCE / 2
        while not condition():
            assert time.monotonic() < deadline, f"never came true: {what or inspect.getsource(condition).strip()}"
            await self.sleep(0.001)


class Thread(Colour):
    name = "thread"

    def run(self, scenario: Scenario) -> Any:
        box: dict[str, Any] = {}

        def main() -> None:
            try:
                box["value"] = drive(scenario())
            except BaseException as error:
                box["error"] = error

        thread = threading.Thread(target=main, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the scenario hangs"
        if "error" in box:
            raise box["error"]
        return box["value"]

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def define(self, body: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isasyncgenfunction(body):

            def function(*args: Any, **kwargs: Any) -> Any:
                source = body(*args, **kwargs)
                try:
                    while True:
                        try:
                            item = drive(anext(source).__await__())  # type: ignore[arg-type]
                        except StopAsyncIteration:
                            return
                        yield item
                finally:
                    drive(source.aclose().__await__())  # type: ignore[arg-type]
        else:

            def function(*args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
                return drive(body(*args, **kwargs))

        functools.update_wrapper(function, body)
        del function.__wrapped__  # type: ignore[attr-defined]  # it would say that this is an async function
        function.__signature__ = inspect.signature(body)  # type: ignore[attr-defined]
        return function

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    async def collect(self, generator: Any) -> list[Any]:
        return list(generator)

    async def next(self, generator: Any) -> Any:
        return next(generator)

    async def close(self, generator: Any) -> None:
        generator.close()

    async def start(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Job:
        job = Job()
        context = contextvars.copy_context()

        async def call() -> Any:
            value = function(*args, **kwargs)
            return await value if inspect.isawaitable(value) else value

        thread = threading.Thread(target=context.run, args=(lambda: drive(job.record(call)),), daemon=True)

        async def join() -> None:
            thread.join(PATIENCE)

        job.join = join
        thread.start()
        return job


class Asyncio(Colour):
    name = "asyncio"

    def run(self, scenario: Scenario) -> Any:
        async def main() -> Any:
            async with asyncio.timeout(PATIENCE):
                return await scenario()

        return asyncio.run(main())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def start(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Job:
        job = Job()
        task = asyncio.get_running_loop().create_task(job.record(lambda: function(*args, **kwargs)))

        async def join() -> None:
            await asyncio.wait([task])
            if job.outcome is None:  # cancelled before its first step
                job.outcome = ("error", asyncio.CancelledError())

        job.join, job.cancel = join, task.cancel  # type: ignore[assignment]
        await asyncio.sleep(0)
        return job


class Trio(Colour):
    name = "trio"
    nursery: trio.Nursery

    def run(self, scenario: Scenario) -> Any:
        async def main() -> Any:
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as self.nursery:
                    value = await scenario()
                    self.nursery.cancel_scope.cancel()
            return value

        try:
            return trio.run(main)
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None
            raise

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def start(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Job:
        job, ended, scope = Job(), trio.Event(), trio.CancelScope()

        async def main() -> None:
            with scope:
                try:
                    await job.record(lambda: function(*args, **kwargs))
                finally:
                    ended.set()

        job.join, job.cancel = ended.wait, scope.cancel
        self.nursery.start_soon(main)
        await trio.lowlevel.checkpoint()
        return job


COLOURS = {colour.name: colour for colour in (Thread, Asyncio, Trio)}
