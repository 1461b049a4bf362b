"""The command itself: fast, lazy, and clear when something is missing."""

from __future__ import annotations

import importlib.metadata
import subprocess
from collections.abc import Callable

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]

WITHOUT = """
import sys
for name in {missing}: sys.modules[name] = None
from scalekit.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_help_lists_the_commands_and_imports_none_of_them(command: Command) -> None:
    """`scalekit --help` names every command without importing openai, rich, matplotlib or asyncio."""
    code = """
import sys
from scalekit.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
print([name for name in ("openai", "rich", "matplotlib", "asyncio", "scalekit.cli.demo") if name in sys.modules])
"""
    told = command(code=code)
    assert told.stderr == ""
    assert "demo " in told.stdout
    assert "load " in told.stdout
    assert told.stdout.endswith("[]\n")


def test_the_help_of_a_command_needs_no_extra(command: Command) -> None:
    """`scalekit demo --help` works in a base install."""
    told = command("demo", "--help", code=WITHOUT.format(missing=["openai", "rich", "matplotlib"]))
    assert told.returncode == 0
    assert "--base-url" in told.stdout


def test_the_version_is_the_installed_one(command: Command) -> None:
    """`scalekit --version` prints the version of the distribution."""
    assert command("--version").stdout == f"scalekit {importlib.metadata.version('agent-scalekit')}\n"


@pytest.mark.parametrize(
    ("missing", "arguments", "names"),
    [
        (["rich"], ["demo"], "rich"),
        (["rich", "openai"], ["demo"], "rich and openai"),
        (["matplotlib"], ["demo", "--plot", "x.png"], "matplotlib"),
        (["rich"], ["load", "json:dumps"], "rich"),
    ],
)
def test_a_missing_extra_is_one_line(command: Command, missing: list[str], arguments: list[str], names: str) -> None:
    """Without the `cli` extra a command says in one line what to install, and exits with 2."""
    told = command(*arguments, code=WITHOUT.format(missing=missing))
    assert told.returncode == 2
    assert told.stderr == (
        f"scalekit {arguments[0]}: this needs {names}, which the base install leaves out: "
        'pip install "agent-scalekit[cli]"\n'
    )
    assert told.stdout == ""


def test_a_real_provider_is_asked_for_only_with_consent(command: Command) -> None:
    """With `--base-url` the demo says what it will spend, and without `--yes` and a terminal it sends nothing."""
    told = command("demo", "--base-url", "http://127.0.0.1:9/v1", "--api-key", "k", "--model", "m")
    assert told.returncode == 2
    assert "This spends money: up to 220 calls" in told.stdout
    assert "say --yes" in told.stderr


def test_a_real_provider_needs_a_model(command: Command) -> None:
    """`--base-url` without `--model` is refused before anything is asked."""
    told = command("demo", "--base-url", "http://127.0.0.1:9/v1", "--api-key", "k")
    assert told.returncode == 2
    assert "--model is needed too" in told.stderr
