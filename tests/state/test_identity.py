"""Which function answered: same name, other function; same function, other process or Python."""

from __future__ import annotations

import functools
import sys
import textwrap
import threading
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
from interpreters import pythons, run

from scalekit._cache.identity import identity
from scalekit.errors import ConfigurationError

SAMPLE = """
import functools, re

LIMIT, NAME, RATE, ITEMS, PATTERN, MUTABLE, NOTHING, i = 3, "x", 0.5, (1, "a", 2.5), re.compile("a+"), [1], None, 7

def plain(a, b=LIMIT, *args, c: int = 4, **kw) -> str:
    "doc"
    x: int = a
    return f"{x!r:>{b}} {a=} {NAME}" "tail" f"{c}" u"u"

def uses(x):
    total = [i * LIMIT for i in range(3)]
    def inner(LIMIT): return LIMIT + RATE
    class Local:
        "kept"
        value: int = LIMIT
        def m(self): return NAME
    match x:
        case {"a": b, **rest}: return b, rest
        case [1, *other]: return other
        case Local() as z: return z
    try: pass
    except* ValueError as e: print(e)
    with (open("a") as f, open("b") as g): pass
    if (w := x) > 1: return ITEMS, PATTERN, w, {**x}, x[1:2, ..., *total]
    global counter
    counter = 1
    return counter, None, 1j, b"x", -1, lambda y, /, *, z=1: y

async def agen(n):
    async for k in n:
        yield k
    async with n as m: await m

lambdas = [lambda x: x + 1, lambda x: x + 2, lambda: (lambda: 3), lambda: (yield 1), lambda: 1, lambda: None]

def factory(model):
    def ask(q):
        return model, q
    return ask

def logged(f):
    @functools.wraps(f)
    def wrapper(*a, **k): return f(*a, **k)
    return wrapper

@logged
def wrapped(x): return x * LIMIT

@logged
@logged
def twice(x): return x * LIMIT

class Service:
    def method(self, x): return super().__init__(), __class__, x
    @classmethod
    def made(cls, x): return x

def dead():
    if False: print(LIMIT)
    if __debug__: assert NAME
    while 1: return "x" "y" + "z", 1 + 2, not (1 == 2), (1, 2, [3])

def recursive(n):
    def go(k): return go(k - 1) if k else 0
    return go

FUNCTIONS = [plain, uses, agen, *lambdas, factory("a"), factory("b"), wrapped, twice, Service.method, Service.made]
FUNCTIONS += [dead, recursive, recursive(1), functools.partial(plain, 1), functools.partial(plain, 1, c=2)]
"""

UNSET = object()
_number = iter(range(10**6))


def module(folder: Path, source: str, name: str = "service") -> ModuleType:
    """`source` as a module of that name, read from a file."""
    file = folder / f"{name}{next(_number)}.py"
    file.write_text(textwrap.dedent(source))
    made = ModuleType(name)
    made.__file__ = str(file)
    exec(compile(file.read_text(), str(file), "exec", dont_inherit=True), made.__dict__)
    return made


def digest_of(folder: Path, source: str) -> str:
    """The digest of the function `f` of that source."""
    found = identity(module(folder, source).f)
    assert found.stable, found.reason
    return found.digest


def test_digests_are_the_same_in_every_process_and_python(tmp_path: Path) -> None:
    """Every function of a module, lambdas of one line among them, has one digest on all Pythons, and one of its own."""
    (tmp_path / "sample.py").write_text(SAMPLE)
    program = """
import json, sample
from scalekit._cache.identity import identity
found = [identity(function) for function in sample.FUNCTIONS]
print(json.dumps([[one.name, one.digest, one.stable] for one in found]))
"""
    found = [run(python, program, seed, tmp_path) for seed, python in enumerate([sys.executable, *pythons()])]
    assert all(one == found[0] for one in found)
    assert len({digest for _, digest, _ in found[0]}) == len(found[0])
    assert all(stable for _, _, stable in found[0])
    assert found[0][0][0] == "sample.plain"


BASE = """
LIMIT = 3
def helper(x): return x
def f(x, k=5):
    return helper(x) + LIMIT * k
"""


