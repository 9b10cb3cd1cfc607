"""A message to people about an event, and the pieces that its texts consist of."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from jupyterhub_migspawner.policy.markup import cut_words
from jupyterhub_migspawner.policy.notices import ADMINS, APPROVERS, GROUP, USERS, Channel
from jupyterhub_migspawner.policy.wording import number

MOST_TITLE = 150
MOST_TYPED = 500
"""Characters of a text that a user typed; the page has all of it."""

MOST_STUCK = 1500
"""Characters about a slice that is still taken: five processes and the command that ends them."""

MOST_LISTED = 10
"""Messages that are named in one that stands for several."""

DAY = timedelta(days=1)

#: Words that call everybody in a room; the author of a reason must not use them.
_CALLS = re.compile(r"@(?=all\b|channel\b|here\b|everyone\b)", re.IGNORECASE)

BROKER = "migspawner"


@dataclass(frozen=True)
class Happening:
    """An event, as far as it matters here; ``detail`` is what the event log has."""

    kind: str
    at: datetime
    actor: str = ""
    user: str = ""
    request_id: int | None = None
    lease_id: int | None = None
    card_uuid: str | None = None
    detail: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Message:
    """``topic`` is empty where nobody can do without it; ``until`` ends its use.

    ``page`` is where to go on, below the service's address. ``groups`` are those of the person
    whom a message to approvers is about.
    """

    audience: str
    title: str
    body: str
    until: datetime
    topic: str = ""
    user: str = ""
    groups: frozenset[str] = frozenset()
    page: str = ""

    @property
    def is_mergeable(self) -> bool:
        """Whether several about one person may become one message: those about requests."""
        return self.audience == APPROVERS or self.topic == "requests"

    def is_for(self, channel: Channel) -> bool:
        """Tell whether the channel gets this message."""
        if channel.audience.startswith(GROUP):
            return self.audience == APPROVERS and channel.audience[len(GROUP) :] in self.groups
        return channel.audience == self.audience

    def text(self, address: str = "", channel: Channel | None = None) -> str:
        """Return the body, with the way to the page where the service's address is known.

        For a channel, nothing in the body acts as markup there.
        """
        body = self.body if channel is None else channel.shown(self.body)
        return f"{body}\n\n{address}{self.page}" if address else body


Maker = Callable[[Happening, Mapping[str, Any]], Message | None]
"""Makes the message about an event from its detail; None where nobody is notified."""


def merged(messages: Sequence[Message], more: int = 0) -> Message:
    """Merge several messages about one person's requests; ``more`` of them are only counted."""
    first, number = messages[0], len(messages) + more
    whose = (
        "your requests" if first.audience == USERS else f"requests of {one_line(first.user, 60)}"
    )
    listed = [f"{each.title}." for each in messages[:MOST_LISTED]]
    rest = number - len(listed)
    return replace(
        first,
        title=one_line(f"{number} messages about {whose}"),
        body=text_of(*listed, f"And {rest} more." if rest else ""),
        until=max(each.until for each in messages),
    )


def one_line(text: object, most: int = MOST_TITLE) -> str:
    """Return text of a person or a machine on one line, cut to so many characters."""
    words = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    words = cut_words(_CALLS.sub("@\u200b", words))
    return words if len(words) <= most else words[: most - 1] + "…"


def text_of(*lines: str) -> str:
    """Return the lines that are not empty, as one text."""
    return "\n".join(line for line in lines if line)


def asked(detail: Mapping[str, Any]) -> str:
    """Return what was asked for: ``card for 8 hours``."""
    return f"{one_line(detail.get('tier', '?'), 60)} for {_hours(detail)}"


def _hours(detail: Mapping[str, Any]) -> str:
    hours = detail.get("hours")
    if not isinstance(hours, (int, float)):
        return "some hours"
    return f"{number(hours)} hour{'' if hours == 1 else 's'}"


def typed(detail: Mapping[str, Any], before: str = "") -> str:
    """Return the reason that was typed, on one line after ``before``; empty without one."""
    why = one_line(detail.get("why", ""), MOST_TYPED)
    return f"{before}{why}" if why else ""


def time_in(detail: Mapping[str, Any], name: str) -> datetime | None:
    """Return the time of that name, aware; None where the detail has none."""
    value = detail.get(name)
    if not isinstance(value, str):
        return None
    try:
        # Python 3.10 does not read the trailing Z.
        found = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)


def to_approvers(event: Happening, detail: Mapping[str, Any], title: str, body: str) -> Message:
    """Return a message to those who decide about a request."""
    found = detail.get("groups")
    groups = found if isinstance(found, Collection) and not isinstance(found, str) else ()
    return Message(
        APPROVERS,
        one_line(title),
        body,
        event.at + DAY,
        user=event.user,
        groups=frozenset(map(str, groups)),
        page="decisions",
    )


def to_admins(event: Happening, title: str, body: str) -> Message:
    """Return a message to the admins, which is worth sending for a day."""
    return Message(ADMINS, one_line(title), body, event.at + DAY)


def to_user(
    event: Happening,
    topic: str,
    title: str,
    body: str,
    *,
    until: datetime | None = None,
    page: str = "",
) -> Message:
    """Return a message to the person whom the event is about."""
    until = until or event.at + DAY
    return Message(USERS, one_line(title), body, until, topic, event.user, page=page)
