"""The doctor's look at NVML, the cards and whether the tiers fit them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from jupyterhub_migspawner.cli.findings import OK, WARNING, WRONG, Finding
from jupyterhub_migspawner.cli.output import cut_into
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.cards import Card, Inventory
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import plural


def findings(mig: MigBroker, *, known: bool) -> Iterator[Finding]:
    """Look at this machine's cards; ``known``: the lease database can be asked."""
    inventory = None
    try:
        inventory = mig.open_nvml().inventory()
    except GpuError as error:
        yield Finding(
            "nvml",
            WRONG,
            str(error),
            "Install NVIDIA's driver on this machine, or set c.MigBroker.nvml for simulated cards.",
        )
    else:
        yield from _library(inventory)
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
    for card in inventory.cards:
        yield _card(card)


def _card(card: Card) -> Finding:
    name = f"Card {card.index} ({card.model}, {card.uuid})"
    if card.problem:
        return Finding("card", WRONG, f"{name}: {card.problem}", "Do as the sentence says.")
    if not card.mig_capable:
        return Finding("card", WARNING, f"{name} cannot be cut: it has no MIG.", "")
    if not card.mig_enabled:
        return Finding(
            "card",
            WRONG,
            f"{name} has MIG off.",
            f"As root, when nobody uses the card: nvidia-smi -i {card.index} -mig 1.",
        )
    if not card.instances:
        return Finding(
            "card",
            WRONG,
            f"{name} has no slices.",
            f"As root: nvidia-smi mig -i {card.index} -cgi PROFILE,PROFILE -C.",
        )
    half = [instance for instance in card.instances if instance.uuid is None]
    if half:
        return Finding(
            "card",
            WRONG,
            f"{name} has {plural(len(half), 'GPU instance')} without a compute instance.",
            f"As root: nvidia-smi mig -i {card.index} -gi {half[0].gi_id} -cci.",
        )
    cut = cut_into(instance.profile for instance in card.instances)
    return Finding("card", OK, f"{name} is cut into {cut}.")


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
                "Cut one with nvidia-smi mig -cgi, or take the tier out of the configuration.",
            )
        else:
            names = ", ".join(sorted(possible)) or "none"
            yield Finding(
                "tier",
                WRONG,
                f"Tier {tier.name}: no card has the profile {tier.profile}.",
                f"Profiles of this machine's cards: {names}.",
            )
