"""One call has one key however it is written; `self` is keyed by value, or by being this very object."""

from __future__ import annotations

import dataclasses
import enum
import functools
import gc
import re
import typing
from typing import Any

import attrs
import msgspec
import pydantic
import pytest

from scalekit._cache.digest import digest, stable
from scalekit._cache.key import canonical
from scalekit._cache.normal import WrongCall, key_maker
from scalekit._cache.receiver import Identity, receiver
from scalekit.errors import ConfigurationError, UnkeyableArgument


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


def ask(messages: Any, model: str = "small", *, client: Any = None) -> None: ...


def test_one_call_in_three_spellings_has_one_key() -> None:
    """`f(1)`, `f(x=1)` and a written-out default are one call; keyword order does not matter."""

    def f(x: int, y: int = 2, *, z: int = 3) -> None: ...

    key = key_maker(f).key
    assert (
        len({key((1,), {}), key((), {"x": 1}), key((1, 2), {}), key((1,), {"z": 3, "y": 2}), key((), {"y": 2, "x": 1})})
        == 1
    )
    assert key((1,), {}) != key((1, 3), {}) != key((1,), {"z": 4})


def test_the_confusions_of_other_libraries() -> None:
    """1 and "1", None and "", ["a:b"] and ["a", "b"], two message lists, and every per-call option are told apart."""

    def f(x: Any, **options: Any) -> None: ...

    key = key_maker(f).key
    assert key((1,), {}) != key(("1",), {}) != key((True,), {})
    assert key((None,), {}) != key(("",), {})
    assert key((["a:b"],), {}) != key((["a", "b"],), {})
    assert key(([{"role": "user", "content": "a"}],), {}) != key(([{"role": "user", "content": "b"}],), {})
    assert key(("q",), {"model": "a", "tool_choice": "auto"}) == key(("q",), {"tool_choice": "auto", "model": "a"})
    assert key(("q",), {"model": "a", "tool_choice": "auto"}) != key(("q",), {"model": "a"}) != key(("q",), {})
    assert key(({"a": 1, "b": 2},), {}) == key(({"b": 2, "a": 1},), {})


def test_every_kind_of_parameter_binds_as_python_does() -> None:
    """Positional-only, keyword-only, *args and **kwargs bind as in the call itself."""

    def f(a: Any, /, b: Any, c: Any = 3, *rest: Any, d: Any, e: Any = 5, **more: Any) -> tuple[Any, ...]:
        return a, b, c, rest, d, e, more

    signature = key_maker(f)
    for args, kwargs in (
        ((1, 2), {"d": 4}),
        ((1, 2, 3, 4, 5), {"d": 4, "e": 6, "a": 7}),
        ((1,), {"b": 2, "d": 4, "x": 1}),
    ):
        assert signature.normal(*args, **kwargs) == f(*args, **kwargs)
    assert signature.names == ("a", "b", "c", "rest", "d", "e", "more")
    only = key_maker(lambda a, b=1, /: None)
    assert only.key((2,), {}) == only.key((2, 1), {})
    assert key_maker(lambda *, a=1: None).key((), {}) == key_maker(lambda *, a=1: None).key((), {"a": 1})
    assert key_maker(lambda: None).key((), {}) == key_maker(lambda: None).key((), {})
    key = key_maker(lambda *a, **k: None).key
    assert (
        len({key((), {}), key((1,), {}), key((1, 2), {}), key(((1, 2),), {}), key((), {"a": 1}), key(({"a": 1},), {})})
        == 6
    )


