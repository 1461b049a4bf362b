"""The documentation runs: what it shows is executed, what it says is printed is printed, its links lead somewhere.

A page's ```python blocks run in order, in one namespace, in a fresh process with warnings as errors, as its reader
would run them; `await` at the top level is allowed, as in a notebook. A block that prints says what: in comments
behind its `print(...)`s, the rest in a ```text block right below. `...` stands for what differs between two runs. A
block that cannot run is fenced as ```python no-run: the reason, and is only compiled.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import scalekit
from scalekit import errors, settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = ["scalekit", *(module.name for module in pkgutil.walk_packages(scalekit.__path__, "scalekit."))]
OUTPUT = doctest.OutputChecker()

RUNNER = """\
import ast, asyncio, contextlib, io, json, linecache, sys, types
page, lines, blocks = json.load(sys.stdin)
linecache.cache[page] = (len(lines), None, lines, page)
main = sys.modules["__main__"] = types.ModuleType("__main__")
printed = []
for source in blocks:
    code = compile(source, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        given = eval(code, vars(main))
        if asyncio.iscoroutine(given):
            asyncio.run(given)
    printed.append(out.getvalue())
json.dump(printed, sys.stdout)
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what else the fence says, the line below the fence, and its lines."""

    language: str
    note: str
    line: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(self.lines)

    @property
    def placed(self) -> str:
        """The source at its own lines of the page, so that tracebacks point there."""
        return "\n" * self.line + self.text


def lines_of(page: Path) -> list[str]:
    return page.read_text(encoding="utf-8").splitlines(keepends=True)


def blocks_of(page: Path) -> list[Block]:
    found: list[Block] = []
    opened: tuple[str, int] | None = None
    lines = lines_of(page)
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if opened is None:
            opened = (line[3:].strip(), number + 1)
        else:
            language, _, note = opened[0].partition(" ")
            found.append(Block(language, note, opened[1], tuple(lines[opened[1] : number])))
            opened = None
    assert opened is None, f"{page.name} opens a fence that it does not close"
    return found


def promised(page: Path, block: Block) -> str:
    """What the page says that a block prints."""
    lines, after = lines_of(page), block.line + len(block.lines) + 1
    while after < len(lines) and not lines[after].strip():
        after += 1
    below = next((each for each in blocks_of(page) if each.line == after + 1 and each.language == "text"), None)
    said = (re.match(r"\s*print\(.*\)  # (.*)", line) for line in block.lines)
    return "".join(f"{match[1]}\n" for match in said if match) + (below.text if below else "")


def prose_of(page: Path) -> str:
    """The page without what stands in fences and in code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "code", text)


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section_of(page: Path, heading: str) -> str:
    """What stands below the heading that names `heading`, down to the next one."""
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^##+ `{re.escape(heading)}`\n.*?(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page.name} has no heading for {heading}"
    return found[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_example_runs_and_prints_what_it_says(page: Path, tmp_path: Path) -> None:
    """A reader who runs a page's examples from top to bottom sees what the page shows, and no warning."""
    examples = [block for block in blocks_of(page) if block.language == "python" and not block.note]
    if not examples:
        return
    name = str(page.relative_to(ROOT))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SCALEKIT_")}
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER],
        input=json.dumps([name, lines_of(page), [block.placed for block in examples]]),
        cwd=tmp_path,
        env=environment,
        timeout=60,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    for block, printed in zip(examples, json.loads(finished.stdout), strict=True):
        wanted = promised(page, block)
        agreed = OUTPUT.check_output(wanted, printed, doctest.ELLIPSIS)
        assert agreed, f"{name}, line {block.line + 1}: the page says\n{wanted}\nand the example prints\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_are_marked_honestly(page: Path) -> None:
    """A Python example runs, or its fence says why it cannot, and then it is at least Python."""
    for block in blocks_of(page):
        assert block.language, f"{page.name}, line {block.line}: a fence without a language"
        assert block.language not in ("py", "python3", "pycon"), f"{page.name}, line {block.line}: write ```python"
        if block.language == "python" and block.note:
            assert re.fullmatch(r"no-run: \w.{10,}", block.note), f"{page.name}, line {block.line}: no reason"
            compile(block.placed, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the repository, and an anchor that is a heading there."""
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.is_file(), f"{page.name} links to {file}, which is not there"
        assert not anchor or anchor in anchors_of(target), f"{page.name} links to {link}; {anchor} is no heading there"


def test_every_page_is_on_the_map() -> None:
    """docs/index.md leads to each page, and the README to the map."""
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem == "index" or f"({page.name})" in index, f"docs/index.md does not lead to {page.name}"
    assert "docs/index.md" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", scalekit.__all__)
def test_the_reference_has_every_public_name(name: str) -> None:
    """A public name has a section in the reference, a function there all its parameters."""
    section = section_of(ROOT / "docs/reference.md", name)
    public = getattr(scalekit, name)
    if inspect.isfunction(public) or public is scalekit.Memory:
        for parameter in inspect.signature(public).parameters.values():
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                assert f"`{parameter.name}`" in section, f"the reference of {name} does not name {parameter.name}"


def test_every_error_says_what_to_do() -> None:
    """docs/errors.md has a line for each error."""
    text = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    for name in errors.__all__:
        assert f"| `{name}`" in text, f"docs/errors.md has no line for {name}"


def test_every_setting_is_documented_with_its_default() -> None:
    """docs/settings.md has a line for each setting, with its default and its name in the environment."""
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    for name, setting in settings.KNOWN.items():
        line = re.search(rf"^\| `{name}` \|.*$", text, re.MULTILINE)
        assert line is not None, f"docs/settings.md has no line for {name}"
        assert f"SCALEKIT_{name.upper()}" in line[0]
        if setting.default is not None:
            default = str(setting.default) if isinstance(setting.default, str | bool) else f"{setting.default:,}"
            assert f"| {default} |" in line[0].replace("`", ""), f"docs/settings.md: the default of {name} is {default}"


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The examples in the docstrings of every module do what they show, warnings being errors."""
    for variable in [variable for variable in os.environ if variable.startswith("SCALEKIT_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    settings.reset()
    try:
        assert doctest.testmod(importlib.import_module(name)).failed == 0
    finally:
        settings.reset()
