"""Tiers as JSON, as they are for one person."""

from __future__ import annotations

from typing_extensions import TypedDict

from jupyterhub_migspawner.broker.statuses import TierStatus
from jupyterhub_migspawner.broker.views.json import Timestamp, plain, timestamp
from jupyterhub_migspawner.broker.views.requests import Request, request_view


class Tier(TypedDict):
    """A tier as it is for one person now."""

    name: str
    title: str
    description: str
    profile: str
    """A MIG profile such as 1g.5gb, 'whole' for a whole card, 'none' for no GPU."""
    card: str | None
    """Which cards the tier means: a pattern of model names such as A100*, or a memory size such as
    >=40GB; null for any card."""
    seats: int
    """How many sessions of this tier can share a slice; 1 if slices are not shared."""
    free: int
    """How many are free now, in seats if slices are shared; 0 for a tier without a GPU."""
    total: int
    """How many there are in the desired layouts of the cards in service, free or not."""
    shares_with: list[str]
    """Other tiers that use the same slices or cards."""
    usable: bool
    """Whether this person could start it now."""
    why: str
    """Why not, in a sentence; empty when usable."""
    soon: bool
    """Whether the only obstacle is an earlier session of this person that is ending; a start waits
    for it."""
    outage: str
    """A sentence about cards of the tier that are out of service, for admins and approvers with the
    reasons; empty if there are none."""
    approval: bool
    cpus: float | None
    """How many of the machine's CPUs each server may use; null if the tier does not limit them."""
    memory_gib: float | None
    """How much main memory each server may use, in GiB; null if the tier does not limit it."""
    max_hours: float | None
    idle_minutes: float | None
    grant: Request | None
    """The person's valid grant, if the tier needs approval."""
    waiting: int
    """How many other people wait for the same."""
    ticket: int | None
    """The person's own ticket for it."""
    held_until: Timestamp | None
    """Until when an offer is held for the person."""


def tier_view(offer: TierStatus) -> Tier:
    """Return a tier as it is for one person."""
    tier = offer.tier
    return {
        "name": tier.name,
        "title": tier.title,
        "description": tier.description,
        "profile": tier.profile,
        "card": None if tier.card is None else tier.card.text,
        "seats": tier.seats,
        "free": offer.free,
        "total": offer.total,
        "shares_with": [each.name for each in offer.shares_with],
        "usable": offer.usable,
        "why": offer.why,
        "soon": offer.soon,
        "outage": offer.outage,
        "approval": tier.approval,
        "cpus": plain(tier.cpus),
        "memory_gib": plain(tier.memory_gib),
        "max_hours": tier.max_hours,
        "idle_minutes": plain(tier.idle_minutes),
        "grant": request_view(offer.grant) if offer.grant else None,
        "waiting": offer.waiting,
        "ticket": offer.ticket.id if offer.ticket else None,
        "held_until": timestamp(offer.held.deadline) if offer.held else None,
    }
