"""Loops of the service that look at the clock before each round."""

from __future__ import annotations

import logging
from datetime import timedelta

from jupyterhub_migspawner.broker.clock import length
from jupyterhub_migspawner.loop import Loop
from jupyterhub_migspawner.service.parts import Parts

log = logging.getLogger("migspawner.service")


def in_time(loop: Loop, parts: Parts) -> Loop:
    """Return the same loop, with a look before each round whether the clock was set.

    No round decides by a clock that jumped, and none is made while that is unknown.
    """

    async def look() -> None:
        step = await parts.ask(lambda broker: broker.clock.watch())
        if step:
            log.warning(
                "The clock was set %s by %s; sessions, grants and offers keep their "
                "remaining time.",
                "forward" if step > timedelta(0) else "back",
                length(step),
            )

    return loop.after(look)
