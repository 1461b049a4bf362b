"""controls(f): the typed door to what the policies around a function know and can do."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, TypeVar

from scalekit._core.bind import Binding, binding_of
from scalekit.errors import ConfigurationError

T = TypeVar("T")


class Controls:
    def __init__(self, binding: Binding) -> None:
        self._binding = binding
    @property
    def limit(self) -> Any:
        return self._binding.first("limit").controls(self._binding.target)
def controls(f):
    return Controls(binding_of(f))
