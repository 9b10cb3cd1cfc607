"""Long work on the event loop in short pieces, so that requests are answered in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

AT_A_TIME = 100
"""Items of a few dozen microseconds each that are worked on at a time."""


async def in_turns(items: Iterable[T], at_a_time: int = AT_A_TIME) -> AsyncIterator[T]:
    """Yield the items; after every ``at_a_time`` of them the event loop does what else is due."""
    for number, item in enumerate(items, 1):
        yield item
        if number % at_a_time == 0:
            await asyncio.sleep(0)
