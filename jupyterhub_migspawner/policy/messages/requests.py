"""Messages about requests and grants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyterhub_migspawner.policy.messages.message import (
    BROKER,
    Happening,
    Maker,
    Message,
    asked,
    one_line,
    text_of,
    time_in,
    to_approvers,
    to_user,
    typed,
)
from jupyterhub_migspawner.policy.wording import moment


def _created(event: Happening, detail: Mapping[str, Any]) -> Message:
    wanted = time_in(detail, "wanted")
    return to_approvers(
        event,
        detail,
        f"{one_line(event.user, 60)} asks for {asked(detail)}",
        text_of(
            f"Request {event.request_id} is waiting for a decision.",
            f"Requested start: {moment(wanted)}." if wanted else "",
            typed(detail, "Reason: "),
        ),
    )


def _seconded(event: Happening, detail: Mapping[str, Any]) -> Message:
    by = one_line(event.actor, 60)
    return to_approvers(
        event,
        detail,
        f"One more approval is needed for request {event.request_id} of {one_line(event.user, 60)}",
        text_of(
            f"{by} has approved {asked(detail)}; a second approval is needed.",
            typed(detail, "Their message: "),
        ),
    )


def _waiting(event: Happening, detail: Mapping[str, Any]) -> Message:
    return to_approvers(
        event,
        detail,
        f"Request {event.request_id} of {one_line(event.user, 60)} is still waiting",
        text_of(
            f"{one_line(event.user, 60)} asks for {asked(detail)}.", f"So far {typed(detail)}."
        ),
    )


def _decided(event: Happening, detail: Mapping[str, Any]) -> Message:
    approved = event.kind == "request.approved"
    begin, end = time_in(detail, "from"), time_in(detail, "until")
    says = f"Message from {one_line(event.actor, 60)}: "
    if not approved:
        body = text_of(f"You asked for {asked(detail)}.", typed(detail, says))
        title = f"Your request {event.request_id} is denied"
        return to_user(event, "requests", title, body, page="requests")
    when = ""
    if begin and end:
        at_once = begin <= event.at
        when = f"It is valid {'' if at_once else f'from {moment(begin)} '}until {moment(end)}."
        if not at_once:
            when += (
                " A card that is reserved for it is given to others if it is not used within "
                "half an hour."
            )
    body = text_of(f"You may use {asked(detail)}.", when, typed(detail, says))
    title = f"Your request {event.request_id} is approved"
    return to_user(event, "requests", title, body, page="requests")


def _cancelled(event: Happening, detail: Mapping[str, Any]) -> Message | None:
    # What one has withdrawn oneself is known; a deleted user cannot be notified.
    if event.actor in (event.user, BROKER):
        return None
    body = text_of(
        f"{one_line(event.actor, 60)} has withdrawn {asked(detail)}.", typed(detail, "Reason: ")
    )
    title = f"Your request {event.request_id} is cancelled"
    return to_user(event, "requests", title, body, page="requests")


def _expired(event: Happening, detail: Mapping[str, Any]) -> Message | None:
    # The end of a grant was announced before it came.
    if "until" in detail:
        return None
    body = f"You asked for {asked(detail)}, and {typed(detail)}. Ask again if you still need it."
    title = f"Your request {event.request_id} has expired"
    return to_user(event, "requests", title, body, page="requests")


def _grant_ends(event: Happening, detail: Mapping[str, Any]) -> Message:
    end = time_in(detail, "until")
    body = text_of(
        f"Your grant for {asked(detail)}: {typed(detail)}.",
        "A server that uses it ends then; save your work first.",
    )
    title = f"Your grant {event.request_id} ends soon"
    return to_user(event, "requests", title, body, until=end, page="requests")


MESSAGES: dict[str, Maker] = {
    "request.created": _created,
    "request.seconded": _seconded,
    "request.reminder": _waiting,
    "request.approved": _decided,
    "request.denied": _decided,
    "request.cancelled": _cancelled,
    "request.expired": _expired,
    "request.ending": _grant_ends,
}
"""Kinds of events and what makes the messages about them."""
