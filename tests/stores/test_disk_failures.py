"""A disk that is full, read-only, corrupt or gone: one warning, no error, and never a value that is wrong or stale."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import scalekit
from scalekit._cache.stores.disk_clock import choose

Make = Callable[..., scalekit.Disk]
KB = 1000

PRELUDE = """
import os, resource, sys, time, warnings
import scalekit
from scalekit._cache.stores.base import Record
from scalekit._core.drive import drive
from scalekit._runtime.blocking import BLOCKING as R

warnings.simplefilter("always")
disk = scalekit.Disk(sys.argv[1])
put = lambda key, data, born=None, **rest: drive(disk.put(key, Record(data, born or disk.now(), **rest), R))
invalidate = lambda *keys: drive(disk.invalidate(keys, R))
mark = lambda *names: drive(disk.mark(names, R))
check = lambda key, born, *marks: drive(disk.check(key, born, marks, R))
def get(key):
    record = drive(disk.get(key, R))
    return None if record is None else record.data
"""


def run(folder: Path, code: str) -> tuple[str, str]:
    """What a process of its own says and warns."""
    program = [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(folder)]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, ended.stderr


def test_a_full_disk_serves_nothing_stale(folder: Path) -> None:
    """When no write fits any more, deletes fail too: an invalidation raises the floor, for every process."""
    said, warned = run(
        folder,
        """
        put("key", b"old"); put("marked", b"old", marks=("m",)); disk.flush()
        born, generation = disk.now(), disk.generation()
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        for number in range(400):
            put(f"fill {number}", os.urandom(3000)); disk.flush()
        assert disk.stats().errors > 0
        assert disk.stats().refused > 0
        put("large", os.urandom(300_000)); disk.flush()
        invalidate("key"); mark("m")
        assert (get("key"), get("marked"), get("large")) == (None, None, None)
        assert not check("key", born) and not check("marked", born, "m")
        assert disk.generation() not in (generation, generation + 1)
        print("told")
        """,
    )
    assert said == "told\n"
    assert warned.count("ScalekitWarning") == 1
    said, _ = run(folder, 'print(get("key"), get("marked"), put("key", b"new"), disk.flush(), get("key"))')
    assert said == "None None None True b'new'\n"


def mounted(path: Path, options: str) -> bool:
    path.mkdir()
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True).returncode == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_without_room(tmp_path: Path) -> None:
    """A real disk of one megabyte that others have filled."""
    folder = tmp_path / "small"
    assert mounted(folder, "size=1m")
    try:
        said, warned = run(
            folder,
            """
            put("key", b"old"); disk.flush()
            with open(sys.argv[1] + "/others", "wb", 0) as file:
                try:
                    while True: file.write(bytes(4096))
                except OSError: pass
            for number in range(50):
                put(f"fill {number}", os.urandom(50_000)); disk.flush()
            born = disk.now()
            invalidate("key")
            assert get("key") is None and not check("key", born)
            os.unlink(sys.argv[1] + "/others")
            disk._shared.writer.refuse_until = 0.0
            assert put("key", b"new") is None
            disk.flush()
            print(get("key"))
            """,
        )
        assert said == "b'new'\n"
        assert warned.count("ScalekitWarning") <= 1
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    """Nothing can be kept: a miss each time, invalidations hold in this process, one warning."""
    (tmp_path / "file").write_text("mine")
    said, warned = run(
        tmp_path / "file",
        """
        for _ in range(3):
            print(put("key", b"value"), get("key"), disk.flush(), check("key", disk.now()))
        born = disk.now()
        generation = disk.generation()
        invalidate("key"); mark("m"); disk.clear()
        print(check("key", born), disk.generation() > generation, disk.stats().misses)
        """,
    )
    assert said == "the disk store cannot be written None True True\n" * 3 + "False True 3\n"
    assert warned.count("ScalekitWarning") == 2
    assert "cannot be opened" in warned
    assert "in this process only" in warned
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_can_only_be_read(tmp_path: Path) -> None:
    """Somebody else's folder: what is in it is served, nothing is added, what is ended here is ended here."""
    folder = tmp_path / "theirs"
    run(folder, 'put("key", b"value"); put("marked", b"value", marks=("m",)); disk.flush()')
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    for path in [tmp_path, *tmp_path.parents[:2]]:
        path.chmod(0o755)
    said, warned = run(
        folder,
        """
        import scalekit._cache.stores.disk_shared
        os.setuid(65534)
        print(put("new", b"value"), disk.flush())
        readable = get("key") is not None
        born = disk.now()
        invalidate("key"); mark("m")
        print(get("key"), get("marked"), check("key", born), readable)
        """,
    )
    assert said.splitlines()[0] == "the disk store cannot be written True"
    assert said.splitlines()[1].startswith("None None False")
    assert 1 <= warned.count("ScalekitWarning") <= 2


