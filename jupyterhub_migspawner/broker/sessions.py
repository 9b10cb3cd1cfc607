"""Sessions that lie idle: what sources say, when a session ends, and what holds that off.

:func:`~jupyterhub_migspawner.policy.reclaim.verdict` decides, for the page, the warning and the act
alike; here its values are read and written. A session ends in the transaction in which the verdict
is found again, so that a user who extends in the last second has either kept it or learns that it
is over.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from jupyterhub_migspawner.broker.checks import (
    NAME_LIMIT,
    REASON_LIMIT,
    end_within,
    text,
    wanted_id,
    wanted_name,
)
from jupyterhub_migspawner.broker.context import BROKER, Context
from jupyterhub_migspawner.broker.recorder import begin_release, lease_event
from jupyterhub_migspawner.broker.statuses import Standing, Stranded
from jupyterhub_migspawner.broker.views import timestamp
from jupyterhub_migspawner.broker.waiting_list import Line, WaitingList
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import ACTIVE, LeaseRow
from jupyterhub_migspawner.model.parts import Part
from jupyterhub_migspawner.model.sessions import ReadingRow, StayRow
from jupyterhub_migspawner.policy import doubts, reclaim
from jupyterhub_migspawner.policy.doubts import Patience, Silence
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.reclaim import Reading, Rules, Session
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import moment

FURTHEST = timedelta(days=90)
"""How far ahead a session may be protected."""

LOOK_SECONDS = 10.0
"""How often a node's agent looks at processes, at the least often."""

UNTOLD: dict[str, Any] = {"warned_at": None, "told_until": None}
"""What is noted when what a person was warned of an end no longer holds."""


