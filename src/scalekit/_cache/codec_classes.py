"""Objects by their state: enums, NamedTuples, dataclasses, attrs, msgspec structs and pydantic models.

An object is written as its class's name and its fields, and made by filling an empty one: no `__init__`, no validator,
no `__post_init__`, no property and no `__setattr__` runs, so what comes back is what was there, valid or not. That is
only right for classes whose objects are nothing but their fields. A class of another kind, one that inherits from a
builtin with content, has a finalizer (it holds something), or must be called to be made, is refused; what an instance
holds beside its fields is kept, save what is computed anew on demand.

A class whose fields are not those in the bytes has changed since: `ValueError`, and a miss. Never a half-filled object.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, Flag
from types import MemberDescriptorType
from typing import Any, NamedTuple, cast

from scalekit._cache.codec_kinds import Maker, exactly
from scalekit._cache.codec_walk import Encoding, Refused, Tree
from scalekit._cache.names import qualified

__all__ = ["Form", "form_of"]

State = dict[str, Any]
_HEAP = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement
_DERIVED = {"__orig_class__", "_attrs_cached_hash"}  # Box[int](…) leaves the one, attrs the other
_COMPOSABLE = (object, int)


class Form(NamedTuple):
    """How the objects of one class are written, and made anew."""

    name: str
    write: Callable[[Any, Encoding, int], list[Tree]]
    make: Maker


def form_of(kind: Any) -> Form:
    """The form of a class; raises `Refused` if its objects are not known to be nothing but their fields."""
    mro: tuple[type, ...] = kind.__mro__
    name = qualified(kind)
    if Enum in mro:
        return _enum(name, kind)
    if hasattr(kind, "__del__"):
        raise Refused(kind, "a class with a finalizer, so its objects hold more than data")
    if any(base.__module__ == "pydantic.main" and base.__name__ == "BaseModel" for base in mro):
        return _model(name, kind)
    if hasattr(kind, "__dataclass_fields__"):
        from dataclasses import fields

        return _object(name, kind, [field.name for field in fields(kind)])
    if hasattr(kind, "__attrs_attrs__"):
        return _object(name, kind, [field.name for field in kind.__attrs_attrs__])
    if hasattr(kind, "__struct_fields__"):
        return _struct(name, kind)
    if tuple in mro and isinstance(getattr(kind, "_fields", None), tuple):
        return _named_tuple(name, kind)
    raise Refused(kind, _advice(mro))


def _advice(mro: tuple[type, ...]) -> str:
    base = next((base for base in mro[1:] if base.__module__ == "builtins"), object)
    what = f"a subclass of {base.__name__}, " if base is not object else ""
    return f"{what}which has no form as bytes: return plain data, a dataclass or a model, or pass codec="


# enums ----------------------------------------------------------------------------------------------------------------


def _enum(name: str, kind: Any) -> Form:
    members: Mapping[str, Any] = vars(kind)["_member_map_"]
    combined = Flag in kind.__mro__ and vars(kind)["_member_type_"] in _COMPOSABLE

    def write(value: Any, encoding: Encoding, depth: int) -> list[Tree]:
        member: Any = value._name_
        if members.get(member) is value:
            return [name, member]
        if combined:
            return [name, encoding.tree(int(value._value_), depth)]
        raise Refused(value, "and none of the members of its enum")

    def make(body: list[Any]) -> Any:
        _, member = body
        if type(member) is str:
            return members[member]
        if not combined:
            raise ValueError("members are named")
        known = vars(kind)["_value2member_map_"].get(exactly(int, member))
        value: Any = known if known is not None else vars(Flag)["_missing_"].__func__(kind, member)
        return exactly(kind, value)

    return Form(name, write, make)


# objects with fields --------------------------------------------------------------------------------------------------


def _absent(names: frozenset[str], state: Mapping[str, Any]) -> list[str] | None:
    """Fields that an object does not have: never set, or an attribute of the class."""
    return None if len(state) == len(names) else sorted(names.difference(state))


def _check(names: frozenset[str], state: Any, absent: Any) -> None:
    """That an object was written with the fields that its class has today."""
    count = len(exactly(dict, state))
    if absent is not None:
        count, state = count + len(exactly(list, absent)), {**state, **dict.fromkeys(absent)}
    if not (count == len(state) == len(names)) or not names.issuperset(state):
        raise ValueError("the fields of the class have changed since")


def _rest(state: Mapping[str, Any], names: frozenset[str], derived: frozenset[str]) -> State | None:
    """What an object holds besides its fields, and is not computed anew."""
    if names.issuperset(state):
        return None
    rest = {name: value for name, value in state.items() if name not in names and name not in derived}
    if any(type(name) is not str for name in rest):
        raise Refused(state, "and holds attributes whose names are not strings")
    return rest or None


def _derived(kind: Any) -> frozenset[str]:
    """Cached properties, also those that attrs turned into slots, and other marks that are made anew."""
    found = set(_DERIVED)
    for base in kind.__mro__:
        space = vars(base)
        found.update(name for name, member in space.items() if type(member) is functools.cached_property)
        if "__attrs_attrs__" in space:
            fields = {field.name for field in space["__attrs_attrs__"]}
            found.update(
                name for name, member in space.items() if type(member) is MemberDescriptorType and name not in fields
            )
    return frozenset(found)


def _heap_only(kind: Any, *allowed: type) -> None:
    for base in kind.__mro__:
        if not base.__flags__ & _HEAP and base not in (object, *allowed):
            raise Refused(kind, _advice(kind.__mro__))


def _object(name: str, kind: Any, fields: Iterable[str]) -> Form:
    """Dataclasses and attrs: the instance's `__dict__`, and its slots."""
    _heap_only(kind)
    new = object.__new__
    try:
        new(kind)
    except TypeError as error:
        raise Refused(kind, f"whose objects cannot be made empty ({error})") from None
    names, derived = frozenset(fields), _derived(kind)
    slots = {
        slot: member
        for base in reversed(kind.__mro__)
        for slot, member in vars(base).items()
        if type(member) is MemberDescriptorType
    }
    open_ended = bool(kind.__dictoffset__)

    def state_of(value: Any) -> State:
        state: State = dict(value.__dict__) if open_ended else {}
        for slot, member in slots.items():
            try:
                state[slot] = member.__get__(value, kind)
            except AttributeError:
                pass
        return state

    def write(value: Any, encoding: Encoding, depth: int) -> list[Tree]:
        state = state_of(value) if slots else value.__dict__
        if state.keys() == names:
            return [name, encoding.fields(state, depth), None, None]
        rest = _rest(state, names, derived)
        state = {field: item for field, item in state.items() if field in names}
        return [
            name,
            encoding.fields(state, depth),
            _absent(names, state),
            rest and encoding.fields(rest, depth),
        ]

    def make(body: list[Any]) -> Any:
        _, state, absent, rest = body
        _check(names, state, absent)
        if rest is not None:
            state = {**state, **_attributes(rest)}
        value = new(kind)
        if slots:
            for slot in slots.keys() & state.keys():
                slots[slot].__set__(value, state.pop(slot))
            if "_attrs_cached_hash" in slots:
                slots["_attrs_cached_hash"].__set__(value, None)
        if open_ended:
            object.__getattribute__(value, "__dict__").update(state)
        elif state:
            raise ValueError("attributes without a place")
        return value

    return Form(name, write, make)


