"""A process that writes to a Disk and invalidates in it until it is killed, and notes what it was promised.

    python writer_program.py <folder> <notes> <seed>

Each value names its key and its birth. After an invalidation has returned, a line of the notes says what was ended, and
until when: nothing born by then may ever be read again.
"""

from __future__ import annotations

import os
import random
import sys

import scalekit
from scalekit._cache.stores.base import Record
from scalekit._core.drive import drive
from scalekit._runtime.blocking import BLOCKING

KEYS = 120
MARKS = 5


def value(key: str, born: int, size: int) -> bytes:
    return f"{key}:{born}:".encode() + b"z" * size


def main(folder: str, notes: str, seed: str) -> None:
    dice = random.Random(int(seed))
    disk = scalekit.Disk(folder, max_bytes="50MB")
    disk.now()
    file = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    print("up", flush=True)
    count = 0
    while True:
        count += 1
        number = dice.randrange(KEYS)
        key, born = f"key {number}", disk.now()
        size = dice.choice([10, 500, 3000, 20_000, 200_000] if count % 10 == 0 else [10, 500, 3000])
        drive(disk.put(key, Record(value(key, born, size), born, marks=(f"mark {number % MARKS}",)), BLOCKING))
        if count % 15 == 0:
            ended, now = f"key {dice.randrange(KEYS)}", disk.now()
            drive(disk.invalidate([ended], BLOCKING))
            os.write(file, f"{ended}\t{now}\n".encode())
        if count % 150 == 0:
            ended, now = f"mark {dice.randrange(MARKS)}", disk.now()
            drive(disk.mark([ended], BLOCKING))
            os.write(file, f"{ended}\t{now}\n".encode())
        if count % 1500 == 0:
            now = disk.now()
            disk.clear()
            os.write(file, f"all\t{now}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
