"""The doctor's look at NVML, the cards and whether the tiers fit them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from jupyterhub_migspawner.broker.recognising import recognise
from jupyterhub_migspawner.broker.wanting import desired
from jupyterhub_migspawner.cli.findings import OK, WARNING, WRONG, Finding
from jupyterhub_migspawner.cli.output import cut_into
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.cards import Card, Inventory
from jupyterhub_migspawner.leases.rows import CardRow
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import plural

_APPLY = "Cut it by a file of layouts: migspawner layout apply FILE NAME."


def findings(mig: MigBroker, *, known: bool) -> Iterator[Finding]:
    """Look at this machine's cards; ``known``: the lease database can be asked."""
    rows = {row.uuid: row for row in mig.open_broker().cards(node=mig.node)} if known else {}
    lent = mig.open_broker().leases(node=mig.node) if known else ()
    whole = {lease.card_uuid for lease in lent if lease.whole}
    inventory = None
    try:
        inventory = recognise(mig.open_nvml().inventory(), tuple(rows.values()))
    except GpuError as error:
        yield Finding(
            "nvml",
            WRONG,
            str(error),
            "Install NVIDIA's driver on this machine, or set c.MigBroker.nvml for simulated cards.",
        )
    else:
        yield from _library(inventory)
        for card in inventory.cards:
            yield _card(card, rows.get(card.uuid), given_whole=card.uuid in whole)
    offered = _cut_elsewhere(mig) if known else Counter()
    yield from _tiers(mig.settings().tiers, inventory, offered)


def _library(inventory: Inventory) -> Iterator[Finding]:
    yield Finding(
        "nvml",
        OK if inventory.cards else WRONG,
        f"NVML {inventory.nvml_version} of driver {inventory.driver_version} lists "
        f"{plural(len(inventory.cards), 'card')}.",
        "" if inventory.cards else "See `nvidia-smi`: the driver must list the cards first.",
    )


def _card(card: Card, row: CardRow | None, *, given_whole: bool) -> Finding:
    """One card as it is, against what the lease database says it should be."""
    name = f"Card {card.index} ({card.model}, {card.uuid})"
    problem = card.problem or (row.problem if row is not None else "")
    if problem:
        return Finding("card", WRONG, f"{name}: {problem}", "Do as the sentence says.")
    if not card.mig_capable:
        return Finding("card", WARNING, f"{name} cannot be cut: it has no MIG.", "")
    found = "MIG off" if not card.mig_enabled else cut_into(i.profile for i in card.instances)
    wish = desired(row, given_whole=given_whole) if row is not None else None
    if wish is not None and (wish.wants or not wish.mig):
        here = {(each.profile, each.start) for each in card.instances if each.uuid is not None}
        if (wish.mig, set(wish.wants)) != (card.mig_enabled, here):
            wanted = cut_into(name for name, _ in wish.wants) if wish.mig else "MIG off"
            return Finding(
                "card",
                WARNING,
                f"{name} is not yet as it should be: {found or 'no slices'}, wanted is {wanted}.",
                "The agent cuts it when nobody is in the way; `migspawner slices` and `migspawner "
                "events` show who is, and what failed.",
            )
        return Finding("card", OK, f"{name} is as it should be: {found}.")
    if given_whole:
        return Finding("card", OK, f"{name} is given out whole: {found}.")
    if not card.mig_enabled:
        return Finding("card", WRONG, f"{name} has MIG off.", _APPLY)
    if not card.instances:
        return Finding("card", WRONG, f"{name} has no slices.", _APPLY)
    half = [instance for instance in card.instances if instance.uuid is None]
    if half:
        return Finding(
            "card",
            WRONG,
            f"{name} has {plural(len(half), 'GPU instance')} without a compute instance.",
            _APPLY,
        )
    return Finding("card", OK, f"{name} is cut into {found}.")


def _cut_elsewhere(mig: MigBroker) -> Counter[str]:
    """Slices by profile on every node that the lease database knows."""
    return Counter(
        status.row.profile for status in mig.open_broker().slices() if status.row.present
    )


def _tiers(
    tiers: Iterable[Tier], inventory: Inventory | None, offered: Counter[str]
) -> Iterator[Finding]:
    cards = inventory.cards if inventory else ()
    here = Counter(instance.profile for card in cards for instance in card.instances)
    possible = {profile.name for card in cards for profile in card.profiles}
    if not possible and not offered:
        # Without any card every tier would be wrong, and the sentence above says so already.
        return
    for tier in tiers:
        if tier.is_none or tier.is_whole:
            continue
        count = max(here[tier.profile], offered[tier.profile])
        if count:
            yield Finding(
                "tier", OK, f"Tier {tier.name}: {plural(count, 'slice')} of {tier.profile}."
            )
        elif tier.profile in possible:
            yield Finding(
                "tier",
                WARNING,
                f"Tier {tier.name}: no slice of {tier.profile} is cut.",
                "Cut one (migspawner layout apply), or take the tier out of the configuration.",
            )
        else:
            names = ", ".join(sorted(possible)) or "none"
            yield Finding(
                "tier",
                WRONG,
                f"Tier {tier.name}: no card has the profile {tier.profile}.",
                f"Profiles of this machine's cards: {names}.",
            )
