"""The hot path: a hit in memory is answered by a wrapper compiled for the function's signature, before any coroutine.

One look-up for each bare argument, one check that its type is the one the answer was stored under (`1 == True`), one
look at the clock if the answer can expire, a flag and an addition. The index holds only entries whose arguments are
atoms and whose value cannot be changed; everything else, and every doubt, goes the slow way. As attrs and
dataclasses do, the source is given to `linecache`, so that tracebacks and debuggers show it. The cost:
benchmarks/overhead.py.
"""

from __future__ import annotations

import functools
import keyword
import linecache
from collections.abc import Callable
from inspect import Parameter
from typing import Any

from scalekit._cache.place import LEVELS
from scalekit._cache.site import Site
from scalekit._core.bind import Binding, cell_of
from scalekit._core.drive import drive
from scalekit._core.stream import Stream, lowered

SOURCE = """\
def make(_hot, _slow, _drive, _now, _defaults, _stream, _lowered):
    {color}def {name}({parameters}):
        try:
            _entry = _hot.fast{path}
            {unpack}
            if {same}:
                _entry.hit = True
                _hot.hits += 1
                return _entry.value
        except Exception:
            pass
        _entry = {slow}({forward})
        return _entry if type(_entry) is not _stream else _lowered(_entry, {is_async})
    return {name}
"""
RESERVED = {
    "_hot",
    "_slow",
    "_drive",
    "_now",
    "_defaults",
    "_stream",
    "_lowered",
    "_entry",
    "_kind0",
    "_kind1",
    "_kind2",
    "_kind3",
    "type",
    "id",
    "Exception",
}


def compiled(binding: Binding, site: Site) -> Callable[..., Any] | None:
    """The wrapper of `binding`, whose outermost layer is this cache; None where the fast index can answer nothing."""
    source = _source(site)
    if source is None:
        return None
    hot = binding.cells["hot"] = site.hot
    hot.place = cell_of(binding, "hot")
    hot.open = True
    defaults = {name: parameter.default for name, parameter in _parameters(site).items()}
    wrapper: Callable[..., Any] = _make(source)(
        hot, binding.cells["handler"], drive, site.now, defaults, Stream, lowered
    )
    return wrapper


def _parameters(site: Site) -> dict[str, Parameter]:
    return dict(site.target.signature.parameters) if site.target.signature is not None else {}


def _source(site: Site) -> str | None:
    parameters = _parameters(site)
    names = site.signature.names
    forms = {parameter.kind for parameter in parameters.values()}
    if not site.signature.direct or forms & {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}:
        return None
    if (
        site.target.shape.is_stream
        or site.memory.touches
        or not (site.in_memory and site.lasting)
        or site.scoper
        or RESERVED & parameters.keys()
        or not site.target.own_signature
    ):
        return None
    written: list[str] = []
    forward: list[str] = []
    previous = None
    for name, parameter in parameters.items():
        if previous is Parameter.POSITIONAL_ONLY and parameter.kind is not previous:
            written.append("/")
        if parameter.kind is Parameter.KEYWORD_ONLY and previous is not Parameter.KEYWORD_ONLY:
            written.append("*")
        written.append(name if parameter.default is Parameter.empty else f"{name}=_defaults[{name!r}]")
        forward.append(f"{name}={name}" if parameter.kind is Parameter.KEYWORD_ONLY else name)
        previous = parameter.kind
    if previous is Parameter.POSITIONAL_ONLY:
        written.append("/")
    keyed = list(names)
    checks: list[str] = []
    path = unpack = ""
    if site.method:
        path = f"[id({keyed[0]})]"
        del keyed[0]
    if len(keyed) > LEVELS or not names:
        path += f"[({', '.join(keyed)})]"
        checks.append(f"({''.join(f'type({name}), ' for name in keyed)}) == _entry.kind")
    else:
        path += "".join(f"[{name}]" for name in reversed(keyed))
        kinds = ["_entry.kind"] if len(keyed) == 1 else [f"_kind{place}" for place in range(len(keyed))]
        unpack = f"{', '.join(kinds)} = _entry.kind" if len(keyed) > 1 else ""
        checks += [f"type({name}) is {kind}" for name, kind in zip(keyed, kinds, strict=True)]
    if site.timed:
        checks.append("_now() < _entry.until")
    name = getattr(site.target.function, "__name__", "")
    is_async = site.target.shape.is_async
    return SOURCE.format(
        color="async " if is_async else "",
        name=name if name.isidentifier() and not keyword.iskeyword(name) and name not in RESERVED else "call",
        parameters=", ".join(written),
        path=path,
        unpack=unpack or "pass",
        same=" and ".join(checks) or "True",
        is_async=is_async,
        slow="await _slow" if is_async else "_drive(_slow",
        forward=", ".join(forward) + ("" if is_async else ")"),
    )


@functools.lru_cache(1024)
def _make(source: str) -> Callable[..., Callable[..., Any]]:
    file = f"<scalekit wrapper {abs(hash(source)):x}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    space: dict[str, Any] = {}
    exec(compile(source, file, "exec"), space)  # our own template, filled with identifiers
    make: Callable[..., Callable[..., Any]] = space["make"]
    return make
