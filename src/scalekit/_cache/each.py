"""`each=`: the argument that is a list of items, each with an answer of its own.

A call with one item in the place of the list is what is keyed, scoped and tagged; the function itself is always called
with a list. What it gives back has to say which answer is whose: a list or tuple with one answer for each item, in
their order, or a dict of answers by item, which may leave some out. An exception in the place of an answer is that
item's failure.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter
from typing import Any

from scalekit._cache.normal import Values, WrongCall
from scalekit._cache.reachable import returned
from scalekit._core.target import Target
from scalekit.errors import ConfigurationError

__all__ = ["NOTHING", "ListArgument"]

Given = tuple[Values, dict[str, Any]]


class _Nothing:
    def __repr__(self) -> str:
        return "<no answer>"


NOTHING = _Nothing()
"""The answer to an item that a dict leaves out."""


class ListArgument:
    """One parameter of one function. `form` is how the function gives its answers, once that is known."""

    def __init__(self, name: Any, target: Target, ignored: Iterable[str]) -> None:
        self.name = name
        self.function = target.name
        parameters = dict(target.signature.parameters) if target.signature is not None else {}
        parameter = parameters.get(name) if isinstance(name, str) else None
        if parameter is None or parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            raise ConfigurationError(
                f"{target.name}: each={name!r} is none of its parameters that can be a list: "
                f'{", ".join(parameters) or "(none)"}. Write each="texts" for `def f(texts: list[str])`.'
            )
        if name in ignored:
            raise ConfigurationError(f"{target.name}: each={name!r} is ignored, so all items would be one.")
        if target.shape.is_stream:
            raise ConfigurationError(f"{target.name} is a generator function; each= needs one that returns a list.")
        self.place = None if parameter.kind is Parameter.KEYWORD_ONLY else [*parameters].index(name)
        self.default = parameter.default
        self.declared = _form(target.function)
        self.form: type = self.declared or list

    def items(self, args: Values, kwargs: Mapping[str, Any]) -> list[Any]:
        """The items of a call. Raises WrongCall if there is no such argument, TypeError if it is no list of items."""
        if self.name in kwargs:
            given = kwargs[self.name]
        elif self.place is not None and self.place < len(args):
            given = args[self.place]
        elif self.default is not Parameter.empty:
            given = self.default
        else:
            raise WrongCall
        if isinstance(given, str | bytes | bytearray | Mapping) or not isinstance(given, Iterable):
            raise TypeError(
                f"{self.function}(): {self.name}={_brief(given)} is no list of items, which each={self.name!r} asks "
                f"for. Call it with a list, also for one item: {self.name}=[...]."
            )
        return [*given]

    def within(self, args: Values, kwargs: dict[str, Any], value: Any) -> Given:
        """The arguments of the call with `value` in the place of the list."""
        place = self.place
        if place is not None and place < len(args):
            return (*args[:place], value, *args[place + 1 :]), kwargs
        return args, {**kwargs, self.name: value}

    def spread(self, answer: Any, items: Sequence[Any], shared: bool) -> list[Any]:
        """The answers of the function, one for each item; `NOTHING` where a dict has none. `shared` says that other
        processes will read them.
        """
        form = dict if isinstance(answer, Mapping) else type(answer)
        if form not in (list, tuple, dict) or (self.declared is not None and form is not self.declared):
            wanted = "a list, a tuple or a dict by item" if self.declared is None else f"a {self.declared.__name__}"
            raise ConfigurationError(
                f"{self.function} returned {type(answer).__module__}.{type(answer).__qualname__}; each={self.name!r} "
                f"needs {wanted}, so that each item has its answer: `return list(...)`."
            )
        if shared and self.declared is None and form is not list:
            raise ConfigurationError(
                f"{self.function} returned a {form.__name__}, and its return annotation does not say so; a process "
                f"that finds all answers in a shared tier could not know. Annotate it: `-> {form.__name__}[...]`."
            )
        self.form = form
        if form is dict:
            return [answer.get(item, NOTHING) for item in items]
        if len(answer) != len(items):
            raise ConfigurationError(
                f"{self.function} returned {len(answer)} answers to {len(items)} items, so nobody can tell which is "
                f"whose; nothing was kept. each={self.name!r} needs one for each, in their order."
            )
        return [*answer]

    def gathered(self, items: Sequence[Any], answers: Sequence[Any]) -> Any:
        """What the caller gets: the answers in the form in which the function gives them."""
        if self.form is dict:
            return {item: answer for item, answer in zip(items, answers, strict=True) if answer is not NOTHING}
        return self.form(answers)


def _form(function: Callable[..., Any]) -> type | None:
    """What the return annotation says: list, tuple or dict; None where it says neither."""
    annotation = returned(function)
    origin = typing.get_origin(annotation) or annotation
    if not isinstance(origin, type):
        return None
    if issubclass(origin, list | tuple):
        return list if issubclass(origin, list) else tuple
    return dict if issubclass(origin, Mapping) else None


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
