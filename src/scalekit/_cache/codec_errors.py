"""Errors that are kept (`negative=`): their class, arguments and attributes, as far as they are data.

An exception is made anew without its own `__init__` and `__new__`, whose signatures need not fit its `args` (those of
SDKs have keyword-only arguments): by the builtin exception that it inherits from, then its attributes are set. What
has no form as bytes is left out of the attributes, such as the response that an SDK's error carries; reading it is then
an `AttributeError`. Of the arguments nothing is left out, for they make its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MemberDescriptorType
from typing import Any

from scalekit._cache.codec_kinds import exactly
from scalekit._cache.codec_walk import Encoding, Refused, Tree
from scalekit._cache.names import qualified
from scalekit._cache.reachable import lookup
from scalekit.errors import CodecError

__all__ = ["error_body", "error_from"]

Class = type[BaseException]


def error_body(error: BaseException, allowed: tuple[Class, ...], encoding: Encoding) -> list[Tree]:
    """Class, arguments, attributes with a place of their own, and the others; raises `Refused`."""
    kind = type(error)
    if not _allowed(kind, allowed):
        raise Refused(error, "not an error that is kept: negative= names those, and a class with a finalizer is none")
    placed: dict[str, Any] = {}
    for name, member in _members(kind):
        try:
            value = member.__get__(error, kind)
        except AttributeError:
            continue
        if value is not None or member.__objclass__.__module__ != "builtins":  # None: OSError has no `filename`, say
            placed[name] = value
    attributes = {name: value for name, value in error.__dict__.items() if type(name) is str}
    try:
        arguments = encoding.items(error.args, 1)
    except Refused as refused:
        raise refused.under(".args") from None
    return [qualified(kind), arguments, _encodable(placed, encoding), _encodable(attributes, encoding)]


def error_from(body: Any, allowed: tuple[Class, ...], seen: Mapping[str, Class]) -> BaseException:
    """The exception of a decoded body; `seen` are classes of this process by name."""
    name, arguments, placed, attributes = exactly(list, body)
    kind: Any = seen.get(exactly(str, name)) or lookup(name)
    if kind is None or not _allowed(kind, allowed):
        raise CodecError(f"bytes name the error {name!r}, which is not one of those that are kept, or is not loaded.")
    if not all(type(key) is str for key in exactly(dict, attributes)):
        raise TypeError("attributes have names")
    base = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    error: BaseException = base.__new__(kind, *exactly(list, arguments))
    if type(error) is not kind:
        raise ValueError(f"{kind.__qualname__} made {type(error).__qualname__}")
    vars(BaseException)["args"].__set__(error, tuple(arguments))
    members = dict(_members(kind))
    for key, value in exactly(dict, placed).items():
        members[key].__set__(error, value)
    object.__getattribute__(error, "__dict__").update(attributes)
    return error


def _allowed(kind: type, allowed: tuple[Class, ...]) -> bool:
    """A subclass by its own line of bases (`issubclass` would ask a metaclass) that holds no more than data."""
    bases = type.__dict__["__mro__"].__get__(kind)
    known = BaseException in bases and any(base in bases for base in allowed)
    return known and not any("__del__" in vars(base) for base in bases)


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """Attributes with a place of their own that can be set: slots, and `errno`, `name`, `value` of the builtin ones."""
    for base in kind.__mro__:
        if base not in (BaseException, BaseExceptionGroup):
            yield from [(n, member) for n, member in vars(base).items() if type(member) is MemberDescriptorType]


def _encodable(state: Mapping[str, Any], encoding: Encoding) -> dict[str, Tree]:
    kept: dict[str, Tree] = {}
    for name, value in state.items():
        try:
            kept[name] = encoding.tree(value, 1)
        except Refused:
            continue
    return kept
