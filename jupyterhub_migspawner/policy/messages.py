"""Messages to people about an event: a title, a few sentences, and for how long it is of use."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

from jupyterhub_migspawner.policy.clock import NOTABLE
from jupyterhub_migspawner.policy.markup import cut_words
from jupyterhub_migspawner.policy.notices import ADMINS, APPROVERS, GROUP, USERS, Channel
from jupyterhub_migspawner.policy.times import localised
from jupyterhub_migspawner.policy.wording import moment, number

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
        """Whether the channel hears of it."""
        if channel.audience.startswith(GROUP):
            return self.audience == APPROVERS and channel.audience[len(GROUP) :] in self.groups
        return channel.audience == self.audience

    def text(self, address: str = "", channel: Channel | None = None) -> str:
        """The body, with the way to the page where the service's address is known.

        For a channel, nothing in the body acts as markup there.
        """
        body = self.body if channel is None else channel.shown(self.body)
        return f"{body}\n\n{address}{self.page}" if address else body


def merged(messages: Sequence[Message], more: int = 0) -> Message:
    """One message for several about one person's requests, ``more`` of which are only counted."""
    first, number = messages[0], len(messages) + more
    whose = "your requests" if first.audience == USERS else f"requests of {_line(first.user, 60)}"
    listed = [f"{each.title}." for each in messages[:MOST_LISTED]]
    rest = number - len(listed)
    return replace(
        first,
        title=_line(f"{number} messages about {whose}"),
        body=_lines(*listed, f"And {rest} more." if rest else ""),
        until=max(each.until for each in messages),
    )


