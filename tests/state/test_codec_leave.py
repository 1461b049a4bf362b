"""Who may come back: bytes name classes, and only the function, or this process, gives them leave."""

from __future__ import annotations

import collections
import dataclasses
import enum
import sys
import threading
import types
import typing
from collections.abc import AsyncIterator, Awaitable, Generator
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from msgspec.msgpack import Ext

from scalekit._cache.codec import OBJECT, Codec
from scalekit._cache.names import qualified
from scalekit._cache.reachable import hints_of, lookup, reachable
from scalekit.errors import CodecError

if TYPE_CHECKING:
    from nowhere import Absent  # type: ignore[import-not-found]

RAN: list[str] = []
T = TypeVar("T")
pack = msgspec.msgpack.encode


def naming(name: str, *body: Any) -> bytes:
    """Bytes that name a class."""
    return pack(Ext(OBJECT, pack([name, *body])))


class Kind(enum.Enum):
    A = 1


@dataclasses.dataclass
class Leaf:
    x: int = 0


@dataclasses.dataclass
class Twig(Leaf):
    y: int = 0


class Row(NamedTuple):
    leaf: Leaf


class Cell(TypedDict):
    row: Row


@attrs.define
class Grown:
    leaf: list[Leaf]


class Packed(msgspec.Struct):
    leaf: Leaf | None


class Shown(pydantic.BaseModel):
    leaves: dict[str, Leaf]


@dataclasses.dataclass
class Ring:
    next: Ring | None
    leaf: Leaf


@dataclasses.dataclass
class Page(Generic[T]):
    items: list[T]


@dataclasses.dataclass
class LeafPage(Page[Leaf]):
    pass


LeafId = NewType("LeafId", Leaf)
Bound = TypeVar("Bound", bound=Leaf)
Alias = list[Leaf]


def hinted(hint: Any) -> Any:
    """A function with that return annotation."""

    def function() -> Any: ...

    function.__annotations__["return"] = hint
    return function


REACHING = [
    *(Leaf, "Leaf", list[Leaf], "list[Leaf]", list["Leaf"], dict[str, Leaf], tuple[Leaf, ...], Leaf | None),
    *("Leaf | int", Annotated[Leaf, "doc"], Alias, LeafId, Bound, Literal[Kind.A] | Leaf, type[Leaf], Cell, Row),
    *(Grown, Packed, Shown, Ring, "Ring", LeafPage, Page[Leaf], Awaitable[Leaf], AsyncIterator[Leaf]),
    *(Generator[Leaf, None, None], collections.OrderedDict[str, list[Leaf]], typing.Union["Leaf", str]),
    *(typing.Optional["list[Leaf]"],),
]


@pytest.mark.parametrize("hint", REACHING, ids=str)
def test_what_an_annotation_reaches_comes_back(hint: Any) -> None:
    """Strings, containers, unions, Annotated, generics, aliases, and the fields of classes, however deep."""
    payload = Codec("writer").encode(Leaf(3))
    assert Codec("ask", hinted(hint)).decode(payload) == Leaf(3)
    assert Codec("ask", hinted(None), types=[hint]).decode(payload) == Leaf(3)


@pytest.mark.parametrize("hint", [None, int, dict[str, Any], Any, "Absent", "list[Absent]", object, dict], ids=str)
def test_what_it_does_not_reach_does_not(hint: Any) -> None:
    """Without leave a class stays a name: CodecError, which says so."""
    payload = Codec("writer").encode([Leaf(3)])
    with pytest.raises(CodecError, match=r"ask: bytes name the class '.*:Leaf', which neither the return annotation"):
        Codec("ask", hinted(hint)).decode(payload)


def test_subclasses_are_not_implied_but_members_of_a_union_are() -> None:
    """`-> Leaf` does not let a Twig in; `-> Leaf | Twig` does."""
    payload = Codec("writer").encode(Twig(1, 2))
    with pytest.raises(CodecError, match="Twig"):
        Codec("ask", hinted(Leaf)).decode(payload)
    assert Codec("ask", hinted(Leaf | Twig)).decode(payload) == Twig(1, 2)


def test_enum_literals_are_reached() -> None:
    """`Literal[Kind.A]` reaches the enum."""
    assert Codec("ask", hinted(Literal[Kind.A])).decode(Codec("writer").encode(Kind.A)) is Kind.A


def test_a_hint_that_cannot_be_resolved_hides_no_other() -> None:
    """An unresolvable field, and one that is for type checkers only, are stepped over."""

    @dataclasses.dataclass
    class Holder:
        missing: Absent
        leaf: Leaf

    assert Leaf in reachable(hints_of(hinted(Holder)))


def test_what_this_process_has_encoded_comes_back() -> None:
    """An unannotated function gets its own answers back here; another codec does not, and `unreached` tells."""
    codec = Codec("ask")
    payload = codec.encode([Leaf(1), Kind.A])
    assert codec.decode(payload) == [Leaf(1), Kind.A]
    assert codec.unreached() == [qualified(Kind), qualified(Leaf)]
    assert Codec("ask", hinted(Leaf), types=[Kind]).unreached() == []
    with pytest.raises(CodecError):
        Codec("ask").decode(payload)


class Evil:
    def __init__(self, *args: Any) -> None:
        RAN.append("init")

    def __setstate__(self, state: Any) -> None:
        RAN.append("setstate")


