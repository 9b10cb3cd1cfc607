"""Messages to admins about nodes: their cards, ports and clocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyterhub_migspawner.policy.clock import NOTABLE
from jupyterhub_migspawner.policy.messages.message import (
    Happening,
    Maker,
    Message,
    one_line,
    text_of,
    to_admins,
    typed,
)


def _card_lost(event: Happening, detail: Mapping[str, Any]) -> Message:
    body = text_of(
        typed(detail) or f"Card {one_line(event.card_uuid, 60)} is lost.",
        "Sessions on it are lost, and nothing is given out on it until it is back.",
    )
    title = f"A GPU of {one_line(event.actor, 60)} is lost"
    return to_admins(event, title, body)


def _port_taken(event: Happening, detail: Mapping[str, Any]) -> Message:
    found = detail.get("pids")
    pids = [str(pid) for pid in found if isinstance(pid, int)] if isinstance(found, list) else []
    body = text_of(
        typed(detail),
        "No token was sent to the process. Browsers may have sent it cookies while the proxy "
        "still pointed to the port: end the process, and ask the server's user to sign out of "
        "the hub.",
        f"Inspect it with: ps -fp {','.join(pids[:20])}" if pids else "",
    )
    title = f"Another user's process took a port on {one_line(event.actor, 60)}"
    return to_admins(event, title, body)


def _clock_set(event: Happening, detail: Mapping[str, Any]) -> Message | None:
    seconds = detail.get("seconds")
    if isinstance(seconds, (int, float)) and abs(seconds) < NOTABLE.total_seconds():
        return None
    why = typed(detail)
    body = text_of(
        f"{why[:1].upper()}{why[1:]}.",
        "Check grants with a fixed date, and that the clock of the machine is synchronized.",
    )
    return to_admins(event, "The clock of the GPU service was set", body)


def _stood_still(event: Happening, detail: Mapping[str, Any]) -> Message | None:
    why = typed(detail)
    if detail.get("held") == 0:
        return None
    body = f"{why[:1].upper()}{why[1:]}."
    return to_admins(event, "The GPU service's machine was suspended or off", body)


MESSAGES: dict[str, Maker] = {
    "card.lost": _card_lost,
    "node.port-taken": _port_taken,
    "clock.stepped": _clock_set,
    "clock.paused": _stood_still,
}
"""Kinds of events and what makes the messages about them."""
