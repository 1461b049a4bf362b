"""Which function it is that answers: by name, and by everything that decides what it answers.

Two functions of one module and qualname can differ: closures made by a factory, a notebook cell that was run again,
the version deployed an hour ago beside the one deployed now. If they shared a stored answer, one of them would be
wrong. So the identity holds, besides the name, what the body says (source.py), the values of its defaults and closure
cells (functions among them by their own identity: that is where `functools.wraps` keeps the real one), and the
immutable constants of its module that the body names. Docstring, annotations, decorators and layout do not count, nor
do other functions that it calls: an edited helper is what `version=` is for.

It is computed when a digest is first needed, since it reads the source: a decoration must cost microseconds. The source
is believed only where it compiles to the code that runs, so a file edited meanwhile deceives nobody.

`version="3"` stands for code, defaults and constants; closure cells that can be keyed, bound arguments and receivers
still count, as they are data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import CellType, FunctionType, MethodType
from typing import Any, cast

from scalekit._cache.digest import digest, stable
from scalekit._cache.key import ATOMS, Tree, canonical, kind_of
from scalekit._cache.names import module_name
from scalekit._cache.receiver import frozen, receiver
from scalekit.errors import ConfigurationError, UnkeyableArgument

__all__ = ["FunctionIdentity", "identity"]

_CONSTANTS = frozenset({float, complex, range, type(...)}) | ATOMS
_CONSTANT_NAMES = frozenset(
    {"date", "datetime", "time", "timedelta", "timezone", "ZoneInfo", "Decimal", "Fraction", "UUID", "Pattern"}
    | {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"}
)
_CONSTANT_MODULES = frozenset({"datetime", "zoneinfo", "decimal", "fractions", "uuid", "re", "pathlib"})


class FunctionIdentity:
    """`name` is "module.qualname"; the rest is computed when first asked for.

    `digest`: 40 hexadecimal digits, the same on every supported Python (unless only bytecode was there to go by: then
    the same on this version). `stable`: False if something that decides the answer has no value, so that the digest
    must not leave the process; `reason` then says what.
    """

    def __init__(self, function: Callable[..., Any], version: str | None) -> None:
        self.function = function
        self.version = version

    @functools.cached_property
    def name(self) -> str:
        return _name(self.function)

    @functools.cached_property
    def _found(self) -> tuple[str, str | None]:
        search = _Search(self.version)
        try:
            return digest(search.of(self.function)), search.reason
        except RecursionError:
            return digest(self.name), f"{self.name} closes over functions that are nested too deeply"

    @property
    def digest(self) -> str:
        return self._found[0]

    @property
    def reason(self) -> str | None:
        return self._found[1]

    @property
    def stable(self) -> bool:
        return self._found[1] is None

    def __repr__(self) -> str:
        return f"FunctionIdentity({self.name!r}, version={self.version!r})"


def identity(function: Callable[..., Any], version: str | None = None) -> FunctionIdentity:
    """The identity of any callable; cheap, as nothing is read before it is needed."""
    if version is not None and not (isinstance(version, str) and version):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"version={version!r} is not a text: write version='3'.")
    return FunctionIdentity(function, version)


def _name(function: Any) -> str:
    while True:
        if isinstance(function, functools.partial):
            function = function.func  # pyright: ignore[reportUnknownVariableType,reportUnknownMemberType]
        elif isinstance(function, (staticmethod, classmethod, MethodType)):
            function = cast(Any, function).__func__
        else:
            break
    if not hasattr(function, "__qualname__"):
        function = kind_of(function)
    module = module_name(function.__module__ or "builtins", getattr(function, "__globals__", None))
    return f"{module}.{function.__qualname__}"


class _Search:
    """One computation: what was seen already, and the first thing that has no value."""

    def __init__(self, version: str | None) -> None:
        self.version = version
        self.reason: str | None = None
        self.seen: list[Any] = []

    def of(self, function: Any) -> Tree:
        for place, known in enumerate(self.seen):
            if known is function:
                return ("again", place)
        self.seen.append(function)
        name = _name(function)
        if isinstance(function, functools.partial):
            return self._partial(name, cast(Any, function))
        if isinstance(function, (staticmethod, classmethod)):
            return self.of(cast(Any, function).__func__)
        if isinstance(function, MethodType):
            return ("method", name, self.of(function.__func__), self._receiver(function.__self__, function))
        if isinstance(function, FunctionType):
            binding = function.__dict__.get("__scalekit__")  # our own wrapper: functools.wraps copies this attribute
            if getattr(binding, "wrapper", None) is function:
                return self.of(cast(Any, function).__wrapped__)
            return ("function", name, self._function(function))
        if _wraps(function):
            return ("wrapper", name, self.of(function.__wrapped__))
        call: Any = kind_of(function).__call__
        if isinstance(call, FunctionType):
            return ("object", name, self.of(call), self._receiver(function, call))
        return ("builtin", name)

    def _partial(self, name: str, bound: Any) -> Tree:
        positional = {str(place): value for place, value in enumerate(bound.args)}
        named = self._named(bound.keywords, "bound argument")
        return ("partial", name, self.of(bound.func), self._named(positional, "bound argument"), named)

    def _function(self, function: FunctionType) -> Tree:
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        closed = self._named({name: _Cell(cell) for name, cell in cells.items()}, "closure cell", function)
        if self.version is not None:
            return ("version", self.version, closed)
        body, names = _body(function)
        space = function.__globals__
        constants = {name: space[name] for name in names if name not in cells and _constant(space.get(name))}
        defaults = self._values(function.__defaults__ or ()), self._named(function.__kwdefaults__ or {}, "default")
        return (body, defaults, closed, self._named(constants, "constant"))

    def _values(self, values: tuple[Any, ...]) -> Tree:
        return self._named({str(place): value for place, value in enumerate(values)}, "default")

    def _named(self, values: dict[str, Any], what: str, function: FunctionType | None = None) -> Tree:
        return tuple([(name, self._value(values[name], f"{what} {name!r}", function)) for name in sorted(values)])

    def _value(self, value: Any, what: str, function: FunctionType | None) -> Tree:
        if isinstance(value, _Cell):
            try:
                value = value.cell.cell_contents
            except ValueError:
                return "empty"
        if isinstance(value, (FunctionType, MethodType, functools.partial)):
            return self.of(cast(Any, value))
        if _wraps(value):
            return self.of(value)
        try:
            return canonical(value, what)
        except UnkeyableArgument:
            # A default is in the key of the call, and a constant that holds a client is none.
            if self.version is None and not what.startswith(("default", "constant")):
                kind = kind_of(value)
                owner = f" of {_name(function)}" if function is not None else ""
                self._spoil(
                    f"{what}{owner} is of type {kind.__module__}.{kind.__qualname__}, which has no value to key by"
                )
            return ("no value", kind_of(value))

    def _receiver(self, value: Any, function: Any) -> Tree:
        node = receiver(value)
        if stable(node):
            return node
        kind = kind_of(value)
        self._spoil(
            f"{_name(function)} is bound to an object of type {kind.__module__}.{kind.__qualname__}, which has no value"
        )
        return ("no value", kind)

    def _spoil(self, reason: str) -> None:
        self.reason = self.reason or reason


class _Cell:
    __slots__ = ("cell",)

    def __init__(self, cell: CellType) -> None:
        self.cell = cell


def _wraps(value: Any) -> bool:
    """True for what `functools.lru_cache` and its like make; an attribute of the object's own, as proxies have any."""
    return "__wrapped__" in getattr(value, "__dict__", ()) and callable(value) and not isinstance(value, type)


def _body(function: FunctionType) -> tuple[Tree, set[str]]:
    """What the function says, and the names that it reads from outside."""
    from scalekit._cache import source

    node = source.located(function)
    if node is not None:
        try:
            return ("source", source.said(node)), source.globals_read(node)
        except RecursionError:  # a sum of a thousand terms
            pass
    import sys

    code = function.__code__
    made = ("bytecode", sys.implementation.cache_tag, source.bytecode(code, bare=True))
    return made, source.bytecode_globals(code)


def _constant(value: Any) -> bool:
    """True for what cannot change; None is what a global is before it is set."""
    kind = kind_of(value)
    if value is None:
        return False
    if kind in _CONSTANTS or (
        kind.__name__ in _CONSTANT_NAMES and kind.__module__.partition(".")[0] in _CONSTANT_MODULES
    ):
        return True
    if isinstance(value, (tuple, frozenset)):
        return all(item is None or _constant(item) for item in cast("tuple[Any, ...]", value))
    return frozen(kind)
