"""retry: another attempt where it can help, and only there.

Most retries that hurt are retries that should not have been: of a spent quota, of a 404, of a cancelled call, of a
mail that had been sent. So the default is narrow. A failure is retried when the classifier (_signals) knows it as
transient, and an exception that it does not know ends the call, unless `on=` says otherwise. Cancellation is never
caught at all.

The loop is ours and not tenacity's, for two reasons: that one retries `CancelledError` (tenacity#529), and it costs
26 µs a call when nothing fails. Here the first attempt is one `try` around the rest of the stack, and all that
follows a failure lives elsewhere. Sleeping and the next attempt happen outside of the `except`, so that the second
failure does not carry the first one as its context, and the last one is re-raised where it was caught: the user's
traceback, nothing of ours between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from scalekit import events, settings
from scalekit._core.drive import Carried
from scalekit._core.policy import Handler, Policy, Settings
from scalekit._core.stream import PLAIN, Stream
from scalekit._core.target import Target
from scalekit._retry.backoff import Random, obeying
from scalekit._retry.rules import Course, is_tuple, on_asks, on_types, stops, waits
from scalekit._signals.clients import warn_of_retrying_clients
from scalekit._signals.verdicts import Verdict, verdict
from scalekit._units import count, seconds
from scalekit.errors import ConfigurationError

if TYPE_CHECKING:
    from scalekit._units import Duration

F = TypeVar("F", bound=Callable[..., Any])

_REJECTED = Verdict("unknown")  # a result that `on=` does not accept


def _uniform() -> float:
    import random  # 5 ms of hashlib and OpenSSL, so not before something failed

    return random.random()


class Retry(Policy):
    """The policy value. It keeps no state between calls."""

    kind = "retry"
    shares = False

    def __init__(self, name: str | None, settings: Settings, *, _random: Random = _uniform) -> None:
        super().__init__(name, settings)
        given = settings.get
        self._attempts = None if given("attempts") is None else count(given("attempts"), "attempts")
        self._types = on_types(given("on"))
        self._asks, self._judges_results = on_asks(given("on"))
        self._wait = waits(given("wait"))
        self._stop = stops(given("stop"))
        hint = given("max_retry_after")
        self._max_retry_after = None if hint is None else seconds(hint, "max_retry_after", zero=True)
        self._random = _random

    def around(self, proceed: Handler, target: Target) -> Handler:
        warn_of_retrying_clients(target.function, target.name)
        opened, now, sleep, function = target.opened, target.runtime.now, target.runtime.sleep, target.function
        judges_results = self._judges_results

        async def attempt_on(course: Course, args: Any, kwargs: Any) -> Any:
            """Attempt until one succeeds or is the last."""
            while True:
                try:
                    value = await proceed(*args, **kwargs)
                    if type(value) not in PLAIN:
                        value = await opened(value)
                except Exception as error:
                    if not self._goes_on(course, target, error):
                        raise
                else:
                    if not judges_results or type(value) is Stream or not self._goes_on(course, target, None, value):
                        return value
                await sleep(course.wait)
                course.attempt += 1

        async def retried(*args: Any, **kwargs: Any) -> Any:
            try:
                value = await proceed(*args, **kwargs)
                if type(value) not in PLAIN:
                    value = await opened(value)
                return value
            except Exception as error:
                course = Course(function, args, kwargs, now())
                if not self._goes_on(course, target, error):
                    raise
            await sleep(course.wait)
            course.attempt += 1
            return await attempt_on(course, args, kwargs)

        async def timed(*args: Any, **kwargs: Any) -> Any:
            return await attempt_on(Course(function, args, kwargs, now()), args, kwargs)

        return retried if self._stop is None and not judges_results else timed

    def describe(self, target: Target) -> Settings:
        """The settings in force; attempts are looked up where neither they nor `stop` were given."""
        attempts = self._attempts if self._attempts or self._stop else settings.lookup("retry_attempts")
        return {**self.settings, "attempts": attempts}

    def sugar(self, target: Target) -> dict[str, object]:
        return {}

    def _goes_on(self, course: Course, target: Target, error: Exception | None, value: Any = None) -> bool:
        """Whether another attempt follows, after `course.wait` seconds."""
        course.error = error.original if type(error) is Carried else error
        course.value, course.wait = value, 0.0
        course.now = target.runtime.now()
        try:
            return self._decide(course, target)
        finally:
            course.judged()

    def _decide(self, course: Course, target: Target) -> bool:
        error = course.error
        if error is None:
            if not (self._asks and self._asks(course)):
                return False
            found, label = _REJECTED, "result"
        else:
            longest: float = settings.lookup("retry_max_retry_after", self._max_retry_after)
            found = verdict(error, max_retry_after=longest)
            label = found.kind
            if found.final or not self._wants(course, found):
                return self._gives_up(course, target, label)
        if target.effect and not found.surely_without_effect:
            return self._gives_up(course, target, label, "it has side effects, which may have happened")
        course.wait = obeying(self._wait(course, self._random), found.retry_after, self._random)
        if self._is_last(course):
            return self._gives_up(course, target, label)
        course.waits.append(course.wait)
        if events.subscribers:
            policy = self.name or self.kind
            events.emit(events.Retried(target.name, policy, course.attempt, course.wait, label, error))
        return True

    def _wants(self, course: Course, found: Verdict) -> bool:
        if self._asks is not None:
            return self._asks(course)
        return found.retryable or isinstance(course.error, self._types)

    def _is_last(self, course: Course) -> bool:
        attempts = self._attempts
        if attempts is None and self._stop is None:
            attempts = settings.lookup("retry_attempts")
        if attempts is not None and course.attempt >= attempts:
            return True
        return self._stop is not None and self._stop(course)

    def _gives_up(self, course: Course, target: Target, label: str, why: str = "") -> bool:
        if course.error is not None and (why or course.attempt > 1):
            said = [course.story()] if course.attempt > 1 else []
            _note(
                course.error,
                f"scalekit.retry of {target.name}: ",
                "; ".join([*said, *([f"not retried: {why}"] if why else [])]),
            )
        if events.subscribers:
            events.emit(events.GaveUp(target.name, self.name or self.kind, course.attempt, label, course.error))
        return False


def _note(error: BaseException, prefix: str, text: str) -> None:
    """One note of each function on an exception: an exception that is raised again and again does not collect them."""
    try:
        notes: list[str] = getattr(error, "__notes__", [])
        notes[:] = [note for note in notes if not note.startswith(prefix)]
        error.add_note(prefix + text)
    except Exception:  # frozen exceptions, and notes that are no list of strings: the note is not worth an error
        return


@overload
def retry(function: F, /) -> F: ...
@overload
def retry(
    function: None = None,
    /,
    *,
    attempts: int | None = None,
    on: type[Exception] | tuple[type[Exception], ...] | Callable[[Any], bool] | None = None,
    wait: Duration | Callable[[Any], Duration] | None = None,
    stop: Callable[[Any], bool] | None = None,
    max_retry_after: Duration | None = None,
    name: str | None = None,
) -> Retry: ...
def retry(
    function: Any = None,
    /,
    *,
    attempts: int | None = None,
    on: Any = None,
    wait: Any = None,
    stop: Any = None,
    max_retry_after: Duration | None = None,
    name: str | None = None,
) -> Any:
    """Another attempt after a failure that another attempt can mend; bare `@retry`, or called.

    What is mended so: connection faults, timeouts, 408, 409, 429 and 5xx, in the words of openai, anthropic, google,
    boto3, httpx, requests, aiohttp, litellm and pydantic-ai. A spent quota, a 404, or an exception that none of them
    raises ends the call at once. Cancellation, and errors of scalekit itself, are never retried, whatever `on=` says.
    A function marked `@scalekit.effect` is retried only when the request surely never took effect. A stream is opened
    again until its first item was handed out, and never after.

    Args:
        attempts: in all, the first one among them (default 3).
        on: more to retry. A type, or a tuple of types, *adds* to the failures above. A predicate of the exception, or
            one of tenacity's `retry_*` objects, is asked about every failure and *decides alone*; `retry_if_result`
            judges results too, and when the attempts are used up, the last one is returned as it is.
        wait: between attempts: a duration (seconds, timedelta, "2s"), a callable of the attempt's number (1, 2, ...)
            that gives one, or one of tenacity's `wait_*` objects. Default: full jitter, from 0 to a bound that starts
            at 0.5 s and doubles up to 20 s. A longer Retry-After of the server wins, with a jitter on top.
        stop: one of tenacity's `stop_*` objects; without `attempts=` it alone says when to stop.
        max_retry_after: the longest Retry-After that is taken literally (default "2m").
        name: shown in events; one retry of that name in this process, so other settings under it are an error.

    Raises:
        ConfigurationError: at decoration, for anything that is not as above.

    The last exception is raised as itself, its traceback intact, with a note of the attempts and waits.

    >>> import scalekit
    >>> answers = iter([ConnectionResetError("lost"), "Paris"])
    >>> @scalekit.retry(attempts=4, wait=0)
    ... def ask(question: str) -> str:
    ...     answer = next(answers)
    ...     if isinstance(answer, Exception):
    ...         raise answer
    ...     return answer
    >>> ask("The capital of France?")
    'Paris'
    """
    if function is not None:
        _check_bare(function)
    given: Settings = {"attempts": attempts, "on": on, "wait": wait, "stop": stop, "max_retry_after": max_retry_after}
    policy = Retry.named(name, given)
    return policy if function is None else policy(function)


def _check_bare(function: Any) -> None:
    """@retry(4), @retry(ValueError): say which argument was meant."""
    if isinstance(function, int) and not isinstance(function, bool):
        raise ConfigurationError(
            f"retry({function!r}): arguments go by name. Write @scalekit.retry(attempts={function!r})."
        )
    first = function[0] if is_tuple(function) and function else function
    if isinstance(first, type) and issubclass(first, BaseException):
        raise ConfigurationError(f"retry({function!r}): arguments go by name. Write @scalekit.retry(on=...).")
    if not isinstance(function, type) and any(c.__module__.startswith("tenacity.") for c in type(function).__mro__):
        raise ConfigurationError(
            "retry(...) of a tenacity object: write @scalekit.retry(on=...), wait=... or stop=... ."
        )
