"""Which card to empty for a user who may have a whole one, when none is free.

Pure and deterministic. Emptying ends nobody's session: it only gives nothing new out. So it matters
how many people are on the card, who will have nowhere to start again there, and how soon the last
of them is bound to be gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class BusyCard:
    """A card that people are on: who, and when each lease ends at the latest (None: no limit)."""

    card_uuid: str
    node: str
    index: int
    people: frozenset[str]
    ends: tuple[datetime | None, ...]

    @property
    def empty_at(self) -> datetime | None:
        """When the last lease on it ends at the latest; None when nobody can say."""
        known = [end for end in self.ends if end is not None]
        return max(known) if known and len(known) == len(self.ends) else None


def rank_cards_to_empty(cards: Sequence[BusyCard]) -> list[BusyCard]:
    """Rank cards, best first: fewest people, then which is empty soonest, then fewest leases."""

    def key(card: BusyCard) -> tuple[int, bool, float, int, str, int, str]:
        end = card.empty_at
        soon = end.timestamp() if end is not None else 0.0
        ends = len(card.ends)
        return (len(card.people), end is None, soon, ends, card.node, card.index, card.card_uuid)

    return sorted(cards, key=key)


def choose_card_to_empty(cards: Sequence[BusyCard]) -> BusyCard | None:
    """Return the card to give out nothing new on, or None when there is none."""
    ranked = rank_cards_to_empty(cards)
    return ranked[0] if ranked else None
