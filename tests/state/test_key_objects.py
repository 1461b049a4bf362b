"""Objects are keyed by what tells them apart; what has no value is refused, with its place and the remedies."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import functools
import sys
import threading
import typing
from typing import Any

import attrs
import msgspec
import pydantic
import pytest

from scalekit._cache.digest import digest
from scalekit._cache.key import canonical
from scalekit._cache.normal import key_maker
from scalekit.errors import UnkeyableArgument


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Pair(typing.NamedTuple):
    a: Any
    b: Any


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = None


def a_function() -> None: ...


def test_two_classes_of_one_name_differ_in_memory() -> None:
    """Objects of two classes with one module and qualname do not share an answer, though all their fields agree."""

    def made(x: int) -> Any:
        @dataclasses.dataclass
        class Local:
            x: int

        return Local(x)

    assert canonical(made(1)) != canonical(made(1))


def test_a_field_that_its_author_does_not_compare_does_not_count() -> None:
    """`field(compare=False)` and attrs' `eq=False` stay out of the key, as they stay out of `==`."""

    @dataclasses.dataclass
    class Request:
        prompt: str
        seen: object = dataclasses.field(compare=False, default_factory=object)

    @attrs.define
    class Other:
        prompt: str
        seen: object = attrs.field(eq=False, factory=object)

    assert canonical(Request("a")) == canonical(Request("a")) != canonical(Request("b"))
    assert canonical(Other("a")) == canonical(Other("a")) != canonical(Other("b"))


def test_what_a_plain_subclass_adds_to_a_dataclass_counts() -> None:
    """A subclass that is no dataclass itself is keyed by its fields and by what its own `__init__` set."""

    class Tagged(Point):
        def __init__(self, x: Any, tag: str) -> None:
            super().__init__(x)
            self.tag = tag

    assert canonical(Tagged(1, "a")) != canonical(Tagged(1, "b"))
    assert canonical(Tagged(1, "a")) == canonical(Tagged(1, "a")) != canonical(Point(1))


def test_pydantic_models_count_fields_extras_and_privates() -> None:
    """Pydantic models are keyed by their fields, extra fields and private attributes, not by what they computed."""

    class Model(pydantic.BaseModel, extra="allow"):
        a: int
        secret: pydantic.SecretStr = pydantic.SecretStr("x")
        url: pydantic.HttpUrl = pydantic.HttpUrl("http://example.org")
        _private: int = 0

        @functools.cached_property
        def derived(self) -> int:
            return self.a + 1

    def private(value: int) -> Model:
        model = Model(a=1)
        model._private = value
        return model

    used = Model(a=1)
    assert used.derived == 2
    trees = [canonical(one) for one in (Model(a=1), Model(a=2), Model(a=1, b=1), Model(a=1, b=True), private(5))]
    trees.append(canonical(Model(a=1, secret=pydantic.SecretStr("y"))))
    assert len({*trees}) == len(trees)
    assert canonical(used) == trees[0] == canonical(Model(a=1))


def test_attrs_and_msgspec_count_their_fields() -> None:
    """attrs classes and msgspec structs are keyed by class and fields."""

    @attrs.define
    class A:
        x: Any

    class S(msgspec.Struct):
        x: Any
        y: Any = msgspec.UNSET

    found = [canonical(one) for one in (A(1), A(True), A([1]), S(1), S(1, None), S("1"))]
    assert len({*found}) == 6
    assert canonical(S(1)) == canonical(S(1, msgspec.UNSET))


def test_subclasses_of_builtins_count_what_they_add() -> None:
    """A dict or str subclass is keyed by class, content past its overridden methods, and its own attributes."""

    class Case(dict[str, int]):
        def __iter__(self) -> Any:
            raise AssertionError("the content is read past overridden methods")

        keys = items = values = __iter__

    class Slotted(tuple[int, ...]):
        pass

    one, two = Case(a=1), Case(a=1)
    assert canonical(one) == canonical(two) != canonical({"a": 1})
    two.note = "x"  # type: ignore[attr-defined]
    assert canonical(one) != canonical(two)
    assert canonical(Slotted((1,))) != canonical((1,))


def test_an_object_says_its_own_key() -> None:
    """`__scalekit_key__`, as a method, an attribute of the class or of the object, decides what tells objects apart."""

    class Document:
        def __init__(self, number: int) -> None:
            self.number, self.lock = number, threading.Lock()

        def __scalekit_key__(self) -> Any:
            return {"number": self.number}

    class Marked:
        def __init__(self, mark: Any) -> None:
            self.__scalekit_key__ = mark

    assert canonical([Document(1)]) == canonical([Document(1)]) != canonical([Document(2)])
    assert canonical(Marked(1)) == canonical(Marked(1)) != canonical(Marked(True))
    with pytest.raises(UnkeyableArgument, match=r"value\.__scalekit_key__ is of type object"):
        canonical(Marked(object()))


def test_sentinels_of_sdks_are_keyable() -> None:
    """`openai.NOT_GIVEN` and `omit`, which wrappers have as defaults, are arguments like others."""
    import openai

    assert canonical(openai.NOT_GIVEN) == canonical(openai.NOT_GIVEN) != canonical(openai.omit)


