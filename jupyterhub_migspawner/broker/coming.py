"""Cards for grants that begin later: kept from when it has to be, and not before."""

from __future__ import annotations

from jupyterhub_migspawner.broker.base import BrokerBase
from jupyterhub_migspawner.broker.reserving import keep_for
from jupyterhub_migspawner.leases import requests
from jupyterhub_migspawner.leases.store import Transaction
from jupyterhub_migspawner.policy.reservation import is_due, longest_session


class Coming(BrokerBase):
    """The use case of a hub's service that looks ahead."""

    def keep_coming_cards(self) -> tuple[str, ...]:
        """Keep a card for each grant of a whole one that begins soon; returns the cards' UUIDs."""
        longest = longest_session(self.settings.tiers)

        def work(tx: Transaction) -> tuple[str, ...]:
            # Of several hubs one looks at a time: two would keep a card each for one grant.
            tx.queue_for("coming cards")
            now = self._now()
            kept = []
            for grant in requests.coming(tx, now):
                tier = self.settings.tier(grant.tier)
                if tier is None or not tier.is_whole or grant.valid_from is None:
                    continue
                if is_due(grant.valid_from, longest, now):
                    kept.append(keep_for(tx, grant, tier, now, self._silent_before(now)))
            return tuple(uuid for uuid in kept if uuid)

        return self._run(work)
