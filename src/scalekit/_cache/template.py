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

__all__ = ["template"]

Step = tuple[bool, str | int]  # (attribute?, its name or index)


def template(text: str, function: str, names: tuple[str, ...], first: bool) -> Callable[[tuple[Any, ...]], Tree]:
    """The function that makes the key of bound values; `first` says that the first of them is `self` or `cls`."""
    fields = _fields(text, function, names)

    def tree(values: tuple[Any, ...]) -> Tree:
        nodes: list[Tree] = [text]
        for place, steps, field in fields:
            value = values[place]
            if first and place == 0 and not steps:
                nodes.append(receiver(value))
                continue
            try:
                for attribute, step in steps:
                    value = getattr(value, str(step)) if attribute else value[step]
            except (AttributeError, LookupError, TypeError) as error:
                raise UnkeyableArgument(
                    f"{function}(): {{{field}}} of key={text!r} cannot be looked up in this call: "
                    f"{type(error).__name__}: {error}"
                ) from error
            nodes.append(canonical(value, field, function))
        return tuple(nodes)

    return tree


def _fields(text: str, function: str, names: tuple[str, ...]) -> list[tuple[int, list[Step], str]]:
    def wrong(why: str) -> ConfigurationError:
        example = f"{{{names[0]}}}" if names else "{name}"
        return ConfigurationError(
            f"{function}: key={text!r} {why}; write e.g. key='{function.split('.')[-1]}:{example}'."
        )

    fields: list[tuple[int, list[Step], str]] = []
    try:
        for _, field, spec, conversion in Formatter().parse(text):
            if field is None:
                continue
            if spec or conversion:
                raise wrong(f"formats {{{field}}}: values are keyed as they are, so leave out `:` and `!`")
            name, rest = _split(field)
            if name not in names:
                raise wrong(f"names {field!r}, but the parameters are {', '.join(names) or '(none)'}")
            fields.append((names.index(name), rest, field))
    except ConfigurationError:
        raise
    except ValueError as error:
        raise wrong(f"is not a template ({error})") from None
    if not fields:
        raise wrong("names no argument, so that all calls would share one answer")
    return fields


def _split(field: str) -> tuple[str, list[Step]]:
    """ "user.tags[0]" as ("user", [(True, "tags"), (False, 0)]), by the function that `str.format` itself uses."""
    split: Any = import_module("_string").formatter_field_name_split(field)
    return str(split[0]), [*split[1]]
