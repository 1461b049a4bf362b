"""Runs `async def` tests in the colour their `colour` fixture names; long and framework tests are for those who ask."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from colours import COLOURS, Colour

from scalekit import settings


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    """What a test configures ends with it."""
    yield
    settings.reset()


@pytest.fixture(params=sorted(COLOURS))
def colour(request: pytest.FixtureRequest) -> Colour:
    """Each of the three worlds, one after the other."""
    return COLOURS[request.param]()


@pytest.fixture(params=["asyncio", "trio"])
def loop_colour(request: pytest.FixtureRequest) -> Colour:
    """The two worlds in which a call can be cancelled."""
    return COLOURS[request.param]()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    colour = wanted.get("colour") or wanted.get("loop_colour")
    assert colour is not None, "an async test takes the fixture `colour` or `loop_colour`"
    colour.run(functools.partial(pyfuncitem.obj, **wanted))
    return True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = config.option.markexpr or ""
    unasked = [name for name in ("frameworks", "fuzz", "soak") if name not in asked]
    deselected = [item for item in items if any(item.get_closest_marker(name) for name in unasked)]
    if deselected:
        items[:] = [item for item in items if item not in deselected]
        config.hook.pytest_deselected(items=deselected)
