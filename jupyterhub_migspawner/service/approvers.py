"""Who decides on requests, among the visitors of the service."""

from __future__ import annotations

from collections.abc import Iterable

from jupyterhub_migspawner.leases.rows import RequestRow
from jupyterhub_migspawner.policy.approval import Approvers
from jupyterhub_migspawner.service.auth import Visitor


def is_approver(visitor: Visitor, approvers: Approvers) -> bool:
    """Whether this visitor decides on requests at all (never on their own)."""
    return visitor.decider.admin or approvers.include(visitor.person)


def decidable(
    visitor: Visitor, requests: Iterable[RequestRow], approvers: Approvers
) -> tuple[RequestRow, ...]:
    """The requests that are this visitor's to decide, or to see that they are their own."""
    return tuple(
        request
        for request in requests
        if visitor.decider.admin
        or request.user == visitor.person.name
        or approvers.cover(visitor.person, request.tier, request.groups)
    )
