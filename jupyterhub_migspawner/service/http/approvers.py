"""Who decides on requests, among the visitors of the service."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.model.parts import MOST_ROWS, Part
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.policy.approval import Approvers
from jupyterhub_migspawner.service.http.auth import Visitor

MOST_READS = 10
"""Parts of the table that are looked through for one part of a list."""


def is_approver(visitor: Visitor, approvers: Approvers) -> bool:
    """Return whether this visitor decides on requests at all (never on their own)."""
    by = visitor.decider
    return by.admin or approvers.include(by)


@dataclass(frozen=True)
class Decidable:
    """A part of the requests that are a visitor's to decide, oldest first.

    ``older_than`` is where to go on: there may be others with smaller ids; None where there are
    none.
    """

    requests: tuple[RequestRow, ...]
    older_than: int | None


def decidable(
    broker: Broker,
    visitor: Visitor,
    approvers: Approvers,
    part: Part,
    states: Collection[str] | None = None,
) -> Decidable:
    """Return the requests that are this visitor's to decide, or to see that they are their own.

    Whose they are to decide, the database does not know. So a bounded number of rows is looked at;
    a part may be shorter than asked for though others follow.
    """
    found: list[RequestRow] = []
    before = part.before
    for _ in range(MOST_READS):
        rows = broker.requests.find(states=states, part=Part(MOST_ROWS, before))
        found[:0] = only_shown(rows, visitor, approvers)
        if len(found) > part.limit:
            kept = found[-part.limit :]
            return Decidable(tuple(kept), kept[0].id)
        if len(rows) < MOST_ROWS:
            return Decidable(tuple(found), None)
        before = rows[0].id
    return Decidable(tuple(found), before)


def only_shown(
    requests: Iterable[RequestRow], visitor: Visitor, approvers: Approvers
) -> list[RequestRow]:
    """Return those of some requests that are a visitor's own, or theirs to decide."""
    by = visitor.decider
    return [
        request
        for request in requests
        if by.admin or request.user == by.name or approvers.cover(by, request.tier, request.groups)
    ]
