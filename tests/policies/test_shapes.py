"""Whatever is decorated stays what it was: a real function of the same colour, name, signature and pickle."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import inspect
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import typing
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from colours import Colour

import scalekit
from scalekit._core.bind import binding_of

DECORATORS: dict[str, Callable[[], Any]] = {
    "cache": lambda: scalekit.cache,
    "cache()": lambda: scalekit.cache(ttl="1m"),
    "limit": lambda: scalekit.limit(concurrency=2),
    "retry": lambda: scalekit.retry,
    "stack": lambda: scalekit.stack(scalekit.limit(concurrency=2), scalekit.cache(), scalekit.retry()),
}
decorators = pytest.mark.parametrize("decorator", DECORATORS.values(), ids=DECORATORS.keys())
streaming = pytest.mark.parametrize("decorator", [DECORATORS["limit"], DECORATORS["retry"]], ids=["limit", "retry"])


@decorators
async def test_a_function_stays_a_function(decorator: Any, colour: Colour) -> None:
    """Colour, name, docstring, signature, annotations, defaults and module are the function's own."""

    async def body(a: int, /, b: str = "b", *rest: float, c: bool = True, **more: Any) -> dict[str, int]:
        """What it does."""
        return {"a": a, "b": len(b)}

    original = colour.define(body)
    decorated = decorator()(original)
    assert type(decorated) is type(original)
    assert inspect.iscoroutinefunction(decorated) == inspect.iscoroutinefunction(original)
    assert asyncio.iscoroutinefunction(decorated) == asyncio.iscoroutinefunction(original)
    assert not inspect.isgeneratorfunction(decorated)
    assert inspect.signature(decorated) == inspect.signature(original)
    assert typing.get_type_hints(decorated) == typing.get_type_hints(original)
    for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(decorated, attribute) == getattr(original, attribute)
    assert decorated.__wrapped__ is original
    assert await colour.call(decorated, 1, "xx", 2.0, c=False, d=4) == {"a": 1, "b": 2}
    assert await colour.call(decorated, 1, "xx", 2.0, c=False, d=4) == {"a": 1, "b": 2}


@streaming
async def test_a_generator_stays_a_generator(decorator: Any, colour: Colour) -> None:
    """A generator function stays one, sync or async, and falsy items, the end and an error come through."""

    async def body(items: Any) -> AsyncIterator[Any]:
        """What it does."""
        for item in items:
            if isinstance(item, Exception):
                raise item
            yield item

    original = colour.define(body)
    decorated = decorator()(original)
    assert inspect.isgeneratorfunction(decorated) == inspect.isgeneratorfunction(original)
    assert inspect.isasyncgenfunction(decorated) == inspect.isasyncgenfunction(original)
    assert inspect.signature(decorated) == inspect.signature(original)
    assert await colour.collect(decorated(["a", "", 0, None, [], "b"])) == ["a", "", 0, None, [], "b"]
    assert await colour.collect(decorated([])) == []
    stream = decorated([1, KeyError("mine"), 2])
    assert await colour.next(stream) == 1
    with pytest.raises(KeyError, match="mine"):
        await colour.next(stream)


@streaming
def test_what_a_generator_returns(decorator: Any) -> None:
    """`return value` in a generator reaches `yield from`."""

    def body() -> Any:
        yield 1
        return "end"

    decorated = decorator()(body)

    def outer() -> Any:
        result = yield from decorated()
        yield result

    assert list(outer()) == [1, "end"]


class Agent:
    """Methods of every kind, decorated in both orders."""

    def __init__(self, name: str) -> None:
        self.name = name

    @scalekit.cache
    @scalekit.limit(concurrency=3)
    def method(self, x: int) -> str:
        return f"{self.name} {x}"

    @scalekit.cache
    async def async_method(self, x: int) -> str:
        return f"{self.name} {x}"

    @classmethod
    @scalekit.cache
    def class_inner(cls, x: int) -> str:
        return f"{cls.__name__} {x}"

    @scalekit.cache
    @classmethod
    def class_outer(cls, x: int) -> str:
        return f"{cls.__name__} {x}"

    @staticmethod
    @scalekit.cache
    def static_inner(x: int) -> str:
        return f"static {x}"

    @scalekit.cache
    @staticmethod
    def static_outer(x: int) -> str:
        return f"static {x}"

    def __call__(self, x: int) -> str:
        return f"called {x}"


class SubAgent(Agent):
    """Inherits everything."""


