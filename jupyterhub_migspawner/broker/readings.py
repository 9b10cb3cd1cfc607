"""Readings: what each source says of a session, and how its server is asked.

A source is a session's server, its node, or the measurement of its slice.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from jupyterhub_migspawner.broker.checks import stored, wanted_name
from jupyterhub_migspawner.broker.context import Context
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.sessions import ReadingRow
from jupyterhub_migspawner.policy import doubts

MOST_SAID = 500
"""Characters of what a source says that are kept."""


@dataclass(frozen=True)
class Answer:
    """What a source says of the session of a lease now.

    ``busy`` says that it is in use; without that it was if ``fingerprint`` is another than before.
    ``problem`` says why there is no answer, ``absent`` that there is no such source here.
    """

    lease_id: int
    source: str
    fingerprint: str = ""
    busy: bool = False
    said: str = ""
    problem: str = ""
    absent: bool = False


class Readings:
    """Use cases about readings."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def reach(self, attempt: str, url: str, sealed: str) -> None:
        """Store how the server of a start is asked: its own address and its own token.

        ``sealed`` is the token as :mod:`jupyterhub_migspawner.keys` has sealed it for this lease
        and address; a token in clear never comes this far.
        """

        def work(tx: Transaction) -> None:
            lease = queries.leases.by_attempt(tx, wanted_name(attempt))
            if lease is not None:
                queries.sessions.change(tx, lease.id, url=url, sealed=sealed)

        self._context.run(work)

    def note(self, answers: Collection[Answer]) -> None:
        """Record what sources say; whatever is different from before was activity."""

        def work(tx: Transaction) -> None:
            now = self._context.now()
            rows: dict[tuple[int, str], ReadingRow] = {}
            for answer in answers:
                known = {row.source: row for row in queries.sessions.of_lease(tx, answer.lease_id)}
                if not answer.absent:
                    row = _merged(answer, known.get(answer.source), now, self._pause())
                    rows[answer.lease_id, answer.source] = row
                elif answer.source in known:
                    gone = known.pop(answer.source)
                    queries.sessions.forget(tx, answer.lease_id, answer.source)
                    # The use that it has seen stays known, by those that go on telling. One that
                    # has told nothing yet will begin with a sign of use.
                    for source, other in known.items():
                        row = rows.get((answer.lease_id, source), other)
                        rows[answer.lease_id, source] = _at_least(row, gone.active_at)
            queries.sessions.keep(tx, rows.values())

        if answers:
            self._context.run(work)

    def forget_ended(self) -> None:
        """Discard what is kept of sessions that are over."""
        self._context.run(queries.sessions.forget_ended)

    def _pause(self) -> timedelta:
        """Return the time within which claims of use are one; a look has to fit in between."""
        return max(doubts.PAUSE, timedelta(seconds=3 * self._context.settings.examine_seconds))


def _merged(
    answer: Answer, known: ReadingRow | None, now: datetime, pause: timedelta
) -> ReadingRow:
    """Return a reading after an answer.

    The first one counts as activity: nobody knows what was before.
    """
    if answer.problem:
        before = known or ReadingRow(answer.lease_id, answer.source, None, None, "", "", "")
        return replace(before, problem=stored(answer.problem)[:MOST_SAID])
    said = stored(answer.said)[:MOST_SAID]
    fingerprint = stored(answer.fingerprint)
    same = (
        known is not None and known.seen_at is not None and known.fingerprint == answer.fingerprint
    )
    if not answer.busy and same and known is not None and known.active_at is not None:
        return replace(known, seen_at=now, fingerprint=fingerprint, said=said, problem="")
    since = now
    if known is not None:
        since = doubts.claimed_since(known.active_since, known.active_at, now, pause)
    return ReadingRow(answer.lease_id, answer.source, now, now, fingerprint, said, "", since)


def _at_least(row: ReadingRow, active_at: datetime | None) -> ReadingRow:
    """Return the reading, with no earlier activity than this."""
    if active_at is None or row.active_at is None:
        return row
    return replace(row, active_at=max(row.active_at, active_at))
