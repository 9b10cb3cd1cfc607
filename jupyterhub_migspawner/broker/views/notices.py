"""A user's choices of notices as JSON."""

from __future__ import annotations

from collections.abc import Mapping

from typing_extensions import TypedDict


class NoticeChoices(TypedDict):
    """Each topic of notices, true where the person gets them."""

    requests: bool
    """Decisions on one's requests, and ends of grants."""
    offers: bool
    """One's turn in the waiting list."""
    sessions: bool
    """Ends of one's sessions, and failures of their GPUs."""


def notices_view(choices: Mapping[str, bool]) -> NoticeChoices:
    """Return which notices a user gets, by topic."""
    return {
        "requests": choices["requests"],
        "offers": choices["offers"],
        "sessions": choices["sessions"],
    }
