"""Sessions that admins should look at, and what they were notified of."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from jupyterhub_migspawner.broker.context import BROKER, Context
from jupyterhub_migspawner.broker.recorder import lease_event
from jupyterhub_migspawner.broker.sessions import UNTOLD, Sessions, silence_of
from jupyterhub_migspawner.broker.statuses import Standing
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy import doubts


class Doubts:
    """Use cases about sessions whose use is in doubt."""

    def __init__(self, context: Context, sessions: Sessions) -> None:
        self._context = context
        self._sessions = sessions

    def note(self) -> tuple[LeaseRow, ...]:
        """Note, once each, which sessions admins should look at; return their leases.

        Those are sessions whose use has been unknown for long, or is claimed only by the sessions
        themselves. While the use is unknown, the warning of an end that their users got is
        withdrawn: they will be warned again.
        """
        changed = [
            each.lease.id
            for each in self._sessions.standings()
            if self._changes(each, self._context.now())
        ]

        def work(tx: Transaction) -> tuple[LeaseRow, ...]:
            recorded = []
            for lease_id in changed:
                found = self._sessions.found(tx, lease_id)
                if found is None:
                    continue
                now = self._context.now()
                changes = self._changes(found, now)
                if changes:
                    queries.sessions.change(tx, lease_id, **changes)
                doubt = found.doubt
                if doubt is not None and changes.get("alerted_at") is not None:
                    kind = f"lease.{doubt.kind}"
                    lease_event(tx, found.lease, now, BROKER, kind=kind, why=doubt.why)
                    recorded.append(found.lease)
            return tuple(recorded)

        return self._context.run(work) if changed else ()

    def _changes(self, found: Standing, now: datetime) -> dict[str, Any]:
        """Return what is to be noted about a session's silence and what admins were notified of."""
        stay, since = found.stay, found.verdict.unknown_since
        changes: dict[str, Any] = {}
        silence = doubts.heard(silence_of(stay), since, now, self._sessions.patience().silent)
        if silence != silence_of(stay):
            changes["silent_since"] = silence.since if silence else None
            changes["silent_at"] = silence.last if silence else None
        if since is not None and stay.told_until is not None:
            changes |= UNTOLD
        kind = None if found.doubt is None else found.doubt.kind
        if kind != stay.alerted_for:
            changes["alerted_for"] = kind
            changes["alerted_at"] = None if kind is None else now
        return changes
