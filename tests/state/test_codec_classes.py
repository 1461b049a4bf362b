"""Objects come back by their state, whatever their class would have said to it; no code of theirs runs."""

from __future__ import annotations

import abc
import dataclasses
import enum
import functools
import threading
import typing
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import attrs
import msgspec
import openai.types.chat
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalekit._cache.codec import Codec
from scalekit.errors import CodecError

CODEC = Codec("ask")
T = TypeVar("T")
RAN: list[str] = []
"""What code of the classes below has run."""


class Colour(enum.Enum):
    RED = 1
    BLUE = (2, "b")
    CRIMSON = 1  # noqa: PIE796 (an alias)


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.StrEnum):
    FAST = "fast"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Bits(enum.IntFlag):
    A = 1
    B = 2


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = dataclasses.field(default_factory=list)
    kind: ClassVar[str] = "point"
    fixed: int = dataclasses.field(init=False, default=7)

    def __post_init__(self) -> None:
        RAN.append("post_init")


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: Any
    y: tuple[int, ...] = ()


@dataclasses.dataclass
class Base:
    a: Any


@dataclasses.dataclass
class Heir(Base, Generic[T]):
    b: Any = None

    @functools.cached_property
    def costly(self) -> object:
        return object()


class Undecorated(Heir[int]):
    def __init__(self) -> None:
        super().__init__(1, 2)
        self.more = {"kept": (1,)}


@dataclasses.dataclass
class Guarded:
    x: int

    def __setattr__(self, name: str, value: Any) -> None:
        RAN.append("setattr")
        object.__setattr__(self, name, value)

    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, name)


@attrs.define
class Slotted:
    x: Any
    _hidden: Any = 3

    @functools.cached_property
    def costly(self) -> object:
        return object()


@attrs.frozen(cache_hash=True)
class Hashed:
    x: str


@attrs.define(slots=False)
class Loose:
    x: Any = attrs.field(converter=str)


class Struct(msgspec.Struct):
    x: Any
    y: dict[str, Any] = {}


class Tagged(msgspec.Struct, frozen=True, tag=True, array_like=True, kw_only=True):
    x: Any


class Pair(NamedTuple):
    a: Any
    b: Any = None


class Model(pydantic.BaseModel):
    n: int
    inner: Model | None = None
    alias: Any = pydantic.Field(default=None, alias="Alias")
    _secret: int = pydantic.PrivateAttr(default=1)

    @pydantic.field_validator("n")
    @classmethod
    def positive(cls, n: int) -> int:
        RAN.append("validator")
        return n

    def model_post_init(self, context: Any, /) -> None:
        RAN.append("post_init")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @functools.cached_property
    def double(self) -> int:
        return self.n * 2


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    a: int


class Root(pydantic.RootModel[list[int]]):
    pass


class Box(pydantic.BaseModel, Generic[T]):
    value: T


def model() -> Model:
    value = Model(n=2, inner=Model(n=3), Alias=(1, 2))
    value._secret = 9
    assert value.double == 4  # cached now
    return value


def seen(value: Any) -> Any:
    """The value, with its cached properties asked for."""
    assert value.costly is not None
    return value


