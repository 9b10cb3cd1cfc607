"""Quotas of one person: what counts for them, how much is used, and exceptions from it.

An exception lifts one field of a person's quota until its end. Only admins of the hub grant and end
them, each with a reason, and each is an event; nobody grants themselves one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from jupyterhub_migspawner.broker import unadopted
from jupyterhub_migspawner.broker.checks import (
    NAME_LIMIT,
    REASON_LIMIT,
    end_within,
    text,
    wanted_id,
    wanted_name,
)
from jupyterhub_migspawner.broker.context import Context
from jupyterhub_migspawner.broker.holdings import ending_of
from jupyterhub_migspawner.broker.statuses import QuotaStatus
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.parts import Part
from jupyterhub_migspawner.model.quotas import QuotaExceptionRow
from jupyterhub_migspawner.policy import quotas
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.wording import listed, moment, nearest, number, quoted

LONGEST = timedelta(days=366)
"""Longest time an exception holds; what is permanent belongs in the settings."""

MOST_AMOUNT = 1_000_000.0


class Quotas:
    """Use cases about quotas."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def of(
        self, person: Person, *, servers: int | None = None, stopping: Collection[str] = ()
    ) -> tuple[QuotaStatus, ...]:
        """Return every limit that counts for a person, and how much of it is used.

        ``servers`` is how many run, start or stop now, where the caller knows; ``stopping`` are the
        names of those that the hub is just stopping.
        """

        def work(tx: Transaction) -> tuple[QuotaStatus, ...]:
            now = self._context.now()
            limits, holding = self.limits(tx, person, now)
            without = unadopted.sessions(tx, self._context.settings, person.name, now)
            leases = queries.leases.counted_of(tx, person.name)
            used = self.usage(
                # What is only offered is no session.
                (*(lease for lease in leases if lease.ticket_id is None), *without),
                now,
                self.spans_of(tx, person, limits, now, without),
                servers or 0,
                stopping,
            )
            return tuple(
                QuotaStatus(
                    name,
                    limit,
                    None if name == "servers" and servers is None else used,
                    frees,
                    tuple(each for each in holding if each.field == name),
                )
                for name, limit, used, frees in quotas.standing(limits, used)
            )

        return self._context.read(work)

    def unadopted_sessions(self, user: str) -> tuple[LeaseRow, ...]:
        """Return a person's servers of this hub without a lease, as the leases they would have.

        Their ``id`` is :data:`.unadopted.NO_LEASE`.
        """
        found = self._context.read(
            lambda tx: unadopted.sessions(
                tx, self._context.settings, wanted_name(user), self._context.now()
            )
        )
        return tuple(each for each in found if each.hub == self._context.hub)

    def grant_exception(
        self,
        user: str,
        field: str,
        amount: float | None,
        until: datetime,
        reason: str,
        by: Person,
    ) -> QuotaExceptionRow:
        """Lift one field of a person's quota to ``amount`` (None: no limit) until then (aware).

        Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``options``, ``not-allowed``).
        """
        text("user name", user, NAME_LIMIT, empty=False)
        text("reason", reason, REASON_LIMIT, empty=False)
        _demand_admin(by, user)
        if field not in quotas.FIELDS:
            raise Refusal(
                f"There is no quota {quoted(field)}{nearest(field, quotas.FIELDS)}; the quotas "
                f"are {listed(quotas.FIELDS)}.",
                reason="options",
            )
        most = _amount(field, amount)
        end = end_within(until, self._context.now(), LONGEST)

        def work(tx: Transaction) -> QuotaExceptionRow:
            now = self._context.now()
            tx.queue_for(f"person {user}")
            exception_id = queries.quotas.insert(
                tx,
                hub=self._context.hub,
                username=user,
                field=field,
                amount=most,
                reason=reason,
                granted_by=by.name,
                granted_at=now,
                until=end,
            )
            row = _known(tx, exception_id)
            record(tx, now, by.name, "quota.lifted", row, reason)
            return row

        return self._context.run(work)

    def end_exception(self, exception_id: int, reason: str, by: Person) -> QuotaExceptionRow:
        """End an exception before its time; what is held on it stays until it is stopped.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``not-found``, ``not-allowed``,
        ``conflict``).
        """
        text("reason", reason, REASON_LIMIT)
        # One's own, too: having less needs nobody else's word.
        if not by.admin:
            raise Refusal(_ADMINS_ONLY, reason="not-allowed")

        def work(tx: Transaction) -> QuotaExceptionRow:
            now = self._context.now()
            row = _known(tx, exception_id)
            if row.ended_at is not None or row.until <= now:
                over = row.ended_at or row.until
                raise Refusal(
                    f"Exception {exception_id} ended at {moment(over)}.",
                    reason="conflict",
                )
            queries.quotas.end(tx, row.id, by.name, now)
            record(tx, now, by.name, "quota.restored", row, reason)
            return _known(tx, row.id)

        return self._context.run(work)

    def exceptions(
        self, user: str | None = None, *, include_past: bool = False, part: Part | None = None
    ) -> tuple[QuotaExceptionRow, ...]:
        """Return exceptions, oldest first; only those that hold now unless asked otherwise.

        All of them, or a part.
        """
        of_user = None if user is None else wanted_name(user)
        return self._context.read(
            lambda tx: queries.quotas.select(
                tx, of_user, None if include_past else self._context.now(), part
            )
        )

    def spans_of(
        self,
        tx: Transaction,
        person: Person,
        limits: quotas.Quota,
        now: datetime,
        without_lease: Iterable[LeaseRow],
    ) -> tuple[quotas.Span, ...]:
        """Return when the person has had which share of a card, if a quota counts hours.

        ``without_lease`` are their sessions that run without one.
        """
        if not limits.counts_hours:
            return ()
        spans = tuple(queries.usage.spans(tx, person.name, now - limits.window))
        return spans + unadopted.spans(without_lease)

    def usage(
        self,
        counted: Collection[LeaseRow],
        now: datetime,
        spans: tuple[quotas.Span, ...],
        servers: int = 0,
        stopping: Collection[str] = (),
    ) -> quotas.Usage:
        """Return what a person has and has used.

        ``counted`` are the leases that count: pending, active and releasing ones. ``stopping`` are
        the names of servers, among the ``servers`` of them, that the hub is just stopping: the
        lease of one of those may be ending already, and is not counted as one server more.
        """
        running = [lease for lease in counted if not lease.ending]
        known = set(stopping)
        ending = []
        for lease in counted:
            if lease.ending:
                here = lease.hub == self._context.hub
                twice = here and lease.server in known
                if twice:
                    known.discard(lease.server)
                ending.append(
                    ending_of(self._context.settings, lease, counts_as_server=here and not twice)
                )
        whole = sum(lease.whole for lease in running)
        return quotas.Usage(now, len(running), whole, spans, servers, tuple(ending))

    def read_limits(self, tx: Transaction, person: Person, now: datetime) -> None:
        """Ask for what :meth:`limits` and :meth:`spans_of` read, where that is known beforehand."""
        if self._context.settings.quotas.sets_any:
            queries.quotas.select(tx, person.name, now)
            usual = self._context.settings.quotas.for_person(person)
            if usual.counts_hours:
                queries.usage.spans(tx, person.name, now - usual.window)

    def limits(
        self, tx: Transaction, person: Person, now: datetime
    ) -> tuple[quotas.Quota, tuple[QuotaExceptionRow, ...]]:
        """Return what counts for a person, and the exceptions in it."""
        if not self._context.settings.quotas.sets_any:
            return quotas.Quota(), ()
        holding = queries.quotas.select(tx, person.name, now)
        lifted: dict[str, float | None] = {}
        for row in holding:
            amounts = (row.amount, lifted[row.field]) if row.field in lifted else (row.amount,)
            lifted[row.field] = quotas.most(amounts)
        return self._context.settings.quotas.for_person(person, lifted), holding


