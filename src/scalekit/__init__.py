"""Decorators that carry agent functions from ten users to ten thousand: tiered caching, limits, retries."""

from scalekit._controls import controls
from scalekit._core.effect import effect
from scalekit._limit.policy import limit
from scalekit._stack import explain, stack
from scalekit.errors import *
from scalekit.settings import configure
