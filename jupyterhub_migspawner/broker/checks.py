"""Checks of what people and machines say before it is stored: texts, names, numbers, times."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone

from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.policy.wording import number, quoted

NAME_LIMIT = 255
"""JupyterHub's own limit for names of users and servers."""

REASON_LIMIT = 2_000
"""Most characters of a reason."""

# Neither database holds half a character, and PostgreSQL no NUL either.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


_NOBODY = "?" * (NAME_LIMIT + 1)


def text(what: str, value: object, limit: int, *, empty: bool = True) -> str:
    """Return a text as it came, after checking that it can be stored.

    Nothing is escaped or cleaned: that is left to the code that shows it. Raises
    :class:`~jupyterhub_migspawner.errors.Refusal` (``options``) only for what is no text, for what
    a database cannot hold (a NUL character, half a character), for more than ``limit`` characters,
    and, unless ``empty``, for nothing but space.
    """
    if not isinstance(value, str):
        raise Refusal(f"The {what} is {quoted(value)}; expected text.", reason="options")
    if not empty and not value.strip():
        raise Refusal(f"The {what} is empty; please fill it in.", reason="options")
    if len(value) > limit:
        raise Refusal(
            f"The {what} has {len(value)} characters; at most {limit} are allowed.",
            reason="options",
        )
    if _UNSTORABLE.search(value):
        raise Refusal(
            f"The {what} is {quoted(value)}; it contains a character that cannot be stored.",
            reason="options",
        )
    return value


def stored(value: str) -> str:
    """Return a text from a machine as it can be stored: cut, and odd characters replaced."""
    return _UNSTORABLE.sub("\ufffd", value[:REASON_LIMIT])


def end_within(until: object, now: datetime, most: timedelta) -> datetime:
    """Check the end of something that a person grants: aware, in the future, at most ``most`` away.

    Returns it in UTC. Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``options``).
    """
    if not isinstance(until, datetime) or until.tzinfo is None:
        raise Refusal(
            f"The end is {quoted(until)}; expected a time with its zone.", reason="options"
        )
    try:
        end = until.astimezone(timezone.utc)
    except OverflowError:  # at the very end of the calendar, or its beginning
        end = now
    if not now < end <= now + most:
        raise Refusal(
            f"The end is {quoted(str(until))}; expected a time in the next {most.days} days.",
            reason="options",
        )
    return end


def wanted_name(value: str) -> str:
    """Return a name to look for; one that no row can have when it could not be stored."""
    return _NOBODY if len(value) > NAME_LIMIT or _UNSTORABLE.search(value) else value


def wanted_id(value: int) -> int:
    """Return a number to look for; one that no row has when it does not fit into 64 bits."""
    return value if 0 < value < 2**63 else 0


def begin_within(starts_at: object, now: datetime, most: timedelta) -> datetime | None:
    """Check when something is to begin: aware, and at most ``most`` ahead; None for at once.

    A few minutes ago will do. Returns it in UTC. Raises
    :class:`~jupyterhub_migspawner.errors.Refusal` (``options``).
    """
    if starts_at is None:
        return None
    if not isinstance(starts_at, datetime) or starts_at.tzinfo is None:
        raise Refusal(
            f"The start time is {quoted(starts_at)}; expected a time with its zone.",
            reason="options",
        )
    try:
        begin = starts_at.astimezone(timezone.utc)
    except OverflowError:
        begin = now - most
    if not now - timedelta(minutes=5) <= begin <= now + most:
        raise Refusal(
            f"The start time is {quoted(str(starts_at))}; expected a time in the next "
            f"{most.days} days, or none to start when it is approved.",
            reason="options",
        )
    return begin


def minutes_within(value: object, most: int) -> float:
    """Check the minutes of a warning: a number from 0 to ``most``.

    Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``options``).
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        raise Refusal(
            f"The warning is {quoted(value)}; expected minutes from 0 to {most}.",
            reason="options",
        )
    return float(value)


def hours_within(value: object, most: float, who: str) -> float:
    """Check the hours of a request: a number above 0 and at most ``most``.

    ``who`` says what sets that: "tier 'Large' allows". Raises
    :class:`~jupyterhub_migspawner.errors.Refusal` (``options``).
    """
    wrong = Refusal(
        f"The hours are {quoted(value)}; expected a number above 0 and at most the "
        f"{number(most)} that {who}.",
        reason="options",
    )
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong
    try:
        hours = float(value)
    except OverflowError:
        raise wrong from None
    if not math.isfinite(hours) or not 0 < hours <= most:
        raise wrong
    return hours