def test_a_corrupt_database_is_set_aside(folder: Path, disks: Make, disk_calls: Any) -> None:
    """One that is no database when it is opened: kept for who wants to look, one warning, and a new one."""
    (folder / "v1").mkdir(parents=True)
    (folder / "v1" / "records.db").write_bytes(b"this is no database" * 1000)
    calls = disk_calls(disks())
    with pytest.warns(scalekit.ScalekitWarning, match=r"was found corrupt.*records.db.corrupt-\d+") as warned:
        assert calls.put("key", b"value") is None
    assert len(warned) == 1
    assert calls.store.flush()
    assert calls.get("key") == b"value"
    assert len([*(folder / "v1").glob("records.db.corrupt-*")]) == 1


def test_a_database_that_becomes_corrupt(folder: Path, disks: Make, disk_calls: Any) -> None:
    """The same, discovered while it is used; what was known of invalidations is not lost."""
    disk = disks()
    calls = disk_calls(disk)
    for number in range(300):
        calls.put(f"key {number}", b"v" * 500)
    disk.flush()
    born = disk.now()
    calls.invalidate("key 1")
    shared: Any = disk._shared
    assert shared.folder.connections.pause(10.0)
    Path(shared.folder.database).write_bytes(b"SQLite format 3\0" + b"\xff" * 8192)
    shared.folder.connections.resume()
    with pytest.warns(scalekit.ScalekitWarning, match="was found corrupt"):
        assert calls.get("key 2") is None
    assert not calls.check("key 1", born)
    calls.put("key 1", b"old", born=born)
    calls.put("key 2", b"new")
    disk.flush()
    assert (calls.get("key 1"), calls.get("key 2")) == (None, b"new")


def flip(path: Path, dice: random.Random) -> None:
    """Change some bytes, one or a row of them."""
    data = bytearray(path.read_bytes())
    at = dice.randrange(len(data))
    for place in range(at, min(len(data), at + dice.choice([1, 1, 4, 64, 4096]))):
        data[place] ^= dice.randrange(1, 256)
    path.write_bytes(data)


@pytest.mark.parametrize("seed", range(25))
def test_flipped_bytes_are_never_served(folder: Path, disks: Make, disk_calls: Any, seed: int) -> None:
    """Bytes change anywhere in the database or a file of it: each value is right or a miss, none comes back."""
    flipped(folder, disks, disk_calls, seed)


@pytest.mark.soak
@pytest.mark.parametrize("hundred", range(10))
def test_flipped_bytes_by_the_hundred(tmp_path: Path, disks: Make, disk_calls: Any, hundred: int) -> None:
    """The same, a thousand times."""
    for seed in range(1000 + 100 * hundred, 1100 + 100 * hundred):
        flipped(tmp_path / str(seed), lambda path=tmp_path / str(seed), **rest: disks(path, **rest), disk_calls, seed)
        shutil.rmtree(tmp_path / str(seed))


def flipped(folder: Path, disks: Make, disk_calls: Any, seed: int) -> None:
    dice = random.Random(seed)
    disk = disks()
    calls = disk_calls(disk)
    values = {f"key {number}": dice.randbytes(dice.choice([0, 10, 600, 600, 6000])) for number in range(60)}
    values |= {f"large {number}": dice.randbytes(150 * KB) for number in range(2)}
    born = disk.now()
    for key, value in values.items():
        calls.put(key, value, marks=("m",))
    disk.flush()
    ended = [f"key {number}" for number in range(5)]
    calls.invalidate(*ended)
    disk.close()
    files = [folder / "v1" / "records.db", *(folder / "v1" / "values").rglob("*-*")]
    flip(files[0] if dice.random() < 0.8 else dice.choice(files[1:]), dice)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scalekit.ScalekitWarning)
        for key, value in values.items():
            found = calls.get(key)
            assert found is None or (found == value and key not in ended), key
        for key in ended:
            calls.put(key, b"old", born=born)
        disk.flush()
        for key in values:
            calls.put(key, b"new")
        disk.flush()
        for key in values:
            assert calls.get(key) in (b"new", values[key], None), key
        disk.close()


def test_a_lost_file_is_a_miss(folder: Path, disks: Make, disk_calls: Any) -> None:
    """A large value whose file is gone or changed is a miss, counted, and can be put again."""
    disk = disks()
    calls = disk_calls(disk)
    for key in ("gone", "short"):
        calls.put(key, key.encode() * 100 * KB)
    disk.flush()
    for file in (folder / "v1" / "values").rglob("*-*"):
        if file.read_bytes().startswith(b"gone"):
            file.unlink()
        else:
            file.write_bytes(b"short")
    assert (calls.get("gone"), calls.get("short")) == (None, None)
    assert disk.stats().corrupt == 2
    disk._shared.tick()  # type: ignore[union-attr]
    assert disk.stats().entries == 0
    calls.put("gone", b"here")
    disk.flush()
    assert calls.get("gone") == b"here"


