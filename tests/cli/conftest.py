"""A real provider process for the tests of this folder, and one way to run the command."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scalekit.cli.provider import Provider, Settings


@pytest.fixture(scope="session")
def shared_provider() -> Iterator[Provider]:
    with Provider(Settings(slots=4, median=0.05, sigma=0.0, failures=0.0)) as provider:
        yield provider


@pytest.fixture
def provider(shared_provider: Provider) -> Provider:
    """Four slots, every call takes 50 ms, no call fails; counts start at zero."""
    shared_provider.reset()
    return shared_provider


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run `scalekit ...` in an empty directory."""

    def run(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
        start = ["-m", "scalekit"] if code is None else ["-c", code]
        return subprocess.run(
            [sys.executable, *start, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def is_alive(pid: int) -> bool:
    """A zombie that nobody has buried yet is dead."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        if Path("/proc/self/stat").exists():
            return stat.read_text().rpartition(")")[2].split()[0] != "Z"
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


def is_gone(pid: int, within: float = 5.0) -> bool:
    deadline = time.monotonic() + within
    while is_alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def gone() -> Callable[..., bool]:
    """Whether a process ends within so many seconds."""
    return is_gone
