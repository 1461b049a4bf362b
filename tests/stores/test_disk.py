"""What `Disk` promises beyond the contract of stores: sharing, bounds, laziness."""

from __future__ import annotations

import os
import pickle
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import scalekit
from scalekit import settings
from scalekit._cache.stores import disk_change, disk_keeper, disk_queue
from scalekit._cache.stores.disk_page import COMMITS

Make = Callable[..., scalekit.Disk]
KB = 1000


def test_making_one_touches_nothing(folder: Path, disks: Make) -> None:
    """The folder is made when a Disk is first used, for this user only."""
    disk = disks()
    assert repr(disk) == f"Disk({str(folder)!r})"
    assert not folder.exists()
    disk.now()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in folder.rglob("*"):
        assert stat.S_IMODE(file.stat().st_mode) == (0o700 if file.is_dir() else 0o600), file


def test_values_outlive_the_process_s_objects(folder: Path, disks: Make, disk_calls: Any) -> None:
    """What was put is there after `close`, for a new Disk of the folder, and for the old one."""
    disk = disks()
    calls = disk_calls(disk)
    calls.put("small", b"s")
    calls.put("large", b"l" * 300 * KB)
    disk.close()
    assert [*(folder / "v1" / "values").rglob("*-*")] != []
    for other in (disks(), disk):
        again = disk_calls(other)
        assert (again.get("small"), again.get("large")) == (b"s", b"l" * 300 * KB)


def test_objects_of_one_folder_share_everything(folder: Path, disks: Make, disk_calls: Any, tmp_path: Path) -> None:
    """Two Disks of one real path see each other's queued puts, and one thread writes for both."""
    (tmp_path / "link").symlink_to(folder)
    others = set(threading.enumerate())
    one, two = disks(), disks(tmp_path / "link")
    disk_calls(one).put("key", b"value")
    assert disk_calls(two).get("key") == b"value"
    assert one.stats() == two.stats()
    assert [thread.name for thread in threading.enumerate() if thread not in others] == ["scalekit disk"]


def test_one_folder_has_one_bound(disks: Make) -> None:
    """A second bound for a folder is an error that names both."""
    disks(max_bytes="10MB").now()
    disks(max_bytes=10_000_000).now()
    with pytest.raises(scalekit.ConfigurationError, match="max_bytes=10000000 elsewhere in this process, and 20000000"):
        disks(max_bytes="20MB").now()
    with pytest.raises(scalekit.ConfigurationError, match="max_bytes='1 gig'"):
        disks(max_bytes="1 gig")


def test_a_copy_by_pickle_is_the_same_store(disks: Make, disk_calls: Any) -> None:
    """A pickled Disk is its path and its bound."""
    disk = disks(max_bytes="10MB")
    disk_calls(disk).put("key", b"value")
    assert disk_calls(pickle.loads(pickle.dumps(disk))).get("key") == b"value"


