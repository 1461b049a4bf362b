"""Errors that are kept come back as what callers catch and read, made without a line of their class's code."""

from __future__ import annotations

import dataclasses
from typing import Any

import httpx
import openai
import pytest
from msgspec.msgpack import encode as pack

from scalekit._cache.codec import Codec
from scalekit.errors import CodecError, ConfigurationError

RAN: list[str] = []
ALL = Codec("ask", errors=(Exception,))


class Quota(Exception):
    def __init__(self, *, limit: int, where: str) -> None:
        RAN.append("init")
        super().__init__(f"over {limit}")
        self.limit = limit
        self.where = (where, {where})


class Slotted(ValueError):
    __slots__ = ("code", "unset")

    def __init__(self, code: int | None) -> None:
        super().__init__("slotted")
        self.code = code


class Made(KeyError):
    def __new__(cls, *args: Any) -> Any:
        RAN.append("new")
        return super().__new__(cls, *args)

    def __setattr__(self, name: str, value: Any) -> None:
        RAN.append("setattr")
        super().__setattr__(name, value)


class Io(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(5, "broken", path)
        self.path = path


class Finalized(Exception):
    def __del__(self) -> None: ...


@dataclasses.dataclass
class Detail(Exception):
    code: int


def status_error() -> openai.RateLimitError:
    request = httpx.Request("POST", "http://provider/v1")
    response: Any = httpx.Response(429, request=request, headers={"retry-after": "3"})
    return openai.RateLimitError("slow down", response=response, body={"code": "rate", "type": "tokens"})


ERRORS = [
    *(
        ValueError("a", 1, (2,)),
        KeyError("k"),
        ZeroDivisionError(),
        Quota(limit=3, where="eu"),
        Slotted(4),
        Slotted(None),
    ),
    *(
        Made("x"),
        Io("/p"),
        OSError(2, "no", "f"),
        FileNotFoundError("only text"),
        ConnectionRefusedError(111, "x"),
        OSError(),
    ),
    *(
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        StopIteration(3),
        StopAsyncIteration(),
        ImportError("m", name="n"),
    ),
    *(SyntaxError("m", ("f", 1, 2, "t")), TimeoutError(), ConfigurationError("wrong"), RuntimeError("\ud800", 2**80)),
    Detail(5),
]
READ = ("errno", "strerror", "filename", "value", "name", "limit", "where", "code", "path", "msg", "lineno", "reason")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_as_it_was(error: Exception) -> None:
    """Class, arguments, text, attributes and slots, also those of builtins; no code of the class runs."""
    payload = ALL.encode_error(error)
    RAN.clear()
    back = ALL.decode_error(payload)
    assert RAN == []
    assert type(back) is type(error)
    assert (back.args, str(back), repr(back)) == (error.args, str(error), repr(error))
    for name in READ:
        assert getattr(back, name, "none") == getattr(error, name, "none")
    assert (back.__traceback__, back.__cause__, back.__context__) == (None, None, None)


def test_notes_are_kept_and_causes_are_not() -> None:
    """What `add_note` said comes back."""
    try:
        raise ValueError("a") from KeyError("b")
    except ValueError as caught:
        caught.add_note("seen at noon")
        back = ALL.decode_error(ALL.encode_error(caught))
    assert back.__notes__ == ["seen at noon"]
    assert back.__cause__ is None


def test_an_error_of_an_sdk_keeps_what_is_data() -> None:
    """The response and the request are left out; code, status, body and message are there."""
    back: Any = ALL.decode_error(ALL.encode_error(status_error()))
    assert type(back) is openai.RateLimitError
    assert str(back) == "slow down"
    assert (back.status_code, back.code, back.body) == (429, "rate", {"code": "rate", "type": "tokens"})
    assert not hasattr(back, "response")


def test_another_process_makes_errors_that_are_loaded_and_kept() -> None:
    """A codec that has seen nothing finds the class by its name, if it is one of `errors` or a subclass."""
    payload = ALL.encode_error(status_error())
    assert type(Codec("f", errors=[openai.APIError]).decode_error(payload)) is openai.RateLimitError
    for others in ((), (KeyError,), (openai.InternalServerError,)):
        with pytest.raises(CodecError, match="not one of those that are kept"):
            Codec("f", errors=others).decode_error(payload)


def test_an_error_that_is_not_kept_is_refused() -> None:
    """Classes outside of `errors`, arguments that are no data, and errors as values."""
    with pytest.raises(CodecError, match="ask: answer is of type builtins.KeyError, not an error that is kept"):
        Codec("ask", errors=[ValueError]).encode_error(KeyError("x"))
    with pytest.raises(CodecError, match=r"answer\.args\[1\] is of type builtins\.object"):
        ALL.encode_error(ValueError("x", object()))
    with pytest.raises(CodecError, match="ExceptionGroup"):
        Codec("ask", errors=[ValueError]).encode_error(ExceptionGroup("g", [ValueError()]))
    with pytest.raises(CodecError, match="finalizer"):
        ALL.encode_error(Finalized())
    with pytest.raises(CodecError, match="ValueError"):
        ALL.encode([ValueError("x")])


def test_an_error_made_in_a_function_comes_back_here() -> None:
    """A class that no other process can find is known to the codec that has encoded it."""

    class Local(Exception):
        pass

    payload = ALL.encode_error(Local(1))
    assert type(ALL.decode_error(payload)) is Local
    with pytest.raises(CodecError, match="not loaded"):
        Codec("other", errors=[Exception]).decode_error(payload)


BODIES = [
    *(None, [], ["builtins:ValueError"], ["builtins:ValueError", 1, {}, {}], ["builtins:ValueError", [], {}, {1: 2}]),
    *(["builtins:ValueError", [], {"x": 1}, {}], ["builtins:OSError", [2, "x"], {}, {}], ["builtins:int", [5], {}, {}]),
    *(["subprocess:Popen", [["id"]], {}, {}], ["builtins:SystemExit", [], {}, {}], ["builtins:eval", ["1"], {}, {}]),
    *(["builtins:ExceptionGroup", ["g", [1]], {}, {}], ["nowhere:Error", [], {}, {}], [["x"], [], {}, {}]),
    ["builtins:UnicodeDecodeError", [], {"object": 5, "start": "x"}, {}],
]


@pytest.mark.parametrize("body", BODIES, ids=str)
def test_hostile_bytes_make_no_error(body: Any) -> None:
    """Whatever is not exactly the form of an error that is kept: CodecError."""
    with pytest.raises(CodecError):
        ALL.decode_error(pack(body))
    with pytest.raises(CodecError):
        ALL.decode_error(pack(body)[:-1])