def message_of(
    event: Happening,
    zone: tzinfo | None = timezone.utc,
    title_of: Callable[[str], str] = str,
) -> Message | None:
    """The message about an event; None for those that nobody is notified of.

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


TRIAL = ("Test of GPU notices", "This is a test: notices of GPU sessions reach you here.")
"""Title and body of what ``migspawner notices test`` sends."""


def _line(text: object, most: int = MOST_TITLE) -> str:
    """Text from a person or a machine, on one line and cut."""
    words = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    words = cut_words(_CALLS.sub("@\u200b", words))
    return words if len(words) <= most else words[: most - 1] + "…"


def _to_approvers(event: Happening, detail: Mapping[str, Any], title: str, body: str) -> Message:
    found = detail.get("groups")
    groups = found if isinstance(found, Collection) and not isinstance(found, str) else ()
    return Message(
        APPROVERS,
        _line(title),
        body,
        event.at + DAY,
        user=event.user,
        groups=frozenset(map(str, groups)),
        page="decisions",
    )


def _asked(detail: Mapping[str, Any]) -> str:
    """``card for 8 hours``."""
    return f"{_line(detail.get('tier', '?'), 60)} for {_hours(detail)}"


def _hours(detail: Mapping[str, Any]) -> str:
    hours = detail.get("hours")
    if not isinstance(hours, (int, float)):
        return "some hours"
    return f"{number(hours)} hour{'' if hours == 1 else 's'}"


def _typed(detail: Mapping[str, Any], before: str = "") -> str:
    why = _line(detail.get("why", ""), MOST_TYPED)
    return f"{before}{why}" if why else ""


def _time(detail: Mapping[str, Any], name: str) -> datetime | None:
    value = detail.get(name)
    if not isinstance(value, str):
        return None
    try:
        # Python 3.10 does not read the trailing Z.
        found = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)


def _lines(*lines: str) -> str:
    return "\n".join(line for line in lines if line)


def _created(event: Happening, detail: Mapping[str, Any]) -> Message:
    wanted = _time(detail, "wanted")
    return _to_approvers(
        event,
        detail,
        f"{_line(event.user, 60)} asks for {_asked(detail)}",
        _lines(
            f"Request {event.request_id} is waiting for a decision.",
            f"Requested start: {moment(wanted)}." if wanted else "",
            _typed(detail, "Reason: "),
        ),
    )


def _seconded(event: Happening, detail: Mapping[str, Any]) -> Message:
    return _to_approvers(
        event,
        detail,
        f"One more approval is needed for request {event.request_id} of {_line(event.user, 60)}",
        _lines(
            f"{_line(event.actor, 60)} has approved {_asked(detail)}; a second approval is needed.",
            _typed(detail, "Their message: "),
        ),
    )


def _waiting(event: Happening, detail: Mapping[str, Any]) -> Message:
    return _to_approvers(
        event,
        detail,
        f"Request {event.request_id} of {_line(event.user, 60)} is still waiting",
        _lines(f"{_line(event.user, 60)} asks for {_asked(detail)}.", f"So far {_typed(detail)}."),
    )


def _to_user(
    event: Happening,
    topic: str,
    title: str,
    body: str,
    *,
    until: datetime | None = None,
    page: str = "",
) -> Message:
    """To the person whom the event is about."""
    until = until or event.at + DAY
    return Message(USERS, _line(title), body, until, topic, event.user, page=page)


def _decided(event: Happening, detail: Mapping[str, Any]) -> Message:
    approved = event.kind == "request.approved"
    begin, end = _time(detail, "from"), _time(detail, "until")
    says = f"Message from {_line(event.actor, 60)}: "
    if not approved:
        body = _lines(f"You asked for {_asked(detail)}.", _typed(detail, says))
        title = f"Your request {event.request_id} is denied"
        return _to_user(event, "requests", title, body, page="requests")
    when = ""
    if begin and end:
        at_once = begin <= event.at
        when = f"It is valid {'' if at_once else f'from {moment(begin)} '}until {moment(end)}."
        if not at_once:
            when += (
                " A card that is reserved for it is given to others if it is not used within "
                "half an hour."
            )
    body = _lines(f"You may use {_asked(detail)}.", when, _typed(detail, says))
    title = f"Your request {event.request_id} is approved"
    return _to_user(event, "requests", title, body, page="requests")


def _cancelled(event: Happening, detail: Mapping[str, Any]) -> Message | None:
    # What one has withdrawn oneself is known; a deleted user cannot be notified.
    if event.actor in (event.user, BROKER):
        return None
    body = _lines(
        f"{_line(event.actor, 60)} has withdrawn {_asked(detail)}.", _typed(detail, "Reason: ")
    )
    title = f"Your request {event.request_id} is cancelled"
    return _to_user(event, "requests", title, body, page="requests")


def _expired(event: Happening, detail: Mapping[str, Any]) -> Message | None:
    # The end of a grant was announced before it came.
    if "until" in detail:
        return None
    body = f"You asked for {_asked(detail)}, and {_typed(detail)}. Ask again if you still need it."
    title = f"Your request {event.request_id} has expired"
    return _to_user(event, "requests", title, body, page="requests")


def _grant_ends(event: Happening, detail: Mapping[str, Any]) -> Message:
    end = _time(detail, "until")
    body = _lines(
        f"Your grant for {_asked(detail)}: {_typed(detail)}.",
        "A server that uses it ends then; save your work first.",
    )
    title = f"Your grant {event.request_id} ends soon"
    return _to_user(event, "requests", title, body, until=end, page="requests")


def _offered(event: Happening, detail: Mapping[str, Any]) -> Message:
    end = _time(detail, "until")
    held = f"{_line(detail.get('offered', '?'), 60)} is held for you"
    go_on = "Start your server before then, or it is offered to the next person."
    if detail.get("start"):
        go_on = (
            "The hub will start your server, unless a server with that name is running: stop "
            "that one first."
        )
    body = _lines(f"{held}{f' until {moment(end)}' if end else ''}.", go_on)
    return _to_user(event, "offers", "It is your turn for a GPU", body, until=end, page="queue")


def _lapsed(event: Happening, detail: Mapping[str, Any]) -> Message:
    body = _lines(
        f"You were waiting for {_line(detail.get('tier', '?'), 60)}: {_typed(detail)}.",
        "Join the waiting list again if you still need it.",
    )
    title = "Your turn on the waiting list has passed"
    return _to_user(event, "offers", title, body, page="queue")


def _place_lost(event: Happening, detail: Mapping[str, Any]) -> Message | None:
    # A deleted user cannot be notified.
    if event.actor == event.user or "deleted" in str(detail.get("why", "")):
        return None
    body = f"You were waiting for {_line(detail.get('tier', '?'), 60)}. Reason: {_typed(detail)}."
    title = "You are no longer on the waiting list"
    return _to_user(event, "offers", title, body, page="queue")


def _place_blocked(event: Happening, detail: Mapping[str, Any]) -> Message | None:
    why = _typed(detail)
    # What passes by itself within a minute is nobody's business.
    if not why or "just now" in why:
        return None
    body = _lines(
        f"You are waiting for {_line(detail.get('tier', '?'), 60)}, but others can go first: {why}",
        "You keep your position.",
    )
    return _to_user(event, "offers", "Your turn on the waiting list is delayed", body, page="queue")


def _server(detail: Mapping[str, Any]) -> str:
    name = _line(detail.get("server", ""), 60)
    return f"Your server {name}" if name else "Your server"


def _session_ends(event: Happening, detail: Mapping[str, Any]) -> Message:
    end = _time(detail, "until")
    body = _lines(
        f"{_server(detail)} on {_line(detail.get('tier', '?'), 60)} ends"
        f"{f' on {moment(end)}' if end else ' soon'}. Save your work first.",
        _typed(detail, "Why: "),
    )
    return _to_user(event, "sessions", "Your GPU session ends soon", body, until=end)


def _session_lost(event: Happening, detail: Mapping[str, Any]) -> Message:
    title = f"{_server(detail)} has lost its GPU"
    return _to_user(event, "sessions", title, _typed(detail) or "Save your work and start again.")


def _nobody_knows(event: Happening, detail: Mapping[str, Any]) -> Message:
    body = _lines(
        f"Session {event.lease_id} of {_line(event.user, 60)}: {_typed(detail)}.",
        "The session is not ended for being idle while this is unknown.",
    )
    title = f"It is unknown whether a session of {_line(event.user, 60)} is in use"
    return Message(ADMINS, _line(title), body, event.at + DAY)


def _only_claims(event: Happening, detail: Mapping[str, Any]) -> Message:
    body = _lines(
        f"Session {event.lease_id} of {_line(event.user, 60)}: {_typed(detail)}.",
        "The session is not ended for this; ask its user, or end it with 'migspawner leases "
        "release'.",
    )
    title = f"A session of {_line(event.user, 60)} may not be in use"
    return Message(ADMINS, _line(title), body, event.at + DAY)


def _clock_set(event: Happening, detail: Mapping[str, Any]) -> Message | None:
    seconds = detail.get("seconds")
    if isinstance(seconds, (int, float)) and abs(seconds) < NOTABLE.total_seconds():
        return None
    why = _typed(detail)
    body = _lines(
        f"{why[:1].upper()}{why[1:]}.",
        "Check grants with a fixed date, and that the clock of the machine is synchronized.",
    )
    return Message(ADMINS, "The clock of the GPU service was set", body, event.at + DAY)


def _stood_still(event: Happening, detail: Mapping[str, Any]) -> Message | None:
    why = _typed(detail)
    if detail.get("held") == 0:
        return None
    body = f"{why[:1].upper()}{why[1:]}."
    return Message(ADMINS, "The GPU service's machine was suspended or off", body, event.at + DAY)


def _foreign(event: Happening, detail: Mapping[str, Any]) -> Message:
    body = _lines(
        f"Session {event.lease_id} of {_line(event.user, 60)} has a slice on which other users "
        f"run processes: {_typed(detail)}.",
        "These processes do not keep the session alive, and the slice is not given to anybody "
        "else while they are on it.",
    )
    title = f"A process of another user is on a slice of {_line(event.user, 60)}"
    return Message(ADMINS, _line(title), body, event.at + DAY)


def _stuck(event: Happening, detail: Mapping[str, Any]) -> Message:
    body = _lines(
        _line(detail.get("why", ""), MOST_STUCK), _line(detail.get("mend", ""), MOST_TYPED)
    )
    title = f"A slice is still in use after a session of {_line(event.user, 60)}"
    return Message(ADMINS, _line(title), body, event.at + DAY)


def _card_lost(event: Happening, detail: Mapping[str, Any]) -> Message:
    body = _lines(
        _typed(detail) or f"Card {_line(event.card_uuid, 60)} is lost.",
        "Sessions on it are lost, and nothing is given out on it until it is back.",
    )
    title = f"A GPU of {_line(event.actor, 60)} is lost"
    return Message(ADMINS, _line(title), body, event.at + DAY)


def _port_taken(event: Happening, detail: Mapping[str, Any]) -> Message:
    found = detail.get("pids")
    pids = [str(pid) for pid in found if isinstance(pid, int)] if isinstance(found, list) else []
    body = _lines(
        _typed(detail),
        "No token was sent to the process. Browsers may have sent it cookies while the proxy "
        "still pointed to the port: end the process, and ask the server's user to sign out of "
        "the hub.",
        f"Inspect it with: ps -fp {','.join(pids[:20])}" if pids else "",
    )
    title = f"Another user's process took a port on {_line(event.actor, 60)}"
    return Message(ADMINS, _line(title), body, event.at + DAY)


_MESSAGES: dict[str, Callable[[Happening, Mapping[str, Any]], Message | None]] = {
    "request.created": _created,
    "request.seconded": _seconded,
    "request.reminder": _waiting,
    "request.approved": _decided,
    "request.denied": _decided,
    "request.cancelled": _cancelled,
    "request.expired": _expired,
    "request.ending": _grant_ends,
    "ticket.offered": _offered,
    "ticket.lapsed": _lapsed,
    "ticket.cancelled": _place_lost,
    "ticket.blocked": _place_blocked,
    "lease.ending": _session_ends,
    "lease.shortened": _session_ends,
    "lease.lost": _session_lost,
    "lease.unknown": _nobody_knows,
    "lease.foreign": _foreign,
    "lease.unproven": _only_claims,
    "lease.stuck": _stuck,
    "card.lost": _card_lost,
    "node.port-taken": _port_taken,
    "clock.stepped": _clock_set,
    "clock.paused": _stood_still,
}

KINDS = frozenset(_MESSAGES)
"""The kinds of events that lead to a notice."""
