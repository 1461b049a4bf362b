"""Several processes and one folder: what one ends is ended for all, and a fork harms neither side."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import scalekit
from scalekit._cache.stores.base import Record
from scalekit._core.drive import drive
from scalekit._runtime.blocking import BLOCKING

Make = Callable[..., scalekit.Disk]

PEER = """
import sys
import scalekit
from scalekit._cache.stores.base import Record
from scalekit._core.drive import drive
from scalekit._runtime.blocking import BLOCKING as R

disk = scalekit.Disk(sys.argv[1])
put = lambda key, data, born=None, **rest: drive(disk.put(key, Record(data, born or disk.now(), **rest), R))
invalidate = lambda *keys: drive(disk.invalidate(keys, R))
mark = lambda *names: drive(disk.mark(names, R))
check = lambda key, born, *marks: drive(disk.check(key, born, marks, R))
def get(key):
    record = drive(disk.get(key, R))
    return None if record is None else record.data
while line := sys.stdin.readline():
    print(repr(eval(line)), flush=True)
"""


class Peer:
    """Another process, which evaluates what it is told."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PEER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def send(self, code: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(code + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        return eval(self.process.stdout.readline())

    def __call__(self, code: str) -> Any:
        self.send(code)
        return self.answer()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


def test_what_one_puts_the_other_reads(folder: Path, disks: Make, disk_calls: Any) -> None:
    """A written value is everybody's, and the newest birth wins across processes."""
    calls = disk_calls(disks())
    with Peer(folder) as peer:
        old = calls.store.now()
        assert peer('put("key", b"theirs"), disk.flush()') == (None, True)
        assert calls.get("key") == b"theirs"
        calls.put("key", b"old", born=old)
        calls.store.flush()
        assert calls.get("key") == peer('get("key")') == b"theirs"


def test_what_one_ends_is_ended_for_all(folder: Path, disks: Make, disk_calls: Any) -> None:
    """Keys, marks and everything: written, and queued elsewhere; the generation tells everybody."""
    disk = disks()
    calls = disk_calls(disk)
    with Peer(folder) as peer:
        for end in ('invalidate("key")', 'mark("m")', "disk.clear()"):
            calls.put("key", b"value", marks=("m",))
            disk.flush()
            assert peer('get("key")') == b"value"
            born, generation = disk.now(), disk.generation()
            assert calls.check("key", born, "m")
            calls.put("key", b"queued", marks=("m",))
            peer(end)
            assert disk.generation() != generation
            assert calls.get("key") is None
            assert not calls.check("key", born, "m")
            calls.put("key", b"late", born=born, marks=("m",))
            assert calls.get("key") is None
            disk.flush()
            assert (calls.get("key"), peer('get("key")')) == (None, None)


def test_the_clock_is_one(folder: Path, disks: Make) -> None:
    """Each answer of `now` is later than the one before, whoever asks."""
    disk = disks()
    with Peer(folder) as peer:
        times = [time for _ in range(20) for time in (disk.now(), peer("disk.now()"))]
    assert times == sorted(times)
    assert len({*times}) == 40


def test_eight_processes_open_at_once(folder: Path) -> None:
    """The first time: one makes the folder, the others wait; all read what all wrote."""
    peers = [Peer(folder) for _ in range(8)]
    for number, peer in enumerate(peers):
        peer.send(f'put("key {number}", b"{number}"), disk.flush(), disk.stats().errors')
    assert [peer.answer() for peer in peers] == [(None, True, 0)] * 8
    for peer in peers:
        assert peer('[get(f"key {n}") for n in range(8)], invalidate("x"), disk.generation() % 2 == 0') == (
            [b"%d" % number for number in range(8)],
            False,
            True,
        )
        peer.__exit__()