_ADMINS_ONLY = "Only admins of the hub can make exceptions from quotas."


def _demand_admin(by: Person, user: str) -> None:
    if by.name == user:
        raise Refusal(
            "You cannot make an exception for yourself; ask another admin.", reason="not-allowed"
        )
    if not by.admin:
        raise Refusal(_ADMINS_ONLY, reason="not-allowed")


def _amount(field: str, amount: object) -> float | None:
    if amount is None:
        return None
    whole = field in quotas.COUNTS
    wrong = Refusal(
        f"The limit is {quoted(amount)}; expected a {'whole ' if whole else ''}number from 0 to "
        f"{number(MOST_AMOUNT)}, or none for no limit.",
        reason="options",
    )
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise wrong
    if not 0 <= amount <= MOST_AMOUNT:
        raise wrong
    if whole and amount != int(amount):
        raise wrong
    return float(amount)


def _known(tx: Transaction, exception_id: int) -> QuotaExceptionRow:
    row = queries.quotas.by_id(tx, wanted_id(exception_id))
    if row is None:
        raise Refusal(f"There is no exception {exception_id}.", reason="not-found")
    return row


def record(
    tx: Transaction, now: datetime, actor: str, kind: str, row: QuotaExceptionRow, why: str
) -> None:
    """Record an event about an exception."""
    queries.events.append(
        tx,
        now,
        actor,
        kind,
        user=row.user,
        exception=row.id,
        field=row.field,
        amount=row.amount,
        until=f"{row.until:%Y-%m-%dT%H:%M:%SZ}",
        why=why,
    )
