"""Functions as users of LangChain and LangGraph give them to `@tool`: plain, not yet decorated by scalekit."""

from collections import Counter
from typing import Annotated, Any, Literal

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import ToolException
from langgraph.graph import MessagesState
from langgraph.prebuilt import InjectedState
from pydantic import BaseModel, Field

runs: Counter[str] = Counter()


class State(MessagesState):
    user: str


class Stop(BaseModel):
    """A place on a journey."""

    city: str
    nights: int = Field(1, ge=1, description="how long to stay")


def forecast(
    city: str,
    days: Annotated[int, Field(ge=1, le=14, description="how far to look ahead")] = 3,
    units: Literal["metric", "imperial"] = "metric",
) -> dict[str, Any]:
    """Weather forecast of a city.

    Args:
        city: its name
        days: how far to look ahead
        units: of temperatures
    """
    runs["forecast"] += 1
    return {"city": city, "days": days, "units": units}


async def forecast_async(city: str, days: int = 3, *, hourly: bool = False) -> list[str]:
    """Weather forecast of a city, as text."""
    runs["forecast_async"] += 1
    return [f"{city} {day} {hourly}" for day in range(days)]


def plan(stops: list[Stop], budget: float | None = None) -> str:
    """Plan a journey."""
    runs["plan"] += 1
    return f"{[(type(stop).__name__, stop.city, stop.nights) for stop in stops]} {budget}"


def quoted(amount: "float", route: "Stop", reason: "str | None" = None) -> "str":
    """Annotations may be strings, as under `from __future__ import annotations`."""
    runs["quoted"] += 1
    return f"{amount} {route.city} {reason}"


def book(city: str, state: Annotated[State, InjectedState], config: RunnableConfig) -> str:
    """Book a room for the user who asks."""
    runs["book"] += 1
    return f"{city} for {state['user']} in {config['configurable']['currency']}"


async def book_async(city: str, user: Annotated[str, InjectedState("user")]) -> str:
    """Book a room for the user who asks."""
    runs["book_async"] += 1
    return f"{city} for {user}"


def broken(city: str) -> str:
    """A tool that cannot do what it is asked."""
    runs["broken"] += 1
    raise ToolException(f"no room in {city}")


async def broken_async(city: str) -> str:
    """A tool that cannot do what it is asked."""
    runs["broken_async"] += 1
    raise ToolException(f"no room in {city}")


ARGUMENTS: dict[str, dict[str, Any]] = {
    "forecast": {"city": "Oslo", "units": "imperial"},
    "forecast_async": {"city": "Oslo", "hourly": True},
    "plan": {"stops": [{"city": "Oslo"}, {"city": "Lima", "nights": 2}], "budget": 10.5},
    "quoted": {"amount": 2.5, "route": {"city": "Oslo"}},
    "book": {"city": "Oslo"},
    "book_async": {"city": "Oslo"},
    "broken": {"city": "Oslo"},
    "broken_async": {"city": "Oslo"},
}
"""What the model calls each function with."""

INJECTED = {"book": ("state", "config"), "book_async": ("user",)}
"""Arguments that the framework adds and that are no part of the question."""
