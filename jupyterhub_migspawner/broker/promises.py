"""Whole cards promised to grants that begin later, as a start that begins now sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from jupyterhub_migspawner.broker.capacity import out_of_service, stock
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.queries.capacity import Count
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.cards import CardKind, Kinds
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.policy.reservations import latest_by_kind
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.tiers import Tier


def latest_ends(
    tx: Transaction,
    settings: Settings,
    asked: Tier,
    grant: RequestRow | None,
    now: datetime,
    count: Callable[[], Count],
    but: int | None = None,
) -> dict[CardKind, datetime]:
    """Return when a session on a whole card of each kind must give it on to a coming grant.

    Without the kinds that no coming grant needs. The lease ``but`` is its own already.
    """
    coming = []
    for each in queries.requests.coming(tx, now):
        tier = settings.tier(each.tier)
        own = grant is not None and each.id == grant.id
        if tier is not None and tier.is_whole and not own and each.valid_from is not None:
            coming.append((tier, each.valid_from))
    if not coming:
        return {}
    # Sessions may still run on cards that are out of service.
    of_cards = queries.cards.kinds_by_card(tx)
    known, counted = frozenset(of_cards.values()), count()
    return latest_by_kind(
        {kind: _number(counted, asked, frozenset((kind,))) for kind in known},
        [
            (of_cards[lease.card_uuid], lease.known_end(now))
            for lease in queries.leases.select(tx)
            if lease.whole and lease.id != but and lease.card_uuid in of_cards
        ],
        [
            (known if (kinds := tier.kinds(known)) is None else kinds, begin)
            for tier, begin in coming
        ],
    )


def _number(count: Count, tier: Tier, kinds: Kinds) -> int:
    """Return how many cards there are, in service or not."""
    return stock(count, tier, kinds)[1] + out_of_service(count, tier, kinds)


def of_card(
    tx: Transaction, latest: Mapping[CardKind, datetime], card_uuid: str
) -> datetime | None:
    """Return what of the ends by kind holds for one card; None where nothing does."""
    card = queries.cards.by_uuid(tx, card_uuid) if latest else None
    return None if card is None else latest.get(card.row.kind)