def test_methods_of_every_kind() -> None:
    """Methods, classmethods and staticmethods work, decorated in both orders, on instances, classes and subclasses."""
    one, two = Agent("one"), SubAgent("two")
    for _ in range(2):
        assert one.method(1) == "one 1"
        assert two.method(1) == "two 1"
        assert asyncio.run(one.async_method(1)) == "one 1"
        assert Agent.class_inner(1) == Agent.class_outer(1) == "Agent 1"
        assert SubAgent.class_inner(1) == two.class_outer(1) == "SubAgent 1"
        assert Agent.static_inner(1) == one.static_outer(1) == "static 1"
    assert Agent.method.cache.stats().misses == 2  # type: ignore[attr-defined]
    bound = scalekit.cache(one.method)
    assert bound(5) == "one 5"
    assert inspect.signature(bound) == inspect.signature(one.method)


def test_callable_objects_and_partials() -> None:
    """What is called but is no function gives a real function of the right colour."""

    async def ask(model: str, question: str) -> str:
        return f"{model} {question}"

    partial = scalekit.retry(functools.partial(ask, "small"))
    assert inspect.iscoroutinefunction(partial)
    assert partial.__name__ == "ask"
    assert asyncio.run(partial("q")) == "small q"
    called = scalekit.limit(concurrency=1)(Agent("x"))
    assert inspect.isfunction(called)
    assert called(1) == "called 1"
    assert scalekit.cache(len)("abc") == 3


def test_a_def_around_an_async_def() -> None:
    """A plain def that passes on a coroutine is async, as its `__wrapped__` says; what contradicts that says what to
    do.
    """

    async def create(x: int) -> str:
        return f"created {x}"

    @functools.wraps(create)
    def passing_on(x: int) -> Any:
        return create(x)

    decorated = scalekit.cache(passing_on)
    assert inspect.iscoroutinefunction(decorated)
    assert asyncio.run(decorated(1)) == asyncio.run(decorated(1)) == "created 1"

    @functools.wraps(create)
    def running(x: int) -> str:
        return asyncio.run(create(x))

    async def call_it() -> None:
        await scalekit.retry(functools.update_wrapper(lambda x: "plain", create))(1)

    with pytest.raises(scalekit.ConfigurationError, match="__wrapped__"):
        asyncio.run(call_it())

    @scalekit.cache
    def unmarked(x: int) -> Any:
        return create(x)

    with pytest.raises(scalekit.ConfigurationError, match="async def"):
        unmarked(1)


@decorators
async def test_stop_iteration_passes(decorator: Any, colour: Colour) -> None:
    """A StopIteration of the user's sync function comes out as itself."""
    if colour.name != "thread":
        return  # in an async def, Python itself turns it into RuntimeError

    @decorator()
    def work(x: int) -> int:
        raise StopIteration("mine")

    with pytest.raises(StopIteration, match="mine"):
        work(1)


def test_a_suspending_policy_fails_loudly() -> None:
    """A policy that suspends under the blocking runtime is an error, not a silent half-run."""

    class Suspending(scalekit.Policy):
        kind = "retry"

        def around(self, proceed: Any, target: Any) -> Any:
            async def around(*args: Any, **kwargs: Any) -> Any:
                await asyncio.sleep(0)
                return await proceed(*args, **kwargs)

            return around

        def sugar(self, target: Any) -> dict[str, object]:
            return {}

    @Suspending(None, {})
    def work() -> int:
        return 1

    with pytest.raises(RuntimeError, match="suspended"):
        work()


def test_the_users_exception_is_untouched() -> None:
    """The exception object is the one that was raised, and its traceback ends in the user's line."""
    error = ValueError("mine")

    @scalekit.stack(scalekit.cache(), scalekit.retry(), scalekit.limit(concurrency=1))
    def work() -> None:
        raise error

    with pytest.raises(ValueError, match="mine") as raised:
        work()
    assert raised.value is error
    assert raised.traceback[-1].name == "work"
    assert error.__cause__ is None
    assert error.__context__ is None


def test_a_pile_is_one_pipeline() -> None:
    """Decorators in a pile re-bind the original function: `__wrapped__` is it, and explain shows all layers in
    order.
    """

    @scalekit.cache(ttl="1h")
    @scalekit.retry(attempts=4)
    @scalekit.limit(concurrency=20, name="pile")
    def ask(x: int) -> int:
        return x

    assert not hasattr(ask.__wrapped__, "__wrapped__")  # type: ignore[attr-defined]
    text = scalekit.explain(ask).splitlines()
    assert [line.split()[0] for line in text[1:]] == ["cache", "retry", "limit"]
    assert "attempts=4" in text[2]
    assert "concurrency=20" in text[3]


