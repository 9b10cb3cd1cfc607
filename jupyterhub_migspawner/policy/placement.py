"""Which free slice, which card.

Pure and deterministic: the same values give the same choice in production, in simulation and in
property tests. The aim is to keep whole cards whole: a slice is taken where something lives
already, and among those cards from the one with the least compute left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FreeSlice:
    """A slice that can be given out now."""

    id: int
    card_uuid: str
    profile: str
    start: int
    compute_slices: int


@dataclass(frozen=True)
class CardLoad:
    """How full a card is: compute slices free on it, and live leases on it."""

    card_uuid: str
    node: str
    index: int
    free_compute: int
    live: int


def rank_slices(free: Sequence[FreeSlice], cards: Sequence[CardLoad]) -> list[FreeSlice]:
    """Rank all free slices, best first; a slice on a card that is not in ``cards`` is left out."""
    loads = {card.card_uuid: card for card in cards}

    def key(choice: FreeSlice) -> tuple[bool, int, str, int, int, int]:
        load = loads[choice.card_uuid]
        untouched = load.live == 0
        return (untouched, load.free_compute, load.node, load.index, choice.start, choice.id)

    return sorted((choice for choice in free if choice.card_uuid in loads), key=key)


def choose_slice(free: Sequence[FreeSlice], cards: Sequence[CardLoad]) -> FreeSlice | None:
    """Return the slice to give out next, or None when none is free."""
    ranked = rank_slices(free, cards)
    return ranked[0] if ranked else None


def rank_cards_for_whole(cards: Sequence[CardLoad]) -> list[CardLoad]:
    """Rank cards with nothing live, best first: those whose re-cut takes least from others."""
    idle = [card for card in cards if card.live == 0]
    return sorted(idle, key=lambda card: (card.free_compute, card.node, card.index))


def choose_card_for_whole(cards: Sequence[CardLoad]) -> CardLoad | None:
    """Return the card to give out whole, or None when something lives on every one."""
    ranked = rank_cards_for_whole(cards)
    return ranked[0] if ranked else None
