"""CPython's own tests of `functools.lru_cache`, taken from the running interpreter, pass on `scalekit.cache`.

A program that swaps one for the other keeps what it relied on, but for the tests named in EXCLUDED: they ask for what
contradicts a promise of the cache, which other tests hold.
"""

from __future__ import annotations

import functools
import sys
import unittest
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import test.test_functools as cpython

import scalekit

EXCLUDED = {
    "test_kwargs_order": "keyword order makes no other call: f(a=1, b=2) and f(b=2, a=1) have one answer",
    "test_lru_with_types": "f(3) and f(x=3) are one call, so there are more hits",
    "test_lru_cache_typed_is_not_recursive": "types are told apart at any depth: (1,) and (True,) are two calls",
    "test_lru_cache_parameters": "keys are always typed, and cache_parameters() says so",
    "test_lru_type_error": "a list has a value, so it is no TypeError but a key",
    "test_lru_hash_only_once": "what has no value but a hash of its own is refused, and never hashed",
    "test_need_for_rlock": "what has no value but an `__eq__` of its own is refused, and never compared",
    "test_lru_cache_threaded2": "calls of one key at the same time are one call; the test waits for five",
    "test_lru_bug_35780": "a call that waits for itself raises ReentryError",
    "test_common_signatures": "the signatures are the same, but ours say what cache_info() and cache_clear() return",
    "test_lru_recursion": "a miss takes eight frames of the stack, so a recursion through misses cannot go as deep",
}
SINCE = {"test_common_signatures": (3, 12), "test_lru_recursion": (3, 13)}

Function = Callable[..., Any]


def lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    """`functools.lru_cache` in terms of `scalekit.cache`: a hit is the very object, and an unbounded or an empty cache
    says so.
    """
    if callable(maxsize):
        return lru_cache()(maxsize)
    size = None if maxsize is None else max(maxsize, 0)

    def decorate(function: Function) -> Any:
        memory = scalekit.Memory(max_entries=size or sys.maxsize, max_bytes=sys.maxsize, policy="lru")
        kept = None if size != 0 else lambda answer: False
        cached: Any = scalekit.cache(tiers=[memory], copy=False, when=kept)(function)
        if not size:
            info = cached.cache_info
            cached.cache_info = lambda: info()._replace(maxsize=size)
        return cached

    return decorate


@lru_cache()
def cached_func(x: int, y: int) -> int:
    return 3 * x + y


class LruCache(cpython.TestLRU, unittest.TestCase):
    """As CPython's TestLRUC and TestLRUPy, for a third module."""

    __test__ = False  # collected by name below

    module = SimpleNamespace(
        lru_cache=lru_cache,
        partial=functools.partial,
        WRAPPER_ASSIGNMENTS=functools.WRAPPER_ASSIGNMENTS,
        _CacheInfo=functools._CacheInfo,  # type: ignore[attr-defined]
    )
    cached_func = (cached_func,)  # in a tuple, so that it is no method

    @lru_cache()
    def cached_meth(self, x: int, y: int) -> int:
        return 3 * x + y

    @staticmethod
    @lru_cache()
    def cached_staticmeth(x: int, y: int) -> int:
        return 3 * x + y


NAMES = unittest.defaultTestLoader.getTestCaseNames(LruCache)
APPLY = [name for name in NAMES if name not in EXCLUDED]


@pytest.mark.parametrize("name", APPLY)
def test_cpython(name: str) -> None:
    """The test passes on `scalekit.cache`, and was not skipped."""
    result = unittest.TestResult()
    LruCache(name).run(result)
    assert not result.failures + result.errors, "\n".join(text for _, text in result.failures + result.errors)
    assert (result.testsRun, result.skipped, result.expectedFailures) == (1, [], [])


@pytest.mark.parametrize("name", EXCLUDED)
def test_what_is_excluded_exists(name: str) -> None:
    """A name that is excluded is one of CPython's, since the version that brought it: nothing is excluded in vain."""
    assert name in NAMES or sys.version_info < SINCE.get(name, (3, 11))


def test_enough_of_them_apply() -> None:
    """Two thirds of CPython's tests are run: 18 of 3.11's 27, and later versions only have more."""
    assert len(NAMES) >= 27
    assert len(APPLY) >= 18