def test_explain_says_who_shares() -> None:
    """Functions that wear one limit are named as sharing it."""
    provider = scalekit.limit(concurrency=3)

    @provider
    def one() -> None: ...

    @provider
    def two() -> None: ...

    assert "shared with" in scalekit.explain(one)
    assert "two" in scalekit.explain(one)


def test_a_wasteful_order_warns_once() -> None:
    """A pile in an order that wastes permits or multiplies attempts warns at decoration; `stack` orders silently."""

    def work() -> None: ...

    with pytest.warns(scalekit.ScalekitWarning, match="hit takes a permit") as warned:
        scalekit.limit(concurrency=1)(scalekit.cache(work))
    assert len(warned) == 1
    assert warned[0].filename == __file__
    with pytest.warns(scalekit.ScalekitWarning, match="permit is held while"):
        scalekit.limit(concurrency=1)(scalekit.retry(work))
    with pytest.warns(scalekit.ScalekitWarning, match="every attempt asks"):
        scalekit.retry(scalekit.cache(work))
    stacked = scalekit.stack(scalekit.limit(concurrency=1), scalekit.retry(), scalekit.cache())(work)
    assert [policy.kind for policy in stacked.__scalekit__.policies] == ["cache", "retry", "limit"]  # type: ignore[attr-defined]


def test_a_wrapper_of_the_users_between_two_of_ours() -> None:
    """functools.wraps copies our attributes; the copy is not taken for ours, and both layers work."""
    inner = scalekit.limit(concurrency=1)(lambda x: x)

    @functools.wraps(inner)
    def between(x: int) -> int:
        return int(inner(x)) + 1

    outer = scalekit.cache(between)
    assert binding_of(between) is None
    assert outer(1) == 2
    assert [policy.kind for policy in outer.__scalekit__.policies] == ["cache"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["cache", "limit", "retry", "effect"])
def test_what_is_no_function_is_refused(kind: str) -> None:
    """Classes, properties and plain objects are clear errors at decoration."""
    decorator: Any = {
        "cache": scalekit.cache,
        "limit": scalekit.limit(concurrency=1),
        "retry": scalekit.retry,
        "effect": scalekit.effect,
    }[kind]
    if kind != "effect":
        with pytest.raises(scalekit.ConfigurationError, match="class"):
            decorator(Agent)
        with pytest.raises(scalekit.ConfigurationError, match="property"):
            decorator(property(lambda self: 1))
    with pytest.raises(scalekit.ConfigurationError):
        decorator(3)


def test_effects_are_never_cached() -> None:
    """`@effect` and `cache` exclude each other, in either order and in a stack."""

    def send(x: int) -> int:
        return x

    with pytest.raises(scalekit.ConfigurationError, match="side|effect"):
        scalekit.cache(scalekit.effect(send))

    def send_again(x: int) -> int:
        return x

    with pytest.raises(scalekit.ConfigurationError, match="side|effect"):
        scalekit.effect(scalekit.cache(send_again))


@scalekit.cache
@scalekit.limit(concurrency=2)
def importable(x: int) -> int:
    """At module level, so that it pickles by name."""
    return x


def test_pickles_by_name() -> None:
    """A decorated function of a module pickles as its name, and policies keep what they are through copies."""
    assert pickle.loads(pickle.dumps(importable)) is importable
    assert copy.deepcopy(importable) is importable
    policy = scalekit.limit(concurrency=2)
    assert copy.deepcopy(policy) is policy
    assert pickle.loads(pickle.dumps(policy)) is policy


