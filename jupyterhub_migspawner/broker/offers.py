"""What each person can have now: tiers with what is free, and the sentences for when it is not.

Read-only. The form, the REST API, the command line and the refusals of
:mod:`.acquiring` all use these answers, so that they agree.
"""

from __future__ import annotations

from datetime import datetime

from jupyterhub_migspawner.broker.allowances import Allowances, usage
from jupyterhub_migspawner.broker.statuses import TierOffer
from jupyterhub_migspawner.broker.waiting import Ahead, Waits
from jupyterhub_migspawner.leases import ledger, requests
from jupyterhub_migspawner.leases.rows import RequestRow
from jupyterhub_migspawner.leases.store import Transaction
from jupyterhub_migspawner.policy import quota, tiers
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import moment


class Offering(Allowances, Waits):
    """Use cases about tiers."""

    def choose_tier(self, person: Person, options: object) -> Tier:
        """The tier that a person's options name; see :func:`.policy.tiers.choose_tier`."""
        return tiers.choose_tier(
            self.settings.tiers, person, options, default=self.settings.default_of(person)
        )

    def tiers_for(self, person: Person) -> tuple[TierOffer, ...]:
        """Every tier the person may see, in the admin's order, and whether it can be had now."""
        return self._read(lambda tx: self._offers(tx, person, self._now()))

    def _offers(self, tx: Transaction, person: Person, now: datetime) -> tuple[TierOffer, ...]:
        count = self._count(tx, now)
        mine = tiers.seen_tiers(self.settings.tiers, person)
        limits, _ = self._limits(tx, person, now)
        leases = ledger.with_offers(tx, person.name)
        held = [lease for lease in leases if lease.ticket_id is None]
        used = usage(tx, person, limits, now, held)
        offered = {
            lease.tier: lease
            for lease in leases
            if lease.ticket_id is not None and lease.hub == self.hub
        }
        asked = requests.open_of_user(tx, person.name) if any(t.approval for t in mine) else ()
        waiting = self._served(tx, now)
        offers = []
        for tier in mine:
            free, total = 0, 0
            grant = _valid_grant(asked, tier, now)
            if tier.is_whole:
                free, total = count.whole(
                    mig_off=tier.mig_off, grant_id=grant.id if grant is not None else None
                )
            elif not tier.is_none:
                free, total = count.seats(tier.name, tier.profile, tier.seats)
            why = tiers.may_use(tier, person)
            if why:
                offers.append(TierOffer(tier, free, total, False, why, None, open=False))
                continue
            if tier.approval and grant is None:
                why = needs_approval(tier, asked, now)
            why = why or quota.check(limits, used, tier)
            held_now = offered.get(tier.name)
            ahead = Ahead() if tier.is_none else self._ahead(waiting, person, tier)
            full = ""
            # With a grant a start is worth it all the same: it sets a card aside.
            with_card = grant is not None and total > 0
            if tier.is_none or held_now:
                pass
            elif free and ahead.others and not self._takes_nobodys(tx, tier, grant, now, ahead):
                full = they_wait(tier, ahead.others)
            elif not free and not with_card:
                full = none_free(tier, total)
            offers.append(
                TierOffer(
                    tier,
                    free,
                    total,
                    not (why or full),
                    why or full,
                    grant,
                    ahead.others,
                    ahead.mine,
                    held_now,
                    _pending(asked, tier),
                    bool(full) and not why,
                )
            )
        return tuple(offers)

    def _instead(self, tx: Transaction, person: Person, tier: Tier, now: datetime) -> str:
        """What could be had instead of a tier of which nothing is free."""
        offers = self._offers(tx, person, now)
        usable = [
            offer.tier.name if offer.tier.is_none else f"{offer.tier.name} ({offer.free})"
            for offer in offers
            if offer.usable and offer.tier.name != tier.name and (offer.free or offer.tier.is_none)
        ]
        if usable:
            return f"Free now: {', '.join(usable)}."
        return "Nothing else is free for you now: take a place in the waiting list."


def _valid_grant(asked: tuple[RequestRow, ...], tier: Tier, now: datetime) -> RequestRow | None:
    valid = [
        (request.valid_until, -request.id, request)
        for request in asked
        if request.tier == tier.name
        and request.holds_at(now)
        and not is_used_up(request, tier)
        and request.valid_until is not None
    ]
    return max(valid)[2] if valid else None


def _pending(asked: tuple[RequestRow, ...], tier: Tier) -> RequestRow | None:
    waiting = (r for r in asked if r.tier == tier.name and r.state == "pending")
    return next(waiting, None)


def is_used_up(grant: RequestRow, tier: Tier) -> bool:
    """Whether no more servers may be started on a grant."""
    return tier.grant_starts is not None and grant.uses >= tier.grant_starts


def needs_approval(tier: Tier, asked: tuple[RequestRow, ...], now: datetime) -> str:
    """The sentence for a tier without a grant."""
    waiting = _pending(asked, tier)
    if waiting is not None:
        return f"Tier {tier.name!r} needs approval; your request {waiting.id} waits for a decision."
    coming = [
        r.valid_from for r in asked if r.tier == tier.name and r.valid_from and r.valid_from > now
    ]
    if coming:
        return f"Your grant for tier {tier.name!r} begins {moment(min(coming))}."
    return f"Tier {tier.name!r} needs approval: ask for it first."


def they_wait(tier: Tier, others: int) -> str:
    """The sentence for a tier that others have been waiting for."""
    people = "1 person waits" if others == 1 else f"{others} people wait"
    return (
        f"{people} for tier {tier.name}: what gets free is offered to them first. Take a place in "
        "the waiting list."
    )


def none_free(tier: Tier, total: int, where: str = "") -> str:
    """The sentence for a tier of which nothing can be given out; ``where`` narrows the place."""
    if tier.is_whole:
        head = f"No card is free{where} for tier {tier.name}"
        if not total:
            # A slice over all of a card is a slice: without MIG there is none.
            return f"{head}: no card{'' if tier.mig_off else ' with MIG on'} is in service."
        cards = "the only card is" if total == 1 else f"all {total} cards are"
        return f"{head}{'' if where else f': {cards} in use or out of service'}."
    what = f"seat on a {tier.profile} slice" if tier.shares else f"{tier.profile} slice"
    head = f"No {what} is free{where} for tier {tier.name}"
    if not total:
        return f"{head}: no card is cut into {tier.profile} now."
    return f"{head}{'' if where else f': {total} of {total} are taken or out of service'}."
