"""Who decides on requests, among the visitors of the service."""

from __future__ import annotations

from jupyterhub_migspawner.policy.approval import Approvers
from jupyterhub_migspawner.service.auth import Visitor


def is_approver(visitor: Visitor, approvers: Approvers) -> bool:
    """Whether this visitor decides on requests at all (never on their own)."""
    return visitor.decider.admin or approvers.include(visitor.person)
