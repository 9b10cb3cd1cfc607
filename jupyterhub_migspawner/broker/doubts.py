"""Sessions that admins should look at, and what they were notified of."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from jupyterhub_migspawner.broker.base import BROKER
from jupyterhub_migspawner.broker.reclaiming import UNTOLD, Reclaiming, silence_of
from jupyterhub_migspawner.broker.recording import lease_event
from jupyterhub_migspawner.broker.statuses import Standing
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.store import Transaction
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy import doubts


class Doubts(Reclaiming):
    """Use cases about sessions whose use is in doubt."""

    def note_unknown(self) -> tuple[LeaseRow, ...]:
        """Note, once each, which sessions admins should look at: nobody can tell for long whether
        they are in use, or only they themselves say so.

        The warning that their people got of an end is withdrawn while they are unknown: they will
        be warned again.
        """
        changed = [each.lease.id for each in self.standings() if self._changes(each, self._now())]

        def work(tx: Transaction) -> tuple[LeaseRow, ...]:
            told = []
            for lease_id in changed:
                found = self._found(tx, lease_id)
                if found is None:
                    continue
                now = self._now()
                changes = self._changes(found, now)
                if changes:
                    queries.sessions.change(tx, lease_id, **changes)
                doubt = found.doubt
                if doubt is not None and changes.get("alerted_at") is not None:
                    kind = f"lease.{doubt.kind}"
                    lease_event(tx, found.lease, now, BROKER, kind=kind, why=doubt.why)
                    told.append(found.lease)
            return tuple(told)

        return self._run(work) if changed else ()

    def _changes(self, found: Standing, now: datetime) -> dict[str, Any]:
        """What is to be noted about a session's silence, and about what admins were notified of."""
        stay, since = found.stay, found.verdict.unknown_since
        changes: dict[str, Any] = {}
        silence = doubts.heard(silence_of(stay), since, now, self._patience().silent)
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
