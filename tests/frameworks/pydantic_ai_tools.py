"""Functions as users of pydantic-ai give them to an agent: plain, not yet decorated by scalekit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field
from pydantic_ai import ModelRetry, RunContext

runs: Counter[str] = Counter()


@dataclass
class Shop:
    currency: str


class Item(BaseModel):
    """A line of an order."""

    name: str
    count: int = Field(1, ge=1, description="how many")


def price(item: Item, *, discount: Annotated[float, Field(ge=0, le=1)] = 0.0) -> str:
    """The price of an item.

    Args:
        item: what is sold
        discount: as a fraction
    """
    runs["price"] += 1
    return f"{type(item).__name__} {item.count} {item.name} {discount}"


async def stock(names: list[str], warehouse: str | None = None) -> dict[str, int]:
    """How many are left."""
    runs["stock"] += 1
    return {f"{name} {warehouse}": len(name) for name in names}


def order(ctx: RunContext[Shop], name: str, count: int = 1) -> str:
    """Order an item.

    Args:
        ctx: not for the model
        name: what is sold
        count: how many
    """
    runs["order"] += 1
    return f"{count} {name} in {ctx.deps.currency}"


async def order_async(ctx: RunContext[Shop], name: str, count: int = 1) -> str:
    """Order an item."""
    runs["order_async"] += 1
    return f"{count} {name} in {ctx.deps.currency}"


def picky(name: str) -> str:
    """A tool that asks the model to try again with better arguments."""
    runs["picky"] += 1
    if runs["picky"] % 3:
        raise ModelRetry(f"spell {name} otherwise")
    return f"found {name}"


ARGUMENTS: dict[str, dict[str, Any]] = {
    "price": {"item": {"name": "pen"}, "discount": 0.5},
    "stock": {"names": ["pen", "ink"]},
    "order": {"name": "pen", "count": 2},
    "order_async": {"name": "pen"},
    "picky": {"name": "pen"},
}
"""What the model calls each function with."""

INJECTED = {"order": ("ctx",), "order_async": ("ctx",)}
"""Arguments that the framework adds and that are no part of the question."""
