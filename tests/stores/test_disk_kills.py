"""`kill -9` at any moment, with several processes at work: nothing that can be read is ever wrong, or stale."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stores.writer_program import KEYS, MARKS

import scalekit
from scalekit._cache.stores.base import Record
from scalekit._core.drive import drive
from scalekit._runtime.blocking import BLOCKING

PROGRAM = Path(__file__).with_name("writer_program.py")


class Survivor:
    """A process that lives through all of it, and believes nothing it cannot check."""

    def __init__(self, folder: Path, notes: Path) -> None:
        self.disk = scalekit.Disk(folder, max_bytes="50MB")
        self.notes = notes
        self.read = 0
        self.promised: dict[str, int] = {}
        self.copies: dict[str, tuple[Record, int]] = {}
        self._offset = 0

    def learn(self) -> None:
        """What was promised up to now."""
        if self.notes.exists():
            with self.notes.open("rb") as file:
                file.seek(self._offset)
                lines = file.read()
                whole = lines[: lines.rfind(b"\n") + 1]
                self._offset += len(whole)
            for line in whole.decode().splitlines():
                name, time = line.split("\t")
                self.promised[name] = max(self.promised.get(name, 0), int(time))

    def why(self, number: int) -> dict[str, int]:
        """What ended this key."""
        return {name: self.promised.get(name, 0) for name in (f"key {number}", f"mark {number % MARKS}", "all")}

    def look(self, numbers: range) -> None:
        """Read every key, from the store and from copies that the generation or `check` vouches for."""
        self.learn()
        for number in numbers:
            key = f"key {number}"
            ended = max(self.why(number).values())
            generation = self.disk.generation()
            copy = self.copies.get(key)
            if copy is not None:
                good = copy[1] == generation and generation % 2 == 0
                if good or drive(self.disk.check(key, copy[0].born, copy[0].marks, BLOCKING)):
                    how = "generation" if good else "check"
                    assert copy[0].born > ended, f"{key}: a stale copy is vouched for by {how}, {self.why(number)}"
            record = drive(self.disk.get(key, BLOCKING))
            if record is None:
                self.copies.pop(key, None)
                continue
            self.read += 1
            assert record.data.startswith(f"{key}:{record.born}:".encode()), f"{key}: a wrong value"
            assert record.data.endswith(b"z")
            assert record.born > ended, f"{key}: a stale value"
            self.copies[key] = (record, generation)


def storm(folder: Path, kills: int, seed: int) -> Survivor:
    dice, notes = random.Random(seed), folder.parent / "notes"
    survivor = Survivor(folder, notes)
    for kill in range(0, kills, 2):
        programs = [
            subprocess.Popen(
                [sys.executable, str(PROGRAM), str(folder), str(notes), str(dice.randrange(10**9))],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for _ in range(2)
        ]
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == b"up\n", program.stderr and program.stderr.read()
        until = time.monotonic() + dice.uniform(0.02, 0.3)
        while time.monotonic() < until:
            survivor.look(range(kill % 7, KEYS, 7))
        for program in programs:
            program.kill()
        for program in programs:
            _, said = program.communicate()
            assert said == b"", said.decode()
        survivor.look(range(KEYS))
    survivor.disk.close()
    assert survivor.disk.stats().corrupt == 0
    assert survivor.disk.stats().errors == 0
    survivor.disk.close()
    return survivor


def test_killed_while_writing(folder: Path) -> None:
    """A dozen kills: every value is whole and its own, and no acknowledged invalidation is undone."""
    assert storm(folder, 12, seed=1).read > 100


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 100 + int(os.environ.get("SCALEKIT_SOAK_KILLS", "400")) // 20))
def test_killed_hundreds_of_times(folder: Path, seed: int) -> None:
    """The same, SCALEKIT_SOAK_KILLS times (default: 400), twenty in a folder."""
    survivor = storm(folder, 20, seed)
    print(f"20 kills, {survivor.read:,} values read, {len(survivor.promised)} names ended")
