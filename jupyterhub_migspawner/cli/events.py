"""``migspawner events``: what changed, when, by whom and why; and what changes from now on."""

from __future__ import annotations

import argparse
import difflib
import re
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.views import event_view
from jupyterhub_migspawner.cli.command import COUNT, DONE, ID, Command, argument, number_from
from jupyterhub_migspawner.cli.following import Follower
from jupyterhub_migspawner.cli.known import require_card, require_user
from jupyterhub_migspawner.cli.output import (
    Column,
    print_json,
    print_json_line,
    print_table,
    print_wrapped,
    shown,
)
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.events import FAMILIES, KINDS, EventQuery, EventRow
from jupyterhub_migspawner.policy.wording import listed

#: Events listed when nobody said how many.
_FEW = 100

#: Events read at once.
_PAGE = 1_000

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"(\d{1,6})([smhdw])")


def moment(text: str) -> datetime:
    """An argparse type: a time, perhaps without a zone, or how long ago."""
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return datetime.now(timezone.utc) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            "expected a time such as 2026-11-22, 2026-11-22T17:53 or 2026-11-22T17:53:16Z, or how "
            f"long ago such as 90m, 12h or 7d, found {text!r}"
        ) from None


def kind(text: str) -> str:
    """An argparse type: a kind of event, or a family of kinds."""
    if text in KINDS or text in FAMILIES:
        return text
    near = difflib.get_close_matches(text, [*KINDS, *FAMILIES], n=1)
    hint = f"did you mean {near[0]}?" if near else f"families are {', '.join(FAMILIES)}"
    raise argparse.ArgumentTypeError(f"there is no kind of event {text!r}; {hint}")


