"""Whole programs of users, written before the code they call: each is type-checked and run as its author would do it.

A program in `callsites/` says in its docstring who its user is and what they expect; its `main()` asserts that. Two
constants, read here without importing the program, say when it can run: `NEEDS` names the issue that brings what it
uses (until it is in `LANDED`, the program is only compiled), `GROUP` the dependency group that it imports from.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

LANDED = {2, 3, 4}

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "callsites"


@dataclass(frozen=True)
class Program:
    path: Path
    tree: ast.Module

    def constant(self, name: str, default: int | str) -> int | str:
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
                value = ast.literal_eval(node.value)
                assert isinstance(value, int | str)
                return value
        return default

    @property
    def landed(self) -> bool:
        return self.constant("NEEDS", 2) in LANDED

    @property
    def group(self) -> int | str:
        return self.constant("GROUP", "dev")


PROGRAMS = [Program(path, ast.parse(path.read_bytes(), path.name)) for path in sorted(FOLDER.glob("*.py"))]


def marks(group: int | str) -> list[pytest.MarkDecorator]:
    return [] if group == "dev" else [getattr(pytest.mark, str(group))]


def each(programs: list[Program], *, imported: bool) -> pytest.MarkDecorator:
    """One test a program, marked with its group if the test imports what the program imports."""
    return pytest.mark.parametrize(
        "program",
        [pytest.param(each, id=each.path.stem, marks=marks(each.group) if imported else []) for each in programs],
    )


def run(*command: str, cwd: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCALEKIT_")}
    finished = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=environment,
        timeout=seconds,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        pytest.fail(
            f"{' '.join(command)} ended with {finished.returncode}\n{finished.stdout}\n{finished.stderr}", False
        )
    return finished


@each([program for program in PROGRAMS if program.landed], imported=True)
def test_a_users_program_does_what_its_author_expects(program: Program, tmp_path: Path) -> None:
    """A program that wears today's decorators runs to its end, with warnings as errors and nothing on stderr."""
    finished = run("-W", "error", str(program.path), cwd=tmp_path, seconds=120)
    if program.group == "dev":  # Spark's virtual machine is talkative
        assert finished.stderr == ""


@each([program for program in PROGRAMS if not program.landed], imported=False)
def test_a_program_that_waits_for_a_later_issue_compiles(program: Program) -> None:
    """What a later issue must make possible is written down today, in correct Python."""
    compile(program.path.read_bytes(), program.path.name, "exec")


@pytest.mark.parametrize("group", [pytest.param(group, marks=marks(group)) for group in ("dev", "frameworks")])
def test_the_programs_pass_a_strict_type_checker(group: str) -> None:
    """A user who runs mypy --strict sees their own types through every decorator."""
    chosen = [str(program.path) for program in PROGRAMS if program.landed and program.group == group]
    assert chosen
    run("-m", "mypy", "--strict", "--no-error-summary", *chosen, cwd=ROOT, seconds=300)


@each(PROGRAMS, imported=False)
def test_a_program_is_whole(program: Program) -> None:
    """Every program introduces its user, has a `main()` and can be run as a file."""
    introduction = ast.get_docstring(program.tree)
    assert introduction is not None
    assert "expect" in introduction
    assert any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in program.tree.body)
    assert ast.unparse(program.tree.body[-1]) == "if __name__ == '__main__':\n    main()"
