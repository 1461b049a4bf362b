"""Every setting is looked up here: argument > `configure(...)` > environment > scalekit.toml > default.

The same decorated function runs on a laptop, in a test, on a fleet. What differs between them belongs to the place and
not to the code, so a policy that was given no argument asks `lookup` for the setting, and it asks when it is *used*:
`configure()` usually runs in `main`, after the imports that decorated everything.

    place           how "limit_queue_timeout" is written there
    -------------   ------------------------------------------------------------------------------
    configure       scalekit.configure(limit_queue_timeout="1m")
    environment     SCALEKIT_LIMIT_QUEUE_TIMEOUT=1m
    scalekit.toml   [limit] queue_timeout = "1m"          (or at the top: limit_queue_timeout = "1m")

scalekit.toml is looked for in the working directory and its parents; SCALEKIT_CONFIG names another file. The file and
the environment are read once, when a setting is first needed; a `configure()` makes the next look-up read the
environment anew. A bad value is a `ConfigurationError` that says where it stands; so is a name that no setting has,
except in the environment, where other programs may have a SCALEKIT_ of their own.

A look-up that was made before is one dict access. There is no lock: resolved values live in a dict that `configure()`
replaces, and whoever was resolving meanwhile writes into the old one, which nobody reads any more.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Never, cast

from scalekit._units import count, seconds, size
from scalekit.errors import ConfigurationError

if TYPE_CHECKING:
    from scalekit._units import Duration

__all__ = ["KNOWN", "Setting", "configure", "lookup", "namespace_of", "reset", "version"]


class Setting(NamedTuple):
    """`parse(value, argument)` checks a value and gives it its final form; `text` says what the setting is for."""

    default: Any
    parse: Callable[[Any, str], Any]
    text: str


def _flag(value: Any, argument: str) -> bool:
    if isinstance(value, bool):
        return value
    raise ConfigurationError(f"{argument}={value!r} is not a flag: write True or False (environment: 1 or 0).")


def _text(value: Any, argument: str) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise ConfigurationError(f"{argument}={value!r} is not a text: write a string that is not empty.")


def _folder(value: Any, argument: str) -> str:
    if isinstance(value, str | os.PathLike) and os.fspath(value):  # pyright: ignore[reportUnknownArgumentType]
        return os.path.expanduser(os.fsdecode(value))
    raise ConfigurationError(f'{argument}={value!r} is not a folder: write a path, such as "~/.cache/my-agent".')


def _waiting(value: Any, argument: str) -> float:
    return seconds(value, argument, zero=True)


def _queue(value: Any, argument: str) -> int:
    return count(value, argument, minimum=0)


KNOWN: Final[Mapping[str, Setting]] = {
    "disable": Setting(False, _flag, "True: policies leave calls alone; read at decoration, so set it first"),
    "namespace": Setting(
        None, _text, "first part of every shared key; left out: the function's top-level package or script"
    ),
    "cache_max_entries": Setting(10_000, count, "entries that a memory tier of its own keeps"),
    "cache_max_bytes": Setting("64MB", size, "bytes that a memory tier of its own keeps"),
    "cache_max_stream_bytes": Setting("8MB", size, "bytes of one stream that are recorded; a longer one is not kept"),
    "cache_throttle": Setting("30s", seconds, "after a refresh that failed, the old answer is served so long untried"),
    "cache_flight_timeout": Setting("10m", seconds, "after this a hung computation no longer holds its key"),
    "disk_dir": Setting(None, _folder, "a folder: functions with a ttl keep their answers there too; None: nowhere"),
    "disk_max_bytes": Setting("1GB", size, "bytes that a disk tier keeps"),
    "require_scope": Setting(False, _flag, "True: a look-up in a shared tier outside of any scope is an error"),
    "limit_max_queue": Setting(10_000, _queue, "callers that may wait for one limit; the next one is refused at once"),
    "limit_queue_timeout": Setting("5m", _waiting, "how long one caller waits for a permit"),
    "retry_attempts": Setting(3, count, "attempts in all, the first one among them"),
    "retry_max_retry_after": Setting("2m", _waiting, "the longest Retry-After that is waited for in full"),
}

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})

_configured: dict[str, Any] = {}
_resolved: dict[str, Any] = {}
_file: tuple[str, dict[str, tuple[Any, str]]] | None = None


def lookup(name: str, argument: Any = None) -> Any:
    """The value of the setting `name` in its final form (seconds, bytes, int, bool, str).

    `argument` is what the code was given, and wins; None means that nothing was given.

    >>> lookup("retry_attempts"), lookup("retry_attempts", 5), lookup("limit_queue_timeout", "30s")
    (3, 5, 30.0)
    """
    if argument is not None:
        return KNOWN[name].parse(argument, name)
    found = _resolved.get(name, _resolved)
    return _resolve(name) if found is _resolved else found


def configure(
    *,
    disable: bool | None = None,
    namespace: str | None = None,
    cache_max_entries: int | None = None,
    cache_max_bytes: int | str | None = None,
    cache_max_stream_bytes: int | str | None = None,
    cache_throttle: Duration | None = None,
    cache_flight_timeout: Duration | None = None,
    disk_dir: str | os.PathLike[str] | None = None,
    disk_max_bytes: int | str | None = None,
    require_scope: bool | None = None,
    limit_max_queue: int | None = None,
    limit_queue_timeout: Duration | None = None,
    retry_attempts: int | None = None,
    retry_max_retry_after: Duration | None = None,
    **unknown: Never,
) -> None:
    """Settings of this process, stronger than the environment and scalekit.toml; None leaves a setting as it is.

    Call it at any time, usually first thing in `main`: policies look their settings up when they are used. Durations
    are seconds, a timedelta or "250ms" "10s" "5m" "1h" "7d"; sizes are bytes or "64MB". Either all of the settings are
    taken or, with a `ConfigurationError`, none.

    >>> import scalekit.settings as settings
    >>> settings.configure(limit_queue_timeout="1m", retry_attempts=5)
    >>> settings.lookup("limit_queue_timeout"), settings.lookup("retry_attempts")
    (60.0, 5)
    >>> settings.reset()
    """
    given = {name: value for name, value in locals().items() if name in KNOWN and value is not None}
    for name in unknown:
        raise _unknown(name, "configure()")
    parsed = {name: KNOWN[name].parse(value, name) for name, value in given.items()}
    _configured.update(parsed)
    _forget()


def namespace_of(module: str) -> str:
    """The namespace of a function of `module`: the setting, else the top-level package, or the script's stem.

    It follows the function and not the process, so that a web server, a worker and a script share what they store.

    >>> namespace_of("shop.search.rank")
    'shop'
    """
    chosen: str | None = lookup("namespace")
    if chosen is not None:
        return chosen
    if module == "__main__":
        main = sys.modules.get("__main__")
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        if spec is None:
            return os.path.splitext(os.path.basename(file))[0] if file else module
        module = spec.name
    return module.partition(".")[0]


def version() -> object:
    """Another object after each `configure()`: by it one sees that what follows from settings is to be made anew."""
    return _resolved


def reset() -> None:
    """As at import: nothing configured, the environment and scalekit.toml unread. For tests."""
    global _file
    _configured.clear()
    _file = None
    _forget()


def _forget() -> None:
    global _resolved
    _resolved = {}


def _resolve(name: str) -> Any:
    resolved = _resolved  # a configure() that comes meanwhile replaces it, so that a value of before is not kept
    setting = KNOWN.get(name)
    if setting is None:
        raise _unknown(name, "lookup()")
    variable = f"SCALEKIT_{name.upper()}"
    text = os.environ.get(variable, "").strip()
    if name in _configured:
        value = _configured[name]
    elif text:
        value = _parse(setting, name, _read(text, setting), f"environment variable {variable}")
    elif (found := _from_file().get(name)) is not None:
        value = _parse(setting, name, *found)
    else:
        value = None if setting.default is None else setting.parse(setting.default, name)
    resolved[name] = value
    return value


def _parse(setting: Setting, name: str, value: Any, where: str) -> Any:
    try:
        return setting.parse(value, name)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} It was read from the {where}.") from None


def _read(text: str, setting: Setting) -> Any:
    """The environment has only strings: "300" is the number, "on" the flag that the setting needs."""
    if setting.parse in (_text, _folder):
        return text
    if setting.parse is _flag:
        return True if text.lower() in _TRUE else False if text.lower() in _FALSE else text
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _from_file() -> dict[str, tuple[Any, str]]:
    """Settings of scalekit.toml, each with the words that say where it stands. Read once; {} without a file."""
    global _file
    if _file is None:
        path = _path()
        _file = (path, _load(path) if path else {})
    return _file[1]


def _path() -> str:
    named = os.environ.get("SCALEKIT_CONFIG", "").strip()
    if named:
        if not os.path.isfile(named):
            raise ConfigurationError(f"SCALEKIT_CONFIG={named!r} is not a file: name a scalekit.toml, or unset it.")
        return named
    try:
        folder = os.getcwd()
    except OSError:  # the working directory was deleted
        return ""
    while True:
        candidate = os.path.join(folder, "scalekit.toml")
        if os.path.isfile(candidate):
            return candidate
        parent = os.path.dirname(folder)
        if parent == folder:
            return ""
        folder = parent


def _load(path: str) -> dict[str, tuple[Any, str]]:
    import tomllib

    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    found: dict[str, tuple[Any, str]] = {}
    for key, value in tables.items():
        for name, entry, place in _rows(key, value):
            if name not in KNOWN:
                raise _unknown(name, f"{path}, {place}")
            if name in found:
                raise ConfigurationError(f"{path} sets {name} at the top and in a [table]: keep one of them.")
            found[name] = (entry, f"file {path}, {place}")
    return found


def _rows(key: str, value: Any) -> list[tuple[str, Any, str]]:
    """[limit] queue_timeout and limit_queue_timeout alike, as (setting, value, place)."""
    if not isinstance(value, dict):
        return [(key, value, key)]
    return [(f"{key}_{inner}", entry, f"[{key}] {inner}") for inner, entry in cast(dict[str, Any], value).items()]


def _unknown(name: str, where: str) -> ConfigurationError:
    from difflib import get_close_matches

    near = get_close_matches(name, KNOWN, n=1, cutoff=0.75)
    said = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(KNOWN))}."
    return ConfigurationError(f"{where}: there is no setting {name!r}; {said}")