def test_an_sdk_answer_is_keyed_with_its_unknown_extras() -> None:
    """A ChatCompletion that the SDK built without validation, unknown fields included, is keyed by content."""
    from openai.types.chat import ChatCompletion

    def built(extra: str) -> ChatCompletion:
        return ChatCompletion.model_construct(id="a", choices=[{"index": 0}], vendor_note=extra)

    assert canonical(built("x")) == canonical(built("x")) != canonical(built("y"))


def ask(messages: Any, model: str = "small", *, client: Any = None) -> None: ...


@pytest.mark.parametrize(
    ("messages", "place", "kind"),
    [
        ([{}, {}, {}, {"image": object()}], "messages[3]['image']", "object"),
        ([{"parts": [{}, {"a": {"b": threading.Lock()}}]}], "messages[0]['parts'][1]['a']['b']", "_thread.lock"),
        ({"a": Point([object()])}, "messages['a'].x[0]", "object"),
        ({1: object()}, "messages[1]", "object"),
        ({object(): 1}, "messages (one of its keys)", "object"),
        ({"a", a_function, object()}, "messages (one of its items)", "object"),
        ((1, [lambda: 1]), "messages[1][0]", "function"),
        (functools.partial(print, object()), "messages.args[0]", "object"),
        ((one for one in ()), "messages", "generator"),
        (ValueError("x"), "messages", "ValueError"),
        (asyncio.Event(), "messages", "asyncio.locks.Event"),
    ],
)  # fmt: skip
def test_what_has_no_value_is_refused_with_its_place_and_the_remedies(messages: Any, place: str, kind: str) -> None:
    """The error names the function, the place inside the argument, the type, and the remedies: to ignore the argument
    is one only where the whole of it is at fault.
    """
    with pytest.raises(UnkeyableArgument) as caught:
        key_maker(ask).key((messages,), {})
    text = str(caught.value)
    assert text.startswith(f"ask(): {place} is of type {kind} and ")
    assert all(word in text for word in ("key=", "__scalekit_key__"))
    assert ("ignore=('messages',)" in text) == (place == "messages")


def test_clients_loops_and_contexts_are_refused() -> None:
    """Clients, event loops, context managers and pools have no value; the error says what to do."""
    import contextvars

    import httpx
    import openai

    loop = asyncio.new_event_loop()
    for value in (
        openai.AsyncOpenAI(api_key="x"),
        httpx.Client(),
        loop,
        contextvars.copy_context(),
        sys.stdout,
        iter([]),
    ):
        with pytest.raises(UnkeyableArgument, match="client"):
            key_maker(ask).key(("hi",), {"client": value})
    loop.close()


def test_cycles_and_depth_are_refused() -> None:
    """What contains itself, or is nested too deeply to compare, is an UnkeyableArgument and no RecursionError."""
    cycle: list[Any] = []
    cycle.append(cycle)
    twice: dict[str, Any] = {}
    twice["x"] = [twice, twice]
    loop = Point(1)
    loop.y = loop
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in (cycle, twice, loop, deep, {1: twice}, {"a": cycle}):
        with pytest.raises(UnkeyableArgument, match="contains itself, or is nested"):
            canonical(value)

    def nested(left: int) -> Any:
        return canonical(cycle) if left == 0 else nested(left - 1)

    with pytest.raises(UnkeyableArgument):
        nested(sys.getrecursionlimit() - 150 - len(__import__("inspect").stack()))


def test_nesting_of_two_hundred_is_keyed_and_compared() -> None:
    """Two hundred levels are keyed, compared and digested."""

    def made() -> Any:
        value: Any = 1
        for place in range(190):
            value = [value] if place % 2 else {"a": value}
        return value

    assert canonical(made()) == canonical(made())
    assert digest(canonical(made())) == digest(canonical(made()))


def test_a_value_that_changes_while_it_is_read_is_keyed_as_it_was() -> None:
    """A container that changes under the walk is keyed as it was when the walk reached it."""

    class Evil:
        def __init__(self, act: Any) -> None:
            self.act = act

        def __scalekit_key__(self) -> str:
            self.act()
            return "evil"

    def key(build: Any, act: Any) -> Any:
        holder: list[Any] = []
        holder.append(build(Evil(lambda: act(holder[0]))))
        return canonical(holder[0])

    def still(build: Any) -> Any:
        return canonical(build(Evil(lambda: None)))

    for build, act in (
        (lambda evil: {"a": evil, "b": 1}, lambda value: value.pop("b", None)),
        (lambda evil: {"a": evil, "b": 1}, lambda value: value.update(c=2)),
        (lambda evil: {1: evil, "b": 1}, lambda value: value.update(c=2)),
        (lambda evil: [evil, 1, 2], lambda value: value.clear()),
        (lambda evil: [{"a": evil}, {"a": 1}], lambda value: value[1].clear()),
    ):
        assert key(build, act) == still(build)


def test_threads_that_change_a_dict_never_break_its_key() -> None:
    """While other threads add and remove keys, each key is that of a state the dict was in."""
    value: dict[Any, Any] = {"a": 1, "b": 2}
    rows = [value, {"a": 1, "b": 2}]
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            value["c"] = 3
            value[4] = 4
            del value["c"]
            value.pop(4)

    more: list[dict[Any, Any]] = [{}, {"c": 3}, {"c": 3, 4: 4}, {4: 4}]
    allowed = {canonical({"a": 1, "b": 2, **one}) for one in more}
    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(2000):
            assert canonical(value) in allowed
            canonical(rows)
    finally:
        stop.set()
        thread.join()
