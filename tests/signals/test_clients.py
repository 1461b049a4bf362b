"""Clients that retry by themselves are seen where they are bound to a function, and nothing is woken to see them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import openai
import pytest

from scalekit._signals.clients import retrying_clients, warn_of_retrying_clients
from scalekit.errors import ScalekitWarning

RETRYING = openai.AsyncOpenAI(api_key="x")
QUIET = openai.AsyncOpenAI(api_key="x", max_retries=0)
SEEN = "RETRYING (AsyncOpenAI, max_retries=2)"


class Proxy:
    """Raises when it is woken."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"woken by {name}")


PROXY = Proxy()


async def by_global() -> Any:
    return RETRYING.models


async def by_inner() -> Any:
    return [(lambda: RETRYING.models)() for _ in range(2)]


async def quiet() -> Any:
    return QUIET.models, openai.models, PROXY


async def only_an_attribute(thing: Any) -> Any:
    return thing.RETRYING


def test_globals() -> None:
    """A client at module level that the body names is seen, also in a lambda; one with max_retries=0 is not."""
    assert retrying_clients(by_global) == [SEEN]
    assert retrying_clients(by_inner) == [SEEN]
    assert retrying_clients(quiet) == []
    assert retrying_clients(only_an_attribute) == []


def test_closure_defaults_and_partials() -> None:
    """So are one in a closure, in a default, in a partial, and under a wrapper."""
    client = RETRYING

    def by_closure() -> Any:
        return client

    def by_default(question: str, client: Any = RETRYING, *, other: Any = QUIET) -> Any: ...
    def by_keyword(question: str, *, client: Any = RETRYING) -> Any: ...
    @functools.wraps(by_closure)
    def wrapper() -> Any: ...

    told = "client (AsyncOpenAI, max_retries=2)"
    for function in (by_closure, by_default, by_keyword, wrapper):
        assert retrying_clients(function) == [told]
    assert retrying_clients(functools.partial(lambda c: c, RETRYING)) == [
        "an argument of the partial (AsyncOpenAI, max_retries=2)"
    ]


def test_methods() -> None:
    """The SDK's own bound method is seen through its client."""
    assert retrying_clients(RETRYING.chat.completions.create) == [
        "the client of the method (AsyncOpenAI, max_retries=2)"
    ]
    assert retrying_clients(QUIET.chat.completions.create) == []


@pytest.mark.parametrize(
    "function", [print, len, str.upper, functools.partial(print), type("C", (), {"__call__": len})()]
)
def test_anything_callable(function: Callable[..., Any]) -> None:
    """What has no code, closure or globals has no clients."""
    assert retrying_clients(function) == []


def test_a_cell_that_is_still_empty() -> None:
    """A closure over a name that is assigned later is no error."""

    def function() -> Any:
        return later

    assert retrying_clients(function) == []
    later = 1
    assert function() == later


def test_other_things_with_max_retries() -> None:
    """`max_retries` alone makes no client."""
    task = type("Task", (), {"max_retries": 3})()
    assert retrying_clients(lambda: task) == []


def test_boto3() -> None:
    """boto3's clients say it in their configuration, and retry when they say nothing."""

    def client(retries: dict[str, Any] | None) -> Any:
        base = type("BaseClient", (), {"__module__": "botocore.client"})
        made = type("BedrockRuntime", (base,), {})()
        made.meta = type("Meta", (), {"config": type("Config", (), {"retries": retries})})
        return made

    def seen(retries: dict[str, Any] | None) -> list[str]:
        boto = client(retries)
        return retrying_clients(lambda: boto)

    assert seen(None) == ["boto (BedrockRuntime, retries={'total_max_attempts': 5})"]
    assert seen({"mode": "standard"}) == ["boto (BedrockRuntime, retries={'total_max_attempts': 3})"]
    assert seen({"max_attempts": 2}) == ["boto (BedrockRuntime, retries={'total_max_attempts': 3})"]
    assert seen({"max_attempts": 0}) == []
    assert seen({"total_max_attempts": 1}) == []


def test_one_warning() -> None:
    """The warning names the function, the client and the remedy, points at the user's line, and comes once."""

    def ask() -> Any:
        return RETRYING

    with pytest.warns(
        ScalekitWarning, match=r"shop\.ask .*RETRYING \(AsyncOpenAI, max_retries=2\).*max_retries=0"
    ) as seen:
        warn_of_retrying_clients(ask, "shop.ask")
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_retrying_clients(ask, "shop.ask")
