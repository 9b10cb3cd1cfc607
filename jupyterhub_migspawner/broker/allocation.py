"""What a lease takes: a slice, a seat on one, or a whole card, out of what is free just now."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from jupyterhub_migspawner.broker.admission import LeaseAsk
from jupyterhub_migspawner.db import allocation, queries
from jupyterhub_migspawner.db.allocation.cards import IdleCard
from jupyterhub_migspawner.db.allocation.seats import SharedSlice
from jupyterhub_migspawner.db.allocation.slices import Allocation, Candidate
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.cards import Kinds
from jupyterhub_migspawner.policy import placement
from jupyterhub_migspawner.policy.tiers import Tier


class Contended(Exception):
    """Something is free, but others are just taking it; nothing was changed."""


def take(
    tx: Transaction,
    asking: LeaseAsk,
    grant_id: int | None,
    silent_before: datetime,
    kinds: Kinds | None,
    *,
    patient: bool,
) -> Allocation | None:
    """Hold a slice, a seat on one, or a whole card for this lease; None when nothing is free.

    ``kinds``, where given, are the kinds of cards to take from. Raises :exc:`Contended` when others
    are just taking what is free; with ``patient`` they are waited for first.
    """
    tier = asking.tier
    profile = None if tier.is_whole else tier.profile

    def seats_now(tx: Transaction) -> list[SharedSlice]:
        if not tier.shares:
            return []
        return allocation.seats.offers(
            tx, tier.name, tier.profile, tier.seats, silent_before, asking.on_node, kinds
        )

    def shelf_now(tx: Transaction) -> tuple[list[Candidate], list[IdleCard]]:
        if not tier.is_whole:
            return allocation.slices.offers(tx, profile, silent_before, asking.on_node, kinds), []
        idle = allocation.cards.idle_cards(
            tx, silent_before, asking.on_node, grant_id=grant_id, mig_off=tier.mig_off, kinds=kinds
        )
        # The card that is kept for the grant comes before a slice over all of another one.
        if tier.mig_off or any(card.is_kept for card in idle):
            return [], idle
        return allocation.slices.offers(tx, profile, silent_before, asking.on_node, kinds), idle

    if tx.postgres:
        with tx.together() as asked:
            queries.leases.next_id(asked)
            seats_now(asked)
            shelf_now(asked)
    lease_id = queries.leases.next_id(tx)
    shared = seats_now(tx)
    if shared and not patient:
        taken = _take_seat(tx, shared, tier, settled=False)
        if taken is None:
            # Rather wait for who is just sitting down there than open another slice.
            raise Contended
        return _numbered(taken, lease_id)
    offers, idle = shelf_now(tx)
    seen = bool(shared or offers or idle)
    if patient and seen:
        # All at once, for everybody waits for cards in one order.
        cards = _cards_of(shared, offers, idle)
        settled = allocation.slices.settle(tx, cards, alone=tier.is_whole)
        # Read again: what was waited for has changed it.
        shared = seats_now(tx)
        offers, idle = shelf_now(tx)
        seen = bool(shared or offers or idle)
        shared = [each for each in shared if each.card_uuid in settled]
        offers = [offer for offer in offers if offer.slice.card_uuid in settled]
        idle = [card for card in idle if card.load.card_uuid in settled]
    taken = (
        _take_seat(tx, shared, tier, settled=patient)
        or _take_slice(tx, offers, profile, tier, settled=patient)
        or _take_card(tx, asking, idle)
    )
    if taken is None:
        if seen:
            raise Contended
        return None
    return _numbered(taken, lease_id)


def _numbered(taken: Allocation, lease_id: int) -> Allocation:
    return replace(taken, lease_id=lease_id) if lease_id else taken


def _cards_of(
    shared: list[SharedSlice], offers: list[Candidate], idle: list[IdleCard]
) -> frozenset[str]:
    """Return the UUIDs of the cards on which something was seen."""
    return frozenset(
        [
            *(each.card_uuid for each in shared),
            *(each.slice.card_uuid for each in offers),
            *(each.load.card_uuid for each in idle),
        ]
    )


def _take_seat(
    tx: Transaction, shared: list[SharedSlice], tier: Tier, *, settled: bool
) -> Allocation | None:
    return allocation.seats.join(tx, shared, tier.name, tier.profile, tier.seats, settled=settled)


def _take_slice(
    tx: Transaction, offers: list[Candidate], profile: str | None, tier: Tier, *, settled: bool
) -> Allocation | None:
    by_id = {offer.slice.id: offer for offer in offers}
    ranked = placement.rank_slices(
        [offer.slice for offer in offers], [offer.load for offer in offers]
    )
    return allocation.slices.take(
        tx,
        [by_id[choice.id] for choice in ranked],
        profile,
        settled=settled,
        shared_by=tier.name if tier.shares else None,
    )


def _take_card(tx: Transaction, asking: LeaseAsk, idle: list[IdleCard]) -> Allocation | None:
    cards = {card.load.card_uuid: card for card in idle}
    for load in placement.rank_cards_for_whole([card.load for card in idle]):
        taken = allocation.cards.take_card(tx, cards[load.card_uuid])
        if taken is not None:
            if taken.slice_uuid is None:
                _record_target(tx, asking, taken)
            return taken
    return None


def _record_target(tx: Transaction, asking: LeaseAsk, taken: Allocation) -> None:
    queries.events.append(
        tx,
        asking.now,
        asking.person.name,
        "card.target",
        card_uuid=taken.card_uuid,
        target=[[taken.profile, taken.start]],
        why="given out whole",
    )