UNCHANGED = {
    "docstring": BASE.replace("    return", '    "words"\n    return'),
    "annotations": BASE.replace("x, k=5):", "x: int, k: int = 5) -> 'list[int]':\n    y: int"),
    "layout": "# comment\n" + BASE.replace("x, k=5", "x,\n   k = 5").replace("LIMIT * k", "(LIMIT  # comment\n  *k)"),
    "a decorator": "def d(f): return f\n" + BASE.replace("def f", "@d\ndef f"),
    "a helper": BASE.replace("return x", "return x + 1"),
    "another constant": "OTHER = 4\n" + BASE,
    "a mutable global": "helpers = [1]\n" + BASE,
}


@pytest.mark.parametrize("why", UNCHANGED)
def test_what_does_not_decide_the_answer_does_not_count(why: str, tmp_path: Path) -> None:
    """Docstring, annotations, layout, decorators, helpers and constants that the body does not name change nothing."""
    base = BASE.replace("x, k=5):", "x, k=5):\n    y: float") if why == "annotations" else BASE
    assert digest_of(tmp_path, UNCHANGED[why]) == digest_of(tmp_path, base)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT * k", "LIMIT + k"),
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("LIMIT = 3", "LIMIT = True"),
        ("k=5", "k=6"),
        ("k=5", "k=5.0"),
        ("x, k", "y, k"),
        ("def f(x, k=5)", "async def f(x, k=5)"),
        ("def f(x, k=5)", "def f(x, *, k=5)"),
    ],
)
def test_what_decides_the_answer_counts(old: str, new: str, tmp_path: Path) -> None:
    """An edited body, constant, default or parameter, also by type alone, is another function."""
    assert digest_of(tmp_path, BASE.replace(old, new)) != digest_of(tmp_path, BASE)


CONSTANTS = {
    "nested function": ("def f():\n    def g(): return LIMIT\n    return g", True),
    "lambda": ("f = lambda: LIMIT", True),
    "comprehension": ("def f(): return [LIMIT for _ in range(3)]", True),
    "its own iterable": ("def f(): return [LIMIT for LIMIT in range(LIMIT)]", True),
    "class body": (
        "def f():\n    class A:\n        LIMIT = LIMIT\n        def m(self): return LIMIT\n    return A",
        True,
    ),
    "tuple": ("LIMITS = (LIMIT, ('a',))\ndef f(): return LIMITS", True),
    "set": ("LIMITS = frozenset({LIMIT})\ndef f(): return LIMITS", True),
    "frozen dataclass": (
        "import dataclasses as d\nC = d.make_dataclass('C', ['a'], frozen=True)\nONE = C(LIMIT)\ndef f(): return ONE",
        True,
    ),
    "enum": ("import enum\nclass E(enum.Enum):\n    A = LIMIT\nONE = E.A\ndef f(): return ONE", True),
    "declared global": ("def f():\n    global LIMIT\n    return LIMIT", True),
    "parameter": ("def f(LIMIT): return LIMIT", False),
    "local": ("def f(x):\n    LIMIT = x\n    return LIMIT", False),
    "variable of a comprehension": ("def f(x): return [LIMIT for LIMIT in x]", False),
    "exception": ("def f(x):\n    try: x()\n    except ValueError as LIMIT: return LIMIT", False),
    "capture": ("def f(x):\n    match x:\n        case [LIMIT, *_]: return LIMIT", False),
    "import": ("def f(x):\n    import json as LIMIT\n    return LIMIT", False),
    "walrus": ("def f(x): return [(LIMIT := y) for y in x], LIMIT", False),
    "attribute": ("def f(x): return x.LIMIT", False),
    "counter": ("def f():\n    global LIMIT\n    LIMIT += 1\n    return LIMIT", False),
    "list": ("LIMITS = [LIMIT]\ndef f(): return LIMITS", False),
}


@pytest.mark.parametrize("case", CONSTANTS)
def test_constants_count_where_the_body_reads_them(case: str, tmp_path: Path) -> None:
    """An immutable global counts where it is read, in whatever scope, and not where the name means something else."""
    source, counts = CONSTANTS[case]
    one, two = (digest_of(tmp_path, f"LIMIT = {value}\n{source}\n") for value in (3, 4))
    assert (one != two) is counts


def test_a_global_that_is_not_set_yet_does_not_count(tmp_path: Path) -> None:
    """`_client = None`, filled later by whoever comes first, does not change what the function is."""
    before = module(tmp_path, "_client = None\ndef f(): return _client")
    after = module(tmp_path, "_client = object()\ndef f(): return _client")
    assert identity(before.f).digest == identity(after.f).digest


