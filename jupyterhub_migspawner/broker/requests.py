"""Requests for tiers that need approval, and the grants that come of them.

A grant is an approved request until ``valid_until``; :mod:`.acquisition` checks it in the
transaction that takes the lease. Each decision is a single change from one state, so that of two
approvers one gets the answer that it was decided already.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from jupyterhub_migspawner.broker.checks import (
    NAME_LIMIT,
    REASON_LIMIT,
    begin_within,
    hours_within,
    minutes_within,
    text,
    wanted_id,
    wanted_name,
)
from jupyterhub_migspawner.broker.context import BROKER, Context
from jupyterhub_migspawner.broker.recorder import lease_event, request_event
from jupyterhub_migspawner.broker.views import timestamp
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.parts import Part
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.policy import approval, tiers
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.wording import hours as in_hours
from jupyterhub_migspawner.policy.wording import moment, number, quoted

MOST_HOURS = 24 * 31.0
"""Longest grant for a tier without ``max_hours``."""

FURTHEST = timedelta(days=180)
"""How far ahead something may be asked for."""

MOST_WARNING = 24 * 60
"""Most minutes between the word that a grant is revoked and the end of what runs on it."""

MOST_PENDING = 10
"""Requests one person may have waiting; more are a loop, not a need."""


class Requests:
    """Use cases about requests."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def create(
        self,
        person: Person,
        tier_name: str,
        hours: float,
        reason: str,
        starts_at: datetime | None = None,
    ) -> RequestRow:
        """Ask for a tier that needs approval, for some hours from ``starts_at`` (aware) on.

        Without it, or when it is over by then, from the decision on. Raises
        :class:`~jupyterhub_migspawner.errors.Refusal` (``options``, ``not-allowed``,
        ``conflict``).
        """
        return self._context.run(self.filing(person, tier_name, hours, reason, starts_at))

    def filing(
        self,
        person: Person,
        tier_name: str,
        hours: float,
        reason: str,
        starts_at: datetime | None,
    ) -> Callable[[Transaction], RequestRow]:
        """Return what files a request, checked as far as can be without the database."""
        text("user name", person.name, NAME_LIMIT, empty=False)
        text("reason", reason, REASON_LIMIT, empty=False)
        asked = {"tier": "" if tier_name is None else tier_name}
        tier = tiers.choose_tier(self._context.settings.tiers, person, asked)
        if not tier.approval:
            raise Refusal(
                f"Tier {quoted(tier.title)} needs no approval; start your server with it.",
                reason="options",
            )
        span = hours_within(
            hours, tier.max_hours or MOST_HOURS, f"tier {quoted(tier.title)} allows"
        )
        begin = begin_within(starts_at, self._context.now(), FURTHEST)

        def work(tx: Transaction) -> RequestRow:
            now = self._context.now()
            self._context.count_action(tx, person, now)
            tx.queue_for(f"person {person.name}")
            open_ones = queries.requests.open_of_user(tx, person.name)
            waiting = [r for r in open_ones if self._state_of(r, now) == approval.PENDING]
            if len(waiting) >= MOST_PENDING:
                raise Refusal(
                    f"You have {len(waiting)} requests waiting for a decision; cancel one of them "
                    "first.",
                    reason="conflict",
                )
            request_id = queries.requests.insert(
                tx,
                username=person.name,
                tier=tier.name,
                hours=span,
                reason=reason,
                created_at=now,
                hub=self._context.hub,
                groups=sorted(person.groups),
                starts_at=begin,
            )
            return request_event(tx, request_id, now, person.name, reason)

        return work

    def decide(
        self,
        request_id: int,
        by: Person,
        approve: bool,
        reason: str = "",
        hours: float | None = None,
    ) -> RequestRow:
        """Approve or deny a pending request; an approver may shorten ``hours``, not lengthen them.

        Where the tier wants two approvals the first leaves it pending, and another person has to
        approve it as well. Raises :class:`~jupyterhub_migspawner.errors.Refusal`: ``not-found``,
        ``not-allowed`` (also for one's own), ``options``, or ``conflict`` when it is not pending
        any more.
        """
        text("user name", by.name, NAME_LIMIT, empty=False)
        text("reason", reason, REASON_LIMIT)

        def work(tx: Transaction) -> RequestRow:
            now = self._context.now()
            self._context.count_action(tx, by, now)
            request = _known(tx, request_id)
            why_not = self._may_not_decide(request, by)
            if why_not:
                raise Refusal(why_not, reason="not-allowed")
            to = approval.APPROVED if approve else approval.DENIED
            self._demand_move(request, to, now)
            span, valid_from, valid_until = request.hours, None, None
            if approve:
                tier = self._context.settings.tier(request.tier)
                if tier is None or not tier.approval:
                    title = self._context.settings.title_of(request.tier)
                    raise Refusal(
                        f"Request {request_id} is for tier {quoted(title)}, which was removed or "
                        "no longer needs approval; deny it instead.",
                        reason="conflict",
                    )
                # The tier may allow less by now than when it was asked for.
                most = min(request.hours, tier.max_hours or request.hours)
                if hours is None and most < request.hours:
                    raise Refusal(
                        f"Request {request_id} asks for {in_hours(request.hours)}, but tier "
                        f"{quoted(tier.title)} now allows at most {number(most)}; approve it for "
                        "fewer.",
                        reason="options",
                    )
                if hours is not None:
                    who = "was requested" if most == request.hours else "its tier now allows"
                    span = hours_within(hours, most, who)
                if request.first_by == by.name:
                    raise Refusal(
                        f"You have already approved request {request_id}; a second approval "
                        "is needed.",
                        reason="conflict",
                    )
                if approval.one_more(tier.approvals, request.first_by):
                    queries.requests.move(
                        tx, request_id, request.state, first_by=by.name, hours=span
                    )
                    return request_event(
                        tx, request_id, now, by.name, reason, kind="request.seconded"
                    )
                valid_from, valid_until = approval.period(request.starts_at, span, now)
            queries.requests.move(
                tx,
                request_id,
                request.state,
                state=to,
                hours=span,
                decided_by=by.name,
                decided_at=now,
                decision_reason=reason,
                valid_from=valid_from,
                valid_until=valid_until,
            )
            return request_event(tx, request_id, now, by.name, reason)

        return self._context.run(work)

    def cancel(self, request_id: int, by: Person) -> RequestRow:
        """Withdraw a pending request or give up a grant: the person's own, or as an approver.

        A server that runs on the grant keeps its lease. Raises
        :class:`~jupyterhub_migspawner.errors.Refusal` (``not-found``, ``not-allowed``,
        ``conflict``).
        """

        def work(tx: Transaction) -> RequestRow:
            now = self._context.now()
            self._context.count_action(tx, by, now)
            request = _known(tx, request_id)
            if by.name != request.user and self._may_not_decide(request, by):
                raise Refusal(
                    f"Request {request_id} is not yours; only its user and the approvers may "
                    "cancel it.",
                    reason="not-allowed",
                )
            self._demand_move(request, approval.CANCELLED, now)
            in_use = any(
                lease.request_id == request_id
                for lease in queries.leases.with_offers(tx, request.user)
            )
            # What runs on it runs on, for as long as it was granted.
            _take_back(tx, request, by, now, ends=request.valid_until if in_use else now)
            return request_event(tx, request_id, now, by.name, "")

        return self._context.run(work)

    def revoke(
        self, request_id: int, by: Person, reason: str, warning_minutes: float = 15
    ) -> tuple[RequestRow, tuple[LeaseRow, ...]]:
        """Take a grant back although it is in use: what runs on it ends after a warning.

        It ends in ``warning_minutes`` at the latest. Returns the request and the leases that were
        shortened. Raises :class:`~jupyterhub_migspawner.errors.Refusal`: ``not-found``,
        ``not-allowed`` (also for one's own), ``options``, or ``conflict`` when it is no grant.
        """
        text("reason", reason, REASON_LIMIT, empty=False)
        minutes = minutes_within(warning_minutes, MOST_WARNING)

        def work(tx: Transaction) -> tuple[RequestRow, tuple[LeaseRow, ...]]:
            now = self._context.now()
            self._context.count_action(tx, by, now)
            request = _known(tx, request_id)
            why_not = self._may_not_decide(request, by)
            if why_not:
                raise Refusal(why_not, reason="not-allowed")
            state = self._state_of(request, now)
            running = [
                lease
                for lease in queries.leases.with_offers(tx, request.user)
                if lease.request_id == request_id
            ]
            # What was given back or taken back may be in use all the same.
            if state != approval.APPROVED and not (state == approval.CANCELLED and running):
                raise Refusal(
                    f"Request {request_id} is {self._state_of(request, now)}; only a grant can be "
                    "revoked.",
                    reason="conflict",
                )
            until = now + timedelta(minutes=minutes)
            if state == approval.CANCELLED and not any(
                lease.ends_at is None or lease.ends_at > until for lease in running
            ):
                raise Refusal(
                    f"Request {request_id} is cancelled, and its server already ends before that.",
                    reason="conflict",
                )
            _take_back(tx, request, by, now, ends=until if running else now, reason=reason)
            shortened = []
            for lease in running:
                after = queries.leases.shorten(
                    tx, lease.id, until, f"its grant was revoked by {by.name}: {reason}"
                )
                if after is not None:
                    # The notice that it is shortened is also the warning of its end.
                    queries.leases.warn(tx, after.id)
                    kind, end = "lease.shortened", timestamp(until)
                    lease_event(tx, after, now, by.name, kind=kind, why=reason, until=end)
                    shortened.append(after)
            return request_event(tx, request_id, now, by.name, reason), tuple(shortened)

        return self._context.run(work)

    def remind(self) -> tuple[RequestRow, ...]:
        """Note, once each, which requests wait for long and which grants end soon; return those."""

        def work(tx: Transaction) -> tuple[RequestRow, ...]:
            now = self._context.now()
            told = []
            hours = self._context.settings.remind_hours
            before = now - timedelta(hours=hours)
            undecided = f"there has been no decision for {in_hours(hours)}"
            for request in queries.requests.overdue(tx, before):
                if queries.requests.remind(tx, request.id, now):
                    told.append(
                        request_event(tx, request.id, now, BROKER, undecided, "request.reminder")
                    )
            warning = timedelta(minutes=self._context.settings.grant_warning_minutes)
            soon = now + warning
            for request in queries.requests.ending(tx, soon):
                if not queries.requests.warn(tx, request.id, now) or approval.is_brief(
                    request, warning
                ):
                    continue  # warned already; or the grant is so short that its end is known
                else:
                    assert request.valid_until is not None  # every grant has an end
                    why = f"it ends on {moment(request.valid_until)}"
                    told.append(request_event(tx, request.id, now, BROKER, why, "request.ending"))
            return tuple(told)

        return self._context.run(work)

    def get(self, request_id: int) -> RequestRow:
        """Return one request.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``not-found``) when there is none of
        that number.
        """
        return self._context.read(lambda tx: _known(tx, request_id))

    def find(
        self,
        user: str | None = None,
        states: Collection[str] | None = None,
        part: Part | None = None,
    ) -> tuple[RequestRow, ...]:
        """Return requests, oldest first, all of them or a part."""
        of_user = None if user is None else wanted_name(user)
        return self._context.read(lambda tx: queries.requests.select(tx, of_user, states, part))

    def expire(self) -> tuple[RequestRow, ...]:
        """Expire grants past their time, and requests nobody decided about; return those."""

        def work(tx: Transaction) -> tuple[RequestRow, ...]:
            now = self._context.now()
            expired = []
            for request in queries.requests.stale(tx, now, self._undecided_before(now)):
                if queries.requests.move(tx, request.id, request.state, state=approval.EXPIRED):
                    why = "its time is over" if request.valid_until else "there was no decision"
                    expired.append(request_event(tx, request.id, now, BROKER, why))
            return tuple(expired)

        return self._context.run(work)

    def _may_not_decide(self, request: RequestRow, by: Person) -> str:
        return approval.may_decide(
            request.user, by, self._context.settings.approvers, request.tier, request.groups
        )

    def _undecided_before(self, now: datetime) -> datetime:
        return now - timedelta(days=self._context.settings.request_days)

    def _state_of(self, request: RequestRow, now: datetime) -> str:
        return approval.state_at(request, now, undecided_before=self._undecided_before(now))

    def _demand_move(self, request: RequestRow, to: str, now: datetime) -> None:
        why_not = approval.may_move(self._state_of(request, now), to)
        if why_not:
            raise Refusal(f"Request {request.id}: {why_not}", reason="conflict")

    def cancel_all_of(self, tx: Transaction, user: str, before: datetime, why: str) -> int:
        """Cancel what a user of this hub asked for up to ``before``; return how many those are."""
        number = 0
        for request in queries.requests.open_of_hub(tx, self._context.hub, user, before):
            if queries.requests.move(tx, request.id, request.state, state=approval.CANCELLED):
                request_event(tx, request.id, self._context.now(), BROKER, why)
                number += 1
        return number


def _take_back(
    tx: Transaction,
    request: RequestRow,
    by: Person,
    now: datetime,
    *,
    ends: datetime | None,
    reason: str = "",
) -> None:
    """Cancel a request; a grant is one until ``ends``, and no later than it was granted."""
    granted = request.valid_until
    queries.requests.move(
        tx,
        request.id,
        request.state,
        state=approval.CANCELLED,
        decided_by=by.name,
        decided_at=now,
        decision_reason=reason,
        valid_until=None if granted is None or ends is None else min(granted, ends),
    )


def _known(tx: Transaction, request_id: int) -> RequestRow:
    request = queries.requests.by_id(tx, wanted_id(request_id))
    if request is None:
        raise Refusal(f"There is no request {request_id}.", reason="not-found")
    return request