def test_totals_are_exact_among_processes(folder: Path) -> None:
    """Processes that put and end side by side agree on what is there."""
    peers = [Peer(folder) for _ in range(3)]
    for number, peer in enumerate(peers):
        peer.send(
            f'[put(f"key {{n % 300}}", b"v" * (n % 7)) for n in range({number}, 1500)],'
            f'disk.flush(), invalidate(*[f"key {{n}}" for n in range({number}, 300, 5)])'
        )
    for peer in peers:
        peer.answer()
    entries, nbytes = peers[0]('sum(get(f"key {n}") is not None for n in range(300)), None')
    assert peers[1]("disk.stats().entries") == entries
    assert nbytes is None
    assert peers[2]("disk.stats().nbytes") == peers[1]('sum(len(get(f"key {n}") or b"") for n in range(300))')
    for peer in peers:
        peer.__exit__()


def test_a_killed_process_s_queue_brings_nothing_back(folder: Path, disks: Make, disk_calls: Any) -> None:
    """Acknowledged invalidations survive `kill -9`, whatever waited to be written."""
    calls = disk_calls(disks())
    with Peer(folder) as peer:
        born = peer("disk.now()")
        peer('put("key", b"value"), disk.flush()')
        peer(f'[put("key", b"value"), invalidate("key"), put("key", b"again", born={born})][:0]')
        peer.process.kill()
    assert calls.get("key") is None
    assert not calls.check("key", born)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_harms_nobody(folder: Path, disks: Make, disk_calls: Any) -> None:
    """The parent's queue stays the parent's; the child reads, writes and ends with connections of its own."""
    disk = disks()
    calls = disk_calls(disk)
    calls.put("before", b"before")
    disk.flush()
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            calls.put(f"busy {number % 50}", b"v")
            calls.get(f"busy {number % 50}")
            if number % 20 == 0:
                calls.invalidate(f"busy {number % 50}")

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for round_number in range(10):
            calls.put(f"parent {round_number}", b"parent")
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    assert calls.get("before") == b"before"
                    assert disk.stats().pending == 0
                    calls.put(f"child {round_number}", b"child")
                    assert disk.flush(20.0)
                    calls.invalidate(f"ended {round_number}")
                    code = 0
                finally:
                    os._exit(code)
            born = disk.now()
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert calls.get(f"child {round_number}") == b"child"
            assert calls.check(f"child {round_number}", born)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert disk.flush(20.0)
    assert [calls.get(f"parent {number}") for number in range(10)] == [b"parent"] * 10
    assert disk.stats().errors == 0
    with Peer(folder) as peer:
        assert peer('get("child 3")') == b"child"


def test_a_stopped_reader_does_not_hold_up_writers(folder: Path, disks: Make, disk_calls: Any) -> None:
    """A process that reads and is then stopped keeps neither invalidations nor puts from going on."""
    disk = disks()
    calls = disk_calls(disk)
    calls.put("key", b"value")
    disk.flush()
    with Peer(folder) as peer:
        peer('[get("key") for _ in range(5)]')
        os.kill(peer.process.pid, 19)
        for number in range(500):
            calls.put(f"key {number}", b"v" * 3000)
        assert disk.flush(20.0)
        assert calls.invalidate("key")
        os.kill(peer.process.pid, 18)
        assert peer('get("key"), get("key 499")') == (None, b"v" * 3000)


async def test_the_loop_is_not_held_up_by_a_busy_store(loop_colour: Any, folder: Path) -> None:
    """On an event loop large values are read in a thread, small ones at once; both come back right."""
    from scalekit._runtime.eventloop import EVENT_LOOP

    disk = scalekit.Disk(folder)
    small, large = Record(b"s", disk.now()), Record(b"l" * 100_000, disk.now())
    await disk.put("small", small, EVENT_LOOP)
    await disk.put("large", large, EVENT_LOOP)
    assert disk.flush(20.0)
    disk._heat = 1000  # reads were slow of late: all of them go to a thread
    found = await disk.get_many(["small", "large"] * 3, EVENT_LOOP)
    assert found == [small, large] * 3
    assert disk._heat < 1000
    disk._heat = 0
    assert await disk.get_many(["small", "large"], EVENT_LOOP) == [small, large]
    assert drive(disk.get("large", BLOCKING)) == large
    disk.close()
