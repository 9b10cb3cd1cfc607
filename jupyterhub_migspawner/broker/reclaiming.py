"""Taking back what lies idle: what sources say, when a session ends for it, what holds that off.

:func:`~jupyterhub_migspawner.policy.reclaim.verdict` decides, for the page, the warning and the
act alike; here its values are read and written. A session ends in the transaction in which the
verdict is found anew, so that whoever extends in the last second has either kept it or is told
that it is over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from jupyterhub_migspawner.broker.acquiring import begin_release
from jupyterhub_migspawner.broker.base import (
    BROKER,
    NAME_LIMIT,
    REASON_LIMIT,
    end_within,
    stored,
    text,
    wanted_id,
    wanted_name,
)
from jupyterhub_migspawner.broker.recording import lease_event
from jupyterhub_migspawner.broker.statuses import Standing
from jupyterhub_migspawner.broker.views import timestamp
from jupyterhub_migspawner.broker.waiting import Waits
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.leases import ledger, readings
from jupyterhub_migspawner.leases.rows import ACTIVE, LeaseRow, ReadingRow, StayRow, TicketRow
from jupyterhub_migspawner.leases.store import Transaction
from jupyterhub_migspawner.policy import reclaim
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.reclaim import Reading, Rules, Session
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import moment

FURTHEST = timedelta(days=90)
"""How far ahead a session may be protected."""

LOOK_SECONDS = 10.0
"""How often a node's agent looks at processes, at the least often."""

_UNTOLD: dict[str, Any] = {"warned_at": None, "told_until": None}

MOST_SAID = 500
"""Characters of what a source says that are kept."""


@dataclass(frozen=True)
class Answer:
    """What a source says of the session of a lease now.

    ``busy`` says that it is in use; without that it was if ``mark`` is another than before.
    ``trouble`` says why there is no answer, ``absent`` that there is no such source here.
    """

    lease_id: int
    source: str
    mark: str = ""
    busy: bool = False
    said: str = ""
    trouble: str = ""
    absent: bool = False