class Events(Command):
    """The event log."""

    lists = True
    name = "migspawner events"
    description = (
        "Every change of a lease, request, slice or card, oldest first: the latest events, those\n"
        "after an event, or those since a time. With --follow, also new events, until Ctrl-C;\n"
        "with --json, one object per line."
    )
    arguments = (
        argument(
            "--follow",
            action="store_true",
            help="continue with new events; waits while the database does not answer",
        ),
        argument(
            "--after",
            type=number_from(int, 0, "the number of an event"),
            metavar="ID",
            help="events after this one",
        ),
        argument(
            "--since",
            type=moment,
            metavar="TIME",
            help="events since a time (2026-11-22, 2026-11-22T17:53, 2026-11-22T17:53:16Z), or "
            "of the last 90m, 12h, 7d, ...",
        ),
        argument(
            "--limit",
            type=COUNT,
            metavar="N",
            help="the maximum number of events (default: 100; with --since: all; with --follow: "
            "the latest ones to begin with)",
        ),
        argument(
            "--kind",
            type=kind,
            action="append",
            metavar="KIND",
            help="only this kind (lease.active) or family of kinds "
            f"({', '.join(FAMILIES)}); may be given several times",
        ),
        argument("--user", metavar="NAME", help="only events about this person"),
        argument("--lease", type=ID, metavar="ID", help="only events about this lease"),
        argument("--request", type=ID, metavar="ID", help="only events about this request"),
        argument("--card", metavar="UUID", help="only events about this card"),
    )

    def run(self) -> int:
        """List them, and go on if asked to."""
        if self.option("follow"):
            return self._follow()
        broker = self.broker()
        rows: list[dict[str, Any]] = [dict(event_view(event)) for event in self._wanted(broker)]
        if not rows:
            self._require_subjects(broker)
            self._require_after(broker)
        if self.as_json:
            print_json(rows)
            return DONE
        columns = [
            Column("id", "id", number=True),
            Column("at", "at", time=True, seconds=True),
            Column("kind", "kind"),
            Column("user", "user"),
            Column("by", "actor"),
            Column("about", "about", below=True),
            Column("detail", "text", below=True),
        ]
        for row in rows:
            row["about"] = _about(row)
            row["text"] = _text(row["detail"])
        print_table(columns, rows, empty=self._none())
        return DONE

    def _query(self) -> EventQuery:
        return EventQuery(
            since=self.time("since"),
            kinds=tuple(self.option("kind", ())),
            user=self.option("user"),
            lease_id=self.option("lease"),
            card_uuid=self.option("card"),
            request_id=self.option("request"),
        )

    def _require_subjects(self, broker: Broker) -> None:
        """Refuse filters on what does not exist; see :mod:`.known`."""
        lease, request, card = (self.option(name) for name in ("lease", "request", "card"))
        if lease is not None:
            broker.lease(lease)
        if request is not None:
            broker.request(request)
        if card is not None:
            require_card(broker, card)
        user = self.option("user")
        if user is not None:
            require_user(self, broker, user)

    def _require_after(self, broker: Broker) -> None:
        newest = broker.last_events(0).read_to
        after = self.option("after", 0)
        if after > newest:
            raise Refusal(f"There is no event {after}; the newest is {newest}.", reason="not-found")

    def _none(self) -> str:
        """The message when there is no event to show."""
        filters = ("since", "kind", "user", "lease", "request", "card", "after")
        given = [f"--{name}" for name in filters if self.option(name) is not None]
        if not given:
            return "Nothing has been recorded yet."
        return f"No event matches {listed(given)}."

    def _wanted(self, broker: Broker) -> Iterable[EventRow]:
        query = self._query()
        limit, after, since = self.option("limit"), self.option("after"), self.option("since")
        if limit is None and since is not None:
            return _all(broker, after or 0, query)
        if after is not None:
            return broker.events(after, limit or _FEW, query)
        return broker.last_events(limit or _FEW, query).events

    def _follow(self) -> int:
        after, limit, query = self.option("after"), self.option("limit"), self._query()
        if limit is not None and (after is not None or query.since is not None):
            self.given.parser.error(
                "--limit with --follow is how many of the last events come first; leave it out "
                "with --after and --since"
            )
        try:
            broker = self.broker()
            if not broker.last_events(1, query).events:
                self._require_subjects(broker)
            if after is None and query.since is None:
                first = broker.last_events(limit or 0, query)
                for event in first.events:
                    self._show(event)
                after = first.read_to
            woken = threading.Event()

            def pause(seconds: float) -> None:
                woken.wait(seconds)
                woken.clear()

            with broker.heard(woken.set):
                Follower(broker, query, after or 0, self._show).run(pause)
        except KeyboardInterrupt:
            return DONE

    def _show(self, event: EventRow) -> None:
        view = event_view(event)
        if self.as_json:
            print_json_line(view)
        else:
            print_wrapped(_line(view), first=f"{view['id']:>8}  ", indent=" " * 10)


def _all(broker: Broker, after: int, query: EventQuery) -> Iterable[EventRow]:
    while page := broker.events(after, _PAGE, query):
        yield from page
        after = page[-1].id


def _line(view: Mapping[str, Any]) -> str:
    words = f"{view['at']}  {view['kind']}  {shown(view['user'])}"
    by = f"by {shown(view['actor'])}"
    about = ", ".join(filter(None, [_about(view), by]))
    return "  ".join([words, about, _text(view["detail"])]).rstrip()


def _about(view: Mapping[str, Any]) -> str:
    """The lease, request and card that an event is about."""
    words = (("lease", "lease_id"), ("request", "request_id"), ("card", "card_uuid"))
    return ", ".join(f"{word} {view[key]}" for word, key in words if view[key] is not None)


def _text(detail: dict[str, Any]) -> str:
    known = {name: value for name, value in detail.items() if value not in (None, "", [], {})}
    return ", ".join(f"{name.replace('_', ' ')} {_value(value)}" for name, value in known.items())


def _value(value: object) -> str:
    """A value of an event's detail; layouts and changes are lists and objects there."""
    if isinstance(value, dict):
        return _text(value)
    if isinstance(value, list) and value and all(isinstance(each, list) for each in value):
        return ", ".join(" at ".join(map(shown, each)) for each in value)
    return shown(value)
