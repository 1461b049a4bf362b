"""How an object of a class that is no plain container becomes a body: looked up once per class.

In this order: `__scalekit_key__`, enums, classes, the fields of dataclasses, attrs, msgspec structs and pydantic
models, then the known kinds below by the name of one of their base classes (so nothing is imported that the caller has
not imported), and for a subclass of one of those its content and whatever attributes it has besides. What is left has
no value that could be trusted to be all of it, and is refused: an object's `__dict__` says nothing of what a client, a
lock or a C extension holds.

A field that its author left out of `==` (`field(compare=False)`, attrs `eq=False`) is left out here too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable
from typing import Any, cast

from scalekit._cache import arrays
from scalekit._cache.key import BODIES, Body, Kind, Refused, Tree, attributes, kind_of, node, sequence, table

__all__ = ["resolve"]

Reader = Callable[[Any, int], Tree]

_NO_VALUE = "has no value to key by"
_NOTHING_GIVEN = {"NotGiven", "Omit"}  # what the SDKs of OpenAI, Anthropic and others pass for "no argument"


def resolve(kind: Kind) -> Body:
    """The function that makes the body of the objects of `kind`, or that refuses them."""
    meta: Any = type(kind)
    if meta.__eq__ is not type.__eq__ or meta.__hash__ is not type.__hash__:
        return _refusal("its metaclass redefines equality")
    if hasattr(kind, "__scalekit_key__") and not issubclass(kind, type):
        return _declared
    mro: tuple[Kind, ...] = cast(Any, kind).__mro__
    names = [f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in mro]
    if "enum.Enum" in names:
        return _enum
    if issubclass(kind, type):
        return _itself
    if kind.__name__ in _NOTHING_GIVEN and mro == (kind, object) and not [*_slots(kind)]:
        return _sentinel
    fields = _fields(kind)
    base, content = next(
        ((base, KNOWN[name]) for base, name in zip(mro, names, strict=True) if name in KNOWN), (object, None)
    )
    if fields is not None:
        return fields if content is None else _both(content, fields)
    if content is None:
        return _declared_by_the_object
    if base is kind or kind.__module__.partition(".")[0] == base.__module__.partition(".")[0] != "builtins":
        return content
    return _both(content, _rest(kind, base))


def _refusal(reason: str) -> Body:
    def refuse(value: Any, depth: int) -> Tree:
        raise Refused(value, reason)

    return refuse


def _both(content: Reader, rest: Reader) -> Body:
    def body(value: Any, depth: int) -> Tree:
        return (content(value, depth), rest(value, depth))

    return body


def _rest(kind: Kind, base: Kind) -> Reader:
    """What an object has besides the content of the base class that we know."""
    above = kind.__mro__[: kind.__mro__.index(base)]
    slots = [name for part in above for name in _slots(part)]

    def rest(value: Any, depth: int) -> Tree:
        own = getattr(value, "__dict__", None)
        if not own and not slots:
            return None
        return attributes([*slots, *sorted(own or ())], value, depth)

    return rest


def _slots(kind: Kind) -> Iterable[str]:
    slots: Any = vars(kind).get("__slots__", ())
    for name in (slots,) if isinstance(slots, str) else slots:
        if name not in ("__dict__", "__weakref__"):
            yield f"_{kind.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name


def _declared(value: Any, depth: int) -> Tree:
    answer = value.__scalekit_key__
    try:
        return node(answer() if callable(answer) else answer, depth + 1)
    except Refused as refused:
        raise refused.under(".__scalekit_key__") from None


def _declared_by_the_object(value: Any, depth: int) -> Tree:
    if "__scalekit_key__" in getattr(value, "__dict__", ()):
        return _declared(value, depth)
    raise Refused(value, _NO_VALUE)


def _enum(value: Any, depth: int) -> Tree:
    try:
        return (value._name_, node(value._value_, depth + 1))
    except Refused:
        if value._name_ is None:  # a combination of flags
            raise
        return (value._name_,)


def _itself(value: Hashable, depth: int) -> Tree:
    return value


def _sentinel(value: Any, depth: int) -> Tree:
    if {*getattr(value, "__dict__", ())} - {"__module__"}:
        raise Refused(value, _NO_VALUE)
    return None


def _fields(kind: Kind) -> Reader | None:
    if hasattr(kind, "__dataclass_fields__"):
        from dataclasses import fields

        uncompared = not kind.__dataclass_params__.eq
        kept = tuple([field.name for field in fields(kind) if field.compare or uncompared])
        return _named(kept) if "__dataclass_fields__" in vars(kind) else _grown(kept, kind.__dataclass_fields__)
    if hasattr(kind, "__attrs_attrs__"):
        kept = tuple([field.name for field in kind.__attrs_attrs__ if field.eq])
        every = [str(field.name) for field in kind.__attrs_attrs__]
        return _named(kept) if "__attrs_attrs__" in vars(kind) else _grown(kept, every)
    if hasattr(kind, "__struct_fields__"):
        return _named(kind.__struct_fields__)
    if hasattr(kind, "__pydantic_validator__"):
        return _model
    if hasattr(kind, "__fields__") and hasattr(kind, "__private_attributes__"):  # pydantic 1
        return _both(_content_of("__dict__"), _named(tuple(kind.__private_attributes__)))
    return None


def _named(names: tuple[str, ...]) -> Reader:
    def named(value: Any, depth: int) -> Tree:
        try:
            values = tuple([getattr(value, name) for name in names])
        except AttributeError:
            return attributes(names, value, depth)
        return table(names, values, depth, ".{}")

    return named


def _grown(kept: tuple[str, ...], fields: Iterable[str]) -> Reader:
    """A plain subclass of a class with fields: what it holds besides them counts too."""
    known = frozenset(fields)

    def grown(value: Any, depth: int) -> Tree:
        own: Iterable[str] = getattr(value, "__dict__", ())
        slots = [name for part in type(value).__mro__ for name in _slots(part)]
        return attributes([*kept, *sorted({*own, *slots} - known)], value, depth)

    return grown


def _model(value: Any, depth: int) -> Tree:
    """A pydantic model. Its `__dict__` also holds what `cached_property` computed from the fields."""
    kind: Any = kind_of(value)
    fields: Any = getattr(kind, "__pydantic_fields__", None) or kind.model_fields
    state: dict[str, Any] = value.__dict__
    names = tuple([name for name in fields if name in state])
    body = table(names, tuple([state[name] for name in names]), depth, ".{}")
    if not value.__pydantic_extra__ and not value.__pydantic_private__:
        return body
    return (body, *attributes(("__pydantic_extra__", "__pydantic_private__"), value, depth))


def _content_of(attribute: str) -> Reader:
    return lambda value, depth: node(getattr(value, attribute), depth + 1)


def _parts(*names: str) -> Reader:
    return lambda value, depth: table(names, tuple([getattr(value, name) for name in names]), depth, ".{}")


def _text(value: Any, depth: int) -> Tree:
    return str(value)


def _constant(value: Any, depth: int) -> Tree:
    return None


def _reduced(value: Any, depth: int) -> Tree:
    return node(value.__reduce__()[1], depth + 1)


def _base(read: Callable[[Any], Any], kind: Kind) -> Reader:
    """The content of a subclass of a builtin, read past whatever methods it overrides."""
    return lambda value, depth: BODIES[kind](read(value), depth)


def _tuple(value: Any, depth: int) -> Tree:
    if hasattr(kind_of(value), "n_sequence_fields"):  # time.struct_time and the like have fields beyond their items
        return _reduced(value, depth)
    return sequence(tuple(cast(Any, tuple).__iter__(value)), depth)


def _timezone(value: Any, depth: int) -> Tree:
    return (node(value.utcoffset(None), depth + 1), value.tzname(None))


def _zone(value: Any, depth: int) -> Tree:
    if value.key is None:
        raise Refused(value, "was made without a key")
    return str(value.key)


def _decimal(value: Any, depth: int) -> Tree:
    sign, digits, exponent = value.as_tuple()
    return (sign, "".join(map(str, digits)), exponent)


def _default_dict(value: Any, depth: int) -> Tree:
    try:
        factory = node(value.default_factory, depth + 1)
    except Refused as refused:
        raise refused.under(".default_factory") from None
    return (factory, BODIES[dict](dict(value), depth))


def _partial(value: Any, depth: int) -> Tree:
    return attributes(("func", "args", "keywords"), value, depth)


def _method(value: Any, depth: int) -> Tree:
    return attributes(("__func__", "__self__"), value, depth)


def _function(value: Any, depth: int) -> Tree:
    """A function that its module holds under its name; the tree keeps the function, digest.py the name."""
    found: Any = sys.modules.get(value.__module__ or "")
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    if found is not value:
        raise Refused(value, f"is not found as {value.__qualname__!r} in its module")
    return cast(Tree, value)


def _descriptor(value: Any, depth: int) -> Tree:
    return (value.__objclass__, value.__name__)


def _annotation(value: Any, depth: int) -> Tree:
    return attributes(("__origin__", "__args__", "__metadata__", "_name"), value, depth)


_CLOCK = ("hour", "minute", "second", "microsecond", "fold", "tzinfo")

KNOWN: dict[str, Reader] = {
    "builtins.str": _base(str.__str__, str),
    "builtins.int": _base(int.__int__, int),
    "builtins.float": _base(float.__float__, float),
    "builtins.bytes": _base(lambda value: bytes.__getitem__(value, slice(None)), bytes),
    "builtins.bytearray": lambda value, depth: bytes(value),
    "builtins.complex": _parts("real", "imag"),
    "builtins.tuple": _tuple,
    "builtins.list": _base(lambda value: [*cast(Any, list).__iter__(value)], list),
    "builtins.dict": _base(lambda value: dict(cast(Any, dict).items(value)), dict),
    "builtins.set": _base(lambda value: {*cast(Any, set).__iter__(value)}, set),
    "builtins.frozenset": _base(lambda value: {*cast(Any, frozenset).__iter__(value)}, set),
    "builtins.range": _parts("start", "stop", "step"),
    "builtins.slice": _parts("start", "stop", "step"),
    "builtins.memoryview": arrays.view,
    "builtins.mappingproxy": lambda value, depth: BODIES[dict](dict(value), depth),
    "builtins.ellipsis": _constant,
    "builtins.NotImplementedType": _constant,
    "builtins.function": _function,
    "builtins.builtin_function_or_method": _function,
    "functools._lru_cache_wrapper": _function,
    "typing.NewType": _function,
    "builtins.method": _method,
    "builtins.method_descriptor": _descriptor,
    "builtins.module": lambda value, depth: value.__name__,
    "types.SimpleNamespace": _content_of("__dict__"),
    "types.GenericAlias": _annotation,
    "types.UnionType": lambda value, depth: attributes(("__args__",), value, depth),
    "typing._GenericAlias": _annotation,
    "typing._SpecialGenericAlias": _annotation,
    "typing._SpecialForm": _content_of("_name"),
    "typing.Union": lambda value, depth: attributes(("__args__",), value, depth),
    "functools.partial": _partial,
    "re.Pattern": _parts("pattern", "flags"),
    "array.array": lambda value, depth: (value.typecode, sequence(tuple(value), depth)),
    "collections.OrderedDict": lambda value, depth: node(tuple(value.items()), depth + 1),
    "collections.defaultdict": _default_dict,
    "collections.deque": lambda value, depth: (value.maxlen, sequence(tuple(value), depth)),
    "datetime.datetime": _parts("year", "month", "day", *_CLOCK),
    "datetime.time": _parts(*_CLOCK),
    "datetime.date": _parts("year", "month", "day"),
    "datetime.timedelta": _parts("days", "seconds", "microseconds"),
    "datetime.timezone": _timezone,
    "zoneinfo.ZoneInfo": _zone,
    "pytz.BaseTzInfo": _reduced,
    "dateutil.tzutc": _constant,
    "uuid.UUID": _content_of("int"),
    "decimal.Decimal": _decimal,
    "fractions.Fraction": _parts("numerator", "denominator"),
    "pathlib.PurePath": _text,
    "ipaddress._IPAddressBase": _text,
    "numpy.MaskedArray": arrays.masked,
    "numpy.ndarray": arrays.array,
    "numpy.generic": arrays.scalar,
    "numpy.dtype": arrays.dtype,
    "pandas.DataFrame": arrays.frame,
    "pandas.Series": arrays.series,
    "pandas.Index": arrays.index,
    "pandas.ExtensionArray": arrays.column,
    "pandas.Timestamp": lambda value, depth: (value.isoformat(), value.unit, value.fold, node(value.tzinfo, depth + 1)),
    "pandas.Timedelta": lambda value, depth: (value.isoformat(), value.unit, value.value),
    "pandas.NAType": _constant,
    "pandas.NaTType": _constant,
    "pydantic._SecretBase": lambda value, depth: node(value.get_secret_value(), depth + 1),
    "pydantic._BaseUrl": _text,
    "pydantic._BaseMultiHostUrl": _text,
    "pydantic_core.Url": _text,
    "pydantic_core.MultiHostUrl": _text,
    "pydantic_core.PydanticUndefinedType": _constant,
    "msgspec.UnsetType": _constant,
}
