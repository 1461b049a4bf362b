"""The house keeps its shape: imports go down, policies do not know each other, and nothing public is shadowed."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import scalekit

ROOT = Path(scalekit.__file__).parent
REPOSITORY = Path(__file__).parent.parent

STRATA: dict[str, set[str]] = {
    "errors": set(),
    "_units": {"errors"},
    "events": set(),
    "settings": {"errors", "_units"},
    "_runtime": set(),
    "_core": {"errors", "settings", "_runtime"},
    "_signals": {"errors", "settings", "_units"},
    "_cache": {"errors", "settings", "events", "_units", "_runtime", "_core", "_signals"},
    "_limit": {"errors", "settings", "events", "_units", "_runtime", "_core", "_signals"},
    "_retry": {"errors", "settings", "events", "_units", "_runtime", "_core", "_signals"},
    "_stack": {"errors", "_core"},
    "_controls": {"errors", "_core", "_cache", "_limit", "_retry"},
}
"""What each room may import of scalekit, besides itself; `cli` and `__init__` may import everything."""

PURE = [
    *("_cache/flight.py", "_cache/flights.py", "_cache/freshness.py", "_cache/key.py", "_cache/marks.py"),
    *("_cache/recording.py", "_cache/stores/memory.py"),
    *("_limit/permits.py", "_retry/backoff.py"),
]
"""State: no clock, no sleeping, no event loop."""


def imports(path: Path) -> set[str]:
    """Modules of scalekit that a file imports when it is run (not under TYPE_CHECKING)."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "scalekit":
            parts = node.module.split(".")[1:]
            found.update([parts[0]] if parts else [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("scalekit."))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


@pytest.mark.parametrize("room", STRATA)
def test_imports_only_go_down(room: str) -> None:
    """A room imports nothing but the rooms below it."""
    base = ROOT / room
    files = sorted(base.rglob("*.py")) if base.is_dir() else [base.with_suffix(".py")]
    assert files
    for file in files:
        upward = imports(file) - STRATA[room] - {room}
        assert not upward, f"{file.relative_to(ROOT)} imports {sorted(upward)}"


def test_every_room_is_on_the_map() -> None:
    """A new room says what it may import."""
    rooms = {module.name for module in pkgutil.iter_modules([str(ROOT)])}
    assert rooms - {"cli", "__main__"} == set(STRATA)


@pytest.mark.parametrize("file", PURE)
def test_state_is_pure(file: str) -> None:
    """State takes `now` and returns decisions: no clock, no I/O, no await."""
    tree = ast.parse((ROOT / file).read_text())
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Await | ast.AsyncFunctionDef), f"{file}:{node.lineno} awaits"
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not {"time", "asyncio", "trio", "anyio", "random"} & set(names), f"{file} imports {names}"


def test_public_names_survive_every_submodule() -> None:
    """After importing every module, every public name is still what it was: no module is named like a function."""
    before = {name: getattr(scalekit, name) for name in scalekit.__all__}
    for module in pkgutil.walk_packages([str(ROOT)], "scalekit."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name, thing in before.items():
        assert getattr(scalekit, name) is thing
        assert callable(thing)


def test_public_names_are_sorted_and_documented() -> None:
    """`__all__` is sorted, and each name has a docstring."""
    assert scalekit.__all__ == sorted(scalekit.__all__)
    for name in scalekit.__all__:
        assert inspect.getdoc(getattr(scalekit, name)), name


def test_every_file_says_why_it_exists() -> None:
    """Each module opens with a docstring."""
    for file in ROOT.rglob("*.py"):
        assert ast.get_docstring(ast.parse(file.read_text())), file


def test_import_is_cheap() -> None:
    """`import scalekit` imports no event loop, no client, and none of the libraries that are loaded when first
    needed.
    """
    code = "import sys; from scalekit import *; print(*sorted(sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"asyncio", "anyio", "trio", "tenacity", "msgspec", "cachetools", "redis", "openai", "rich"}
    assert not loaded & {"hashlib", "random", "email", "ssl", "socket", "subprocess"}


def test_the_top_level_is_what_was_agreed() -> None:
    """Nothing but src, docs, benchmarks, tests and the agreed files lies at the top."""
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout
    tops = {line.split("/")[0] for line in tracked.splitlines()}
    visible = {top for top in tops if not top.startswith(".")}
    assert visible <= {"src", "docs", "benchmarks", "tests", "pyproject.toml", "LICENSE", "README.md"}