def test_closures_of_a_factory_differ(tmp_path: Path) -> None:
    """Functions that one factory made for different values, also different functions, do not share answers."""
    source = """
    def make(value):
        def f(x): return value, x
        return f
    """
    make = module(tmp_path, source).make
    values = [1, True, "1", [1], {"a": 1}, lambda: 1, lambda: 2, digest_of, int, functools.partial(int, base=2)]
    found = [identity(make(value)) for value in values]
    assert all(one.stable for one in found)
    assert len({one.digest for one in found}) == len(found)
    assert identity(make([1])).digest == identity(make([1])).digest


def test_a_closure_over_what_has_no_value_stays_in_this_process(tmp_path: Path) -> None:
    """A cell that holds a lock or a client makes the identity unstable, and the reason names it."""

    def make(client: Any) -> Any:
        def f(x: int) -> Any:
            return client, x

        return f

    found = identity(make(threading.Lock()))
    assert not found.stable
    assert found.reason is not None
    assert "closure cell 'client' of " in found.reason
    assert "_thread.lock" in found.reason
    assert identity(make(threading.Lock()), version="1").stable


def test_wrapped_functions_count_through_the_wrapper(tmp_path: Path) -> None:
    """Behind a `functools.wraps` decorator, the function inside is told apart, and so is the wrapper."""
    source = """
    import functools
    def d(f):
        @functools.wraps(f)
        def wrapper(*a): return f(*a){extra}
        return wrapper
    @d
    def f(x): return x{more}
    """
    found = {
        digest_of(tmp_path, source.replace("{extra}", extra).replace("{more}", more))
        for extra in ("", " + 1")
        for more in ("", " + 1")
    }
    assert len(found) == 4
    assert (
        len({digest_of(tmp_path, f"import functools\n@functools.lru_cache\ndef f(x): return {x}") for x in (1, 2)}) == 2
    )


def test_partials_methods_and_objects_count_what_they_are_bound_to() -> None:
    """Bound arguments and receivers tell partials, methods and callable objects apart; one by identity is unstable."""

    class Agent:
        def __call__(self, x: int) -> int:
            return x

        def method(self, x: int) -> int:
            return x

        @classmethod
        def made(cls, x: int) -> int:
            return x

    def f(x: int, y: int) -> int:
        return x + y

    partials = [functools.partial(f, 1), functools.partial(f, True), functools.partial(f, y=1), functools.partial(f)]
    assert len({identity(one).digest for one in [*partials, f]}) == 5
    assert all(identity(one).stable for one in partials)
    assert identity(partials[0]).name == identity(f).name
    assert not identity(functools.partial(f, object())).stable
    assert identity(Agent.made).stable
    assert not identity(Agent().method).stable
    assert not identity(Agent()).stable
    assert identity(Agent.__dict__["made"]).digest == identity(Agent.__dict__["made"].__func__).digest
    assert identity(len).stable
    assert identity(len).digest != identity(print).digest


def test_a_default_without_a_value_spoils_nothing() -> None:
    """A default such as a client is an argument of each call, so it does not make the function unstable."""

    def f(x: int, client: Any = UNSET) -> Any:
        return x, client

    assert identity(f).stable


def test_a_version_stands_for_the_code(tmp_path: Path) -> None:
    """With `version=` an edit does not count, another version does, and so does a closure cell."""
    one, two = (module(tmp_path, BASE.replace("LIMIT * k", body)).f for body in ("LIMIT * k", "LIMIT"))
    assert identity(one, "3").digest == identity(two, "3").digest != identity(one, "4").digest
    assert identity(one, "3").digest != identity(one).digest

    def make(model: str) -> Any:
        return lambda q: (model, q)

    assert identity(make("a"), "1").digest != identity(make("b"), "1").digest
    wrong: list[Any] = [3, "", 1.0]
    for version in wrong:
        with pytest.raises(ConfigurationError, match="version="):
            identity(one, version)


def test_functions_of_one_source_in_two_modules_differ(tmp_path: Path) -> None:
    """The name of the module and of the function count."""
    one, two = (module(tmp_path, BASE, name).f for name in ("a", "b"))
    assert identity(one).name == "a.f"
    assert identity(one).digest != identity(two).digest