class Reclaiming(Waits):
    """Use cases about sessions that may not be in use."""

    def reach(self, attempt: str, url: str, token: str) -> None:
        """Note how the server of a start is asked: its own address and its own token."""

        def work(tx: Transaction) -> None:
            lease = ledger.by_attempt(tx, wanted_name(attempt))
            if lease is not None:
                readings.change(tx, lease.id, url=url, token=token)

        self._run(work)

    def note_answers(self, answers: Collection[Answer]) -> None:
        """Note what sources say. Whatever is different from before was activity."""

        def work(tx: Transaction) -> None:
            now = self._now()
            rows: dict[tuple[int, str], ReadingRow] = {}
            for answer in answers:
                known = {row.source: row for row in readings.of_lease(tx, answer.lease_id)}
                if not answer.absent:
                    row = _merged(answer, known.get(answer.source), now)
                    rows[answer.lease_id, answer.source] = row
                elif answer.source in known:
                    gone = known.pop(answer.source)
                    readings.forget(tx, answer.lease_id, answer.source)
                    # The use that it has seen stays known, by those that go on telling. One that
                    # has told nothing yet will begin with a sign of use.
                    for source, other in known.items():
                        row = rows.get((answer.lease_id, source), other)
                        rows[answer.lease_id, source] = _at_least(row, gone.active_at)
            readings.keep(tx, rows.values())

        if answers:
            self._run(work)

    def standings(self, user: str | None = None) -> tuple[Standing, ...]:
        """Every active lease of this hub, or of a user of it, with what becomes of its session."""
        of_user = None if user is None else wanted_name(user)

        def work(tx: Transaction) -> tuple[Standing, ...]:
            now = self._now()
            every, stays = readings.of_all(tx), readings.stays_of_all(tx)
            waiting = self._served(tx, now)
            found = []
            for lease in ledger.select(tx, hub=self.hub, user=of_user, states=(ACTIVE,)):
                if lease.ticket_id is not None:
                    continue
                said = every.get(lease.id, ())
                stay = stays.get(lease.id, StayRow(lease.id))
                found.append(self._standing(lease, said, stay, waiting, now))
            return tuple(found)

        return self._read(work)

    def _idle_ends(
        self, tx: Transaction, leases: Collection[LeaseRow], now: datetime
    ) -> list[tuple[LeaseRow, datetime | None]]:
        """Leases, of all hubs, with when each ends if nobody uses it."""
        every = readings.of_all(tx) if leases else {}
        stays = readings.stays_of_all(tx) if every else {}
        waiting = self._served(tx, now) if every else ()
        found: list[tuple[LeaseRow, datetime | None]] = []
        for lease in leases:
            end = None
            if lease.id in every and lease.state == ACTIVE:
                stay = stays.get(lease.id, StayRow(lease.id))
                verdict = self._standing(lease, every[lease.id], stay, waiting, now).verdict
                end = verdict.ends_at if verdict.rule == reclaim.IDLE else None
            found.append((lease, end))
        return found

    def warn_idle(self, lease_ids: Collection[int]) -> tuple[LeaseRow, ...]:
        """Note that those of them whose verdict still says so are told of their end."""

        def work(tx: Transaction) -> tuple[LeaseRow, ...]:
            warned = []
            for lease_id in lease_ids:
                found = self._found(tx, lease_id)
                if found is None or not found.verdict.warn or found.verdict.ends_at is None:
                    continue
                now = self._now()
                told = found.verdict
                readings.change(tx, lease_id, warned_at=now, told_until=told.ends_at)
                end = timestamp(told.ends_at)
                lease_event(
                    tx,
                    found.lease,
                    now,
                    BROKER,
                    kind="lease.ending",
                    why=told.why,
                    until=end,
                    rule=reclaim.IDLE,
                )
                warned.append(found.lease)
            return tuple(warned)

        return self._run(work) if lease_ids else ()

    def end_over(self, lease_id: int) -> LeaseRow | None:
        """End a session if it is over, idle or out of time, as found in this very transaction.

        None when it is not. For being idle it ends only if every source has just said so: one that
        does not answer now is no proof, though it did a minute ago. The event says by which rule,
        and what each source had said.
        """

        def work(tx: Transaction) -> LeaseRow | None:
            found = self._found(tx, lease_id)
            now = self._now()
            if found is None or not found.verdict.over(now):
                return None
            if found.verdict.rule == reclaim.IDLE and not self._is_proven(found, now):
                return None
            signals = [
                {
                    "source": row.source,
                    "said": row.said,
                    "seen_at": timestamp(row.seen_at),
                    "active_at": timestamp(row.active_at),
                }
                for row in found.readings
            ]
            rule, why = found.verdict.rule, found.verdict.why
            return begin_release(tx, found.lease, why, BROKER, now, rule=rule, signals=signals)

        return self._run(work)

    def note_unknown(self) -> tuple[LeaseRow, ...]:
        """Note, once each, of which sessions it is unknown for long whether they are in use.

        What their people were told of an end is taken back meanwhile: they will be told anew.
        """
        most = timedelta(minutes=self.settings.unknown_minutes)
        late, told_of = [], []
        for each in self.standings():
            since = each.verdict.unknown_since
            unknown = since is not None and self._now() - since >= most
            if unknown != (each.stay.alerted_at is not None):
                late.append(each.lease.id)
            if since is not None and each.stay.told_until is not None:
                told_of.append(each.lease.id)

        def work(tx: Transaction) -> tuple[LeaseRow, ...]:
            told = []
            for lease_id in told_of:
                readings.change(tx, lease_id, **_UNTOLD)
            for lease_id in late:
                found = self._found(tx, lease_id)
                if found is None:
                    continue
                now, since = self._now(), found.verdict.unknown_since
                if since is None or now - since < most:
                    readings.change(tx, lease_id, alerted_at=None)
                elif found.stay.alerted_at is None:
                    readings.change(tx, lease_id, alerted_at=now)
                    why = _unknown_why(found)
                    lease_event(tx, found.lease, now, BROKER, kind="lease.unknown", why=why)
                    told.append(found.lease)
            return tuple(told)

        return self._run(work) if late or told_of else ()

    def extend(self, lease_id: int, by: Person, reason: str = "") -> Standing:
        """Keep a session that is not in use for as long again, up to the tier's ceiling.

        For its person and for admins. Raises :class:`~jupyterhub_migspawner.errors.Refusal`:
        ``not-found`` (also for another's), ``conflict`` when it cannot be kept any longer.
        """
        text("reason", reason, REASON_LIMIT)

        def work(tx: Transaction) -> Standing:
            found = self._demanded(tx, lease_id, by)
            tier, now = self.settings.tier(found.lease.tier), self._now()
            if tier is None or tier.idle_minutes is None:
                raise Refusal(
                    "This session has no limit for being idle; there is nothing to extend.",
                    reason="conflict",
                )
            end = found.verdict.ends_at if found.verdict.rule == reclaim.IDLE else now
            longer = max(end or now, now) + timedelta(minutes=tier.idle_minutes)
            until = min(longer, found.ceiling or longer)
            if until <= now or (found.stay.extended_until or now) >= until:
                raise Refusal(
                    f"This session cannot be extended beyond {moment(max(until, now))}: it was "
                    f"last used at {moment(found.used)}. Use it, and it stays.",
                    reason="conflict",
                )
            readings.change(tx, lease_id, extended_until=until)
            end_told = timestamp(until)
            kind = "lease.extended"
            lease_event(tx, found.lease, now, by.name, kind=kind, why=reason, until=end_told)
            return self._demanded(tx, lease_id, by)

        return self._run(work)

    def protect(self, lease_id: int, by: Person, until: datetime | None, reason: str) -> Standing:
        """Keep a session from being ended for being idle until then (aware), or no longer (None).

        For admins, and not for themselves. Its hard end stays. Raises
        :class:`~jupyterhub_migspawner.errors.Refusal` (``not-found``, ``not-allowed``,
        ``options``, ``conflict``).
        """
        text("user name", by.name, NAME_LIMIT, empty=False)
        text("reason", reason, REASON_LIMIT, empty=until is None)
        if not by.admin:
            raise Refusal("Only admins protect sessions.", reason="not-allowed")

        def work(tx: Transaction) -> Standing:
            found, now = self._demanded(tx, lease_id, by), self._now()
            if found.lease.user == by.name and until is not None:
                raise Refusal(
                    "Nobody protects their own session; ask another admin, or extend it.",
                    reason="not-allowed",
                )
            end = None if until is None else end_within(until, now, FURTHEST)
            who = {"protected_by": by.name, "protected_why": reason}
            readings.change(tx, lease_id, protected_until=end, **who, **_UNTOLD)
            kind, told = "lease.protected", timestamp(end) or timestamp(now)
            lease_event(tx, found.lease, now, by.name, kind=kind, why=reason, until=told)
            return self._demanded(tx, lease_id, by)

        return self._run(work)

    def forget_sessions(self) -> None:
        """Throw away what is kept of sessions that are over."""
        self._run(readings.forget_ended)

    # -- in a transaction ------------------------------------------------------------------------

    def _found(self, tx: Transaction, lease_id: int) -> Standing | None:
        """How a session stands, with others kept from changing that until the end."""
        tx.queue_for(f"session {lease_id}")
        lease = ledger.by_id(tx, lease_id)
        if lease is None or lease.state != ACTIVE or lease.hub != self.hub:
            return None
        now = self._now()
        said, stay = readings.of_lease(tx, lease_id), readings.stay(tx, lease_id)
        return self._standing(lease, said, stay, self._served(tx, now), now)

    def _demanded(self, tx: Transaction, lease_id: int, by: Person) -> Standing:
        lease = ledger.by_id(tx, wanted_id(lease_id))
        mine = lease is not None and (lease.hub, lease.user) == (self.hub, by.name)
        if lease is None or not (mine or by.admin):
            raise Refusal(f"There is no lease {lease_id}.", reason="not-found")
        found = self._found(tx, lease.id)
        if found is None:
            raise Refusal(
                f"Lease {lease_id} is {lease.state}; only a running session of this hub can be "
                "kept.",
                reason="conflict",
            )
        return found

    def _standing(
        self,
        lease: LeaseRow,
        said: tuple[ReadingRow, ...],
        stay: StayRow,
        waiting: Iterable[TicketRow],
        now: datetime,
    ) -> Standing:
        tier = self.settings.tier(lease.tier)
        session = Session(
            since=lease.since,
            limit=_minutes(tier.idle_minutes) if tier else None,
            readings=tuple(
                Reading(row.source, row.seen_at, row.active_at, row.said, row.trouble)
                for row in said
            ),
            needed=self._needed() | {row.source for row in said},
            ends_at=lease.ends_at,
            limit_when_wanted=_minutes(tier.idle_minutes_when_wanted) if tier else None,
            wanted=tier is not None and self._is_wanted(lease, tier, waiting),
            extended_until=stay.extended_until,
            protected_until=stay.protected_until,
            warned_at=stay.warned_at,
            told_until=stay.told_until,
        )
        rules = Rules(
            timedelta(minutes=self.settings.warn_minutes),
            timedelta(seconds=3 * self.settings.examine_seconds),
        )
        # What is known of its use stays known while some source is silent.
        used = max([lease.since, *(row.active_at for row in said if row.active_at is not None)])
        ceiling = None
        if tier is not None and tier.idle_minutes is not None:
            ceiling = min(used, now) + timedelta(hours=tier.extend_hours)
            ceiling = min(ceiling, lease.ends_at or ceiling)
        return Standing(lease, stay, reclaim.verdict(session, rules, now), said, used, ceiling)

    def _is_proven(self, found: Standing, now: datetime) -> bool:
        """Whether every source has said just now what the verdict rests on."""
        lately = timedelta(seconds=3 * min(LOOK_SECONDS, self.settings.examine_seconds))
        needed = self._needed() | {row.source for row in found.readings}
        said = {
            row.source
            for row in found.readings
            if not row.trouble and row.seen_at is not None and row.seen_at >= now - lately
        }
        return needed <= said

    def _needed(self) -> frozenset[str]:
        """What has to answer for every session: where DCGM is set up, every slice is measured."""
        return reclaim.ALWAYS | {reclaim.USE} if self.settings.dcgm_url else reclaim.ALWAYS

    def _is_wanted(self, lease: LeaseRow, tier: Tier, waiting: Iterable[TicketRow]) -> bool:
        """Whether somebody else waits for what this session has, or for a seat on one like it."""
        return any(
            not ticket.blocked and ticket.user != lease.user and self._competes(ticket, tier)
            for ticket in waiting
        )


