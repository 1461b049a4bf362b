"""numpy's arrays and scalars: dtype, shape, order and bytes. No objects, so no code.

numpy is not imported for its name's sake on the way out (who has an array has imported it); on the way in it is.
A dtype in the bytes is a string of one narrow form, or fields of such, never what `numpy.dtype` would make of any text.
"""

from __future__ import annotations

import math
import re
from typing import Any

from scalekit._cache.codec_kinds import Maker, exactly, writer
from scalekit._cache.codec_walk import Encoding, Refused, Tree, Writer

__all__ = ["MAKERS", "writer_of"]

_ARRAY, _SCALAR = 24, 25
_DTYPE = re.compile(r"[<>|][biufcmMSUV][1-9]\d{0,8}(\[\d{0,9}[A-Za-z]+\])?")
_ITEM = 1 << 16  # bytes of one structured item


def writer_of(kind: type) -> Writer | None:
    """What writes an array or a scalar; None for other classes, subclasses among them."""
    if kind.__module__ != "numpy":
        return None
    import numpy

    if kind is numpy.ndarray:
        return writer(_ARRAY, _array)
    return writer(_SCALAR, _scalar) if issubclass(kind, numpy.generic) else None


def _array(value: Any, encoding: Encoding, depth: int) -> Tree:
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    return [_dtype(value, value.dtype), list(value.shape), order, value.tobytes(order)]


def _scalar(value: Any, encoding: Encoding, depth: int) -> Tree:
    import numpy

    if isinstance(value, str | bytes):  # numpy would strip a trailing zero
        return encoding.tree(str(value) if isinstance(value, str) else bytes(value), depth)
    form = _dtype(value, value.dtype)
    if type(form) is not str or numpy.dtype(form).type is not type(value):
        raise Refused(value, "a scalar that its dtype does not give back")
    return [form, value.tobytes()]


def _dtype(value: Any, dtype: Any) -> Tree:
    """A string, or [[name, dtype, shape], …] for the packed fields of a structured one."""
    form = (
        dtype.str
        if dtype.names is None
        else [[n, _dtype(value, dtype[n].base), [*dtype[n].shape]] for n in dtype.names]
    )
    try:
        if _dtype_from(form) == dtype:
            return form
    except (TypeError, ValueError):
        pass
    raise Refused(value, f"and its dtype {dtype} is not one of plain, packed data")


def _dtype_from(form: Any) -> Any:
    import numpy

    if type(form) is list:
        dtype = numpy.dtype([(exactly(str, name), _dtype_from(part), _shape(shape)) for name, part, shape in form])
    elif _DTYPE.fullmatch(exactly(str, form)):
        dtype = numpy.dtype(form)
    else:
        raise ValueError("no dtype of plain data")
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError("no dtype of plain data")
    return dtype


def _shape(shape: Any) -> tuple[int, ...]:
    if not all(type(length) is int and 0 <= length < 2**62 for length in exactly(list, shape)):
        raise ValueError("no shape")
    return tuple(shape)


def _array_from(body: Any) -> Any:
    import numpy

    form, lengths, order, data = exactly(list, body)
    dtype, shape = _dtype_from(form), _shape(lengths)
    if math.prod(shape) * dtype.itemsize != len(exactly(bytes, data)) or order not in ("C", "F"):
        raise ValueError("an array of another size than its shape")
    return numpy.ndarray(shape, dtype, data, order=order).copy(order)


def _scalar_from(body: Any) -> Any:
    import numpy

    if type(body) is str:
        return numpy.str_(body)
    if type(body) is bytes:
        return numpy.bytes_(body)
    form, data = exactly(list, body)
    return numpy.frombuffer(exactly(bytes, data), _dtype_from(exactly(str, form)), 1)[0]


MAKERS: dict[int, Maker] = {_ARRAY: _array_from, _SCALAR: _scalar_from}
"""What makes a value of the decoded body of an extension."""