def test_a_script_has_one_name_run_imported_or_sent(tmp_path: Path) -> None:
    """A function of `__main__` is called by its script's stem or its module, so that a worker finds its answers."""
    (tmp_path / "job.py").write_text("def f(x): return x\n")
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "job.py").write_text("def f(x): return x\n")
    show = "import json; from scalekit._cache.identity import identity as of; "
    show += "print(json.dumps([of({0}).name, of({0}).digest]))"
    imported = run(sys.executable, f"import job; {show.format('job.f')}", 0, tmp_path)
    script = str(tmp_path / "job.py")
    as_script = f"import runpy; f = runpy.run_path({script!r}, run_name='__main__')['f']; {show.format('f')}"
    assert run(sys.executable, as_script, 0, tmp_path) == imported
    imported = run(sys.executable, f"import pack.job; {show.format('pack.job.f')}", 0, tmp_path)
    as_module = f"import runpy; f = runpy.run_module('pack.job', run_name='__main__')['f']; {show.format('f')}"
    assert run(sys.executable, as_module, 0, tmp_path) == imported
    assert imported[0] == "pack.job.f"


def test_a_file_that_was_edited_meanwhile_deceives_nobody(tmp_path: Path) -> None:
    """If the file no longer says what runs, the code that runs is what counts."""
    before, after = module(tmp_path, "def f(x): return 1\n"), module(tmp_path, "def f(x): return 2\n")
    assert before.__file__
    Path(before.__file__).write_text("def f(x): return 2\n")
    assert identity(before.f).digest != identity(after.f).digest
    unread = module(tmp_path, "def f(x): return 1\n")
    assert identity(unread.f).digest != identity(before.f).digest


def test_functions_without_source_go_by_their_bytecode() -> None:
    """Code made by `exec` is told apart by code, constants and defaults, without its docstring, and is stable."""

    def made(text: str) -> FunctionType:
        space: dict[str, Any] = {"__name__": "made", "LIMIT": 3}
        exec(compile(text, "nowhere", "exec", dont_inherit=True), space)
        found = space["f"]
        assert isinstance(found, FunctionType)
        return found

    texts = ["def f(x): return x", "def f(x): return x + 1", "def f(x): return x + 1.0", "def f(x, y=1): return x"]
    texts += [
        "def f(x): return [x for _ in (1, 2)]",
        "def f(x): return [x for _ in (1, True)]",
        "def f(x): return LIMIT",
    ]
    found = [identity(made(text)) for text in texts]
    assert all(one.stable for one in found)
    assert len({one.digest for one in found}) == len(found)
    assert (
        identity(made("def f(x):\n    'one'\n    return x")).digest
        == identity(made("def f(x):\n    'two'\n    return x")).digest
    )
    other = made("def f(x): return LIMIT")
    other.__globals__["LIMIT"] = 4
    assert identity(other).digest != found[-1].digest


def test_our_own_wrappers_are_looked_through() -> None:
    """A decorated function in a closure, itself for example, is the function inside, not our bookkeeping."""
    import scalekit

    def make(step: int) -> Any:
        @scalekit.cache
        def count(n: int) -> int:
            return 0 if n <= 0 else 1 + count(n - step)

        return count

    one, two = make(1), make(2)
    assert identity(one).stable
    assert identity(one).digest == identity(one.__wrapped__).digest != identity(two).digest


def test_proxies_in_closures_are_not_followed() -> None:
    """An object that has every attribute, as remote proxies have, is a cell without a value."""

    class Proxy:
        def __getattr__(self, name: str) -> Any:
            return Proxy()

        def __call__(self) -> None: ...

    proxy = Proxy()
    assert not identity(lambda: proxy).stable


def test_recursive_closures_have_an_identity() -> None:
    """Functions that hold themselves, or each other, in their cells are told apart without end."""

    def make(step: int) -> Any:
        def even(n: int) -> bool:
            return n == 0 or odd(n - step)

        def odd(n: int) -> bool:
            return n != 0 and even(n - step)

        return even, odd

    digests = {identity(one).digest for step in (1, 2) for one in make(step)}
    assert len(digests) == 4


def test_decorating_reads_no_source(tmp_path: Path) -> None:
    """Until a digest is asked for, the file is not opened: a decoration costs microseconds."""
    made = module(tmp_path, "def f(x): return x")
    assert made.__file__
    Path(made.__file__).unlink()
    found = identity(made.f)
    assert found.name == "service.f"
    assert repr(found) == "FunctionIdentity('service.f', version=None)"
    assert found.stable
