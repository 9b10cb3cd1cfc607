"""Long work on the event loop leaves room for other work."""

from __future__ import annotations

import asyncio

from jupyterhub_migspawner.service.turns import in_turns


async def test_other_work_is_done_between_two_pieces() -> None:
    done: list[str] = []

    async def other() -> None:
        for number in range(3):
            done.append(f"other {number}")
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    async for number in in_turns(range(5), at_a_time=2):
        done.append(str(number))
    await task
    assert done == ["0", "1", "other 0", "2", "3", "other 1", "4", "other 2"]
