"""``migspawner events``: what changed, when, by whom and why; and what changes from now on."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NoReturn

import click

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.views import event_view
from jupyterhub_migspawner.cli.command import Command, answers
from jupyterhub_migspawner.cli.existence import require_card, require_user
from jupyterhub_migspawner.cli.invocation import DONE, Invocation
from jupyterhub_migspawner.cli.options import COUNT, ID, PAST, Number
from jupyterhub_migspawner.cli.options import user as user_option
from jupyterhub_migspawner.cli.output import (
    complain,
    print_json,
    print_json_line,
    print_wrapped,
    shown,
)
from jupyterhub_migspawner.cli.table import Column, print_table
from jupyterhub_migspawner.errors import DatabaseError, Refusal
from jupyterhub_migspawner.model.events import FAMILIES, KINDS, EventQuery, EventRow
from jupyterhub_migspawner.policy.wording import listed

#: Events listed when nobody said how many.
_FEW = 100

#: Events read at once.
_PAGE = 1_000

#: Seconds between two looks at a log in which nothing is new.
PAUSE = 1.0

_FOLLOWED = 500


class _Kind(click.ParamType[str]):
    """A kind of event, or a family of kinds."""

    name = "kind"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the kind, which exists."""
        if value not in KINDS and value not in FAMILIES:
            near = difflib.get_close_matches(value, [*KINDS, *FAMILIES], n=1)
            hint = f"did you mean {near[0]}?" if near else f"the families are {', '.join(FAMILIES)}"
            self.fail(f"there is no kind of event {value!r}; {hint}", param, ctx)
        return str(value)


@click.command(cls=Command)
@click.option(
    "--follow",
    is_flag=True,
    help="continue with new events; waits while the database does not answer",
)
@click.option(
    "--after",
    type=Number(int, 0, "the number of an event"),
    metavar="ID",
    help="events after this one",
)
@click.option(
    "--since",
    type=PAST,
    metavar="TIME",
    help="events since a time (2026-11-22, 2026-11-22T17:53, 2026-11-22T17:53:16Z), or of the last "
    "90m, 12h, 7d, ...",
)
@click.option(
    "--limit",
    type=COUNT,
    metavar="N",
    help="the maximum number of events (default: 100; with --since: all; with --follow: the latest "
    "ones to begin with)",
)
@click.option(
    "--kind",
    "kinds",
    type=_Kind(),
    multiple=True,
    metavar="KIND",
    help=f"only this kind (lease.active) or family of kinds ({', '.join(FAMILIES)}); may be given "
    "several times",
)
@user_option("only events about this person")
@click.option("--lease", type=ID, metavar="ID", help="only events about this lease")
@click.option("--request", type=ID, metavar="ID", help="only events about this request")
@click.option("--card", metavar="UUID", help="only events about this card")
@answers(table=True)
def events(
    invocation: Invocation,
    follow: bool,
    after: int | None,
    since: datetime | None,
    limit: int | None,
    kinds: tuple[str, ...],
    user: str | None,
    lease: int | None,
    request: int | None,
    card: str | None,
) -> int:
    """Show every change of a lease, request, slice or card, oldest first.

    Shows the latest events, those after an event, or those since a time. With --follow, also new
    events, until Ctrl-C; with --json, one object per line.
    """
    query = EventQuery(
        since=since, kinds=kinds, user=user, lease_id=lease, card_uuid=card, request_id=request
    )
    if follow:
        if limit is not None and (after is not None or since is not None):
            raise click.UsageError(
                "--limit with --follow is how many of the last events come first; leave it out "
                "with --after and --since",
                click.get_current_context(),
            )
        return _follow(invocation, query, after, limit)
    broker = invocation.broker()
    rows: list[dict[str, Any]] = [
        dict(event_view(event)) for event in _wanted(broker, query, after, limit)
    ]
    if not rows:
        _require_subjects(invocation, broker, query)
        _require_after(broker, after or 0)
    if invocation.as_json:
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
    print_table(columns, rows, empty=_none(query, after))
    return DONE


def _require_subjects(invocation: Invocation, broker: Broker, query: EventQuery) -> None:
    """Refuse filters on what does not exist; see :mod:`.existence`."""
    if query.lease_id is not None:
        broker.leases.get(query.lease_id)
    if query.request_id is not None:
        broker.requests.get(query.request_id)
    if query.card_uuid is not None:
        require_card(broker, query.card_uuid)
    if query.user is not None:
        require_user(invocation, broker, query.user)


