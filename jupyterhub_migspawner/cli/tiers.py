"""``migspawner tiers``: what people can pick, and how much of it is free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from jupyterhub_migspawner.broker.statuses import TierStatus
from jupyterhub_migspawner.broker.views import tier_view
from jupyterhub_migspawner.cli.command import Command, answers
from jupyterhub_migspawner.cli.existence import require_user
from jupyterhub_migspawner.cli.invocation import DONE, Invocation
from jupyterhub_migspawner.cli.options import user as user_option
from jupyterhub_migspawner.cli.output import print_json, print_wrapped
from jupyterhub_migspawner.cli.table import Column, print_table
from jupyterhub_migspawner.model.cards import Kinds
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.queue import pool_of
from jupyterhub_migspawner.policy.tiers import NONE, Tier
from jupyterhub_migspawner.policy.wording import listed, number, printable


@click.command(cls=Command)
@user_option("show them as this user sees them")
@answers(table=True)
def tiers(invocation: Invocation, user: str | None) -> int:
    """Show the tiers that people can pick, and how much of each is free."""
    mig = invocation.mig()
    broker = mig.open_broker()
    configured = mig.settings().tiers
    if user is not None:
        require_user(invocation, broker, user)
    people = _everybody(configured) if user is None else [invocation.person(user)]
    offers: dict[str, TierStatus] = {}
    for person in people:
        for offer in broker.tiers.of(person):
            offers.setdefault(offer.tier.name, offer)
    order = [tier.name for tier in configured]
    rows: list[dict[str, Any]] = [dict(tier_view(offers[name])) for name in order if name in offers]
    if invocation.as_json:
        print_json(rows)
        return DONE
    for row in rows:
        if row["profile"] == NONE:
            row["free"] = row["total"] = row["seats"] = None
        row["memory"] = None if row["memory_gib"] is None else f"{number(row['memory_gib'])} GiB"
        if row["title"] == row["name"]:
            row["title"] = None
    columns = [
        Column("tier", "name"),
        Column("profile", "profile"),
        *([Column("card", "card")] if any(row["card"] for row in rows) else []),
        Column("seats", "seats", number=True),
        Column("free", "free", number=True),
        Column("of", "total", number=True),
        Column("approval", "approval"),
        Column("max hours", "max_hours", number=True),
        *([Column("cpus", "cpus", number=True)] if any(row["cpus"] for row in rows) else []),
        *([Column("memory", "memory")] if any(row["memory_gib"] for row in rows) else []),
        Column("title", "title", below=True),
        Column("description", "description", below=True),
    ]
    print_table(columns, rows, empty="No tier is open to this user.")
    shown = [offers[name].tier for name in order if name in offers]
    for sentence in shared(shown, frozenset(card.kind for card in broker.cards.find())):
        print_wrapped(sentence)
    for row in rows:
        if row["outage"]:
            print_wrapped(f"{printable(row['name'])}: {row['outage']}")
    return DONE


def shared(tiers: Sequence[Tier], known: Kinds) -> Iterator[str]:
    """Yield sentences on which tiers give the same slices or cards.

    ``known`` are the kinds of cards there are.
    """
    groups: list[list[Tier]] = []
    for tier in tiers:
        if tier.is_none:
            continue
        pool = pool_of(tier, known)
        near = [g for g in groups if any(pool.overlaps(pool_of(each, known)) for each in g)]
        groups = [group for group in groups if group not in near]
        groups.append([*(each for group in near for each in group), tier])
    for group in groups:
        if len(group) > 1:
            what = "cards" if group[0].is_whole else f"slices of {group[0].profile}"
            means = {known if (kinds := tier.kinds(known)) is None else kinds for tier in group}
            part = "" if len(means) == 1 else "some of "
            names = listed([tier.name for tier in tiers if tier in group])
            yield f"The tiers {names} share {part}their {what}, so their numbers overlap."


def _everybody(tiers: Sequence[Tier]) -> list[Person]:
    """Return people who see all tiers between them: an admin in every group, then who is named."""
    groups = frozenset(group for tier in tiers for group in tier.groups)
    named = [tier.users[0] for tier in tiers if tier.users and not tier.groups]
    return [Person(name, groups=groups, admin=True) for name in ["", *dict.fromkeys(named)]]
