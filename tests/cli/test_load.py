"""`scalekit load` on a module of the user's own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]

MODULE = '''
import asyncio, threading, time
import scalekit

class Busy(Exception):
    status_code = 429

class Room:
    """Three fit; the fourth gets a 429."""
    def __init__(self):
        self.inside = 0
        self.lock = threading.Lock()
    def __enter__(self):
        with self.lock:
            if self.inside == 3:
                raise Busy
            self.inside += 1
    def __exit__(self, *error):
        with self.lock:
            self.inside -= 1

room = Room()

@scalekit.limit(concurrency=3)
async def ask(text, times=1):
    with room:
        await asyncio.sleep(0.02)
    return {"text": text * times, "usage": {"total_tokens": 10}}

@scalekit.limit(concurrency=3)
def ask_in_threads(text):
    with room:
        time.sleep(0.02)
    return text

class Agent:
    @scalekit.limit(concurrency=3)
    async def ask(self, text):
        with room:
            await asyncio.sleep(0.02)

agent = Agent()

@scalekit.cache(ttl="1m")
def remember(text):
    return {"text": text, "usage": {"total_tokens": 10}}

def shout(text):
    return text.upper()
'''


@pytest.fixture
def module(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "in.jsonl").write_text('"a"\n["b"]\n\n{"text": "c"}\n')


def rows(told: subprocess.CompletedProcess[str]) -> dict[str, list[list[str]]]:
    """The table, by subject."""
    found: dict[str, list[list[str]]] = {}
    group: list[list[str]] = []
    for line in told.stdout.partition("───")[2].splitlines()[1:]:
        words = line.split()
        if words in (["plain"], ["decorated"]):
            group = found[words[0]] = []
        elif words and words[0].replace(",", "").isdigit():
            group.append(words)
        elif line.strip() and ":" in line:
            break
    return found


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize("target", ["mine:ask", "mine:ask_in_threads", "mine:agent.ask"])
def test_a_decorated_function_is_shown_plain_and_decorated(command: Command, target: str) -> None:
    """The eleventh user breaks the plain function and not the decorated one, in each colour and on a method."""
    told = command("load", target, "--inputs", "in.jsonl", "--users", "1,11", "--calls", "2")
    assert (told.returncode, told.stderr) == (0, "")
    table = rows(told)
    one, eleven = table["plain"]
    assert one[:5] == ["1", "2", "0", "2", "0"]
    assert eleven[0] == "11"
    assert int(eleven[1]) + int(eleven[2]) == 22
    assert eleven[2] == eleven[4] != "0"
    assert "plain, 11 users: Busy × " in told.stdout
    assert [row[:5] for row in table["decorated"]] == [["1", "2", "0", "2", "0"], ["11", "22", "0", "22", "0"]]


@pytest.mark.usefixtures("module")
def test_tokens_are_shown_where_results_tell_them(command: Command) -> None:
    """`paid` sums the usage of what the function returned; where there is none it is `-`."""
    told = command("load", "mine:ask", "--inputs", "in.jsonl", "--users", "1", "--calls", "4")
    assert [row[-2:] for group in rows(told).values() for row in group] == [["40", "0"], ["40", "0"]]
    told = command("load", "mine:shout", "--inputs", "in.jsonl", "--users", "2")
    assert [row[-2:] for row in rows(told)["plain"]] == [["-", "-"]]


@pytest.mark.usefixtures("module")
def test_every_crowd_starts_cold_and_saves_what_it_shares(command: Command) -> None:
    """Each crowd pays each question once: nothing is left over from the crowd before it."""
    told = command("load", "mine:remember", "--inputs", "in.jsonl", "--users", "1,2", "--calls", "6")
    assert told.stderr == ""
    table = rows(told)
    assert [row[:4] + row[-2:] for row in table["plain"]] == [
        ["1", "6", "0", "6", "60", "0"],
        ["2", "12", "0", "12", "120", "0"],
    ]
    assert [row[:4] + row[-2:] for row in table["decorated"]] == [
        ["1", "6", "0", "3", "30", "30"],
        ["2", "12", "0", "3", "30", "90"],
    ]


@pytest.mark.usefixtures("module")
def test_an_undecorated_function_is_shown_once(command: Command) -> None:
    """Without decorators there is one group of rows."""
    told = command("load", "mine:shout", "--inputs", "in.jsonl", "--users", "1,3")
    assert told.returncode == 0, told.stderr
    assert list(rows(told)) == ["plain"]


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mine.py:ask"], "names no function: write mine:ask"),
        (["mine"], "names no function: write mine:function"),
        (["nowhere:ask"], "there is no module 'nowhere' in"),
        (["mine:nothing"], "mine has no 'nothing'"),
        (["mine:Agent"], "mine:Agent is of type type, not a function"),
        (["mine:room.inside"], "is of type int, not a function"),
        (["mine:ask", "--inputs", "none.jsonl"], "the inputs cannot be read"),
        (["mine:ask", "--inputs", "mine.py"], "mine.py, line 2 is not JSON"),
        (["mine:ask", "--users", "1,x"], "write the sizes of the crowds as 1,10,11,100"),
        (["mine:ask", "--plot", "x.gif"], "end it in .png, .svg, .pdf"),
    ],
)
def test_a_wrong_argument_says_what_would_be_right(command: Command, arguments: list[str], says: str) -> None:
    """What cannot be run is told in a line before anything runs; exit code 2."""
    told = command("load", *arguments)
    assert told.returncode == 2
    assert says in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.usefixtures("module")
def test_only_the_function_is_slow(command: Command) -> None:
    """A hundred users in threads cost little more than the calls themselves."""
    began = time.monotonic()
    told = command("load", "mine:shout", "--inputs", "in.jsonl", "--users", "100")
    assert rows(told)["plain"][0][:4] == ["100", "500", "0", "500"]
    assert time.monotonic() - began < 20
