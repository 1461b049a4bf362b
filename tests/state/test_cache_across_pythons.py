"""One disk, several Pythons: what one process computed and kept, the next one reads, of whichever version it is.

Beside the running interpreter, those of tests/interpreters.py and of this checkout's `.venv*` take part, if they have
the package's dependencies. The running one takes part twice, with other hash seeds, so the promise is always tested.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from interpreters import SRC, pythons

JOB = '''
"""The same program for every interpreter."""

import datetime, decimal, enum, json, sys, uuid
from dataclasses import dataclass, field
from typing import NamedTuple

import scalekit

class Mood(enum.Enum):
    CALM = "calm"

class Place(NamedTuple):
    x: int
    y: int

@dataclass
class Report:
    title: str
    mood: Mood
    where: Place
    parts: list[object] = field(default_factory=list)

STEP = 7
calls = []
disk = scalekit.Disk(sys.argv[1])

@scalekit.cache(ttl="1h", tiers=["memory", disk])
def report(title: str, options: dict[str, object], *, where: Place = Place(1, 2)) -> Report:
    calls.append("report")
    parts = [(1, "a"), {3}, frozenset({"x"}), 2**80, -STEP, b"\\x00\\xff", 0.1, None, True, {1: "one", (1, 2): "pair"}]
    parts += [decimal.Decimal("1.10"), datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), uuid.UUID(int=5)]
    return Report(title, Mood.CALM, where, parts)

@scalekit.cache(ttl="1h", negative={LookupError: "1h"}, tiers=["memory", disk])
def find(name: str) -> str:
    calls.append("find")
    raise LookupError(f"no {name}")

@scalekit.cache(ttl="1h", tiers=["memory", disk])
def price(item: str) -> float:
    calls.append("price")
    return 1.5

def main():
    said = [repr(report("weekly", {"b": {2, 1}, "a": [Mood.CALM, decimal.Decimal("2.0")]}))]
    try:
        find("lamp")
    except LookupError as error:
        said.append(repr(error))
    said.append(price("lamp"))
    keys = [report.cache.key("weekly", {}), find.cache.key("lamp"), price.cache.key("lamp")]
    if "invalidate" in sys.argv:
        price.cache.invalidate("lamp")
    print(json.dumps({"calls": calls, "said": said, "keys": keys}))

main()
'''


@cache
def takers() -> list[str]:
    """The interpreters that can run the package: the running one, and one of each other version."""
    checkout = sorted(SRC.parent.glob(".venv*/bin/python"))
    found = {sys.version_info[:2]: sys.executable}
    for python in [*pythons(), *map(str, checkout)]:
        asked = "import sys, msgspec, anyio, cachetools, tenacity; print(*sys.version_info[:2])"
        said = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
        if said.returncode == 0:
            major, minor = map(int, said.stdout.split())
            found.setdefault((major, minor), python)
    return list(found.values())


def run(python: str, seed: int, job: Path, *arguments: object) -> Any:
    """What the job printed in a process of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("SCALEKIT_")}
    env |= {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(SRC)}
    command = [python, "-W", "error", str(job), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_python_reads_what_every_other_wrote(tmp_path: Path) -> None:
    """The first process computes; the others, of any version and hash seed, get equal answers and errors uncalled."""
    job = tmp_path / "job.py"
    job.write_text(JOB)
    for writer in takers():
        folder = tmp_path / f"disk of {takers().index(writer)}"
        first = run(writer, 0, job, folder)
        assert first["calls"] == ["report", "find", "price"]
        for seed, reader in enumerate([*takers(), writer], start=1):
            again = run(reader, seed, job, folder)
            assert again == {**first, "calls": []}, f"{reader} after {writer}"


def test_what_one_python_invalidates_is_gone_for_all(tmp_path: Path) -> None:
    """An answer that another process invalidated, of any version, is computed anew, and only that one."""
    job = tmp_path / "job.py"
    job.write_text(JOB)
    readers = takers()
    for number, writer in enumerate(takers()):
        folder = tmp_path / f"disk {number}"
        run(writer, 0, job, folder)
        run(readers[number - 1], 1, job, folder, "invalidate")
        assert run(writer, 2, job, folder)["calls"] == ["price"]
