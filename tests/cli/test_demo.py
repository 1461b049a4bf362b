"""`scalekit demo` as its user runs it: real processes, the real client, a real Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scalekit.cli import agent
from scalekit.cli.provider import Provider, Settings

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def rows(told: str) -> list[list[str]]:
    """The rows of the table: plain ones first, then decorated ones."""
    return [line.split() for line in told.partition("───")[2].splitlines()[1:] if re.match(r" +[\d,]+ +\d", line)]


def process_of(line: str) -> int:
    found = re.search(r"process (\d+)", line)
    assert found, line
    return int(found[1])


def test_the_decorated_agent_answers_everyone_and_the_plain_one_does_not(
    command: Command, tmp_path: Path, gone: Callable[[int], bool]
) -> None:
    """More users than slots: plain questions fail with 429s, decorated ones are all answered for fewer tokens."""
    told = command("demo", "--quick", "--users", "1,40", "--questions", "3", "--plot", "curves.svg")
    assert (told.returncode, told.stderr) == (0, "")
    plain_one, plain_crowd, one, crowd = rows(told.stdout)
    assert plain_one[0] == one[0] == "1"
    assert int(plain_crowd[1]) + int(plain_crowd[2]) == 120
    assert int(plain_crowd[4]) > 20
    assert crowd[:3] == ["40", "120", "0"]
    assert crowd[4] == "0"
    assert int(crowd[3]) < 120
    assert crowd[-1].endswith("k")
    assert "plain, 40 users: RateLimitError × " in told.stdout
    assert "decorated" in (tmp_path / "curves.svg").read_text()
    assert gone(process_of(told.stdout))


def test_the_lines_that_are_shown_are_the_lines_that_run(command: Command) -> None:
    """The demo prints the source of the function that decorates its agent."""
    shown = agent.decoration(7)
    assert "scalekit.limit(concurrency=7)" in shown
    scope: dict[str, object] = {}
    lines = "".join(f"    {line}\n" for line in shown.splitlines())
    exec(f"def decorated(complete):\n{lines}", vars(agent) | {"scope": scope}, scope)
    decorated = scope["decorated"]
    assert callable(decorated)
    assert isinstance(decorated(agent.complete), agent.Agent)


@contextmanager
def running() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A demo whose first crowd is through, and the process id of its provider."""
    demo = [sys.executable, "-m", "scalekit", "demo", "--quick", "--users", "1,400"]
    with subprocess.Popen(demo, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            pid = process_of(process.stdout.readline())
            while "answered in" not in process.stdout.readline():
                pass
            yield process, pid
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process")
def test_ctrl_c_ends_it_with_a_table_and_without_an_orphan(gone: Callable[[int], bool]) -> None:
    """After SIGINT the crowds so far are shown, the provider is gone, and the exit code is 130."""
    with running() as (process, pid):
        process.send_signal(signal.SIGINT)
        told, errors = process.communicate(timeout=20)
        assert process.returncode == 130
        assert gone(pid)
    assert errors == ""
    assert rows(told)[0][:2] == ["1", "5"]
    assert "Interrupted" in told


def test_a_killed_demo_leaves_no_provider(gone: Callable[[int], bool]) -> None:
    """After `kill -9` of the demo its provider is gone too."""
    with running() as (process, pid):
        process.kill()
        assert gone(pid)


def test_a_foreign_provider_is_counted_from_outside(command: Command) -> None:
    """With `--base-url` calls, 429s and tokens are counted around the completion function, and are the provider's."""
    arguments = ["--api-key", "k", "--model", "m", "--yes", "--users", "15", "--questions", "2", "--slots", "4"]
    with Provider(Settings(median=0.03)) as provider:
        told = command("demo", "--base-url", provider.base_url, *arguments)
        stats = provider.stats()
    assert (told.returncode, told.stderr) == (0, "")
    plain, decorated = rows(told.stdout)
    assert int(plain[3]) + int(decorated[3]) == stats["calls"]
    assert int(plain[4]) + int(decorated[4]) == stats["rejected"]
    assert decorated[:3] == ["15", "30", "0"]
