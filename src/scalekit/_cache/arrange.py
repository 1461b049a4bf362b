"""`tiers=`: in which tiers a function keeps its answers.

Left out, it is memory, and the tiers of the place (a setting names the folder of a disk) if the function has a `ttl`:
without one nothing leaves the process. What cannot be named in a store that other processes read stays in memory: an
error where the code asks for that store, a warning where only the place does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from scalekit import settings
from scalekit._cache.stores.base import Store
from scalekit._cache.stores.memory import Memory
from scalekit.errors import ConfigurationError, warn

if TYPE_CHECKING:
    from scalekit._cache.site import Site

__all__ = ["Arrangement"]


class Arrangement:
    """What `tiers=` says. `memory` is the bound that was given, if one was; `in_memory` is false for
    `tiers=["disk"]`.
    """

    def __init__(self, tiers: Any) -> None:
        self.given = tiers is not None
        self.memory: Memory | None = None
        self.in_memory = True
        self.slower: tuple[Any, ...] = ()
        if not self.given:
            return
        listed = isinstance(tiers, Sequence) and not isinstance(tiers, str)
        parts: list[Any] = [*cast("Sequence[Any]", tiers)] if listed else []
        if not parts:
            raise _unknown(tiers)
        first = parts[0] if isinstance(parts[0], Memory) or parts[0] == "memory" else None
        self.memory = first if isinstance(first, Memory) else None
        self.in_memory = first is not None
        self.slower = tuple([_store(part) for part in parts[self.in_memory :]])
        if None in self.slower:
            raise _unknown(tiers)
        if len({id(part) if part != "disk" else part for part in self.slower}) < len(self.slower):
            raise ConfigurationError(f"cache: tiers={tiers!r} names one tier twice.")

    def stores(self, site: Site) -> tuple[Store, ...]:
        """The tiers below memory, for one function, as the settings are now."""
        slower = self.slower
        if not self.given and site.given["ttl"] is not None and settings.lookup("disk_dir") is not None:
            slower = ("disk",)
        if not slower:
            return ()
        if not site.identity.stable and self.given:
            raise ConfigurationError(
                f"{site.target.name} cannot keep its answers in {slower[0]!r}: {site.identity.reason}, so that another "
                f"process could not tell whether it is the same function. version= says that it is; an object it is "
                f'bound to needs a `__scalekit_key__`. Or keep them in memory: tiers=["memory"].'
            )
        if not site.identity.stable:
            warn(
                f"{site.target.name} keeps its answers in this process's memory only: {site.identity.reason}, so that "
                f"another process could not tell whether it is the same function. version= says that it is."
            )
            return ()
        return tuple([_the_disk() if one == "disk" else one for one in slower])


def _store(part: Any) -> Any:
    """A tier below memory: itself, or the adapter of somebody else's cache; None if it is none."""
    if isinstance(part, str):
        return part if part == "disk" else None
    if hasattr(type(part), "check") and hasattr(type(part), "get_many"):
        return part
    from scalekit._cache.stores.adapters import adapted

    return adapted(part)


def _the_disk() -> Store:
    """The disk of the place: one object as long as the settings are the same."""
    global _disk
    version = settings.version()
    if _disk is None or _disk[0] is not version:
        from scalekit._cache.stores.disk import Disk

        _disk = (version, Disk(settings.lookup("disk_dir")))
    return _disk[1]


_disk: tuple[object, Store] | None = None


def _unknown(tiers: Any) -> ConfigurationError:
    return ConfigurationError(
        f'cache: tiers={tiers!r} is not known here. Write the tiers from the fastest to the slowest: tiers=["memory"], '
        f'tiers=["memory", "disk"], tiers=[scalekit.Memory(max_entries=1_000), scalekit.Disk("~/.cache/my-agent")]. '
        f"A cache of cachetools, diskcache or aiocache is a tier too."
    )
