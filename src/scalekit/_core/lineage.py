"""Which call waits for which: the chain of permits and flights that the running code is inside of.

A permit held, or a flight that computes, is a frame. Each knows the frame it was entered from, and a flight also
those of the callers who joined it. Two things are read off this graph: whose permit may be lent to a child (see
_limit/permits.py), and whether joining a flight would close a circle (see _cache/flights.py). It is a graph and not
only a context variable, because A may wait for B while B, begun elsewhere, waits for A.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any


class Frame:
    """One thing that the running code is inside of, entered from `outer`."""

    __slots__ = ()

    outer: Any  # a Frame or None; slots of who inherits
    ended: bool


class Shared(Frame):
    """A frame that several callers wait for: the first from `outer`, the others `joined`; what waits `inside` of it are
    tickets of permit pools."""

    joined: tuple[Frame, ...] = ()
    inside: dict[Any, None]  # an ordered set: a ticket that asks twice stands in it once


current: ContextVar[Frame | None] = ContextVar("scalekit.current", default=None)


def living(frame: Frame | None) -> Frame | None:
    """The nearest one that has not ended; nobody waits in those that have, and a task may hold their chain for ever."""
    while frame is not None and frame.ended:
        frame = frame.outer
    alive = frame
    while alive is not None:
        outer = alive.outer
        while outer is not None and outer.ended:
            outer = outer.outer
        alive.outer = alive = outer
    return frame


def ancestors(frame: Frame | None) -> Iterator[Frame]:
    """`frame` and everything that waits for it, nearest first, each once."""
    seen: set[int] = set()
    todo: list[Frame | None] = [frame]
    while todo:
        frame = todo.pop()
        while frame is not None and id(frame) not in seen:
            seen.add(id(frame))
            yield frame
            if isinstance(frame, Shared):
                todo.extend(frame.joined)
            frame = frame.outer