def test_the_place_says_where(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path: the setting `disk_dir`, else the user's cache directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "xdg"))
    monkeypatch.setenv("HOME", str(folder / "home"))
    for configured, where in ((folder / "set", "set"), (None, "xdg/scalekit" if os.uname().sysname == "Linux" else "")):
        settings.reset()
        settings.configure(disk_dir=configured)
        disk = scalekit.Disk()
        disk.now()
        assert (folder / where).is_dir()
        disk.close()
    settings.reset()


@pytest.mark.parametrize("name", ["plain", "sp ace?&#%", "ünï", os.fsdecode(b"raw\xff"), "memory:"])
def test_any_path_will_do(disks: Make, disk_calls: Any, tmp_path: Path, name: str) -> None:
    """Names that are odd for a URI, for SQLite or for UTF-8."""
    disk = disks(tmp_path / name)
    disk_calls(disk).put("key", b"value")
    disk.close()
    assert disk_calls(disk).get("key") == b"value"
    assert (tmp_path / name / "v1" / "records.db").exists()


def test_flush_waits_and_gives_up(disks: Make, disk_calls: Any) -> None:
    """`flush` is True once all is written, False when the time was over first."""
    disk = disks()
    calls = disk_calls(disk)
    assert disk.flush()
    for number in range(3000):
        calls.put(f"key {number}", b"v" * 500)
    assert not disk.flush(0.0)
    assert disk.flush(30.0)
    assert disk.stats().pending == 0
    assert disk.stats().entries == 3000


def test_the_queue_is_bounded(disks: Make, disk_calls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes faster than the disk takes it is refused with a reason, not waited for; so is what is too large."""
    monkeypatch.setattr(disk_queue, "ROOM", 100 * KB)
    disk = disks(max_bytes="1MB")
    calls = disk_calls(disk)
    reasons = [calls.put(f"key {number}", b"v" * 30 * KB) for number in range(10)]
    assert "does not keep up" in (reasons[-1] or "")
    assert reasons[0] is None
    assert disk.flush(10.0)
    assert calls.put("key", b"v") is None
    assert "a quarter of max_bytes" in (calls.put("key", b"v" * 300 * KB) or "")
    assert disk.stats().refused == sum(reason is not None for reason in reasons) + 1


def on_disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.name.endswith("-wal"))


@pytest.mark.parametrize("size", [200, 5 * KB, 200 * KB])
def test_the_bound_holds(folder: Path, disks: Make, disk_calls: Any, size: int) -> None:
    """Three times what fits: what is kept stays within the bound, and most of the bound is used."""
    bound = 4_000_000
    disk = disks(max_bytes=bound)
    calls = disk_calls(disk)
    for number in range(3 * bound // (size + 200)):
        calls.put(f"key {number}", b"v" * size)
        if number % 1000 == 999 or size > 100 * KB:
            disk.flush()
    disk.close()
    stats = disk.stats()
    assert stats.evicted > 0
    assert 0.5 * bound < stats.used <= bound
    assert stats.nbytes == stats.entries * size
    assert on_disk(folder) <= 1.15 * bound + 5_000_000 * (size < 100 * KB)


def test_what_is_read_stays(disks: Make, disk_calls: Any) -> None:
    """Keys that are read again and again survive a scan of keys that are not."""
    disk = disks(max_bytes=2_000_000)
    calls = disk_calls(disk)
    loved = [f"loved {number}" for number in range(50)]
    for key in loved:
        calls.put(key, b"v" * 5 * KB)
    for number in range(1500):
        calls.put(f"scan {number}", b"v" * 5 * KB)
        if number % 20 == 0:
            disk.flush()
            for key in loved:
                calls.get(key)
            disk._shared.tick()  # type: ignore[union-attr]
    kept = sum(calls.get(key) is not None for key in loved)
    assert disk.stats().evicted > 1000
    assert kept >= 45


def test_expired_records_leave(disks: Make, disk_calls: Any) -> None:
    """Records whose time is over are dropped without being asked for, with their files."""
    disk = disks()
    calls = disk_calls(disk)
    soon = disk.now() + 300_000_000
    for number, size in enumerate([10, 10, 200 * KB]):
        calls.put(f"soon {number}", b"v" * size, expires=soon)
    calls.put("later", b"v")
    disk.flush()
    assert disk.stats().entries == 4
    while disk.now() < soon:
        pass
    shared: Any = disk._shared
    shared.keeper._looked = 0.0
    shared.tick()
    assert disk.stats().entries == 1
    assert [*(Path(shared.path) / "v1" / "values").rglob("*-*")] == []
    assert calls.get("later") == b"v"


def test_what_is_new_stays_a_while(disks: Make, disk_calls: Any) -> None:
    """Wherever the hand is, the records that were put last are not the ones to go."""
    disk = disks(max_bytes=2_000_000)
    calls = disk_calls(disk)
    for number in range(2000):
        calls.put(f"key {number}", b"v" * 5 * KB)
        if number % 20 == 19:
            disk.flush()
            disk._shared.tick()  # type: ignore[union-attr]
            if number % 3 == 0:
                for old in range(number - 200, number - 150):
                    calls.get(f"key {old}")
            assert all(calls.get(f"key {last}") for last in range(max(0, number - 50), number + 1)), number
    assert disk.stats().evicted > 1000


def test_no_eviction_forgets_an_invalidation(disks: Make, disk_calls: Any) -> None:
    """A key that was ended, put anew and evicted still refuses what was born before its end."""
    disk = disks(max_bytes=1_000_000)
    calls = disk_calls(disk)
    born = disk.now()
    calls.invalidate("key")
    calls.put("key", b"new")
    for number in range(1000):
        calls.put(f"other {number}", b"v" * 3 * KB)
    disk.flush()
    disk._shared.tick()  # type: ignore[union-attr]
    assert calls.get("key") is None, "not evicted: the test is too small"
    assert not calls.check("key", born)
    calls.put("key", b"old", born=born)
    disk.flush()
    assert calls.get("key") is None


def test_many_invalidations_stay_within_the_bound(disks: Make, disk_calls: Any) -> None:
    """Tombstones too take room: when there is nothing else to drop they go, and the floor stands for them."""
    disk = disks(max_bytes=400_000)
    calls = disk_calls(disk)
    born = disk.now()
    keys = [f"key {number}" for number in range(6000)]
    for at in range(0, len(keys), 500):
        calls.invalidate(*keys[at : at + 500])
        disk._shared.tick()  # type: ignore[union-attr]
    assert disk.stats().used <= 400_000
    for key in keys[::100]:
        assert not calls.check(key, born)
        calls.put(key, b"old", born=born)
    disk.flush()
    assert [calls.get(key) for key in keys[::100]] == [None] * 60


def test_what_is_older_than_the_tombstones_is_not_trusted(
    disks: Make, disk_calls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a day nobody remembers an end: such a record cannot be put, and a copy must be stored too."""
    monkeypatch.setattr(disk_change, "RETENTION", 0)
    monkeypatch.setattr("scalekit._cache.stores.disk_reader.RETENTION", 0)
    disk = disks()
    calls = disk_calls(disk)
    born = disk.now()
    calls.put("key", b"old", born=born)
    disk.flush()
    assert calls.get("key") is None
    assert not calls.check("key", born)


def test_clear_ends_everything(disks: Make, disk_calls: Any) -> None:
    """`clear` ends what is written, queued and on its way; the room is freed behind it."""
    disk = disks()
    calls = disk_calls(disk)
    calls.put("written", b"v" * 200 * KB)
    disk.flush()
    calls.put("queued", b"v")
    born, generation = disk.now(), disk.generation()
    disk.clear()
    assert (calls.get("written"), calls.get("queued")) == (None, None)
    assert disk.generation() not in (generation, generation + 1)
    calls.put("late", b"v", born=born)
    assert calls.get("late") is None
    calls.put("new", b"v")
    shared: Any = disk._shared
    disk.flush()
    shared.keeper._looked = 0.0
    shared.tick()
    assert (disk.stats().entries, disk.stats().nbytes) == (1, 1)
    assert calls.get("new") == b"v"


def test_threads_come_and_go(disks: Make, disk_calls: Any) -> None:
    """Hundreds of threads leave no connections behind."""
    disk = disks()
    calls = disk_calls(disk)
    calls.put("key", b"value")
    disk.flush()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    found: list[bytes | None] = []
    for _ in range(10):
        threads = [threading.Thread(target=lambda: found.append(calls.get("key"))) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [b"value"] * 300
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after <= before + 3 * 8


def test_orphaned_files_are_swept(folder: Path, disks: Make, disk_calls: Any) -> None:
    """A file that no row names goes once it is old enough; one that a row names stays."""
    disk = disks()
    calls = disk_calls(disk)
    calls.put("large", b"l" * 300 * KB)
    disk.flush()
    values = folder / "v1" / "values" / "ab"
    values.mkdir(exist_ok=True)
    for name in ("abcdef0123456789-1f", "abcdef0123456789-1f.77.part", "young-1"):
        (values / name).write_bytes(b"x")
    for file in (folder / "v1" / "values").rglob("*-*"):
        if "young" not in file.name:
            os.utime(file, (0, 0))
    shared: Any = disk._shared
    shared.keeper._remove_orphans(shared.folder)
    assert [file.name for file in values.iterdir() if "abcdef" in file.name] == []
    assert (values / "young-1").exists()
    assert calls.get("large") == b"l" * 300 * KB


def test_marks_without_end_are_bounded(disks: Make, disk_calls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there are too many marks the older ones go, and the floor stands for them: too much is ended, never less."""
    monkeypatch.setattr(disk_keeper, "MARKS", 100)
    disk = disks()
    calls = disk_calls(disk)
    born = disk.now()
    for number in range(0, 300, 10):
        calls.mark(*[f"mark {one}" for one in range(number, number + 10)])
    shared: Any = disk._shared
    shared.keeper._looked = 0.0
    shared.tick()
    assert len(shared.reader.marks) <= 100
    for number in range(0, 300, 50):
        calls.put(f"key {number}", b"old", born=born, marks=(f"mark {number}",))
        assert calls.get(f"key {number}") is None
        assert not calls.check(f"key {number}", born, f"mark {number}")
    calls.put("key", b"new", marks=("mark 1",))
    assert calls.get("key") == b"new"


def test_a_commit_is_seen_whatever_the_clock_says(
    disks: Make, disk_calls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers notice a commit by a word that it changes: by more than a clock, which may stand still."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_000)
    disk = disks()
    calls = disk_calls(disk)
    words, seen = disk._open().words, set[int]()
    for number in range(20):
        calls.put("key", b"%d" % number)
        disk.flush()
        for _ in range(3):
            assert calls.get("key") == b"%d" % number
        seen.add(words[COMMITS])
    assert len(seen) == 20


def test_what_came_during_a_lap_keeps_its_second_chance(disks: Make, disk_calls: Any) -> None:
    """Records that were put and read while the hand was on its way are spared in the next lap."""
    disk = disks(max_bytes=2_000_000)
    calls = disk_calls(disk)

    def settle() -> None:
        disk.flush()
        disk._shared.tick()  # type: ignore[union-attr]

    number = 0
    while disk.stats().evicted < 200:  # the hand is on its way
        calls.put(f"fill {number}", b"v" * 5 * KB)
        number += 1
        if number % 20 == 0:
            settle()
    hot = [f"hot {place}" for place in range(40)]
    for key in hot:
        calls.put(key, b"v" * 5 * KB)
    settle()
    before = disk.stats().evicted
    while disk.stats().evicted < before + 700:  # more than a lap
        for _ in range(20):
            calls.put(f"fill {number}", b"v" * 5 * KB)
            number += 1
        settle()
        for key in hot:
            calls.get(key)
    assert sum(calls.get(key) is not None for key in hot) >= 36
