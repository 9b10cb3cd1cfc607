"""What each person can have now: tiers with what is free, and the sentences for when it is not.

Read-only. The form, the REST API, the command line and the refusals of
:mod:`.acquiring` all use these answers, so that they agree.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from jupyterhub_migspawner.broker import promises, unadopted
from jupyterhub_migspawner.broker.allowances import Allowances
from jupyterhub_migspawner.broker.grants import free_grant, in_use, valid_grants
from jupyterhub_migspawner.broker.statuses import TierOffer
from jupyterhub_migspawner.broker.stock import outage, stock
from jupyterhub_migspawner.broker.waiting import Ahead, Waits
from jupyterhub_migspawner.leases import ledger, requests, wholes
from jupyterhub_migspawner.leases.rows import RequestRow
from jupyterhub_migspawner.leases.store import Transaction
from jupyterhub_migspawner.policy import queue, quota, tiers
from jupyterhub_migspawner.policy.card_filter import CardKind, Kinds
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import moment, quoted


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
        known = self._known_kinds(tx)
        mine = tiers.seen_tiers(self.settings.tiers, person)
        limits, _ = self._limits(tx, person, now)
        leases = (
            *ledger.counted_of(tx, person.name),
            *unadopted.sessions(tx, self.settings, person.name, now),
        )
        sessions = [lease for lease in leases if lease.ticket_id is None]
        used = self._usage(tx, person, limits, now, sessions)
        held = [lease for lease in leases if lease.ticket_id is not None and lease.hub == self.hub]
        # They are given back as soon as the service looks at them, and nobody is sent there.
        unfit = [lease for lease in held if not self._still_gives(tx, lease)]
        offered = {lease.tier: lease for lease in held if not lease.ending and lease not in unfit}
        asked = requests.open_of_user(tx, person.name) if any(t.approval for t in mine) else ()
        waiting = self._served(tx, now)
        usable_tiers = tiers.open_tiers(self.settings.tiers, person)
        offers = []
        for tier in mine:
            held_now = offered.get(tier.name)
            grants = valid_grants(asked, tier, now)
            others = [lease for lease in leases if lease is not held_now]
            # One that is in use is shown as well: it needs no new request.
            unused = free_grant(grants, others)
            grant = unused or (grants[0] if grants else None)
            grant_id = grant.id if grant is not None else None
            kinds = tier.kinds(known)
            latest = {} if held_now else self._promises(tx, tier, grant, now)
            left, all_promised = promises.unpromised(tx, latest, kinds, now)
            free, total = stock(count, tier, left, grant_id)[0], stock(count, tier, kinds)[1]
            out = outage(tx, self.settings, person, tier, count, kinds)
            same = sharing(tier, mine, known)
            why = tiers.may_use(tier, person)
            if why:
                offers.append(
                    TierOffer(
                        tier,
                        free,
                        total,
                        False,
                        why,
                        None,
                        open=False,
                        shares_with=same,
                        shares_all=on_all(tier, same, known),
                        outage=out,
                    )
                )
                continue
            if tier.approval and grant is None:
                why = needs_approval(tier, asked, now)
            elif tier.approval and unused is None:
                why = str(in_use(self.settings, tier, grants, others, now))
                if any(lease.tier == tier.name and not lease.ending for lease in unfit):
                    why = going_back(tier)
            why = why or quota.check(limits, used, tier)
            ahead = Ahead() if tier.is_none else self._ahead(waiting, person, tier, known)
            full = ""
            if tier.is_none or held_now:
                pass
            elif all_promised:
                full = all_promised
            elif free:
                may = self._may_take(tx, tier, grant, now, ahead, known)
                if may == frozenset():
                    full = they_wait(tier, ahead.others)
                elif latest:
                    full = promises.unpromised(tx, latest, may, now)[1]
            elif not self._empties_a_card(tx, tier, grant, left, now):
                full = f"{none_free(tier, total, out=out)} {out}".rstrip()
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
                    larger=queue.upward(tier, usable_tiers, known)[1:],
                    shares_with=same,
                    shares_all=on_all(tier, same, known),
                    outage=out,
                )
            )
        return tuple(offers)

    def _promises(
        self,
        tx: Transaction,
        tier: Tier,
        grant: RequestRow | None,
        now: datetime,
        but: int | None = None,
    ) -> dict[CardKind, datetime]:
        """When a session that begins now has to give a whole card on, by its kind."""
        if not tier.is_whole:
            return {}
        count = self._count(tx, now)
        return promises.latest_ends(tx, self.settings, tier, grant, now, count, but)

    def _empties_a_card(
        self,
        tx: Transaction,
        tier: Tier,
        grant: RequestRow | None,
        kinds: Kinds | None,
        now: datetime,
    ) -> bool:
        """Whether a start is worth it though nothing is free: it sets a card aside."""
        if grant is None or not tier.is_whole:
            return False
        return bool(
            wholes.busy_cards(
                tx,
                self._silent_before(now),
                grant_id=grant.id,
                mig_off=tier.mig_off,
                kinds=kinds,
            )
        )

    def _instead(self, tx: Transaction, person: Person, tier: Tier, now: datetime) -> str:
        """What could be had instead of a tier of which nothing is free."""
        offers = self._offers(tx, person, now)
        usable = [
            offer.tier.title if offer.tier.is_none else f"{offer.tier.title} ({offer.free})"
            for offer in offers
            if offer.usable and offer.tier.name != tier.name and (offer.free or offer.tier.is_none)
        ]
        if usable:
            return f"Free now: {', '.join(usable)}."
        return "Nothing else is free for you now: join the waiting list."


def sharing(tier: Tier, others: Iterable[Tier], known: Kinds) -> tuple[Tier, ...]:
    """The other tiers that count the same slices, or the same cards, as this one does.

    ``known`` are the kinds of cards there are: tiers on other cards share nothing.
    """
    if tier.is_none:
        return ()
    pool = queue.pool_of(tier, known)
    return tuple(
        each for each in others if each is not tier and pool.overlaps(queue.pool_of(each, known))
    )


def on_all(tier: Tier, others: Iterable[Tier], known: Kinds) -> bool:
    """Whether the others mean the very cards that this one means, however that is written."""
    mine = queue.pool_of(tier, known).among(known)
    return all(queue.pool_of(each, known).among(known) == mine for each in others)


def _pending(asked: tuple[RequestRow, ...], tier: Tier) -> RequestRow | None:
    waiting = (r for r in asked if r.tier == tier.name and r.state == "pending")
    return next(waiting, None)


def needs_approval(tier: Tier, asked: tuple[RequestRow, ...], now: datetime) -> str:
    """The sentence for a tier without a grant."""
    waiting = _pending(asked, tier)
    if waiting is not None:
        return (
            f"Tier {quoted(tier.title)} needs approval; your request {waiting.id} waits for a "
            "decision."
        )
    coming = [
        r.valid_from for r in asked if r.tier == tier.name and r.valid_from and r.valid_from > now
    ]
    if coming:
        return f"Your grant for tier {quoted(tier.title)} begins {moment(min(coming))}."
    return f"Tier {quoted(tier.title)} needs approval: ask for it first."


def going_back(tier: Tier) -> str:
    """The sentence for a tier whose offer it does not give any more."""
    return (
        f"Your grant for tier {quoted(tier.title)} is still in use: the card that was held for you "
        "is being given back, since the tier gives others now. Try again in a minute."
    )


def they_wait(tier: Tier, others: int) -> str:
    """The sentence for a tier that others have been waiting for."""
    people = "1 person is waiting" if others == 1 else f"{others} people are waiting"
    return (
        f"{people} for tier {tier.title}: what becomes free is offered to them first. Join the "
        "waiting list."
    )


def none_free(tier: Tier, total: int, where: str = "", out: str = "") -> str:
    """The sentence for a tier of which nothing can be given out; ``where`` narrows the place.

    ``out`` is what is said of its cards that are out of service.
    """
    if tier.is_whole:
        head = f"No card is free{where} for tier {tier.title}"
        if not total and out:
            return f"{head}."
        if not total:
            # A slice over all of a card is a slice: without MIG there is none.
            which = "" if tier.mig_off else " with MIG on"
            if tier.card is not None:
                return f"{head}: no card {tier.card.words} is in service{which}."
            return f"{head}: no card{which} is in service."
        cards = "the only card is" if total == 1 else f"all {total} cards are"
        return f"{head}{'' if where else f': {cards} in use or out of service'}."
    what = f"seat on a {tier.profile} slice" if tier.shares else f"{tier.profile} slice"
    head = f"No {what} is free{where} for tier {tier.title}"
    if not total and out:
        return f"{head}."
    if not total:
        which = "" if tier.card is None else f" {tier.card.words}"
        return f"{head}: no card{which} is cut into {tier.profile} now."
    slices = "the only one is" if total == 1 else f"{total} of {total} are"
    return f"{head}{'' if where else f': {slices} taken or out of service'}."