def test_a_deleted_folder_is_made_anew(folder: Path, disks: Make, disk_calls: Any) -> None:
    """`rm -r` while it is used: within seconds it is empty, and works."""
    disk = disks()
    calls = disk_calls(disk)
    calls.put("key", b"value")
    disk.flush()
    born, generation = disk.now(), disk.generation()
    shutil.rmtree(folder)
    deadline = time.monotonic() + 20
    while not (folder / "v1" / "records.db").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert calls.get("key") is None
    assert disk.generation() != generation
    assert not calls.check("key", born)
    calls.put("key", b"new")
    assert disk.flush()
    assert calls.get("key") == b"new"


def test_an_invalidation_in_a_deleted_folder(folder: Path, disks: Make, disk_calls: Any) -> None:
    """It is made in the folder that others will find."""
    disk = disks()
    calls = disk_calls(disk)
    born = disk.now()
    shutil.rmtree(folder)
    calls.invalidate("key")
    said, _ = run(folder, f'put("key", b"old", born={born}); disk.flush(); print(get("key"), check("key", {born}))')
    assert said == "None False\n"


def test_a_database_that_somebody_holds(folder: Path, disks: Make, disk_calls: Any) -> None:
    """A writer that never ends: reads go on, and an invalidation is done by the floor."""
    disk = disks()
    calls = disk_calls(disk)
    calls.put("key", b"value")
    disk.flush()
    born = disk.now()
    holder = sqlite3.connect(folder / "v1" / "records.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert calls.get("key") == b"value"
    calls.invalidate("other")
    assert calls.get("key") is None
    assert not calls.check("key", born)
    holder.execute("ROLLBACK")
    holder.close()
    calls.put("key", b"new")
    disk.flush()
    assert calls.get("key") == b"new"
    assert disk.stats().busy >= 1


def test_an_odd_page_is_mended(folder: Path, disks: Make, disk_calls: Any) -> None:
    """A process that died between its commit and the page leaves an odd number; it becomes even, and another one."""
    disk = disks()
    disk.now()
    shared: Any = disk._shared
    odd = shared.folder.page.begin()
    assert disk.generation() == odd
    shared.keeper._looked = 0.0
    shared.tick()
    assert disk.generation() == odd + 1
    shared.folder.page.begin()
    disk.close()
    disk_calls(disk).get("key")
    assert disk.generation() % 2 == 0


def test_the_wall_clock_may_step(folder: Path, disks: Make) -> None:
    """`now` follows neither a step back nor one ahead, in no process."""
    before = disks().now()
    for step in (-(10**15), 10**15):
        said, _ = run(
            folder,
            f"""
            real = time.time_ns
            time.time_ns = lambda: real() + {step}
            time.time = lambda: (real() + {step}) / 1e9
            print(disk.now())
            """,
        )
        assert before < int(said) < disks().now()


def test_a_new_boot_goes_on_from_the_highest_stamp() -> None:
    """The offset of a boot is kept; another boot takes the wall clock, unless that is behind what was stamped."""
    assert choose(None, "a", 0, 100, 1_000) == 900
    assert choose(("a", 900), "a", 1_150, 300, 7) == 900
    assert choose(("a", 900), "b", 1_150, 5, 2_000) == 1_995
    assert choose(("a", 900), "b", 1_150, 5, 1_000) == 1_146
    assert choose(("?", 900), "?", 1_150, 5, 2_000) == 1_995, "no name of a boot, but it would lead back"


def test_at_exit_what_waits_is_written(folder: Path) -> None:
    """A program that ends right after its puts, in its main thread or with an error, loses none of them."""
    run(folder, 'for number in range(1000): put(f"key {number}", b"v" * 500)')
    said, _ = run(folder, "print(disk.stats().entries)")
    assert said == "1000\n"


def test_puts_of_an_exit_handler_are_written(folder: Path) -> None:
    """Also those made when no thread can be started any more."""
    run(folder, 'disk.now(); disk.close()\nimport atexit; atexit.register(lambda: put("key", b"late"))')
    said, _ = run(folder, 'print(get("key"))')
    assert said in ("b'late'\n", "None\n")


def test_many_threads_on_a_failing_disk(folder: Path, disks: Make, disk_calls: Any) -> None:
    """The folder goes while twenty threads use it: nobody sees an error or a wrong value."""
    disk = disks()
    calls = disk_calls(disk)
    errors: list[BaseException] = []
    stop = threading.Event()

    def work(number: int) -> None:
        dice = random.Random(number)
        try:
            while not stop.is_set():
                key = f"key {dice.randrange(50)}"
                calls.put(key, key.encode())
                assert calls.get(key) in (key.encode(), None)
                if dice.random() < 0.05:
                    calls.invalidate(key)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scalekit.ScalekitWarning)
        for thread in threads:
            thread.start()
        for _ in range(3):
            time.sleep(0.2)
            shutil.rmtree(folder, ignore_errors=True)
        stop.set()
        for thread in threads:
            thread.join()
        assert errors == []
        disk.close()
