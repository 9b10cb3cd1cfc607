"""How much of a tier there is, and the sentence about its cards that are out of service.

Decisions, the form, the REST API and the pages use the same answers.
"""

from __future__ import annotations

from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.queries.capacity import Count
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.cards import Kinds
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import printable

MOST_REASONS = 3
"""How many different reasons a sentence names."""


def stock(
    count: Count,
    tier: Tier,
    kinds: Kinds | None,
    grant_id: int | None = None,
    node: str | None = None,
) -> tuple[int, int]:
    """Return (free, total) of a tier, in seats where it shares slices; both 0 without a GPU.

    ``kinds`` are the kinds of cards that count, here and below; None: all. Only those on a ``node``
    count where one is given.
    """
    if tier.is_none:
        return 0, 0
    if tier.is_whole:
        return count.whole(mig_off=tier.mig_off, grant_id=grant_id, kinds=kinds, node=node)
    return count.seats(tier.name, tier.profile, tier.seats, kinds, node)


def out_of_service(count: Count, tier: Tier, kinds: Kinds | None, node: str | None = None) -> int:
    """Return how many cards of a tier are drained or have a problem."""
    if tier.is_none:
        return 0
    if tier.is_whole:
        return count.whole_out(mig_off=tier.mig_off, kinds=kinds, node=node)
    return count.out_of_profile(tier.profile, kinds, node)


def outage(
    tx: Transaction,
    settings: Settings,
    person: Person,
    tier: Tier,
    count: Count,
    kinds: Kinds | None,
    node: str | None = None,
) -> str:
    """Return the sentence about a tier's cards that are out of service; empty when none is.

    Admins and approvers read the reasons, too: they are the admins' own words, or the driver's.
    """
    out = out_of_service(count, tier, kinds, node)
    total = stock(count, tier, kinds, node=node)[1]
    if not out:
        return ""
    if total:
        head = f"{out} of its cards {'is' if out == 1 else 'are'} out of service"
    else:
        head = "Its only card is" if out == 1 else f"All {out} of its cards are"
        head += " out of service"
    if not (person.admin or settings.approvers.include(person)):
        return f"{head}."
    reasons = queries.cards.reasons_out_of_service(
        tx, None if tier.is_whole else tier.profile, node, mig_off=tier.mig_off, kinds=kinds
    )
    named = "; ".join(printable(each).rstrip(". ") for each in reasons[:MOST_REASONS])
    more = len(reasons) - MOST_REASONS
    return f"{head}: {named}{f'; and {more} more' if more > 0 else ''}."
