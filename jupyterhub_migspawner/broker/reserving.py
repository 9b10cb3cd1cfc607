"""Emptying a card for a grant, when somebody starts who may have a whole one and none is free.

Nobody's session ends for it: nothing new is given out on the card, and once it is empty the grant's
next start gets it. Relies on :mod:`..policy.draining` for the choice. Promises that a grant has at
most one card reserved, and that a reservation ends with its grant.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jupyterhub_migspawner.broker.base import BROKER
from jupyterhub_migspawner.leases import events, inventory, ledger, requests, shelf
from jupyterhub_migspawner.leases.rows import RequestRow
from jupyterhub_migspawner.leases.store import Transaction
from jupyterhub_migspawner.policy.draining import BusyCard, rank_cards_to_empty
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import moment


@dataclass(frozen=True)
class Asking:
    """One acquire: who, for which server, what, in which attempt, where."""

    person: Person
    server: str
    tier: Tier
    attempt: str
    node: str | None
    now: datetime
    deadline: datetime


def reserve(tx: Transaction, asking: Asking, grant: RequestRow, silent_before: datetime) -> str:
    """Begin, or go on, to empty a card for the grant; the sentence that says so, or ``""``."""
    if not asking.tier.is_whole:
        return ""
    found = shelf.busy_cards(
        tx, silent_before, asking.node, grant_id=grant.id, mig_off=asking.tier.mig_off
    )
    if not found:
        return ""
    leases = ledger.select(tx)
    cards = []
    for load, _ in found:
        live = [lease for lease in leases if lease.card_uuid == load.card_uuid]
        people = frozenset(lease.user for lease in live)
        ends = tuple(lease.ends_at for lease in live)
        cards.append(BusyCard(load.card_uuid, load.node, load.index, people, ends))
    reserved = {load.card_uuid for load, is_reserved in found if is_reserved}
    for card in rank_cards_to_empty([c for c in cards if c.card_uuid in reserved] or cards):
        inventory.lock_card(tx, card.card_uuid)
        record = inventory.card_record(tx, card.card_uuid)
        if record is None or record.row.reserved_for not in (None, grant.id):
            continue
        if record.row.reserved_for is None:
            inventory.update_card(tx, card.card_uuid, reserved_for=grant.id)
            events.append(
                tx,
                asking.now,
                asking.person.name,
                "card.reserved",
                user=asking.person.name,
                card_uuid=card.card_uuid,
                request_id=grant.id,
                people=len(card.people),
            )
        return _sentence(card, grant)
    return ""


def drop_reservations(tx: Transaction, node: str, now: datetime) -> None:
    """Take back the reservations of grants that are over."""
    for record in inventory.card_records(tx, node):
        grant_id = record.row.reserved_for
        if grant_id is None:
            continue
        grant = requests.by_id(tx, grant_id)
        valid = grant is not None and grant.state == "approved" and grant.valid_until is not None
        if valid and grant is not None and grant.valid_until and grant.valid_until > now:
            continue
        inventory.lock_card(tx, record.row.uuid)
        inventory.update_card(tx, record.row.uuid, reserved_for=None)
        events.append(
            tx,
            now,
            BROKER,
            "card.unreserved",
            card_uuid=record.row.uuid,
            request_id=grant_id,
            why="the grant is over",
        )


def _sentence(card: BusyCard, grant: RequestRow) -> str:
    people = "1 person is" if len(card.people) == 1 else f"{len(card.people)} people are"
    end = card.empty_at
    until = f", until {moment(end)} at the latest" if end is not None else ""
    return (
        f"Card {card.index} of node {card.node} is being emptied for your grant {grant.id}: "
        f"{people} still on it{until}. Start again when it is empty: it is kept for you."
    )