class Sessions:
    """Use cases about sessions that may not be in use."""

    def __init__(self, context: Context, waiting_list: WaitingList) -> None:
        self._context = context
        self._waiting_list = waiting_list

    def standings(self, user: str | None = None, part: Part | None = None) -> tuple[Standing, ...]:
        """Return the active leases of this hub, or of a user of it, with what becomes of them.

        Oldest first, all of them or a part.
        """
        of_user = None if user is None else wanted_name(user)

        def work(tx: Transaction) -> tuple[Standing, ...]:
            now = self._context.now()
            every, stays = queries.sessions.of_all(tx), queries.sessions.stays_of_all(tx)
            line = self._waiting_list.line(tx, now)
            found = []
            active = queries.leases.select(
                tx, hub=self._context.hub, user=of_user, states=(ACTIVE,)
            )
            leases = [lease for lease in active if lease.ticket_id is None]
            if part is not None:
                before = part.before
                leases = [each for each in leases if before is None or each.id < before]
                leases = leases[-part.limit :]
            for lease in leases:
                said = every.get(lease.id, ())
                stay = stays.get(lease.id, StayRow(lease.id))
                found.append(self._standing(lease, said, stay, line, now))
            return tuple(found)

        return self._context.read(work)

    def stranded(self) -> tuple[Stranded, ...]:
        """Return every server of this hub that runs on without its card, and how it is asked."""

        def work(tx: Transaction) -> tuple[Stranded, ...]:
            lost = queries.leases.stranded(tx, self._context.hub)
            stays = queries.sessions.stays_of_all(tx) if lost else {}
            return tuple(Stranded(each, stays.get(each.id, StayRow(each.id))) for each in lost)

        return self._context.read(work)

    def idle_ends(
        self, tx: Transaction, leases: Collection[LeaseRow], now: datetime
    ) -> list[tuple[LeaseRow, datetime | None]]:
        """Return leases, of all hubs, with when each ends if nobody uses it."""
        every = queries.sessions.of_all(tx) if leases else {}
        stays = queries.sessions.stays_of_all(tx) if every else {}
        line = self._waiting_list.line(tx, now) if every else Line()
        found: list[tuple[LeaseRow, datetime | None]] = []
        for lease in leases:
            end = None
            if lease.id in every and lease.state == ACTIVE:
                stay = stays.get(lease.id, StayRow(lease.id))
                verdict = self._standing(lease, every[lease.id], stay, line, now).verdict
                end = verdict.ends_at if verdict.rule == reclaim.IDLE else None
            found.append((lease, end))
        return found

    def warn_idle(self, lease_ids: Collection[int]) -> tuple[LeaseRow, ...]:
        """Note that people are warned of the end of those sessions whose verdict still says so.

        Returns the leases of these sessions.
        """

        def work(tx: Transaction) -> tuple[LeaseRow, ...]:
            warned = []
            for lease_id in lease_ids:
                found = self.found(tx, lease_id)
                if found is None or not found.verdict.warn or found.verdict.ends_at is None:
                    continue
                now = self._context.now()
                told = found.verdict
                queries.sessions.change(tx, lease_id, warned_at=now, told_until=told.ends_at)
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

        return self._context.run(work) if lease_ids else ()

    def end_over(self, lease_id: int) -> LeaseRow | None:
        """End a session if it is over, idle or out of time, as found in this very transaction.

        Returns its lease, or None when it is not over. For being idle it ends only if every source
        has just said so: one that does not answer now is no proof, though it did a minute ago. The
        event says by which rule, and what each source had said.
        """

        def work(tx: Transaction) -> LeaseRow | None:
            found = self.found(tx, lease_id)
            now = self._context.now()
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

        return self._context.run(work)

    def patience(self) -> Patience:
        """Return how long a source may be silent before admins look at it."""
        settings = self._context.settings
        return Patience(
            timedelta(minutes=settings.unknown_minutes),
            timedelta(hours=settings.unproven_hours),
            timedelta(seconds=3 * settings.examine_seconds),
        )

    def extend(self, lease_id: int, by: Person, reason: str = "") -> Standing:
        """Extend a session that is not in use by the same time, up to the tier's ceiling.

        For its person and for admins. Raises :class:`~jupyterhub_migspawner.errors.Refusal`:
        ``not-found`` (also for another's), ``conflict`` when it cannot be kept any longer.
        """
        text("reason", reason, REASON_LIMIT)

        def work(tx: Transaction) -> Standing:
            now = self._context.now()
            self._context.count_action(tx, by, now)
            found = self._demanded(tx, lease_id, by)
            tier = self._context.settings.tier(found.lease.tier)
            if tier is None or tier.idle_minutes is None:
                raise Refusal(
                    "This session has no idle limit; there is nothing to extend.",
                    reason="conflict",
                )
            end = found.verdict.ends_at if found.verdict.rule == reclaim.IDLE else now
            longer = max(end or now, now) + timedelta(minutes=tier.idle_minutes)
            until = min(longer, found.ceiling or longer)
            if until <= now or (found.stay.extended_until or now) >= until:
                raise Refusal(
                    f"This session cannot be extended beyond {moment(max(until, now))}: it was "
                    f"last used at {moment(found.used)}. Use it to keep it.",
                    reason="conflict",
                )
            queries.sessions.change(tx, lease_id, extended_until=until)
            end_told = timestamp(until)
            kind = "lease.extended"
            lease_event(tx, found.lease, now, by.name, kind=kind, why=reason, until=end_told)
            return self._demanded(tx, lease_id, by)

        return self._context.run(work)

    def protect(self, lease_id: int, by: Person, until: datetime | None, reason: str) -> Standing:
        """Keep a session from being ended for being idle until then (aware), or no longer (None).

        For admins, and not for themselves. Its hard end stays. Raises
        :class:`~jupyterhub_migspawner.errors.Refusal` (``not-found``, ``not-allowed``,
        ``options``, ``conflict``).
        """
        text("user name", by.name, NAME_LIMIT, empty=False)
        text("reason", reason, REASON_LIMIT, empty=until is None)
        if not by.admin:
            raise Refusal("Only admins can protect sessions.", reason="not-allowed")

        def work(tx: Transaction) -> Standing:
            found, now = self._demanded(tx, lease_id, by), self._context.now()
            if found.lease.user == by.name and until is not None:
                raise Refusal(
                    "You cannot protect your own session; ask another admin, or extend it.",
                    reason="not-allowed",
                )
            end = None if until is None else end_within(until, now, FURTHEST)
            who = {"protected_by": by.name, "protected_why": reason}
            queries.sessions.change(tx, lease_id, protected_until=end, **who, **UNTOLD)
            kind, told = "lease.protected", timestamp(end) or timestamp(now)
            lease_event(tx, found.lease, now, by.name, kind=kind, why=reason, until=told)
            return self._demanded(tx, lease_id, by)

        return self._context.run(work)

    # -- in a transaction ------------------------------------------------------------------------

    def found(self, tx: Transaction, lease_id: int) -> Standing | None:
        """Return how a session stands, with others kept from changing that until the end."""
        tx.queue_for(f"session {lease_id}")
        lease = queries.leases.by_id(tx, lease_id)
        if lease is None or lease.state != ACTIVE or lease.hub != self._context.hub:
            return None
        now = self._context.now()
        said, stay = queries.sessions.of_lease(tx, lease_id), queries.sessions.stay(tx, lease_id)
        return self._standing(lease, said, stay, self._waiting_list.line(tx, now), now)

    def _demanded(self, tx: Transaction, lease_id: int, by: Person) -> Standing:
        lease = queries.leases.by_id(tx, wanted_id(lease_id))
        mine = lease is not None and (lease.hub, lease.user) == (self._context.hub, by.name)
        if lease is None or not (mine or by.admin):
            raise Refusal(f"There is no lease {lease_id}.", reason="not-found")
        found = self.found(tx, lease.id)
        if found is None:
            raise Refusal(
                f"Lease {lease_id} is {lease.state}; only running sessions of this hub can be "
                "extended or protected.",
                reason="conflict",
            )
        return found

    def _standing(
        self,
        lease: LeaseRow,
        said: tuple[ReadingRow, ...],
        stay: StayRow,
        line: Line,
        now: datetime,
    ) -> Standing:
        tier = self._context.settings.tier(lease.tier)
        session = Session(
            since=lease.since,
            limit=_minutes(tier.idle_minutes) if tier else None,
            readings=tuple(
                Reading(
                    row.source, row.seen_at, row.active_at, row.said, row.problem, row.active_since
                )
                for row in said
            ),
            needed=self._needed() | {row.source for row in said},
            ends_at=lease.ends_at,
            ends_why=lease.end_reason,
            limit_when_wanted=_minutes(tier.idle_minutes_when_wanted) if tier else None,
            wanted=tier is not None and self._is_wanted(lease, tier, line),
            extended_until=stay.extended_until,
            protected_until=stay.protected_until,
            warned_at=stay.warned_at,
            told_until=stay.told_until,
        )
        rules = Rules(
            timedelta(minutes=self._context.settings.warn_minutes),
            timedelta(seconds=3 * self._context.settings.examine_seconds),
        )
        # What is known of its use stays known while some source is silent.
        used = max([lease.since, *(row.active_at for row in said if row.active_at is not None)])
        ceiling = None
        if tier is not None and tier.idle_minutes is not None:
            ceiling = min(used, now) + timedelta(hours=tier.extend_hours)
            ceiling = min(ceiling, lease.ends_at or ceiling)
        verdict, patience = reclaim.verdict(session, rules, now), self.patience()
        # This look counts, too: one that is silent now need not wait for the next to be noted.
        silence = doubts.heard(silence_of(stay), verdict.unknown_since, now, patience.silent)
        doubt = None
        if session.limit is not None:
            doubt = doubts.doubt_of(verdict, session.readings, silence, patience, now)
        return Standing(lease, stay, verdict, said, used, ceiling, doubt)

    def _is_proven(self, found: Standing, now: datetime) -> bool:
        """Tell whether every source has said just now what the verdict rests on."""
        lately = timedelta(seconds=3 * min(LOOK_SECONDS, self._context.settings.examine_seconds))
        needed = self._needed() | {row.source for row in found.readings}
        said = {
            row.source
            for row in found.readings
            if not row.problem and row.seen_at is not None and row.seen_at >= now - lately
        }
        return needed <= said

    def _needed(self) -> frozenset[str]:
        """Return what has to answer for every session; with DCGM, every slice is measured."""
        return reclaim.ALWAYS | {reclaim.USE} if self._context.settings.dcgm_url else reclaim.ALWAYS

    def _is_wanted(self, lease: LeaseRow, tier: Tier, line: Line) -> bool:
        """Tell whether another user waits for what this session has, or a seat on one like it."""
        pool = line.pool_of(lease, tier)
        return any(
            not ticket.blocked
            and ticket.user != lease.user
            and self._waiting_list.competes(ticket, pool, line.known)
            for ticket in line.tickets
        )


def silence_of(stay: StayRow) -> Silence | None:
    """Return the silences that are noted of a session."""
    if stay.silent_since is None or stay.silent_at is None:
        return None
    return Silence(stay.silent_since, stay.silent_at)


def _minutes(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(minutes=value)