def test_functions_without_a_signature_and_partials_have_keys() -> None:
    """A builtin that does not tell its signature is keyed by the call as written; a partial by what is left open."""
    key = key_maker(print).key
    assert key((1,), {}) != key((), {"end": 1})
    open_ = key_maker(functools.partial(ask, "hi", model="big"))
    assert open_.key((), {}) == open_.key((), {"model": "big"}) != open_.key((), {"model": "small"})


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"messages": 2}), ((1,), {"modle": 2})])
def test_a_wrong_call_fails_in_the_words_of_the_function(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A call that does not fit raises the TypeError that the function itself would raise."""
    with pytest.raises(TypeError) as theirs:
        ask(*args, **kwargs)
    with pytest.raises(WrongCall) as ours:
        key_maker(ask).key(args, kwargs)
    assert str(ours.value) == str(theirs.value)


def test_ignored_arguments_do_not_count() -> None:
    """`ignore=` leaves arguments out, also those that only `**kwargs` takes, whatever their type."""
    key = key_maker(ask, ignore=("client",)).key
    assert key(("a",), {"client": object()}) == key(("a",), {}) != key(("b",), {})
    assert key_maker(ask, ignore="client").key(("a",), {}) == key(("a",), {})

    def f(x: int, **options: Any) -> None: ...

    key = key_maker(f, ignore=("timeout",)).key
    assert key((1,), {"timeout": object()}) == key((1,), {}) != key((1,), {"seed": 1})


def test_an_ignored_name_that_is_no_parameter_is_an_error_at_once() -> None:
    """A misspelt `ignore=` is a ConfigurationError that lists the parameters."""
    with pytest.raises(
        ConfigurationError, match=r"ask: ignore='clinet' is none of its parameters: messages, model, client"
    ):
        key_maker(ask, ignore=("clinet",))


def test_a_key_function_decides_alone_and_typed() -> None:
    """`key=` gets the arguments as they were given; its results are told apart by type, and may be refused."""
    key = key_maker(ask, key=lambda messages, **_: messages["id"]).key
    assert key(({"id": 1, "x": object()},), {"client": object()}) == key(({"id": 1},), {}) != key(({"id": "1"},), {})
    assert key(({"id": "1"},), {}) != key(({"id": b"1"},), {})
    with pytest.raises(UnkeyableArgument, match=r"ask\(\): key\(\.\.\.\) is of type object"):
        key(({"id": object()},), {})
    with pytest.raises(WrongCall):
        key((), {"nothing": 1})


def test_a_template_looks_up_and_never_joins() -> None:
    """`key="user:{user.id}:{query}"` keys the parts with their types, so no choice of texts makes two calls one."""

    class User:
        def __init__(self, number: Any) -> None:
            self.id = number

    def f(user: User, query: Any, tags: Any = (), **more: Any) -> None: ...

    key = key_maker(f, key="user:{user.id}:{query}").key
    assert key((User("1"), "2:3"), {}) != key((User("1:2"), "3"), {})
    assert key((User(1), "q"), {}) != key((User("1"), "q"), {})
    assert key((User(1), "q"), {"other": object()}) == key((User(1),), {"query": "q", "tags": object()})
    first = key_maker(f, key="{tags[0]}:{more[lang]}").key
    assert (
        first((1, 2, ["a", "b"]), {"lang": "de"})
        == first((3, 4, ["a"]), {"lang": "de"})
        != first((1, 2, ["a"]), {"lang": "en"})
    )
    with pytest.raises(UnkeyableArgument, match=r"\{tags\[0\]\} of key=.* IndexError"):
        first((1, 2), {"lang": "de"})


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("user:{usr}", "the parameters are messages, model, client"),
        ("user", "names no argument"),
        ("{}", "the parameters are"),
        ("{0}", "the parameters are"),
        ("{model", "is not a template"),
        ("{model!r}", "leave out"),
        ("{model:>10}", "leave out"),
    ],
)
def test_a_wrong_template_is_an_error_at_once(template: str, said: str) -> None:
    """A template that names no parameter, or formats, is a ConfigurationError that says what to write."""
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        key_maker(ask, key=template)


def test_other_wrong_keys_are_errors_at_once() -> None:
    """An async key function, a number, and `ignore=` beside `key=` are ConfigurationErrors."""

    async def compute(*args: Any) -> None: ...

    wrong: list[dict[str, Any]] = [{"key": compute}, {"key": 3}, {"key": "{model}", "ignore": ("client",)}]
    for given_ in wrong:
        with pytest.raises(ConfigurationError, match="ask"):
            key_maker(ask, **given_)


def test_exceptions_of_the_users_code_pass_through() -> None:
    """What a `key=` function or a `__scalekit_key__` raises is the caller's to see, as it was raised."""

    class Broken:
        def __scalekit_key__(self) -> None:
            raise RuntimeError("mine")

    with pytest.raises(ZeroDivisionError):
        key_maker(ask, key=lambda messages: 1 / 0).key(("a",), {})
    with pytest.raises(RuntimeError, match="mine"):
        canonical([Broken()])


class Agent:
    def method(self, x: Any) -> None: ...


def test_objects_without_a_value_are_told_apart_by_identity() -> None:
    """Two agents do not share answers; one agent finds its own."""
    key = key_maker(Agent.method, receiver=True).key
    one, two = Agent(), Agent()
    assert key((one, 1), {}) == key((one,), {"x": 1})
    assert key((one, 1), {}) != key((two, 1), {})
    assert key((one, 1), {}) != key((one, True), {})
    assert hash(key((one, 1), {})) == hash(key((one, 1), {}))


def test_a_dead_object_never_answers_for_a_new_one() -> None:
    """A new object at the address of a dead one does not find the dead one's entries."""
    kept: dict[Any, int] = {}
    for number in range(200):
        agent = Agent()
        node = receiver(agent)
        assert node not in kept
        kept[node] = number
        del agent, node
    gc.collect()
    assert len(kept) == 200


def test_an_object_that_cannot_be_held_weakly_keeps_its_address() -> None:
    """An object without weak references lives as long as its entries, so its id is not given to another."""

    class Slim:
        __slots__ = ()

    kept = {receiver(Slim()) for _ in range(50)}
    assert len(kept) == 50
    one = Slim()
    assert receiver(one) == receiver(one)


def test_the_register_of_living_objects_forgets_the_dead() -> None:
    """Keying by identity keeps no object alive and leaves no trace of it."""
    from scalekit._cache import receiver as module

    gc.collect()
    before = len(module._living)
    agents = [Agent() for _ in range(100)]
    nodes = [receiver(agent) for agent in agents]
    assert len(module._living) == before + 100
    del agents
    gc.collect()
    assert len(module._living) == before
    assert len({*nodes}) == 100


def test_receivers_with_a_value_are_keyed_by_it() -> None:
    """Frozen dataclasses, attrs classes, structs, pydantic models, enums and named tuples share answers by value."""

    @dataclasses.dataclass(frozen=True)
    class Frozen:
        a: Any

    @attrs.frozen
    class Attrs:
        a: Any

    class Struct(msgspec.Struct, frozen=True):
        a: Any

    class Model(pydantic.BaseModel):
        a: Any

    class Named:
        def __init__(self, a: Any) -> None:
            self.a = a

        def __scalekit_key__(self) -> Any:
            return self.a

    for make in (Frozen, Attrs, Struct, lambda a: Model(a=a), lambda a: Pair(a, 1), Named):
        assert receiver(make(1)) == receiver(make(1)) != receiver(make(True))
        assert stable(receiver(make(1)))
    assert receiver(Colour.RED) == receiver(Colour.RED) != receiver(Colour.BLUE)
    assert receiver(Agent) == receiver(Agent) != receiver(Frozen)
    assert receiver(Point(1)) != receiver(Point(1))


def test_a_frozen_receiver_that_holds_a_client_is_keyed_by_identity() -> None:
    """A frozen dataclass with a field that has no value still works in memory, by identity."""

    @dataclasses.dataclass(frozen=True)
    class Service:
        client: Any

    one, two = Service(object()), Service(object())
    assert receiver(one) == receiver(one) != receiver(two)
    assert not stable(receiver(one))


def test_a_key_by_identity_has_no_digest() -> None:
    """What is keyed by identity cannot leave the process: `stable` says so, and `digest` refuses with the remedy."""
    key = key_maker(Agent.method, receiver=True).key((Agent(), 1), {})
    assert not stable(key)
    assert stable(key_maker(ask).key(("a",), {}))
    with pytest.raises(UnkeyableArgument, match=r"Agent is keyed by identity.*__scalekit_key__"):
        digest(key)
    assert isinstance(receiver(Agent()), tuple)
    assert repr(Identity(Agent())).startswith("<identity of ")