def _require_after(broker: Broker, after: int) -> None:
    newest = broker.events.last(0).read_to
    if after > newest:
        raise Refusal(f"There is no event {after}; the newest is {newest}.", reason="not-found")


def _none(query: EventQuery, after: int | None) -> str:
    """Return the message when there is no event to show."""
    filters = {
        "--since": query.since,
        "--kind": query.kinds or None,
        "--user": query.user,
        "--lease": query.lease_id,
        "--request": query.request_id,
        "--card": query.card_uuid,
        "--after": after,
    }
    given = [name for name, value in filters.items() if value is not None]
    return f"No event matches {listed(given)}." if given else "Nothing has been recorded yet."


def _wanted(
    broker: Broker, query: EventQuery, after: int | None, limit: int | None
) -> Iterable[EventRow]:
    if limit is None and query.since is not None:
        return _all(broker, after or 0, query)
    if after is not None:
        return broker.events.find(after, limit or _FEW, query)
    return broker.events.last(limit or _FEW, query).events


def _follow(invocation: Invocation, query: EventQuery, after: int | None, limit: int | None) -> int:
    def show(event: EventRow) -> None:
        view = event_view(event)
        if invocation.as_json:
            print_json_line(view)
        else:
            print_wrapped(_line(view), first=f"{view['id']:>8}  ", indent=" " * 10)

    try:
        broker = invocation.broker()
        if not broker.events.last(1, query).events:
            _require_subjects(invocation, broker, query)
        if after is None and query.since is None:
            first = broker.events.last(limit or 0, query)
            for event in first.events:
                show(event)
            after = first.read_to
        woken = threading.Event()

        def pause(seconds: float) -> None:
            woken.wait(seconds)
            woken.clear()

        with broker.events.heard(woken.set):
            Follower(broker, query, after or 0, show).run(pause)
    except KeyboardInterrupt:
        return DONE


def _all(broker: Broker, after: int, query: EventQuery) -> Iterable[EventRow]:
    while page := broker.events.find(after, _PAGE, query):
        yield from page
        after = page[-1].id


def _line(view: Mapping[str, Any]) -> str:
    words = f"{view['at']}  {view['kind']}  {shown(view['user'])}"
    by = f"by {shown(view['actor'])}"
    about = ", ".join(filter(None, [_about(view), by]))
    return "  ".join([words, about, _text(view["detail"])]).rstrip()


def _about(view: Mapping[str, Any]) -> str:
    """Return the lease, request and card that an event is about."""
    words = (("lease", "lease_id"), ("request", "request_id"), ("card", "card_uuid"))
    return ", ".join(f"{word} {view[key]}" for word, key in words if view[key] is not None)


def _text(detail: dict[str, Any]) -> str:
    known = {name: value for name, value in detail.items() if value not in (None, "", [], {})}
    return ", ".join(f"{name.replace('_', ' ')} {_value(value)}" for name, value in known.items())


def _value(value: object) -> str:
    """Return a value of an event's detail; layouts and changes are lists and objects there."""
    if isinstance(value, dict):
        return _text(value)
    if isinstance(value, list) and value and all(isinstance(each, list) for each in value):
        return ", ".join(" at ".join(map(shown, each)) for each in value)
    return shown(value)


class Follower:
    """Shows the events after ``read_to`` that a query wants, as they happen."""

    def __init__(
        self,
        broker: Broker,
        query: EventQuery,
        read_to: int,
        show: Callable[[EventRow], None],
    ) -> None:
        self._broker = broker
        self._query = query
        self._read_to = read_to
        self._show = show
        self._away = False

    def run(self, pause: Callable[[float], object]) -> NoReturn:
        """Show events until something is raised; ``pause`` waits for that many seconds."""
        while True:
            if not self._read():
                pause(PAUSE)

    def _read(self) -> bool:
        """Show a page; return whether there may be more of them already."""
        try:
            page = self._broker.events.page(self._read_to, _FOLLOWED, self._query)
        except DatabaseError as error:
            if not self._away:
                complain(f"migspawner: {error} The events continue when it answers again.")
            self._away = True
            return False
        if self._away:
            complain("migspawner: The lease database answers again.")
            self._away = False
        for event in page.events:
            self._show(event)
        self._read_to = page.read_to
        return len(page.events) == _FOLLOWED
