"""From a call to its key: one compiled binder per function, then the canonical form of what it bound.

`f(1)`, `f(x=1)` and a written-out default are one call, so arguments are bound before they are keyed. `Signature.bind`
takes 2 to 4 µs; a function with the same parameters that returns them as a tuple is Python's own binding, takes 0.1,
and words its `TypeError` exactly as the function would (it carries the function's name). Its code is kept by the text
of the parameters, so that a closure decorated for each request is not compiled each time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from inspect import Parameter
from types import CodeType, FunctionType
from typing import Any, cast

from scalekit._cache.key import ATOMS, BODIES, Kind, Tree, canonical, keyed
from scalekit._cache.receiver import receiver as receiver_node
from scalekit.errors import ConfigurationError, UnkeyableArgument

__all__ = ["Signature", "WrongCall", "binder", "key_maker"]

Values = tuple[Any, ...]


class WrongCall(TypeError):
    """The arguments do not fit the function, in its own words. Call it: it says the same, or knows better."""


class Signature:
    """How calls of one function become keys.

    `names` are the parameters that count, `normal(*args, **kwargs)` their values in that order (or the function's own
    `TypeError`), `tree(values)` the key of those values. `direct` says that the key is made of these values alone, so
    that equal atoms mean an equal key; it is false for `key=`, and then `key(args, kwargs)` is the only way.
    """

    __slots__ = ("direct", "function", "key", "names", "normal", "tree")

    def __init__(
        self,
        function: str,
        names: tuple[str, ...],
        normal: Callable[..., Values],
        tree: Callable[[Values], Tree],
        key: Callable[[Values, Mapping[str, Any]], Tree] | None = None,
    ) -> None:
        self.function = function
        self.names = names
        self.normal = normal
        self.tree = tree
        self.direct = key is None
        self.key: Callable[[Values, Mapping[str, Any]], Tree] = key or _bound(normal, tree)


def key_maker(
    function: Callable[..., Any],
    ignore: str | Iterable[str] = (),
    key: str | Callable[..., Any] | None = None,
    receiver: bool = False,
) -> Signature:
    """The `Signature` of `function`; `receiver` says that its first parameter is `self` or `cls`."""
    named = _name(function)
    parameters = _parameters(function)
    ignored = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    every = tuple([parameter.name for parameter in parameters])
    first = receiver and bool(parameters) and parameters[0].kind is not Parameter.KEYWORD_ONLY
    _check_ignored(named, ignored, parameters)
    if key is None:
        names = tuple([name for name in every if name not in ignored])
        normal = _binder(function, parameters, ignored)
        return Signature(named, names, normal, _tree(named, names, first and every[0] not in ignored))
    if ignored:
        raise ConfigurationError(
            f"{named}: key= decides alone what counts, so ignore={ignored!r} has no meaning with it."
        )
    normal = _binder(function, parameters, ())
    if isinstance(key, str):
        from scalekit._cache.template import template

        tree = template(key, named, every, first)
        return Signature(named, every, normal, tree, _bound(normal, tree))
    if not callable(key):
        raise ConfigurationError(f"{named}: key={key!r} is neither a callable nor a text such as 'user:{{user.id}}'.")
    if inspect.iscoroutinefunction(key):
        raise ConfigurationError(f"{named}: key= is an async function; a key is computed without waiting: use a def.")
    compute = key

    def computed(args: Values, kwargs: Mapping[str, Any]) -> Tree:
        try:
            normal(*args, **kwargs)
        except TypeError as error:
            raise WrongCall(*error.args) from None
        answer = compute(*args, **kwargs)
        return answer if type(answer) is str else canonical(answer, "key(...)", named)

    return Signature(named, every, normal, _no_tree, computed)


def binder(function: Callable[..., Any]) -> tuple[tuple[str, ...], Callable[..., Values]]:
    """The names of all parameters, and what binds a call to a tuple of their values."""
    parameters = _parameters(function)
    return tuple([parameter.name for parameter in parameters]), _binder(function, parameters, ())


def _name(function: Any) -> str:
    while not hasattr(function, "__qualname__") and hasattr(function, "func"):
        function = function.func  # of a partial
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _parameters(function: Callable[..., Any]) -> list[Parameter]:
    try:
        return [*inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):  # a builtin that does not say
        return [Parameter("args", Parameter.VAR_POSITIONAL), Parameter("kwargs", Parameter.VAR_KEYWORD)]


def _check_ignored(named: str, ignored: tuple[str, ...], parameters: list[Parameter]) -> None:
    every = [parameter.name for parameter in parameters]
    for name in ignored:
        known = isinstance(name, str) and name.isidentifier()  # pyright: ignore[reportUnnecessaryIsInstance]
        if name in every or (known and any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters)):
            continue
        raise ConfigurationError(f"{named}: ignore={name!r} is none of its parameters: {', '.join(every) or '(none)'}.")


def _binder(
    function: Callable[..., Any], parameters: list[Parameter], ignored: tuple[str, ...]
) -> Callable[..., Values]:
    text: list[str] = []
    kept: list[str] = []
    dropped = [name for name in ignored if all(name != parameter.name for parameter in parameters)]
    body = ""
    previous: Any = Parameter.POSITIONAL_ONLY if parameters else None
    for parameter in parameters:
        name, kind = parameter.name, parameter.kind
        if previous is Parameter.POSITIONAL_ONLY is not kind and text:
            text.append("/")
        if kind is Parameter.KEYWORD_ONLY and previous not in (Parameter.KEYWORD_ONLY, Parameter.VAR_POSITIONAL):
            text.append("*")
        stars = "*" if kind is Parameter.VAR_POSITIONAL else "**" if kind is Parameter.VAR_KEYWORD else ""
        text.append(f"{stars}{name}" if parameter.default is Parameter.empty else f"{name}=None")
        if kind is Parameter.VAR_KEYWORD:
            body = "".join([f"    {name}.pop({one!r}, None)\n" for one in dropped])
        if name not in ignored:
            kept.append(name)
        previous = kind
    if previous is Parameter.POSITIONAL_ONLY:
        text.append("/")
    returned = f"({', '.join(kept)}{',' if len(kept) == 1 else ''})"
    code = _code(f"def normal({', '.join(text)}):\n{body}    return {returned}\n")
    given = [parameter for parameter in parameters if parameter.default is not Parameter.empty]
    normal = FunctionType(code, {"__builtins__": {}}, "normal")
    normal.__defaults__ = tuple([one.default for one in given if one.kind is not Parameter.KEYWORD_ONLY])
    normal.__kwdefaults__ = {one.name: one.default for one in given if one.kind is Parameter.KEYWORD_ONLY}
    normal.__qualname__ = _name(function)
    return normal


@lru_cache(256)
def _code(source: str) -> CodeType:
    module = compile(source, "<scalekit: the parameters of a cached function>", "exec", dont_inherit=True)
    return next(constant for constant in module.co_consts if isinstance(constant, CodeType))


def _bound(
    normal: Callable[..., Values], tree: Callable[[Values], Tree]
) -> Callable[[Values, Mapping[str, Any]], Tree]:
    def key(args: Values, kwargs: Mapping[str, Any]) -> Tree:
        try:
            values = normal(*args, **kwargs)
        except TypeError as error:
            raise WrongCall(*error.args) from None
        return tree(values)

    return key


def _no_tree(values: Values) -> Tree:
    raise AssertionError("key= is a callable: the key is made from the call, not from its bound values")


def _tree(named: str, names: tuple[str, ...], first: bool) -> Callable[[Values], Tree]:
    """The key of bound values: a lone str is its own key, else (types, *bodies)."""
    seen: dict[tuple[Kind, ...], tuple[tuple[Kind, ...], bool]] = {}  # one tuple of types for all entries; all atoms?

    def tree(values: Values) -> Tree:
        kinds: tuple[Kind, ...] = tuple(map(type, values))
        try:
            kinds, plain = seen[kinds]
        except KeyError:
            plain = ATOMS.issuperset(kinds)
            if len(seen) < 64:
                seen[kinds] = kinds, plain
        if plain:
            return (kinds, *values)
        bodies: list[Tree] = []
        for kind, value, name in zip(kinds, values, names, strict=True):
            if kind in ATOMS or (kind is float and value == value and value != 0):
                bodies.append(value)
            else:
                bodies.append(keyed(BODIES[kind], value, name, named))
        return (kinds, *bodies)

    def lone(values: Values) -> Tree:
        value: object = values[0]
        kind: Kind = type(value)
        if kind is str:
            return cast(str, value)
        return (kind, value if kind in ATOMS else keyed(BODIES[kind], value, names[0], named))

    def method(values: Values) -> Tree:
        try:
            one = receiver_node(values[0])
        except UnkeyableArgument as error:
            raise UnkeyableArgument(f"{named}(): {error}") from None
        return (one, tree(values[1:]))

    if first:
        names = names[1:]
        return method
    return lone if len(names) == 1 else tree
