"""Messages about sessions, to their users and to admins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyterhub_migspawner.policy.messages.message import (
    MOST_STUCK,
    MOST_TYPED,
    Happening,
    Maker,
    Message,
    one_line,
    text_of,
    time_in,
    to_admins,
    to_user,
    typed,
)
from jupyterhub_migspawner.policy.wording import moment


def _server(detail: Mapping[str, Any]) -> str:
    name = one_line(detail.get("server", ""), 60)
    return f"Your server {name}" if name else "Your server"


def _session_ends(event: Happening, detail: Mapping[str, Any]) -> Message:
    end = time_in(detail, "until")
    body = text_of(
        f"{_server(detail)} on {one_line(detail.get('tier', '?'), 60)} ends"
        f"{f' on {moment(end)}' if end else ' soon'}. Save your work first.",
        typed(detail, "Why: "),
    )
    return to_user(event, "sessions", "Your GPU session ends soon", body, until=end)


def _session_lost(event: Happening, detail: Mapping[str, Any]) -> Message:
    title = f"{_server(detail)} has lost its GPU"
    return to_user(event, "sessions", title, typed(detail) or "Save your work and start again.")


def _nobody_knows(event: Happening, detail: Mapping[str, Any]) -> Message:
    body = text_of(
        f"Session {event.lease_id} of {one_line(event.user, 60)}: {typed(detail)}.",
        "The session is not ended for being idle while this is unknown.",
    )
    title = f"It is unknown whether a session of {one_line(event.user, 60)} is in use"
    return to_admins(event, title, body)


def _only_claims(event: Happening, detail: Mapping[str, Any]) -> Message:
    body = text_of(
        f"Session {event.lease_id} of {one_line(event.user, 60)}: {typed(detail)}.",
        "The session is not ended for this; ask its user, or end it with 'migspawner leases "
        "release'.",
    )
    title = f"A session of {one_line(event.user, 60)} may not be in use"
    return to_admins(event, title, body)


def _foreign(event: Happening, detail: Mapping[str, Any]) -> Message:
    body = text_of(
        f"Session {event.lease_id} of {one_line(event.user, 60)} has a slice on which other users "
        f"run processes: {typed(detail)}.",
        "These processes do not keep the session alive, and the slice is not given to anybody "
        "else while they are on it.",
    )
    title = f"A process of another user is on a slice of {one_line(event.user, 60)}"
    return to_admins(event, title, body)


def _stuck(event: Happening, detail: Mapping[str, Any]) -> Message:
    body = text_of(
        one_line(detail.get("why", ""), MOST_STUCK), one_line(detail.get("mend", ""), MOST_TYPED)
    )
    title = f"A slice is still in use after a session of {one_line(event.user, 60)}"
    return to_admins(event, title, body)


MESSAGES: dict[str, Maker] = {
    "lease.ending": _session_ends,
    "lease.shortened": _session_ends,
    "lease.lost": _session_lost,
    "lease.unknown": _nobody_knows,
    "lease.foreign": _foreign,
    "lease.unproven": _only_claims,
    "lease.stuck": _stuck,
}
"""Kinds of events and what makes the messages about them."""
