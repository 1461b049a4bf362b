"""What bytes mean: a value to bytes and back, exactly, and never more than a value.

One self-describing format for every tier: MessagePack, with an extension for each kind of value that it does not know.
A value comes back with the same types, equal, and with the same repr; what cannot is refused before it is written
(`codec_walk.py` reads a value, `codec_kinds.py`, `codec_arrays.py` and `codec_classes.py` know the kinds,
`codec_errors.py` the errors). Plain data never leaves the C encoder and decoder.

**Who may come back.** Bytes from a store are not trusted: whoever can write there must not choose what runs here. So
bytes only name classes, and a name is looked up among the classes that the function's return annotation or `types=`
reaches, or whose objects this codec has encoded itself; those are filled field by field, without a line of their code
(`codec_classes.py`). No module is searched and nothing is imported, so there is no gadget to find: a decoder that
trusted whatever is in `sys.modules` was made to build a `subprocess.Popen`.

Not kept: that two places refer to one object (each gets its own), and the iteration order of sets. A cycle is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from scalekit._cache import codec_arrays, codec_kinds
from scalekit._cache.codec_classes import Form, form_of
from scalekit._cache.codec_depth import unbounded
from scalekit._cache.codec_errors import error_body, error_from
from scalekit._cache.codec_kinds import Maker, exactly
from scalekit._cache.codec_walk import DEPTH, Encoding, Refused, Tree, Writer, encode, ext
from scalekit._cache.names import qualified
from scalekit._cache.reachable import hints_of, lookup, reachable
from scalekit.errors import CodecError

__all__ = ["Codec", "CustomCodec"]

OBJECT = 32
CLASSES = 4_096  # of one function; more are made by the call, and would never be forgotten
_BARE: Mapping[int, Maker] = {**codec_kinds.MAKERS, **codec_arrays.MAKERS}
Decode = Callable[[Any], Any]


class CustomCodec(Protocol):
    """What `codec=` accepts: a pair of methods that undo each other. Whatever they raise, the value is not kept."""

    def encode(self, value: Any, /) -> bytes: ...

    def decode(self, payload: bytes, /) -> Any: ...


class Codec:
    """The codec of one cached function.

    Args:
        name: the function's, for messages.
        source: the function, whose return annotation says which classes may come back.
        types: classes (or any annotations) that may come back besides.
        errors: exception classes whose instances, and those of their subclasses, may come back from `decode_error`.
    """

    def __init__(
        self, name: str, source: Any = None, types: Iterable[Any] = (), errors: Iterable[type[BaseException]] = ()
    ) -> None:
        self._name, self._source, self._types, self._errors = name, source, tuple(types), tuple(errors)
        self._lock = threading.Lock()
        self._walked = False
        self._classes: dict[str, type] = {}  # of the forms below, by name
        self._reached: frozenset[str] = frozenset()
        self._seen_errors: dict[str, type[BaseException]] = {}
        self._writers: dict[type, Writer] = dict(codec_kinds.WRITERS)
        self._object_makers: dict[str, Maker] = {}
        self._decode = _decoder({**_BARE, OBJECT: self._object}, 0)

    def encode(self, value: Any) -> bytes:
        """The bytes of a value.

        Raises:
            CodecError: a part of it has no form as bytes; says which, and of what type it is.
        """
        return self._encoded(lambda encoding: encoding.tree(value, 0))

    def decode(self, payload: bytes | memoryview) -> Any:
        """The value of bytes, whatever bytes.

        Raises:
            CodecError: they are no value, name a class that may not come back, or one that has changed since.
        """
        try:
            if unbounded(payload):
                raise ValueError("nested too deeply")
            return self._decode(payload)
        except CodecError:
            raise
        except Exception as error:
            raise self._undecodable(error) from error

    def encode_error(self, error: BaseException) -> bytes:
        """The bytes of an exception: its class, arguments, notes, and the attributes that have a form as bytes.

        Attributes that have none are dropped (the HTTP response in an SDK's error, say), and so are traceback, cause
        and context.

        Raises:
            CodecError: its class is not one of `errors`, or an argument has no form as bytes.
        """
        payload = self._encoded(lambda encoding: error_body(error, self._errors, encoding))
        self._seen_errors[qualified(type(error))] = type(error)
        return payload

    def decode_error(self, payload: bytes | memoryview) -> BaseException:
        """The exception of bytes, made without calling its `__init__`.

        Raises:
            CodecError: as for `decode`.
        """
        try:
            return error_from(self.decode(payload), self._errors, self._seen_errors)
        except CodecError:
            raise
        except Exception as error:
            raise self._undecodable(error) from error

    def _encoded(self, tree: Callable[[Encoding], Tree]) -> bytes:
        try:
            try:
                return encode(tree(Encoding(self._writers, self._learn, careful=False)))
            except (OverflowError, UnicodeEncodeError):  # an int beyond 64 bits, half a surrogate pair
                return encode(tree(Encoding(self._writers, self._learn, careful=True)))
        except Refused as refused:
            raise CodecError(f"{self._name}: {refused}.") from None
        except Exception as error:  # of the user's own properties and reprs
            raise CodecError(f"{self._name}: the answer cannot be read: {error!r}") from error

    def _undecodable(self, error: Exception) -> CodecError:
        return CodecError(
            f"{self._name}: these bytes are not an answer of this function: {type(error).__name__}: {error!s:.200}"
        )

    def unreached(self) -> list[str]:
        """Classes whose objects this codec has encoded and no other process would give back, sorted."""
        self._admit_reachable()
        return sorted(self._classes.keys() - self._reached)

    @property
    def learned(self) -> int:
        """How many classes this codec lets come back; more than before means that `unreached` may have changed."""
        return len(self._classes)

    # classes ----------------------------------------------------------------------------------------------------------

    def _learn(self, kind: type) -> Writer:
        writer = codec_arrays.writer_of(kind)
        if writer is None:
            return self._admit(kind, form_of(kind))
        self._writers[kind] = writer
        return writer

    def _admit(self, kind: type, form: Form) -> Writer:
        """Let the objects of a class come and go; of two classes with one name, the one that is found under it."""
        current = lookup(form.name) is kind

        def write(value: Any, encoding: Encoding, depth: int) -> Tree:
            return ext(OBJECT, form.write(value, encoding, depth))

        with self._lock:
            known = self._classes.get(form.name, kind)
            if known is not kind and not current:
                raise Refused(kind, "and another class has the same name, so bytes could not tell them apart")
            if known is not kind:
                self._writers.pop(known, None)
            elif len(self._classes) >= CLASSES and form.name not in self._classes:
                raise Refused(kind, f"and answers of more than {CLASSES:,} classes were encoded already")
            self._classes[form.name] = kind
            self._object_makers[form.name] = form.make
            self._writers[kind] = write
        return write

    def _object(self, body: Any) -> Any:
        name = exactly(str, exactly(list, body)[0])
        make = self._object_makers.get(name)
        if make is None:
            self._admit_reachable()
            make = self._object_makers.get(name)
            if make is None:
                raise CodecError(
                    f"{self._name}: bytes name the class {name!r}, "
                    "which neither the return annotation nor types= reaches."
                )
        return make(body)

    def _admit_reachable(self) -> None:
        """Admit the classes of the annotation and of `types`, once, when bytes first name one that is not known yet."""
        if self._walked:
            return
        reached: set[str] = set()
        for kind in reachable(hints_of(self._source, self._types)):
            try:
                form = form_of(kind)
                self._admit(kind, form)
                reached.add(form.name)
            except Exception:  # not one of our kinds, or half defined: it stays outside
                continue
        self._reached, self._walked = frozenset(reached), True


def _decoder(makers: Mapping[int, Maker], depth: int) -> Decode:
    """Decode with `makers` for the extensions; their bodies go to a decoder that stands one level deeper."""
    inner: Decode | None = None

    def make(code: int, data: memoryview) -> Any:
        nonlocal inner
        if inner is None:
            if depth == DEPTH:
                raise ValueError(f"nested deeper than {DEPTH} levels")
            inner = _decoder(makers, depth + 1)
        return makers[code](inner(data))

    return msgspec.msgpack.Decoder(ext_hook=make).decode
