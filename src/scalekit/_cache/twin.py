"""One exception for several callers: each gets a copy, for tracebacks and notes belong to one call."""

from __future__ import annotations

import copy
from types import GetSetDescriptorType, MemberDescriptorType, TracebackType

__all__ = ["twin"]


def twin(error: BaseException, trace: TracebackType | None) -> BaseException:
    """A copy of an exception for another caller, with the traceback `trace`, so that neither their tracebacks nor their
    notes grow into each other.

    Where copying fails (keyword-only arguments, as openai's have), it is made without `__init__`; where that fails too,
    the exception itself is shared.
    """
    cls = type(error)
    try:
        other = copy.copy(error)
        if type(other) is not cls or other is error or other.args != error.args:
            raise TypeError
    except Exception:
        try:
            other = cls.__new__(cls, *error.args)
        except Exception:
            return error
    for name in _fields(cls):
        try:
            value = getattr(error, name)
            if getattr(other, name, None) is not value:
                BaseException.__setattr__(other, name, value)  # past the class's own, which may forbid it
        except Exception:  # never set, or set by `__new__` alone
            continue
    for name, value in error.__dict__.items():
        other.__dict__.setdefault(name, value)
    BaseException.__setattr__(other, "__suppress_context__", error.__suppress_context__)  # a cause has set it
    if isinstance(notes := other.__dict__.get("__notes__"), list):
        other.__dict__["__notes__"] = [*notes]
    return other.with_traceback(trace)


def _fields(cls: type[BaseException]) -> list[str]:
    """What exceptions of this class hold outside of their `__dict__`: in slots, and in C."""
    return [
        name
        for base in cls.__mro__
        for name, field in vars(base).items()
        if isinstance(field, MemberDescriptorType | GetSetDescriptorType)
        and name not in ("__dict__", "__weakref__", "__traceback__")
    ]