def test_cloudpickle_by_value_from_main(tmp_path: Any) -> None:
    """A function of `__main__` travels by value: state stays behind, named limits meet again, and it works there."""
    source = tmp_path / "job.py"
    source.write_text(
        textwrap.dedent(
            """
            import asyncio, cloudpickle, subprocess, sys
            import scalekit

            provider = scalekit.limit(concurrency=3, name="provider")
            calls = []

            @scalekit.cache(ttl="1h")
            @scalekit.retry(attempts=2)
            @provider
            def ask(x: int, deep: int = 2) -> list:
                return [x, deep] if deep == 0 else ask(x, deep - 1)

            @provider
            async def aask(x: int) -> int:
                return x

            @scalekit.limit(concurrency=1)
            def numbers(n):
                yield from range(n)

            class Agent:
                @scalekit.cache
                def method(self, x):
                    return x + 1

            secret = "x" * 5_000
            ask(secret), ask(secret)
            assert ask.cache.stats().hits == 1
            data = cloudpickle.dumps((ask, aask, numbers, Agent))
            assert len(data) < 40_000 and b"xxxxxxxxxx" not in data, "state travelled along"
            again = cloudpickle.loads(data)
            assert again[0](1) == [1, 0]
            sys.stdout.buffer.write(data)
            """
        )
    )
    made = subprocess.run([sys.executable, "-W", "error", source], capture_output=True, check=False)
    assert made.returncode == 0, made.stderr.decode()
    there = textwrap.dedent(
        """
        import asyncio, pickle, sys
        data = sys.stdin.buffer.read()
        ask, aask, numbers, Agent = pickle.loads(data)
        import scalekit
        assert ask(1) == [1, 0] and ask(1) == [1, 0]
        assert ask.cache.stats().hits >= 1, ask.cache.stats()
        assert ask.__name__ == "ask" and ask.__wrapped__
        assert asyncio.run(aask(3)) == 3
        assert list(numbers(3)) == [0, 1, 2]
        assert Agent().method(1) == 2
        provider = scalekit.limit(concurrency=3, name="provider")
        assert scalekit.controls(ask).limit._limit is provider is scalekit.controls(aask).limit._limit
        more = scalekit.retry(attempts=2)(aask)
        again = pickle.loads(data)[0]
        assert again.cache.stats().entries == ask.cache.stats().entries, "one state for all copies in a process"
        """
    )
    used = subprocess.run(
        [sys.executable, "-W", "error", "-c", there], input=made.stdout, capture_output=True, check=False
    )
    assert used.returncode == 0, used.stderr.decode()


def test_fork() -> None:
    """A child forked while other threads hold permits, flights and locks can use everything, and hangs nowhere."""
    policy = scalekit.limit(concurrency=2, queue_timeout="5s")
    gate = threading.Event()

    @scalekit.cache
    @policy
    def work(x: int) -> int:
        if x < 0:
            gate.wait(20)
        return x

    threads = [threading.Thread(target=work, args=(x,)) for x in (-1, -2)]
    for thread in threads:
        thread.start()
    while policy.pool.state().in_flight < 2:
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # since 3.12 forking with threads is warned of
        child = os.fork()
    if child == 0:
        status = 1
        try:
            gate.set()
            assert work(-1) == -1, "the flight of a thread that is not here"
            assert work(7) == 7
            assert policy.pool.state().in_flight == 0
            status = 0
        finally:
            os._exit(status)
    gate.set()
    for thread in threads:
        thread.join(20)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert work(5) == 5


def test_disabled_by_the_place() -> None:
    """With SCALEKIT_DISABLE=1 decorators leave the call alone, and controls still answer."""
    code = textwrap.dedent(
        """
        import scalekit
        calls = []
        @scalekit.cache
        @scalekit.limit(concurrency=1)
        def ask(x):
            calls.append(x)
            return x
        assert ask(1) == ask(1) == 1 and calls == [1, 1]
        assert ask.cache.stats().hits == 0
        ask.cache_clear()
        """
    )
    environment = {**os.environ, "SCALEKIT_DISABLE": "1"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_warnings_point_at_the_decorator_line() -> None:
    """Bare or called, the warning about an order shows the user's file."""
    inner = scalekit.retry(lambda: None)
    for decorate in (
        lambda: scalekit.limit(concurrency=1)(inner),
        lambda: scalekit.retry(scalekit.cache(lambda: None)),
    ):
        with pytest.warns(scalekit.ScalekitWarning) as warned:
            decorate()
        assert [warning.filename for warning in warned] == [__file__]
    with pytest.warns(scalekit.ScalekitWarning, match="hit takes a permit|every attempt"):
        scalekit.stack(scalekit.retry(), scalekit.limit(concurrency=1))(scalekit.cache(lambda: None))


def test_what_only_looks_like_a_generator() -> None:
    """A wrapper that collects a generator is a function; a context manager is refused; a policy is worn once."""

    def numbers() -> Any:
        yield from range(3)

    @functools.wraps(numbers)
    def collected() -> list[int]:
        return list(numbers())

    assert scalekit.cache(collected)() == [0, 1, 2]
    with pytest.raises(scalekit.ConfigurationError, match="context manager"):
        scalekit.limit(concurrency=1)(contextlib.contextmanager(numbers))
    policy = scalekit.cache()
    with pytest.raises(scalekit.ConfigurationError, match="already"):
        policy(policy(lambda: 1))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # since 3.12 forking with threads is warned of
def test_a_named_limit_in_a_forked_child() -> None:
    """A child that was forked while another thread made policies makes its own."""
    from scalekit._core import policy

    with policy._lock:
        child = os.fork()
        if child == 0:
            scalekit.limit(concurrency=1, name="made in the child")
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
