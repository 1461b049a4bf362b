"""How `self` and `cls` enter a key: by value where they have one, else by being this very object.

An object without a value is told apart by identity, in this process only. Its `id` alone would not do: after it died
another one gets the same number, and would be answered from the dead one's entries. `Identity` therefore compares the
objects themselves, held weakly: the entry of a dead object equals nothing any more. One that cannot be held weakly (it
has `__slots__` without `__weakref__`) lives as long as its entries do, so that its id is not given away.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from weakref import ref

from scalekit._cache.key import BODIES, Refused, Tree, keyed, kind_of

__all__ = ["Identity", "frozen", "receiver"]


class Identity:
    """Equal to another one of the same object, while that object lives."""

    __slots__ = ("_hash", "_held", "_weak", "named")

    def __init__(self, value: Any) -> None:
        self.named = f"{type(value).__module__}.{type(value).__qualname__}"
        self._hash = hash((Identity, id(value)))
        self._weak: _Ref | None = None
        self._held: Any = None
        try:
            self._weak = _Ref(value, _gone)
        except TypeError:
            self._held = value
        else:
            self._weak.number = id(value)
            _living[id(value)] = self

    @property
    def value(self) -> Any:
        """The object, or None if it is gone."""
        return self._held if self._weak is None else self._weak()

    @property
    def weak(self) -> bool:
        """False where this `Identity` keeps its object alive."""
        return self._weak is not None

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(other) is not Identity:
            return NotImplemented
        value = self.value
        return value is not None and value is other.value

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"<identity of {self.named}>"


class _Ref(ref[Any]):
    __slots__ = ("number",)
    number: int


_living: dict[int, Identity] = {}  # the one of each object, so that a call does not make it anew


def _gone(weak: Any, living: dict[int, Identity] = _living) -> None:
    """Runs wherever the collector runs, so it takes no lock; the number may be another object's by now. At exit the
    globals of a module are gone before its objects are, hence `living`.
    """
    known = living.get(weak.number)
    if known is not None and known.value is None:
        living.pop(weak.number, None)


def receiver(value: Any) -> Tree:
    """The node of `self` or `cls`.

    A class by itself; by value an enum, a named tuple, a frozen dataclass, attrs class or msgspec struct, any pydantic
    model, and what has `__scalekit_key__`; everything else, and what cannot be keyed after all (a frozen dataclass
    that holds a client), by identity.
    """
    known = _living.get(id(value))
    if known is not None and known.value is value:
        return (Identity, known)
    kind = kind_of(value)
    if isinstance(value, type):
        return (kind, value)
    if hasattr(kind, "__scalekit_key__") or "__scalekit_key__" in getattr(value, "__dict__", ()):
        return (kind, keyed(BODIES[kind], value, "self"))
    if frozen(kind) or hasattr(kind, "__pydantic_validator__"):
        with suppress(Refused, RecursionError):
            return (kind, BODIES[kind](value, 1))
    return (Identity, Identity(value))


def frozen(kind: Any) -> bool:
    """True for classes whose objects are their value: enums, named tuples, frozen dataclasses and the like."""
    if hasattr(kind, "__pydantic_validator__"):
        return bool(getattr(kind, "model_config", {}).get("frozen"))
    if hasattr(kind, "__dataclass_params__"):
        return bool(kind.__dataclass_params__.frozen)
    if hasattr(kind, "__struct_config__"):
        return bool(kind.__struct_config__.frozen)
    if hasattr(kind, "__attrs_attrs__"):
        return bool(kind.__setattr__.__name__ == "_frozen_setattrs")
    return hasattr(kind, "_member_map_") or (hasattr(kind, "_fields") and tuple in kind.__mro__)