VALUES = [
    *(
        Colour.RED,
        Colour.CRIMSON,
        Colour.BLUE,
        Level.LOW,
        Mode.FAST,
        Rights.READ,
        Rights.READ | Rights.WRITE,
        Rights(0),
    ),
    *(~Rights.READ, Bits.A | 8, Bits(-1), {Mode.FAST: 1, Level.LOW: (Colour.RED,)}, [Level.LOW, 1, True]),
    *(Point(1), Point({"a": Point((1,))}), Frozen(1), {Frozen("k", (1,)): 1}, Heir(1, 2), Guarded(3)),
    *(Slotted([1]), Hashed("a"), Loose(5), Struct(1, {"a": (1,)}), Tagged(x={1}), Pair(1, Pair(2)), [Pair(1)] * 3),
    *(Open(a=1, more=(1, 2)), Root([1, 2]), Box(value="s"), Box[int](value=1), Model.model_construct(n="no number")),  # type: ignore[call-arg]
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_objects_come_back_exactly(value: Any) -> None:
    """Same class, equal, same repr: enums, dataclasses, attrs, structs, NamedTuples, models; alone and nested."""
    for whole in (value, [value, {"k": (value,)}]):
        back = CODEC.decode(CODEC.encode(whole))
        assert type(back) is type(whole)
        assert back == whole
        assert repr(back) == repr(whole)


def test_no_code_of_a_class_runs() -> None:
    """Neither __init__, __post_init__ and __setattr__ nor validators and model_post_init run to make an object."""
    payloads = [CODEC.encode(value) for value in (Point(1), Guarded(1), Model(n=1))]
    RAN.clear()
    for payload in payloads:
        CODEC.decode(payload)
    assert RAN == []


@given(st.recursive(st.integers() | st.text(), lambda i: st.builds(Point, i, i) | st.builds(Pair, i, i) | st.lists(i)))
def test_any_nesting_of_objects_comes_back(value: Any) -> None:
    """Objects in objects, however they are nested."""
    back = CODEC.decode(CODEC.encode(value))
    assert back == value
    assert repr(back) == repr(value)


def test_a_model_keeps_its_whole_state() -> None:
    """Fields set, extras and private attributes come back; cached properties are computed anew."""
    value = model()
    back = CODEC.decode(CODEC.encode(value))
    assert "double" not in back.__dict__
    assert back == value
    assert (back.model_fields_set, back._secret, back.inner._secret) == (value.model_fields_set, 9, 1)
    assert back.double == 4
    partly = Open.model_construct(_fields_set={"a"}, a=1, z=2)
    assert CODEC.decode(CODEC.encode(partly)).model_fields_set == {"a"}
    assert CODEC.decode(CODEC.encode(partly)).model_extra == {"z": 2}
    assert vars(CODEC.decode(CODEC.encode(Model.model_construct()))) == vars(Model.model_construct())


def test_a_completion_of_an_sdk_comes_back_equal() -> None:
    """What the OpenAI client builds without validation, with unknown fields and values of other types, is the same."""
    completion = openai.types.chat.ChatCompletion.construct(
        id="x",
        created=None,
        vendor={"region": "eu"},
        choices=[
            {"index": "zero", "finish_reason": "new", "message": {"role": "assistant", "content": "a", "more": [1]}}
        ],
    )
    back = CODEC.decode(CODEC.encode(completion))
    assert back == completion
    assert repr(back) == repr(completion)
    assert back.model_fields_set == completion.model_fields_set
    assert back.choices[0].message.more == [1]
    assert back.to_dict(warnings=False) == completion.to_dict(warnings=False)


def test_what_an_object_holds_besides_its_fields_is_kept() -> None:
    """Attributes of an undecorated subclass and of a NamedTuple's; cached properties and generics' marks are not."""
    value = Undecorated()
    value.costly  # noqa: B018
    back = CODEC.decode(CODEC.encode(value))
    assert (back, back.more) == (value, {"kept": (1,)})
    assert "costly" not in vars(back)
    assert CODEC.decode(CODEC.encode(seen(Slotted(1)))) == Slotted(1)
    assert CODEC.decode(CODEC.encode(Heir[int](1))) == Heir(1)
    named = Named(1)
    named.more = 2
    assert CODEC.decode(CODEC.encode(named)).more == 2


class Named(Pair):
    more: int


def test_a_hash_that_another_process_computed_is_not_kept() -> None:
    """attrs' cached hash is computed anew: hashes of strings differ between processes."""
    value = Hashed("a")
    before = hash(value)
    back = CODEC.decode(CODEC.encode(value))
    assert back._attrs_cached_hash is None
    assert hash(back) == before


@dataclasses.dataclass
class Finalized:
    x: int

    def __del__(self) -> None: ...


@dataclasses.dataclass
class Counted(dict[str, int]):
    x: int


class Checked(msgspec.Struct):
    x: int

    def __post_init__(self) -> None: ...


class SlottedModel(pydantic.BaseModel):
    __slots__ = ("extra",)
    x: int


class Plain:
    def __init__(self) -> None:
        self.x = 1

    def __reduce__(self) -> Any:
        return (RAN.append, ("reduce",))

    def __setstate__(self, state: Any) -> None:
        RAN.append("setstate")


@dataclasses.dataclass
class Holder(abc.ABC):
    x: Any


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Finalized(1), "finalizer"),
        (Counted(1), "subclass of dict"),
        (Checked(1), "__post_init__"),
        (SlottedModel(x=1), "slots"),
        (Plain(), "has no form as bytes"),
        (Holder({"a": [threading.Lock()]}), r"answer\.x\['a'\]\[0\] is of type _thread\.lock"),
        (Open.model_validate({"a": 1, "more": Plain()}), r"answer\.more is of type"),
        (Pair(1, [Plain()]), r"answer\.b\[0\] is of type"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_classes_that_hold_more_than_fields_are_refused(value: Any, message: str) -> None:
    """Finalizers, content of a builtin, code that must run, state that only __reduce__ knows."""
    RAN.clear()
    with pytest.raises(CodecError, match=message):
        CODEC.encode(value)
    assert RAN == []


def versions() -> list[Any]:
    """One class as it was edited: fields added (with a default), renamed, removed, exchanged."""

    def named(cls: Any) -> Any:
        cls.__module__, cls.__qualname__ = "app", "Answer"
        return cls

    made = [
        dataclasses.make_dataclass("Answer", fields)  # type: ignore[arg-type]
        for fields in ([("a", int)], [("a", int), ("b", int, 0)], [("c", int)], [("a", int), ("c", int, 0)])
    ]
    models = [pydantic.create_model("Answer", **dict.fromkeys(names, (int, 1))) for names in (["a"], ["a", "b"], ["b"])]  # type: ignore[call-overload]
    tuples = [typing.NamedTuple("Answer", [(name, int) for name in names]) for names in ("ab", "abc", "ac")]
    return [list(map(named, made)), list(map(named, models)), list(map(named, tuples))]


@pytest.mark.parametrize("edited", versions(), ids=["dataclass", "model", "namedtuple"])
def test_an_edited_class_is_an_error_never_a_half_filled_object(edited: list[Any]) -> None:
    """Bytes of a class whose fields were others then are not made into today's class, defaults or not."""
    for old in edited:
        fields = getattr(old, "_fields", None) or getattr(old, "model_fields", None) or old.__dataclass_fields__
        payload = Codec("f", types=[old]).encode(old(**dict.fromkeys(fields, 5)))
        assert Codec("f", types=[old]).decode(payload).__class__ is old
        for new in edited:
            if new is not old:
                with pytest.raises(CodecError, match="changed since"):
                    Codec("f", types=[new]).decode(payload)
