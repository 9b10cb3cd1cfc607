"""``migspawner tiers``: what people can pick, and how much of it is free."""

from __future__ import annotations

from collections.abc import Sequence

from jupyterhub_migspawner.broker.statuses import TierOffer
from jupyterhub_migspawner.broker.views import tier_view
from jupyterhub_migspawner.cli.command import DONE, Command, argument
from jupyterhub_migspawner.cli.output import Column, print_json, print_table
from jupyterhub_migspawner.cli.people import person_named
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.tiers import NONE, Tier


class Tiers(Command):
    """The tiers."""

    name = "migspawner tiers"
    description = "What people can pick, and how much of it is free now."
    arguments = (argument("--user", metavar="NAME", help="as this user would see them"),)

    def run(self) -> int:
        """List them."""
        mig = self.mig()
        name = self.option("user")
        people = (
            _everybody(mig.settings().tiers)
            if name is None
            else [person_named(self.hub_config(), name)]
        )
        broker = mig.open_broker()
        offers: dict[str, TierOffer] = {}
        for person in people:
            for offer in broker.tiers_for(person):
                offers.setdefault(offer.tier.name, offer)
        order = [tier.name for tier in mig.settings().tiers]
        rows = [tier_view(offers[name]) for name in order if name in offers]
        if self.as_json:
            print_json(rows)
            return DONE
        for row in rows:
            if row["profile"] == NONE:
                row["free"] = row["total"] = row["seats"] = None
        columns = [
            Column("tier", "name"),
            Column("profile", "profile"),
            Column("seats", "seats", number=True),
            Column("free", "free", number=True),
            Column("of", "total", number=True),
            Column("approval", "approval"),
            Column("max hours", "max_hours", number=True),
            Column("description", "description"),
        ]
        print_table(columns, rows, empty="No tier is open to this user.")
        return DONE


def _everybody(tiers: Sequence[Tier]) -> list[Person]:
    """People who see all tiers between them: a stranger in every group, then who is named."""
    groups = frozenset(group for tier in tiers for group in tier.groups)
    named = [tier.users[0] for tier in tiers if tier.users and not tier.groups]
    return [Person(name, groups=groups) for name in ["", *dict.fromkeys(named)]]