def _attributes(rest: Any) -> State:
    attributes: State = exactly(dict, rest)
    if not all(type(name) is str for name in attributes):
        raise TypeError("attributes have names")
    return attributes


def _slot(get: Callable[..., Any], value: Any, kind: type) -> Any:
    try:
        return get(value, kind)
    except AttributeError:  # never set, as in root models
        return False


def _model(name: str, kind: Any) -> Form:
    """pydantic: `__dict__`, and the three slots of `BaseModel`. Nothing is validated, so what is invalid comes back."""
    base: Any = next(
        base for base in kind.__mro__ if "__pydantic_fields_set__" in vars(base) and "__slots__" in vars(base)
    )
    slots = [vars(base)[slot] for slot in ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")]
    _heap_only(kind)
    for part in kind.__mro__:
        if part is not base and any(type(member) is MemberDescriptorType for member in vars(part).values()):
            raise Refused(kind, "a model with slots of its own")
    getters = [slot.__get__ for slot in slots]
    set_given, set_extra, set_private = [slot.__set__ for slot in slots]
    set_dict: Any = vars(base)["__dict__"].__set__
    names, derived = frozenset[str](kind.model_fields), _derived(kind)
    new = object.__new__

    def write(value: Any, encoding: Encoding, depth: int) -> list[Tree]:
        own: State = value.__dict__
        rest = _rest(own, names, derived)
        state = own if names.issuperset(own) else {field: item for field, item in own.items() if field in names}
        given, extra, private = [_slot(get, value, kind) for get in getters]
        return [
            name,
            encoding.fields(state, depth),
            _absent(names, state),
            rest and encoding.fields(rest, depth),
            None if given == state.keys() else sorted(given),
            encoding.fields(extra, depth) if extra else extra,
            encoding.fields(private, depth) if private else private,
        ]

    def make(body: list[Any]) -> Any:
        _, state, absent, rest, given, extra, private = body
        _check(names, state, absent)
        value = new(kind)
        set_given(value, set(state) if given is None else set(exactly(list, given)))
        if extra is not False:
            set_extra(value, None if extra is None else _attributes(extra))
        if private is not False:
            set_private(value, None if private is None else _attributes(private))
        set_dict(value, state if rest is None else {**state, **_attributes(rest)})
        return value

    return Form(name, write, make)


def _struct(name: str, kind: Any) -> Form:
    """msgspec structs can only be made by calling them, which runs nothing but `__post_init__`."""
    msgspec: Any = sys.modules["msgspec"]
    if type(kind) is not type(msgspec.Struct) or hasattr(kind, "__post_init__"):
        raise Refused(kind, "a struct that runs code of its own when it is made (__post_init__)")
    names, open_ended = frozenset[str](kind.__struct_fields__), bool(kind.__struct_config__.dict)
    derived = _derived(kind)

    def write(value: Any, encoding: Encoding, depth: int) -> list[Tree]:
        rest = _rest(value.__dict__, frozenset(), derived) if open_ended else None
        state = {field: getattr(value, field) for field in kind.__struct_fields__}
        return [name, encoding.fields(state, depth), rest and encoding.fields(rest, depth)]

    def make(body: list[Any]) -> Any:
        _, state, rest = body
        _check(names, state, None)
        value = kind(**state)
        if rest is not None:
            object.__getattribute__(value, "__dict__").update(_attributes(rest))
        return value

    return Form(name, write, make)


def _named_tuple(name: str, kind: Any) -> Form:
    """A NamedTuple by the names of its items, so that two that changed places are not mistaken for each other."""
    _heap_only(kind, tuple)
    fields = cast("tuple[str, ...]", kind._fields)
    names, open_ended, derived = frozenset(fields), bool(kind.__dictoffset__), _derived(kind)

    def write(value: Any, encoding: Encoding, depth: int) -> list[Tree]:
        if len(value) != len(fields):
            raise Refused(value, "and has another length than its fields")
        rest = _rest(value.__dict__, frozenset(), derived) if open_ended else None
        state = dict(zip(fields, tuple.__iter__(value), strict=True))
        return [name, encoding.fields(state, depth), rest and encoding.fields(rest, depth)]

    def make(body: list[Any]) -> Any:
        _, state, rest = body
        _check(names, state, None)
        value: Any = tuple.__new__(kind, [state[field] for field in fields])
        if rest is not None:
            object.__getattribute__(value, "__dict__").update(_attributes(rest))
        return value

    return Form(name, write, make)
