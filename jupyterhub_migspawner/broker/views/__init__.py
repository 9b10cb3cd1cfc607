"""Rows as JSON-ready dicts, for the command line and the REST API alike; one file a noun.

Keys are stable; times are UTC as ``2026-11-22T17:53:16Z``. A viewer who is not a hub admin does not
learn who else holds what: other people's leases show as a state only. The docstrings of the types
and their fields are published in the OpenAPI description.
"""

from jupyterhub_migspawner.broker.views.cards import Card, Node, card_view, node_view
from jupyterhub_migspawner.broker.views.events import Event, event_view
from jupyterhub_migspawner.broker.views.json import timestamp
from jupyterhub_migspawner.broker.views.leases import (
    Adopted,
    Lease,
    Unproven,
    adoption_view,
    lease_view,
    unproven_view,
)
from jupyterhub_migspawner.broker.views.notices import NoticeChoices, notices_view
from jupyterhub_migspawner.broker.views.queue import Ticket, ticket_view
from jupyterhub_migspawner.broker.views.quotas import (
    Limit,
    QuotaException,
    exception_view,
    quota_view,
)
from jupyterhub_migspawner.broker.views.requests import Draft, Request, draft_view, request_view
from jupyterhub_migspawner.broker.views.sessions import Session, standing_view, stranded_view
from jupyterhub_migspawner.broker.views.slices import Slice, slice_view
from jupyterhub_migspawner.broker.views.tiers import Tier, tier_view

__all__ = [
    "Adopted",
    "Card",
    "Draft",
    "Event",
    "Lease",
    "Limit",
    "Node",
    "NoticeChoices",
    "QuotaException",
    "Request",
    "Session",
    "Slice",
    "Ticket",
    "Tier",
    "Unproven",
    "adoption_view",
    "card_view",
    "draft_view",
    "event_view",
    "exception_view",
    "lease_view",
    "node_view",
    "notices_view",
    "quota_view",
    "request_view",
    "slice_view",
    "standing_view",
    "stranded_view",
    "ticket_view",
    "tier_view",
    "timestamp",
    "unproven_view",
]
