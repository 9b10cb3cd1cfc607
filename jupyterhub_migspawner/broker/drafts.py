"""Drafts: requests that a user has begun to write and nobody else sees.

Kept as they were typed. Everything is checked when one is filed; then it becomes a request and is
a draft no more.
"""

from __future__ import annotations

from datetime import datetime

from jupyterhub_migspawner.broker.checks import NAME_LIMIT, REASON_LIMIT, text, wanted_id
from jupyterhub_migspawner.broker.context import Context
from jupyterhub_migspawner.broker.requests import Requests
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.requests import DraftRow, RequestRow
from jupyterhub_migspawner.policy.fields import read_hours, read_moment
from jupyterhub_migspawner.policy.people import Person

MOST_DRAFTS = 20
"""Drafts one person may have."""

SHORT = 100
"""Most characters of hours and time as a user types them."""


class Drafts:
    """Use cases about drafts of this hub's users."""

    def __init__(self, context: Context, requests: Requests) -> None:
        self._context = context
        self._requests = requests

    def save(
        self,
        person: Person,
        *,
        tier: str = "",
        hours: str = "",
        starts_at: str = "",
        reason: str = "",
        draft_id: int | None = None,
    ) -> DraftRow:
        """Keep what was typed, as a new draft or as a new version of ``draft_id``.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``options``, ``not-found``,
        ``conflict``).
        """
        text("user name", person.name, NAME_LIMIT, empty=False)
        values = {
            "tier": text("tier", tier, NAME_LIMIT),
            "hours": text("hours", hours, SHORT),
            "starts_at": text("beginning", starts_at, SHORT),
            "reason": text("reason", reason, REASON_LIMIT),
        }

        def work(tx: Transaction) -> DraftRow:
            now = self._context.now()
            self._context.count_action(tx, person, now)
            tx.queue_for(f"person {person.name}")
            if draft_id is None:
                if len(queries.drafts.of_user(tx, self._context.hub, person.name)) >= MOST_DRAFTS:
                    raise Refusal(
                        f"You have {MOST_DRAFTS} drafts; submit or discard one of them first.",
                        reason="conflict",
                    )
                number = queries.drafts.insert(
                    tx, hub=self._context.hub, username=person.name, changed_at=now, **values
                )
            else:
                number = wanted_id(draft_id)
                queries.drafts.change(
                    tx, self._context.hub, person.name, number, changed_at=now, **values
                )
            return self._draft(tx, person, number)

        return self._context.run(work)

    def of(self, person: Person) -> tuple[DraftRow, ...]:
        """Return a person's drafts, oldest first."""
        return self._context.read(
            lambda tx: queries.drafts.of_user(tx, self._context.hub, person.name)
        )

    def drop(self, person: Person, draft_id: int) -> DraftRow:
        """Discard a draft; return it.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal`.
        """

        def work(tx: Transaction) -> DraftRow:
            self._context.count_action(tx, person, self._context.now())
            found = self._draft(tx, person, wanted_id(draft_id))
            queries.drafts.drop(tx, self._context.hub, person.name, found.id)
            return found

        return self._context.run(work)

    def file(self, person: Person, draft_id: int) -> RequestRow:
        """Make a request of a draft; what is refused stays a draft.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal` as :meth:`.requests.Requests.create`
        does, and ``not-found``.
        """
        found = self._context.read(lambda tx: self._draft(tx, person, wanted_id(draft_id)))
        begin: datetime | None = read_moment(found.starts_at) if found.starts_at.strip() else None
        file = self._requests.filing(
            person, found.tier, read_hours(found.hours), found.reason, begin
        )

        def work(tx: Transaction) -> RequestRow:
            request = file(tx)
            # A draft that is filed twice at once, or was changed meanwhile, is not filed here.
            if self._draft(tx, person, found.id) != found:
                raise Refusal(
                    f"Draft {found.id} was changed in the meantime; check it again.",
                    reason="conflict",
                )
            queries.drafts.drop(tx, self._context.hub, person.name, found.id)
            return request

        return self._context.run(work)

    def _draft(self, tx: Transaction, person: Person, draft_id: int) -> DraftRow:
        found = queries.drafts.by_id(tx, self._context.hub, person.name, draft_id)
        if found is None:
            raise Refusal(f"You have no draft {draft_id}.", reason="not-found")
        return found
