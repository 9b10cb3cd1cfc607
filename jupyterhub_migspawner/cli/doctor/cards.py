"""The doctor's look at NVML, the cards and whether the tiers fit them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version

from jupyterhub_migspawner.broker.statuses import FREE, LEASED, SliceStatus
from jupyterhub_migspawner.cli.doctor.findings import OK, WARNING, WRONG, Finding
from jupyterhub_migspawner.cli.output import cut_into
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.model.cards import CardKind, CardRow
from jupyterhub_migspawner.model.inventory import Card, Inventory
from jupyterhub_migspawner.policy.card_filter import CardFilter, nominal_gigabytes
from jupyterhub_migspawner.policy.inventory import recognise
from jupyterhub_migspawner.policy.layouts import desired
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import listed, plural

_PROBLEM = (
    "Look at `nvidia-smi -q -i {uuid}` and at the kernel's log (`dmesg`). The card is used "
    "again as soon as its agent finds no problem."
)

_APPLY = "Cut it to a layout: migspawner layout apply FILE NAME."


def findings(mig: MigBroker, *, known: bool) -> Iterator[Finding]:
    """Look at this machine's cards; ``known`` says whether the lease database can be asked."""
    rows = {row.uuid: row for row in mig.open_broker().cards.find(node=mig.node)} if known else {}
    lent = mig.open_broker().leases.find(node=mig.node) if known else ()
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
        yield from _binding(mig)
        for card in inventory.cards:
            yield _card(card, rows.get(card.uuid), given_whole=card.uuid in whole)
    cards = inventory.cards if inventory is not None else ()
    yield from _tiers(mig.settings().tiers, cards, *(_everywhere(mig) if known else ((), ())))


def _library(inventory: Inventory) -> Iterator[Finding]:
    yield Finding(
        "nvml",
        OK if inventory.cards else WRONG,
        f"NVML {inventory.nvml_version} of driver {inventory.driver_version} lists "
        f"{plural(len(inventory.cards), 'card')}.",
        "" if inventory.cards else "Check `nvidia-smi`: the driver must list the cards first.",
    )


def _binding(mig: MigBroker) -> Iterator[Finding]:
    """Check whether NVIDIA's Python binding is as new as the driver."""
    beyond = mig.open_nvml().profiles_beyond_binding()
    if beyond:
        yield Finding(
            "nvml",
            WARNING,
            f"nvidia-ml-py {version('nvidia-ml-py')} is older than the driver, which has "
            f"{plural(beyond, 'kind')} of MIG profile that it does not know. They are read anyway.",
            "Update it: pip install --upgrade nvidia-ml-py",
        )


