"""A sync call runs the same coroutine as an async one: one `send(None)`, because nothing in it ever suspends.

The methods of the blocking runtime block instead of suspending, so the coroutine is finished after its first step. One
that suspends all the same is a bug of a policy, and fails loudly.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Carried(Exception):
    """A StopIteration of the user's function on its way through coroutines, which cannot raise one."""

    def __init__(self, original: StopIteration) -> None:
        super().__init__(original)
        self.original = original


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of the blocking runtime to its end, in this thread, and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    except Carried as carried:
        original = carried.original
    else:
        coroutine.close()
        raise RuntimeError("a policy of scalekit suspended in a sync call; this is a bug in that policy")
    raise original
