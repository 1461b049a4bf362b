"""The classes that an annotation reaches: what a function says that it returns is what may come back from bytes.

A container reaches what it contains, a class the annotations of its fields, a union all of its members; subclasses are
not implied. Hints that cannot be resolved (imported for type checkers only) reach nothing, silently.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

from scalekit._cache.names import module_name

__all__ = ["hints_of", "lookup", "reachable", "returned"]

Space = Mapping[str, Any]
Hint = tuple[Any, Space]  # and the names it may use

_DESCRIBED = ("__dataclass_fields__", "__attrs_attrs__", "__struct_fields__", "__pydantic_fields_set__", "_fields")


def hints_of(function: Any, types: Iterable[Any] = ()) -> list[Hint]:
    """The return annotation of a function, and `types` as if they stood beside it."""
    space: dict[str, Any] = dict(getattr(function, "__globals__", None) or {})
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None) or ()
    for name, cell in zip(getattr(code, "co_freevars", ()), cells, strict=False):
        try:
            space[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    for parameter in getattr(function, "__type_params__", ()):
        space[parameter.__name__] = parameter
    annotations = _annotations(function)
    return [(hint, space) for hint in (annotations.get("return"), *types)]


def returned(function: Any) -> Any:
    """What a function says that it returns; None if it does not say, or nobody can tell."""
    hint, space = hints_of(function)[0]
    return _evaluated(hint, space) if isinstance(hint, str | typing.ForwardRef) else hint


def reachable(hints: Iterable[Hint]) -> list[type]:
    """Every class that the hints reach."""
    found: dict[type, None] = {}
    seen: dict[int, Any] = {}  # kept alive, so that no other hint gets the same id
    waiting = list(hints)
    while waiting:
        hint, space = waiting.pop()
        if isinstance(hint, str | typing.ForwardRef):
            hint = _evaluated(hint, space)
        if id(hint) in seen:
            continue
        seen[id(hint)] = hint
        if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
            found[hint] = None
            waiting.extend(_of_class(hint))
        else:
            waiting.extend((part, space) for part in _parts(hint))
    return list(found)


def lookup(name: str) -> Any:
    """The class of a qualified name in this process, or None. No import, no descriptor, no `__getattr__` runs."""
    module, _, qualname = name.partition(":")
    for place in (module, "__main__") if module_name("__main__") == module else (module,):
        found: Any = sys.modules.get(place)
        if found is None or not issubclass(type(found), types.ModuleType):
            continue
        space: Any = object.__getattribute__(found, "__dict__")
        for step in qualname.split("."):
            found = space.get(step)
            if not issubclass(type(found), type):
                break
            space = _of_type("__dict__", found)
        else:
            if _of_type("__module__", found) == place and _of_type("__qualname__", found) == qualname:
                return found
    return None


def _of_type(attribute: str, kind: type) -> Any:
    """An attribute that `type` itself keeps, whatever a metaclass says."""
    return vars(type)[attribute].__get__(kind)


def _parts(hint: Any) -> Iterator[Any]:
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        yield typing.get_args(hint)[0]
        return
    if origin is typing.Literal:
        yield from {type(value) for value in typing.get_args(hint) if isinstance(value, Enum)}
        return
    if origin is not None:
        yield origin
    for part in typing.get_args(hint):
        yield from part if isinstance(part, list) else [part]
    if isinstance(hint, typing.TypeVar):
        yield from (hint.__bound__, *hint.__constraints__, getattr(hint, "__default__", None))
    for attribute in ("__value__", "__supertype__"):  # `type X = …`, NewType
        try:
            yield getattr(hint, attribute, None)
        except Exception:  # evaluated only now
            continue


def _of_class(kind: Any) -> Iterator[Hint]:
    """The hints of a class's fields."""
    if not any(hasattr(kind, mark) for mark in _DESCRIBED) and not typing.is_typeddict(kind):
        return
    for base in kind.__mro__:
        module = sys.modules.get(base.__module__)
        space = {**(vars(module) if module is not None else {}), **vars(base), base.__name__: base}
        yield from ((hint, space) for hint in _annotations(base).values())
        yield from ((hint, space) for hint in vars(base).get("__orig_bases__", ()))
    for field in (getattr(kind, "model_fields", None) or {}).values():
        yield field.annotation, {}
    for field in getattr(kind, "__attrs_attrs__", ()):
        yield field.type, {}


def _annotations(thing: Any) -> Mapping[str, Any]:
    """A thing's own annotations, those that cannot be resolved as references."""
    try:
        if sys.version_info >= (3, 14):
            import annotationlib

            return annotationlib.get_annotations(thing, format=annotationlib.Format.FORWARDREF)
        own: Any = vars(thing).get("__annotations__") if isinstance(thing, type) else thing.__annotations__
        return own or {}
    except Exception:
        return {}


def _evaluated(hint: str | typing.ForwardRef, space: Space) -> Any:
    text, module = (hint, None) if isinstance(hint, str) else (hint.__forward_arg__, hint.__forward_module__)
    if isinstance(module, str):
        module = sys.modules.get(module)
    try:
        return eval(text, dict(vars(module) if module is not None else space))
    except Exception:
        return None
