"""The provider's decisions, without clock or socket."""

from __future__ import annotations

import math

import pytest

from scalekit.cli.provider.answers import chat_request, reply
from scalekit.cli.provider.state import Budget, Refusal, Settings, State, Ticket, duration


def admitted(state: State, now: float = 0.0) -> Ticket:
    ticket = state.admit(10, now)
    assert isinstance(ticket, Ticket)
    return ticket


def test_latencies_are_log_normal_around_their_median() -> None:
    """Half of the calls take less than the median, and the logarithms spread by sigma."""
    state = State(Settings(slots=5000, median=0.2, sigma=0.5))
    logs = sorted(math.log(admitted(state).seconds / 0.2) for _ in range(4000))
    assert abs(logs[2000]) < 0.05
    assert math.sqrt(sum(value * value for value in logs) / 4000) == pytest.approx(0.5, abs=0.03)


def test_a_reset_repeats_the_draws_and_keeps_what_is_in_flight() -> None:
    """After a reset the same calls take the same time again, and a slot that is held stays held."""
    state = State(Settings(slots=3))
    held = admitted(state)
    state.reset()
    assert state.stats()["in_flight"] == 1
    assert admitted(state).seconds == held.seconds
    state.finish(held)
    assert state.stats()["in_flight"] == 1


def test_the_refused_hear_when_the_first_slot_is_free() -> None:
    """`retry_after` is the time until the call that ends first."""
    state = State(Settings(slots=2, sigma=0.3))
    ends = min(admitted(state).ends, admitted(state).ends)
    refusal = state.admit(10, 0.05)
    assert isinstance(refusal, Refusal)
    assert refusal.retry_after == pytest.approx(ends - 0.05)


def test_a_refused_call_is_charged_to_no_quota() -> None:
    """Tokens that do not fit leave the requests of the minute untouched."""
    state = State(Settings(tokens_per_minute=100, requests_per_minute=5))
    before = state.limit_headers(0.0)
    assert isinstance(state.admit(90, 0.0), Ticket)
    assert isinstance(state.admit(90, 0.0), Refusal)
    assert state.limit_headers(0.0)["x-ratelimit-remaining-requests"] == "4"
    assert before["x-ratelimit-remaining-requests"] == "5"


def test_a_quota_refills_continuously() -> None:
    """A minute's quota comes back bit by bit; what is asked above the whole quota passes when nothing is spent."""
    budget = Budget(60)
    budget.take(60)
    assert budget.wait(1, 0.0) == pytest.approx(1.0)
    assert budget.wait(30, 10.0) == pytest.approx(20.0)
    assert budget.wait(600, 60.0) == 0.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0171, "18ms"), (8.64, "8.64s"), (360, "6m0s"), (61.5, "1m1.5s")],
)
def test_durations_are_written_as_the_provider_writes_them(seconds: float, text: str) -> None:
    """Reset times read like OpenAI's."""
    assert duration(seconds) == text


def test_an_answer_depends_on_nothing_but_the_prompt() -> None:
    """The same prompt is the same answer, and a prompt without context is said back."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    assert reply(chat_request(body)).text == reply(chat_request(body)).text == "You said: hello"
    parts = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}
    assert reply(chat_request(parts)).text == "You said: hello"


def test_pieces_join_to_the_whole() -> None:
    """A stream's pieces lose no character."""
    text = "One two three.\n\nFour five  six seven eight nine ten eleven twelve thirteen fourteen."
    body = {"model": "m", "messages": [{"role": "user", "content": f"{text}\n\nfour two?"}]}
    answer = reply(chat_request(body))
    assert "".join(answer.chunks(5)) == answer.text
    assert len(answer.chunks(5)) <= 5
