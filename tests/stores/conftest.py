"""The stores that must keep the contract: a new one joins by a line in STORES."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from foreign import FOREIGN, close

import scalekit
from scalekit._cache.stores.adapters import adapted
from scalekit._cache.stores.base import Record, Store
from scalekit._core.drive import drive
from scalekit._runtime.blocking import BLOCKING


def disk(folder: Path) -> Any:
    return scalekit.Disk(folder)


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