def _merged(answer: Answer, known: ReadingRow | None, now: datetime) -> ReadingRow:
    """A reading after an answer. The first one counts as activity: nobody knows what was before."""
    if answer.trouble:
        before = known or ReadingRow(answer.lease_id, answer.source, None, None, "", "", "")
        return ReadingRow(
            before.lease_id,
            before.source,
            before.seen_at,
            before.active_at,
            before.mark,
            before.said,
            stored(answer.trouble)[:MOST_SAID],
        )
    active = now
    same = known is not None and known.seen_at is not None and known.mark == answer.mark
    if not answer.busy and same and known is not None and known.active_at is not None:
        active = known.active_at
    said = stored(answer.said)[:MOST_SAID]
    mark = stored(answer.mark)
    return ReadingRow(answer.lease_id, answer.source, now, active, mark, said, "")


def _at_least(row: ReadingRow, active_at: datetime | None) -> ReadingRow:
    """The reading, with no earlier activity than this."""
    if active_at is None or row.active_at is None:
        return row
    return replace(row, active_at=max(row.active_at, active_at))


def _unknown_why(found: Standing) -> str:
    troubles = [f"{row.source}: {row.trouble}" for row in found.readings if row.trouble]
    names = ", ".join(reclaim.SOURCES.get(name, name) for name in found.verdict.unknown)
    since = found.verdict.unknown_since
    said = f"nobody can tell since {moment(since)} whether it is in use ({names})" if since else ""
    return "; ".join(each for each in (said, *troubles) if each)


def _minutes(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(minutes=value)
