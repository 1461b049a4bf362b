"""No provider outlives whoever started it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from scalekit.cli.provider import Provider

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are watched through POSIX signals")

PARENT = """
import time
from scalekit.cli.provider import Provider
with Provider() as provider:
    print(provider.pid, flush=True)
    time.sleep(60)
"""

PARENT_WITHOUT_PIPE = """
import subprocess, sys, time
provider = subprocess.Popen([sys.executable, "-m", "scalekit.cli.provider"])  # inherits an stdin that stays open
print(provider.pid, flush=True)
time.sleep(60)
"""


def test_a_killed_parent_takes_the_provider_with_it(gone: Callable[..., bool]) -> None:
    """After `kill -9` of the process that started it, the provider ends by itself."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid, within=0)
        parent.kill()
        assert gone(pid)


def test_a_parent_without_a_pipe_is_missed_too(gone: Callable[..., bool]) -> None:
    """A provider whose stdin stays open ends when its parent's process is gone."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT_WITHOUT_PIPE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        json.loads(parent.stdout.readline())
        parent.kill()
        assert gone(pid)


@pytest.mark.parametrize(
    "end",
    [
        lambda process: process.send_signal(signal.SIGTERM),
        lambda process: process.send_signal(signal.SIGINT),
        lambda process: process.stdin.close(),
    ],
    ids=["SIGTERM", "SIGINT", "end of stdin"],
)
def test_it_ends_cleanly(end: Callable[[subprocess.Popen[str]], None]) -> None:
    """SIGTERM, SIGINT and the end of stdin all end it with exit code 0 and nothing on stderr."""
    with subprocess.Popen(
        [sys.executable, "-m", "scalekit.cli.provider"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = json.loads(process.stdout.readline())
        assert line["base_url"] == f"http://127.0.0.1:{line['port']}/v1"
        end(process)
        assert process.wait(timeout=5) == 0
        assert process.stderr.read() == ""


def test_leaving_the_block_ends_the_process_even_after_an_error(gone: Callable[..., bool]) -> None:
    """The context manager ends its process when the block raises."""
    pids: list[int] = []

    def fail() -> None:
        with Provider() as provider:
            pids.append(provider.pid)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert gone(pids[0], within=0)


def test_a_port_that_is_taken_is_told() -> None:
    """A provider that cannot listen says so and exits with 1."""
    with Provider() as provider:
        port = provider.base_url.rpartition(":")[2].partition("/")[0]
        second = subprocess.run(
            [sys.executable, "-m", "scalekit.cli.provider", "--port", port],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in second.stderr
