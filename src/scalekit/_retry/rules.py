"""What `on=`, `wait=` and `stop=` may be, each brought into one form: a callable of the `Course` of a call.

Users know tenacity's algebra (`wait_exponential() + wait_random(0, 2)`, `stop_after_attempt(5) |
stop_after_delay(30)`, `retry_if_result(...)`), so its objects are taken everywhere. They are recognised by the module
of their class, and a plain function by a first parameter called `retry_state`; tenacity itself is imported only when
one of them is asked something.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeGuard

from scalekit._retry.backoff import Random, full_jitter
from scalekit._units import seconds
from scalekit.errors import ConfigurationError, ScalekitError

_SHOWN_WAITS: Final = 6


class Course:
    """One call on its way through its attempts: what rules are asked about.

    `error` and `value` are the outcome of attempt number `attempt` while it is judged, and empty afterwards, so that no
    traceback is kept alive. `wait` is the pause after it; times are seconds on the runtime's clock.
    """

    __slots__ = ("_state", "args", "attempt", "began", "error", "function", "kwargs", "now", "value", "wait", "waits")

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any, began: float) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.began = self.now = began
        self.attempt = 1
        self.error: BaseException | None = None
        self.value: Any = None
        self.wait = 0.0
        self.waits: list[float] = []
        self._state: Any = None

    def state(self) -> Any:
        """The same as a `tenacity.RetryCallState`; one object for the whole call, as under tenacity's own loop."""
        import tenacity

        if self._state is None:
            self._state = tenacity.RetryCallState(tenacity.Retrying(), self.function, self.args, self.kwargs)
            self._state.start_time = self.began
        state = self._state
        state.attempt_number = self.attempt
        state.idle_for = sum(self.waits)
        state.upcoming_sleep = self.wait
        if state.outcome is None:
            if self.error is None:
                state.set_result(self.value)
            else:
                state.set_exception((type(self.error), self.error, self.error.__traceback__))
            state.outcome_timestamp = self.now
        return state

    def judged(self) -> None:
        """Let go of the outcome."""
        self.error = self.value = None
        if self._state is not None:
            self._state.outcome = None

    def story(self) -> str:
        """How many attempts there were and what was waited between them, for the note on the last exception."""
        waits = " + ".join(f"{wait:.3g}" for wait in self.waits[:_SHOWN_WAITS])
        more = " + ..." if len(self.waits) > _SHOWN_WAITS else ""
        return f"{self.attempt} attempts failed, with waits of {waits}{more} s between them"


Asks = Callable[[Course], bool]
Waits = Callable[[Course, Random], float]


def on_types(on: Any) -> tuple[type[Exception], ...]:
    """The exception types in `on`; () for None, and for what is asked instead."""
    if not (is_tuple(on) or isinstance(on, type)):
        return ()
    types: tuple[Any, ...] = on if is_tuple(on) else (on,)
    for each in types:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise ConfigurationError(
                f"retry: on={on!r}: {each!r} is no exception type. Write on=(ConnectionError, ...)."
            )
        if not issubclass(each, Exception):
            raise ConfigurationError(f"retry: on={each.__name__}: cancellation and the like are never retried.")
        if issubclass(each, ScalekitError):
            raise ConfigurationError(f"retry: on={each.__name__}: scalekit's own errors are never retried.")
    return types


def on_asks(on: Any) -> tuple[Asks | None, bool]:
    """(the question that decides, whether it is asked about results too); (None, False) for None and for types."""
    if on is None or is_tuple(on) or isinstance(on, type):
        return None, False
    _check_callable(on, "on", "an exception type, a tuple of them, a predicate of the exception, or tenacity's retry_*")
    if is_tenacity(on):
        return (lambda course: bool(on(course.state()))), True
    return (lambda course: bool(on(course.error))), False


def waits(wait: Any) -> Waits:
    """Seconds to wait after a failed attempt."""
    if wait is None:
        return lambda course, random: full_jitter(course.attempt, random)
    if not callable(wait):
        fixed = seconds(wait, "wait", zero=True)
        return lambda course, random: fixed
    _check_callable(wait, "wait", "a duration, a callable of the attempt's number, or tenacity's wait_*")
    if is_tenacity(wait):
        return lambda course, random: seconds(wait(course.state()), "wait", zero=True)
    return lambda course, random: seconds(wait(course.attempt), "wait", zero=True)


def stops(stop: Any) -> Asks | None:
    """Whether the attempt that failed was the last one."""
    if stop is None:
        return None
    if type(stop) is int:
        raise ConfigurationError(f"retry: stop={stop!r} is a number: write attempts={stop!r}.")
    _check_callable(stop, "stop", "tenacity's stop_*, as in stop=tenacity.stop_after_delay(30)")
    return lambda course: bool(stop(course.state()))


def is_tenacity(rule: Any) -> bool:
    """Whether a rule wants a `RetryCallState`: an object of tenacity's algebra, or a function of `retry_state`."""
    if any(cls.__module__.partition(".")[0] == "tenacity" for cls in type(rule).__mro__):
        return True
    try:
        parameters = list(inspect.signature(rule).parameters.values())
    except (TypeError, ValueError):
        return False
    return bool(parameters) and (
        parameters[0].name == "retry_state" or "RetryCallState" in str(parameters[0].annotation)
    )


def is_tuple(thing: Any) -> TypeGuard[tuple[Any, ...]]:
    """`isinstance(thing, tuple)`, in words that type checkers can follow."""
    return isinstance(thing, tuple)


def _check_callable(rule: Any, argument: str, right: str) -> None:
    if not callable(rule) or isinstance(rule, type):
        raise ConfigurationError(f"retry: {argument}={rule!r} cannot be asked. {argument}= is {right}.")
    if inspect.iscoroutinefunction(rule) or inspect.iscoroutinefunction(inspect.getattr_static(rule, "__call__", None)):
        raise ConfigurationError(
            f"retry: {argument}={rule!r} is async, and is asked without waiting: make it a plain def."
        )