def _card(card: Card, row: CardRow | None, *, given_whole: bool) -> Finding:
    """Compare one card as it is with what the lease database says it should be."""
    name = f"Card {card.index} ({card.model}, {card.uuid})"
    problem = card.problem or (row.problem if row is not None else "")
    if problem:
        return Finding("card", WRONG, f"{name}: {problem}", _PROBLEM.format(uuid=card.uuid))
    if row is not None and row.drained:
        return Finding(
            "card",
            WARNING,
            f"{name} is drained, and no new leases start on it: {row.drained.rstrip('.')}.",
            f"When it works again: `migspawner cards resume {card.uuid}`.",
        )
    if not card.mig_capable:
        return Finding("card", WARNING, f"{name} cannot be cut: it has no MIG.", "")
    found = "MIG off" if not card.mig_enabled else cut_into(i.profile for i in card.instances)
    goal = desired(row, given_whole=given_whole) if row is not None else None
    if goal is not None and (goal.wants or not goal.mig):
        here = {(each.profile, each.start) for each in card.instances if each.uuid is not None}
        if (goal.mig, set(goal.wants)) != (card.mig_enabled, here):
            wanted = cut_into(name for name, _ in goal.wants) if goal.mig else "MIG off"
            return Finding(
                "card",
                WARNING,
                f"{name} differs from its desired layout: present is {found or 'no slices'}, "
                f"desired is {wanted}.",
                "The agent cuts it when nothing on it is in use; `migspawner slices` and "
                "`migspawner events` show what is in use and what failed.",
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


def _everywhere(mig: MigBroker) -> tuple[Sequence[CardRow], Sequence[SliceStatus]]:
    """Return the cards of all nodes, as the lease database knows them, and the slices there."""
    broker = mig.open_broker()
    return broker.cards.find(), [each for each in broker.slices.find() if each.row.present]


def _tiers(
    tiers: Iterable[Tier],
    cards: Sequence[Card],
    known: Sequence[CardRow],
    slices: Sequence[SliceStatus],
) -> Iterator[Finding]:
    """Check whether there is something to give for each tier; ``cards`` are of this machine."""
    kinds = {card.uuid: CardKind(card.model, card.memory_mib) for card in cards if card.model}
    # A card that cannot be read now tells less than it did.
    kinds |= {row.uuid: row.kind for row in known}
    lost = {row.uuid for row in known if row.state == "lost"} - {
        card.uuid for card in cards if not card.problem
    }
    there = {uuid: kind for uuid, kind in kinds.items() if uuid not in lost}
    uncut = _without_mig(cards, known)
    some = any(card.profiles for card in cards) or bool(slices)
    for tier in tiers:
        meant = {uuid for uuid, kind in there.items() if _is_named(tier, kind)}
        if tier.card is not None and kinds and not meant:
            if any(_is_named(tier, kind) for kind in kinds.values()):
                yield _with_lost_cards(tier, tier.card)
            else:
                yield _without_cards(tier, tier.card, there.values())
            continue
        if tier.is_whole and not tier.mig_off and meant and meant <= uncut:
            yield _with_mig_off(tier)
            continue
        # Without any card every tier would be wrong, and the sentence above says so already.
        if tier.is_none or tier.is_whole or not some:
            continue
        mine = [card for card in cards if tier.card is None or card.uuid in meant]
        here = sum(each.profile == tier.profile for card in mine for each in card.instances)
        possible = {profile.name for card in mine for profile in card.profiles}
        offered = [
            each
            for each in slices
            if each.row.profile == tier.profile
            and (tier.card is None or each.row.card_uuid in meant)
        ]
        count = max(here, len(offered))
        unusable = sum(each.state not in (FREE, LEASED) for each in offered)
        which = "" if tier.card is None else f" {tier.card.words}"
        if count and unusable:
            left = plural(max(0, count - unusable), "slice")
            yield Finding(
                "tier",
                WARNING,
                f"Tier {tier.name}: {left} of {tier.profile} can be given out; "
                f"{unusable} more cannot, because they are drained, quarantined or missing.",
                "`migspawner slices` shows why.",
            )
        elif count:
            yield Finding(
                "tier", OK, f"Tier {tier.name}: {plural(count, 'slice')} of {tier.profile}."
            )
        elif tier.profile in possible:
            yield Finding(
                "tier",
                WARNING,
                f"Tier {tier.name}: no slice of {tier.profile} is cut"
                f"{f' on a card{which}' if which else ''}.",
                "Cut one (migspawner layout apply), or remove the tier from the configuration.",
            )
        else:
            names = ", ".join(sorted(possible)) or "none"
            yield Finding(
                "tier",
                WRONG,
                f"Tier {tier.name}: no card{which} has the profile {tier.profile}.",
                f"Profiles of this machine's cards{which and ' of that kind'}: {names}.",
            )


def _without_cards(tier: Tier, card: CardFilter, kinds: Iterable[CardKind]) -> Finding:
    models = sorted({_described(kind) for kind in kinds})
    return Finding(
        "tier",
        WRONG,
        f"Tier {tier.name}: its card {card.text!r} matches no known card.",
        f"Write it for one of these, or remove it from the tier: {listed(models)}."
        if models
        else "Write it as `migspawner cards` shows a card's model, or remove it from the tier.",
    )


def _is_named(tier: Tier, kind: CardKind) -> bool:
    """Return whether the tier's field ``card`` means this kind, with MIG or without."""
    return tier.card is None or tier.card.matches(kind)


def _with_lost_cards(tier: Tier, card: CardFilter) -> Finding:
    return Finding(
        "tier",
        WRONG,
        f"Tier {tier.name}: its card {card.text!r} matches only cards that are lost.",
        "`migspawner cards` shows which. If they do not come back, change the field or remove "
        "the tier from the configuration.",
    )


def _without_mig(cards: Sequence[Card], known: Sequence[CardRow]) -> set[str]:
    """Return the cards that have no MIG, as far as is known.

    Of other nodes these are the cards that never had it on.
    """
    here = {card.uuid: card.mig_capable for card in cards if not card.problem}
    mig = {row.uuid: row.mig_enabled or row.mig_wanted or row.whole is not None for row in known}
    return {uuid for uuid, has in {**mig, **here}.items() if not has}


def _with_mig_off(tier: Tier) -> Finding:
    which = "" if tier.card is None else f" {tier.card.words}"
    return Finding(
        "tier",
        WRONG,
        f"Tier {tier.name}: it gives out whole cards with MIG on, but no card{which} has MIG on.",
        'Write "mig": "off" in the tier for cards without MIG, or apply a layout to a card that '
        "can be cut: migspawner layout apply FILE NAME.",
    )


def _described(kind: CardKind) -> str:
    size = nominal_gigabytes(kind.memory_mib)
    return f"{kind.model or 'unknown'} ({'memory unknown' if size is None else f'{size} GB'})"
