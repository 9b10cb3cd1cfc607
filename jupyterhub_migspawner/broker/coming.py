"""Cards for grants that begin later: kept from when it has to be, and not before."""

from __future__ import annotations

from jupyterhub_migspawner.broker.base import BrokerBase
from jupyterhub_migspawner.broker.reserving import keep_for
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.store import Transaction
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.policy.card_filter import Kinds
from jupyterhub_migspawner.policy.reservation import is_due, longest_session
from jupyterhub_migspawner.policy.tiers import Tier, tiers_on


class Coming(BrokerBase):
    """The use case of a hub's service that looks ahead."""

    def keep_coming_cards(self) -> tuple[str, ...]:
        """Keep a card for each grant of a whole one that begins soon; returns the cards' UUIDs."""

        def work(tx: Transaction) -> tuple[str, ...]:
            # Of several hubs one looks at a time: two would keep a card each for one grant.
            tx.queue_for("coming cards")
            now, known = self._now(), self._known_kinds(tx)
            silent = self._silent_before(now)
            due: list[tuple[int, RequestRow, Tier, Kinds | None]] = []
            for grant in queries.requests.coming(tx, now):
                tier = self.settings.tier(grant.tier)
                if tier is None or not tier.is_whole or grant.valid_from is None:
                    continue
                kinds = tier.kinds(known)
                # What runs on other cards is in nobody's way.
                longest = longest_session(tiers_on(self.settings.tiers, kinds, known))
                if is_due(grant.valid_from, longest, now):
                    due.append((len(known if kinds is None else kinds), grant, tier, kinds))
            # Who can do with any card leaves those that others need.
            due.sort(key=lambda each: each[0])
            kept = [keep_for(tx, grant, tier, now, silent, kinds) for _, grant, tier, kinds in due]
            return tuple(uuid for uuid in kept if uuid)

        return self._run(work)
