"""What an answer is labelled with, from its arguments or from itself: the tags it can be invalidated by, and the scope
it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from scalekit._cache.key import Tree, canonical
from scalekit._cache.normal import Values, binder
from scalekit._cache.template import fields, look_up
from scalekit.errors import ConfigurationError, UnkeyableArgument

__all__ = ["Scoper", "Tags"]


class Tags:
    """`tags=`: texts such as "doc:{doc.id}", filled with the arguments, and functions of the answer, in any mixture."""

    def __init__(self, given: Any, function: Callable[..., Any], name: str) -> None:
        self.name = name
        parts: list[Any] = [given] if isinstance(given, str) or callable(given) else _listed(given)
        texts = [part for part in parts if isinstance(part, str)]
        self.of_answer: list[Callable[[Any], Any]] = [part for part in parts if not isinstance(part, str)]
        for part in self.of_answer:
            if not callable(part):
                raise _wrong(given)
        self._names, self._bind = binder(function)
        self._texts = [(text, fields(text, name, self._names, "tags")) for text in texts]
        if any(not text for text in texts):
            raise _wrong(given)

    def of_call(self, args: Values, kwargs: dict[str, Any]) -> list[str]:
        """The tags that the arguments give."""
        if not self._texts:
            return []
        values = self._bind(*args, **kwargs)
        bound = dict(zip(self._names, values, strict=True))
        found: list[str] = []
        for text, parts in self._texts:
            for place, steps, field in parts:
                look_up(values[place], steps, f"{self.name}(): {{{field}}} of tags={text!r}")
            found.append(text.format_map(bound))
        return found

    def of_value(self, value: Any) -> list[str]:
        """The tags that the answer gives. Runs the user's functions."""
        found: list[str] = []
        for part in self.of_answer:
            given = part(value)
            for tag in [given] if isinstance(given, str) else _listed(given):
                if not isinstance(tag, str) or not tag:
                    raise TypeError(f"tags= gave {tag!r}, which is no name")
                found.append(tag)
        return found


class Scoper:
    """`scope=`: the name of an argument ("tenant", "request.user.id"), or a function of the arguments."""

    def __init__(self, given: Any, function: Callable[..., Any], name: str) -> None:
        self.name = name
        self.given = given
        if isinstance(given, str):
            names, self._bind = binder(function)
            parts = fields(f"{{{given}}}", name, names, "scope")
            if len(parts) != 1:
                raise ConfigurationError(f'{name}: scope={given!r} is not the name of one argument: scope="tenant".')
            self._place, self._steps, _ = parts[0]
        elif not callable(given):
            raise ConfigurationError(f"{name}: scope={given!r} is neither an argument's name nor a function.")

    def __call__(self, args: Values, kwargs: dict[str, Any]) -> Tree:
        if callable(self.given):
            value = self.given(*args, **kwargs)
        else:
            value = look_up(
                self._bind(*args, **kwargs)[self._place], self._steps, f"{self.name}(): scope={self.given!r}"
            )
        if value is None or value == "":
            raise UnkeyableArgument(
                f"{self.name}(): scope={self.given!r} is {value!r} in this call, and all whose scope is not known "
                f"would share their answers. Give the call its scope, or compute one with scope=lambda ...: ..."
            )
        return value if type(value) is str else canonical(value, "scope", self.name)


def _listed(given: Any) -> list[Any]:
    if isinstance(given, Iterable) and not isinstance(given, bytes | dict):
        return [*given]  # pyright: ignore[reportUnknownVariableType]
    raise _wrong(given)


def _wrong(given: Any) -> ConfigurationError:
    return ConfigurationError(
        f'cache: tags={given!r} is none of a text such as "doc:{{doc_id}}", a function of the answer, a list of such.'
    )
