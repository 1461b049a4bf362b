"""`key="user:{user.id}:{query}"`: a key named by its parts.

It reads like a format string and is none: the parts are looked up on the arguments and keyed each with its type, never
joined, so that user "1" of query "2:3" is not user "1:2" of query "3".
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from string import Formatter
from typing import Any

from scalekit._cache.key import Tree, canonical
from scalekit._cache.receiver import receiver
from scalekit.errors import ConfigurationError, UnkeyableArgument

__all__ = ["fields", "look_up", "template"]

Step = tuple[bool, str | int]  # (attribute?, its name or index)


def template(text: str, function: str, names: tuple[str, ...], first: bool) -> Callable[[tuple[Any, ...]], Tree]:
    """The function that makes the key of bound values; `first` says that the first of them is `self` or `cls`."""
    parts = fields(text, function, names, "key")
    if not parts:
        raise _wrong(text, function, names, "key", "names no argument, so that all calls would share one answer")

    def tree(values: tuple[Any, ...]) -> Tree:
        nodes: list[Tree] = [text]
        for place, steps, field in parts:
            value = values[place]
            if first and place == 0 and not steps:
                nodes.append(receiver(value))
                continue
            value = look_up(value, steps, f"{function}(): {{{field}}} of key={text!r}")
            nodes.append(canonical(value, field, function))
        return tuple(nodes)

    return tree


def look_up(value: Any, steps: list[Step], what: str) -> Any:
    """What the steps lead to; `what` names it in the error."""
    try:
        for attribute, step in steps:
            value = getattr(value, str(step)) if attribute else value[step]
    except (AttributeError, LookupError, TypeError) as error:
        raise UnkeyableArgument(f"{what} cannot be looked up in this call: {type(error).__name__}: {error}") from error
    return value


def fields(text: str, function: str, names: tuple[str, ...], what: str) -> list[tuple[int, list[Step], str]]:
    """The parts that a text names: the argument's place, the steps from it, and what was written. `what` is the
    parameter that the text was given to.
    """
    found: list[tuple[int, list[Step], str]] = []
    try:
        for _, field, spec, conversion in Formatter().parse(text):
            if field is None:
                continue
            if spec or conversion:
                raise _wrong(
                    text,
                    function,
                    names,
                    what,
                    f"formats {{{field}}}: values count as they are, so leave out `:` and `!`",
                )
            name, rest = _split(field)
            if name not in names:
                reason = f"names {field!r}, but the parameters are {', '.join(names) or '(none)'}"
                raise _wrong(text, function, names, what, reason)
            found.append((names.index(name), rest, field))
    except ConfigurationError:
        raise
    except ValueError as error:
        raise _wrong(text, function, names, what, f"is not a template ({error})") from None
    return found


def _wrong(text: str, function: str, names: tuple[str, ...], what: str, why: str) -> ConfigurationError:
    example = f"{{{names[0]}}}" if names else "{name}"
    short = function.split(".")[-1]
    return ConfigurationError(f"{function}: {what}={text!r} {why}; write e.g. {what}='{short}:{example}'.")


def _split(field: str) -> tuple[str, list[Step]]:
    """ "user.tags[0]" as ("user", [(True, "tags"), (False, 0)]), by the function that `str.format` itself uses."""
    split: Any = import_module("_string").formatter_field_name_split(field)
    return str(split[0]), [*split[1]]
