"""Messages to people about an event: a title, a few sentences, and for how long it is of use.

One file a noun, as in :mod:`jupyterhub_migspawner.model.events`: what a message says depends on the
kind of its event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timezone, tzinfo

from jupyterhub_migspawner.policy.messages import nodes, queue, requests, sessions
from jupyterhub_migspawner.policy.messages.message import (
    MOST_LISTED,
    MOST_TITLE,
    MOST_TYPED,
    Happening,
    Maker,
    Message,
    merged,
)
from jupyterhub_migspawner.policy.times import localised

__all__ = [
    "KINDS",
    "MOST_LISTED",
    "MOST_TITLE",
    "MOST_TYPED",
    "TRIAL",
    "Happening",
    "Message",
    "merged",
    "message_of",
]

_MESSAGES: dict[str, Maker] = {
    **requests.MESSAGES,
    **queue.MESSAGES,
    **sessions.MESSAGES,
    **nodes.MESSAGES,
}

KINDS = frozenset(_MESSAGES)
"""The kinds of events that lead to a notice."""

TRIAL = ("Test of GPU notices", "This is a test: notices of GPU sessions reach you here.")
"""Title and body of what ``migspawner notices test`` sends."""


def message_of(
    event: Happening,
    zone: tzinfo | None = timezone.utc,
    title_of: Callable[[str], str] = str,
) -> Message | None:
    """Return the message about an event; None for those that nobody is notified of.

    Its times are in ``zone``, which they name; None is the machine's own. ``title_of`` gives what
    people call the tier of a name.
    """
    make = _MESSAGES.get(event.kind)
    detail = dict(event.detail or {})
    for name in ("tier", "offered"):
        if isinstance(detail.get(name), str):
            detail[name] = title_of(detail[name])
    made = None if make is None else make(event, detail)
    return None if made is None else replace(made, body=localised(made.body, zone))
