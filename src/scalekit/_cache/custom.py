"""`codec=`: the user's own way to make bytes of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scalekit.errors import CodecError

if TYPE_CHECKING:
    from scalekit._cache.codec import Codec, CustomCodec

__all__ = ["Custom"]


class Custom:
    """A codec of the user's. Whatever it raises is a `CodecError`; kept errors go the house's own way."""

    def __init__(self, given: CustomCodec, own: Codec) -> None:
        self._given = given
        self.learned = 0
        self.encode_error = own.encode_error
        self.decode_error = own.decode_error

    def unreached(self) -> list[str]:
        """Nothing: what may come back is the user's affair."""
        return []

    def encode(self, value: Any) -> bytes:
        try:
            payload = self._given.encode(value)
        except Exception as error:
            raise CodecError(f"codec={self._given!r} cannot encode it: {error!r}") from error
        if not isinstance(payload, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise CodecError(f"codec={self._given!r} gave {type(payload).__name__} instead of bytes")
        return payload

    def decode(self, payload: bytes) -> Any:
        try:
            return self._given.decode(payload)
        except Exception as error:
            raise CodecError(f"codec={self._given!r} cannot decode it: {error!r}") from error
