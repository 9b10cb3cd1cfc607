"""Messages about tickets of the waiting list and their offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyterhub_migspawner.policy.messages.message import (
    Happening,
    Maker,
    Message,
    one_line,
    text_of,
    time_in,
    to_user,
    typed,
)
from jupyterhub_migspawner.policy.wording import moment


def _offered(event: Happening, detail: Mapping[str, Any]) -> Message:
    end = time_in(detail, "until")
    held = f"{one_line(detail.get('offered', '?'), 60)} is held for you"
    go_on = "Start your server before then, or it is offered to the next person."
    if detail.get("start"):
        go_on = (
            "The hub will start your server, unless a server with that name is running: stop "
            "that one first."
        )
    body = text_of(f"{held}{f' until {moment(end)}' if end else ''}.", go_on)
    return to_user(event, "offers", "It is your turn for a GPU", body, until=end, page="queue")


def _lapsed(event: Happening, detail: Mapping[str, Any]) -> Message:
    body = text_of(
        f"You were waiting for {one_line(detail.get('tier', '?'), 60)}: {typed(detail)}.",
        "Join the waiting list again if you still need it.",
    )
    title = "Your turn on the waiting list has passed"
    return to_user(event, "offers", title, body, page="queue")


def _place_lost(event: Happening, detail: Mapping[str, Any]) -> Message | None:
    # A deleted user cannot be notified.
    if event.actor == event.user or "deleted" in str(detail.get("why", "")):
        return None
    body = f"You were waiting for {one_line(detail.get('tier', '?'), 60)}. Reason: {typed(detail)}."
    title = "You are no longer on the waiting list"
    return to_user(event, "offers", title, body, page="queue")


def _place_blocked(event: Happening, detail: Mapping[str, Any]) -> Message | None:
    why = typed(detail)
    # What passes by itself within a minute is nobody's business.
    if not why or "just now" in why:
        return None
    tier = one_line(detail.get("tier", "?"), 60)
    body = text_of(
        f"You are waiting for {tier}, but others can go first: {why}",
        "You keep your position.",
    )
    return to_user(event, "offers", "Your turn on the waiting list is delayed", body, page="queue")


MESSAGES: dict[str, Maker] = {
    "ticket.offered": _offered,
    "ticket.lapsed": _lapsed,
    "ticket.cancelled": _place_lost,
    "ticket.blocked": _place_blocked,
}
"""Kinds of events and what makes the messages about them."""
