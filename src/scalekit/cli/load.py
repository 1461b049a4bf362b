"""`scalekit load module:function`: everyone's own eleventh user, the demo's table for any function.

A function that wears scalekit's decorators is run twice: the original, and the original with the same policies on a
fresh start. Nothing is asked of the function but to be importable.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import importlib
import importlib.util
import inspect
import json
import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from scalekit._core.bind import bind, binding_of
from scalekit._core.target import shape_of
from scalekit.cli import flags
from scalekit.cli.crowd import Arguments, deal
from scalekit.cli.meter import Meter
from scalekit.cli.system import Refused, require
from scalekit.cli.trial import Start, Subject, Trial

EPILOG = """\
A line of FILE is the arguments of one call, as JSON: an object is keyword
arguments, an array positional ones, anything else the only argument. Users take
them in the order of the file, and from its start again when they run out. An
`async def` runs on asyncio, a `def` in threads; streams are read to their end.

A function decorated with scalekit is run plain (what it wraps) and decorated,
with its policies on a fresh start before each crowd. `upstream` counts the calls
that went through to the undecorated function, `429s` those that raised an
exception with that status, `paid` the tokens in the `usage` of what it returned,
`saved` the usage of all answers minus `paid`. Where no result tells its usage,
tokens are `-`. p50 and p95 are what a user waited for an answer.

Ctrl-C prints the table of what has run; the exit code is then 130."""


def configure(parser: argparse.ArgumentParser) -> None:
    flags.explain(parser, EPILOG)
    parser.add_argument("target", metavar="module:function", help="found from the current directory, as `python -m`")
    parser.add_argument("--inputs", metavar="FILE", help="JSON lines, - for standard input (none: no arguments)")
    flags.add_users(parser, "1,10,11,100")
    parser.add_argument(
        "--calls", type=flags.positive, default=5, metavar="N", help="calls of each user, one by one (5)"
    )
    flags.add_plot(parser)


def run(arguments: argparse.Namespace) -> int:
    require("rich", *(["matplotlib"] if arguments.plot else []))
    from scalekit.cli import report

    function = find(arguments.target)
    inputs = read(arguments.inputs)
    check(function, inputs[0])
    crowds: tuple[int, ...] = arguments.users or (1, 10, 11, 100)
    screen = report.console()
    trial = Trial(
        subjects(function), crowds, lambda users: deal(inputs, users, arguments.calls), report.announce(screen)
    )

    def main() -> None:
        if shape_of(function).is_async:
            asyncio.run(trial.on_loop())
        else:
            trial.in_threads()

    whole = report.present(trial, main, screen)
    if arguments.plot:
        report.picture(trial.tallies, arguments.plot, screen)
    return 0 if whole else 130


def find(target: str) -> Callable[..., Any]:
    """Import `module:function`, where function may be dotted."""
    name, colon, path = target.partition(":")
    if not (name and colon and path) or name.endswith(".py") or "/" in name:
        suggestion = Path(name).with_suffix("").as_posix().replace("/", ".") or "module"
        raise Refused(f"{target!r} names no function: write {suggestion}:{path or 'function'}")
    if sys.path[0] != "":
        sys.path.insert(0, "")
    if not _exists(name):
        raise Refused(f"there is no module {name!r} in {Path.cwd()} or on the path; run this where it can be imported")
    found: Any = importlib.import_module(name)
    try:
        for part in path.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise Refused(f"{name} has no {path!r}: {error}") from error
    if not _can_be_called(found):
        raise Refused(f"{target} is of type {type(found).__name__}, not a function: name what should be called")
    function: Callable[..., Any] = found if _is_function(found) else found.__call__
    return function


def _can_be_called(thing: object) -> bool:
    return callable(thing) and not inspect.isclass(thing)


def _is_function(thing: object) -> bool:
    return inspect.isroutine(thing) or isinstance(thing, functools.partial)


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def check(function: Callable[..., Any], arguments: Arguments) -> None:
    """Inputs that do not fit the function are said before anything runs."""
    args, kwargs = arguments
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a builtin that does not say
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise Refused(
            f"the inputs do not fit {function.__name__}{signature}: {error}. Write the arguments of one call a line, "
            f"as JSON, into a file for --inputs"
        ) from error


def read(file: str | None) -> list[Arguments]:
    """The arguments of each call, a line each."""
    if file is None:
        return [((), {})]
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"the inputs cannot be read: {error}") from error
    inputs = list(_parse(text.splitlines(), file))
    if not inputs:
        raise Refused(f"{file} has no inputs: write the arguments of one call a line, as JSON")
    return inputs


def _parse(lines: Iterable[str], file: str) -> Iterable[Arguments]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value: Any = json.loads(line)
        except ValueError as error:
            raise Refused(f"{file}, line {number} is not JSON ({error}): {line[:80]}") from error
        if isinstance(value, dict):
            yield (), {**value}
        elif isinstance(value, list):
            yield (*value,), {}
        else:
            yield (value,), {}


def subjects(function: Callable[..., Any]) -> list[Subject]:
    """The function plain, and decorated if it is. Both are counted where the undecorated function is called."""
    owner: object | None = None
    if inspect.ismethod(function):
        owner, function = function.__self__, function.__func__
    binding = binding_of(function)
    original = function if binding is None else binding.target.function

    def start(decorate: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Start:
        meter = Meter()
        counted = decorate(meter.count(original))
        return Start(counted if owner is None else types.MethodType(counted, owner), meter.upstream)

    def undecorated(counted: Callable[..., Any]) -> Callable[..., Any]:
        return counted

    plain = Subject("plain", lambda: start(undecorated))
    if binding is None:
        return [plain]
    policies = binding.policies

    def decorated(counted: Callable[..., Any]) -> Callable[..., Any]:
        return bind(tuple(policy.fresh() for policy in policies), counted)

    return [plain, Subject("decorated", lambda: start(decorated))]