class EvilMeta(enum.EnumMeta):
    def __getitem__(cls, name: str) -> Any:
        RAN.append("getitem")
        return super().__getitem__(name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        RAN.append("call")
        return super().__call__(*args, **kwargs)


class EvilEnum(enum.Flag, metaclass=EvilMeta):
    A = 1
    B = 2

    @classmethod
    def _missing_(cls, value: object) -> Any:
        RAN.append("missing")
        return super()._missing_(value)


NAMES = [
    *("subprocess:Popen", "os:system", "builtins:eval", "builtins:object", "types:FunctionType", "threading:Thread"),
    *("scalekit._cache.codec:Codec", "nowhere:Nothing", "", ":", "a:b:c", qualified(Evil), "collections:UserDict"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("leave", [None, Any, Evil, "subprocess.Popen", threading.Thread])
def test_no_other_class_is_ever_made(name: str, leave: Any) -> None:
    """Not even if the annotation names it: only objects that are nothing but their fields are made."""
    codec = Codec("ask", hinted(leave))
    bodies: list[list[Any]] = [[], [{}], [{"args": ["id"]}, None, None], ["x"], [{}, None, None, None, None, None]]
    for body in bodies:
        with pytest.raises(CodecError):
            codec.decode(naming(name, *body))
    assert RAN == []


def test_enums_are_looked_up_without_their_code() -> None:
    """Neither the metaclass's __getitem__ and __call__ nor _missing_ run, known member or not."""
    codec = Codec("ask", hinted(EvilEnum))
    both = EvilEnum.A | EvilEnum.B
    name = qualified(EvilEnum)
    RAN.clear()
    assert codec.decode(naming(name, "A")) is EvilEnum.A
    assert codec.decode(naming(name, 3)) == both
    strange: list[Any] = ["C", "_missing_", "name", "__class__", 2**63, 64, None, [], 1.0, True]
    for member in strange:
        with pytest.raises(CodecError):
            codec.decode(naming(name, member))
    assert RAN == []


BODIES = [
    *([], [None], [{}], [[]], [{}, None], [{"x": 1}], [{"x": 1}, [], []], [{"x": 1}, ["x"], None]),
    *([{"x": 1, "z": 2}, None, None], [{}, None, {"x": 1}], [{"x": 1}, None, {1: 2}], [{"x": 1}, None, 5]),
    *([{"x": 1}, None, None, 4], [{"x": 1}, "x", None], [{1: 1}, None, None], [{"__class__": 1}, None, None]),
]


@pytest.mark.parametrize("body", BODIES, ids=str)
def test_a_class_with_leave_is_made_of_its_fields_only(body: list[Any]) -> None:
    """Bodies that are not exactly its fields make nothing."""
    with pytest.raises(CodecError):
        Codec("ask", hinted(Leaf)).decode(naming(qualified(Leaf), *body))


def test_looking_up_a_class_runs_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """No module `__getattr__`, lazy module, descriptor, proxy or metaclass is asked; what is found has that name."""

    class Lazy(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            RAN.append("lazy module")
            return super().__getattribute__(name)

    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            RAN.append("metaclass")
            return super().__getattribute__(name)

    class Found(metaclass=Meta):
        class Inner:
            pass

        prop = property(lambda self: RAN.append("property"))

    class Proxy:
        @property
        def __class__(self) -> Any:
            RAN.append("proxy")
            return type

    Found.__module__, Found.__qualname__ = "trap", "Found"
    Found.Inner.__module__, Found.Inner.__qualname__ = "trap", "Found.Inner"
    module = Lazy("trap")
    vars(module).update(
        Found=Found, Alias=Found, proxy=Proxy(), value=3, __getattr__=lambda name: RAN.append("getattr"), function=len
    )
    monkeypatch.setitem(sys.modules, "trap", module)
    monkeypatch.setitem(sys.modules, "proxied", Proxy())
    inner = Found.Inner
    RAN.clear()
    for name in (
        "missing",
        "Alias",
        "proxy",
        "value",
        "function",
        "Found.prop",
        "Found.__class__",
        "Found.__mro__",
        "proxy.a",
    ):
        assert lookup(f"trap:{name}") is None
    assert lookup("proxied:x") is None
    assert lookup("trap:Found") is Found
    assert lookup("trap:Found.Inner") is inner
    assert RAN == []


def test_two_classes_with_one_name_are_not_taken_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is refused; unless it is the one that is found under the name now, as after a cell was run again."""

    def made() -> Any:
        answer = dataclasses.make_dataclass("Answer", [("x", int)])
        answer.__module__ = "notebook"
        return answer

    first, second, third = made(), made(), made()
    codec = Codec("ask")
    payload = codec.encode(first(1))
    with pytest.raises(CodecError, match="another class has the same name"):
        codec.encode(second(1))
    notebook = types.ModuleType("notebook")
    notebook.Answer = third  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "notebook", notebook)
    assert type(codec.decode(codec.encode(third(2)))) is third
    assert type(codec.decode(payload)) is third
    with pytest.raises(CodecError, match="another class has the same name"):
        codec.encode(first(1))


def test_classes_without_end_are_not_kept_for_ever() -> None:
    """A function that makes a class for each answer is refused at some time, and does not leak."""
    codec = Codec("ask")
    with pytest.raises(CodecError, match="more than 4,096 classes"):
        for number in range(5_000):
            codec.encode(collections.namedtuple(f"Row{number}", "x")(1))  # type: ignore[misc]


def test_many_threads_meet_a_class_for_the_first_time() -> None:
    """Whoever comes first, all get their value."""
    payload = Codec("writer").encode([Leaf(1), Row(Leaf(2))])
    for _ in range(20):
        codec, gate, results = Codec("ask", hinted(Cell)), threading.Barrier(4), list[Any]()

        def read(codec: Codec = codec, gate: threading.Barrier = gate, results: list[Any] = results) -> None:
            gate.wait()
            results.append(codec.decode(payload))

        crowd = [threading.Thread(target=read) for _ in range(4)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        assert results == [[Leaf(1), Row(Leaf(2))]] * 4
