"""The content of numpy arrays and pandas objects, without importing either: whoever passes one has imported it."""

from __future__ import annotations

import sys
from typing import Any

from scalekit._cache.key import Tree, blob, kind_of, node, sequence

__all__ = ["array", "column", "dtype", "frame", "index", "masked", "scalar", "series", "view"]


def array(value: Any, depth: int) -> Tree:
    """A numpy array by dtype, shape and content; every nan is the same nan. Padding has no content."""
    kind = value.dtype
    if kind.fields:
        return (dtype(kind, depth), value.shape, tuple([array(value[name], depth) for name in kind.names]))
    if kind.hasobject or kind.kind not in "biufcmMSU":
        content: Tree = sequence(tuple(value.ravel().tolist()), depth)
    elif kind.char in "gG":
        content = tuple([str(item) for item in value.ravel()])
    else:
        if kind.kind in "fc" and (absent := value != value).any():
            value = value.copy()
            value[absent] = float("nan")
        content = blob(value.tobytes())
    return (dtype(kind, depth), value.shape, content)


def masked(value: Any, depth: int) -> Tree:
    numpy: Any = sys.modules["numpy"]
    mask = numpy.ma.getmaskarray(value)
    return (array(value.filled(), depth), array(mask, depth))


def dtype(kind: Any, depth: int) -> Tree:
    return repr(kind.descr) if kind.fields else str(kind.str)


def scalar(value: Any, depth: int) -> Tree:
    return array(sys.modules["numpy"].asarray(value), depth)


def view(value: Any, depth: int) -> Tree:
    return (value.format, value.shape, blob(value.tobytes()))


def frame(value: Any, depth: int) -> Tree:
    columns = [column(value.iloc[:, place], depth) for place in range(len(value.columns))]
    return (index(value.columns, depth), index(value.index, depth), tuple(columns), node(value.attrs, depth + 1))


def series(value: Any, depth: int) -> Tree:
    name = node(value.name, depth + 1)
    return (name, index(value.index, depth), column(value, depth), node(value.attrs, depth + 1))


def index(value: Any, depth: int) -> Tree:
    names = node(tuple(value.names), depth + 1)
    return (kind_of(value), names, getattr(value, "freqstr", None), column(value, depth))


def column(value: Any, depth: int) -> Tree:
    """The content of a Series, an Index or an array of pandas. The name of a dtype leaves out its categories."""
    kind = value.dtype
    if type(value).__name__ != "MultiIndex" and hasattr(kind, "hasobject"):
        return array(value.to_numpy(), depth)
    categories = getattr(kind, "categories", None)
    detail = None if categories is None else (index(categories, depth), kind.ordered)
    return (str(kind), detail, sequence(tuple(value), depth))
