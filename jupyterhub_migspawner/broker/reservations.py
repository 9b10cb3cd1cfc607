"""Whole cards kept for grants: for one that begins soon, or for a start that found none free.

Nobody's session ends for it: nothing new is given out on the card, and once it is empty the grant's
next start gets it. Relies on :mod:`..policy.draining` for the choice. Promises that a grant has at
most one card reserved, that a card for a later grant is kept from when it has to be and not before,
and that a reservation ends with its grant, when the grant got a card, and when the empty card was
not used in time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from jupyterhub_migspawner.broker.admission import LeaseAsk
from jupyterhub_migspawner.broker.context import BROKER, Context
from jupyterhub_migspawner.db import allocation, queries
from jupyterhub_migspawner.db.queries.cards import CardRecord
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.cards import CardRow, Kinds
from jupyterhub_migspawner.model.leases import RELEASING
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.policy.draining import BusyCard, rank_cards_to_empty
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.reservations import is_due, longest_session
from jupyterhub_migspawner.policy.tiers import Tier, tiers_on
from jupyterhub_migspawner.policy.wording import moment

MINUTE = timedelta(minutes=1)
NO_CARD = "its tier no longer gives out whole cards"
OTHER_CARDS = "its tier now gives out other cards"
"""Why a card is not set aside any more for a grant that holds."""

KEPT = timedelta(minutes=30)
"""How long an empty card waits for the start of the person it was emptied for."""


class Reservations:
    """Use cases of a hub's service: it knows the tiers, which the agents of nodes do not."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def keep(self) -> tuple[str, ...]:
        """Keep a card for each grant of a whole one that begins soon; return the cards' UUIDs."""

        def work(tx: Transaction) -> tuple[str, ...]:
            # Of several hubs one looks at a time: two would keep a card each for one grant.
            tx.queue_for("coming cards")
            tx.flush()  # it is later when the other has done
            now, known = self._context.now(), self._context.known_kinds(tx)
            silent = self._context.silent_before(now)
            due: list[tuple[int, RequestRow, Tier, Kinds | None]] = []
            only_node = self._context.settings.only_node or None
            for grant in queries.requests.coming(tx, now):
                if only_node is not None and grant.hub != self._context.hub:
                    continue  # its servers may run elsewhere
                tier = self._context.settings.tier(grant.tier)
                if tier is None or not tier.is_whole or grant.valid_from is None:
                    continue
                kinds = tier.kinds(known)
                # What runs on other cards is in nobody's way.
                longest = longest_session(tiers_on(self._context.settings.tiers, kinds, known))
                if is_due(grant.valid_from, longest, now):
                    due.append((len(known if kinds is None else kinds), grant, tier, kinds))
            # Who can do with any card leaves those that others need.
            due.sort(key=lambda each: each[0])
            kept = [
                keep_for(tx, grant, tier, now, silent, kinds, only_node)
                for _, grant, tier, kinds in due
            ]
            return tuple(uuid for uuid in kept if uuid)

        return self._context.run(work)

    def look_after(self) -> None:
        """End the reservations of cards whose grants, or whose time, are over."""

        def why_void(grant: RequestRow, card: CardRow) -> str:
            tier = self._context.settings.tier(grant.tier)
            if grant.hub != self._context.hub:
                return ""
            if tier is None or not tier.is_whole:
                return NO_CARD
            return "" if tier.means(card.kind) else OTHER_CARDS

        self._context.run(lambda tx: look_after_reservations(tx, self._context.now(), why_void))


def reserve(
    tx: Transaction,
    asking: LeaseAsk,
    grant: RequestRow,
    silent_before: datetime,
    kinds: Kinds | None,
) -> str:
    """Begin, or go on, to empty a card for the grant; return the sentence for it, or ``""``.

    A card of one of certain ``kinds``, where these are given.
    """
    if not asking.tier.is_whole:
        return ""
    found = allocation.cards.busy_cards(
        tx,
        silent_before,
        asking.on_node,
        grant_id=grant.id,
        mig_off=asking.tier.mig_off,
        kinds=kinds,
    )
    leases = queries.leases.select(tx) if found else ()
    cards = []
    for load, _ in found:
        live = [lease for lease in leases if lease.card_uuid == load.card_uuid]
        people = frozenset(lease.user for lease in live)
        ends = tuple(lease.known_end(asking.now) for lease in live)
        cards.append(BusyCard(load.card_uuid, load.node, load.index, people, ends))
    reserved = {load.card_uuid for load, is_reserved in found if is_reserved}
    for card in rank_cards_to_empty([c for c in cards if c.card_uuid in reserved] or cards):
        if card.card_uuid in reserved:
            return _sentence(card, grant)
        # One that was set aside before is out of service, or on another node than is asked for.
        end_reservation(tx, grant.id, asking.now, "another card is being emptied instead")
        queries.cards.lock(tx, card.card_uuid)
        record = queries.cards.by_uuid(tx, card.card_uuid)
        if record is None or record.row.reserved_for is not None:
            continue
        queries.cards.update(tx, card.card_uuid, reserved_for=grant.id, reserved_until=None)
        queries.events.append(
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


def keep_for(
    tx: Transaction,
    grant: RequestRow,
    tier: Tier,
    now: datetime,
    silent: datetime,
    kinds: Kinds | None,
    only_node: str | None = None,
) -> str:
    """Keep a card for a grant that begins later; return its UUID, or ``""`` when there is none.

    An idle one, else one that comes back whole in time, else one that is emptied; of one of certain
    ``kinds``, and on ``only_node``, where these are given.
    """
    for record in queries.cards.select(tx):
        if record.row.reserved_for == grant.id:
            if not tier.means(record.row.kind):
                end_reservation(tx, grant.id, now, OTHER_CARDS)
            elif _is_in_service(record):
                return record.row.uuid
            else:
                end_reservation(tx, grant.id, now, "the card is out of service")
    asking = LeaseAsk(
        person=Person(grant.user),
        server="",
        tier=tier,
        attempt="",
        now=now,
        deadline=now,
        only_node=only_node,
    )
    idle = allocation.cards.idle_cards(
        tx, silent, only_node, grant_id=grant.id, mig_off=tier.mig_off, kinds=kinds
    )
    for uuid in [card.load.card_uuid for card in idle] + _coming_back(
        tx, grant, tier, now, only_node
    ):
        queries.cards.lock(tx, uuid)
        found = queries.cards.by_uuid(tx, uuid)
        if found is None or found.row.reserved_for is not None or not _is_in_service(found):
            continue
        queries.cards.update(tx, uuid, reserved_for=grant.id, reserved_until=None)
        queries.events.append(
            tx,
            now,
            BROKER,
            "card.reserved",
            user=grant.user,
            card_uuid=uuid,
            request_id=grant.id,
            people=len({lease.user for lease in queries.leases.select(tx, card_uuid=uuid)}),
        )
        return uuid
    reserve(tx, asking, grant, silent, kinds)
    kept = [r.row.uuid for r in queries.cards.select(tx) if r.row.reserved_for == grant.id]
    return kept[0] if kept else ""


def _is_in_service(record: CardRecord) -> bool:
    return record.row.state == "ok" and not record.row.problem


def _coming_back(
    tx: Transaction, grant: RequestRow, tier: Tier, now: datetime, only_node: str | None
) -> list[str]:
    """Return the cards that are lent whole, or on their way back, and free before the grant begins.

    Only those that its ``tier`` means. One that should have been proven empty long ago is not
    counted on.
    """
    found = []
    for record in queries.cards.select(tx, only_node):
        if not tier.means(record.row.kind):
            continue
        live = queries.leases.select(tx, card_uuid=record.row.uuid)
        back = all(
            lease.whole
            and not lease.overdue(now)
            and (lease.state == RELEASING or not _is_after(lease.ends_at, grant.valid_from))
            and (lease.state == RELEASING or lease.ends_at is not None)
            for lease in live
        )
        if back and (live or record.row.target is not None):
            found.append(record.row.uuid)
    return found


def end_reservation(tx: Transaction, grant_id: int, now: datetime, why: str) -> None:
    """Give whatever card is set aside for a grant back to everybody."""
    for record in queries.cards.select(tx):
        if record.row.reserved_for == grant_id:
            _unreserve(tx, record.row, now, why)


def look_after_reservations(
    tx: Transaction, now: datetime, why_void: Callable[[RequestRow, CardRow], str]
) -> None:
    """Take back the reservations of cards that are over; let the empty ones run out.

    ``why_void`` says of a grant and its card why its tier does not give that any more, or ``""``.
    """
    held = {r.row.uuid for r in queries.cards.select(tx) if r.row.reserved_for is not None}
    for uuid in sorted(held):
        queries.cards.lock(tx, uuid)
        record = queries.cards.by_uuid(tx, uuid)
        if record is None or record.row.reserved_for is None:
            continue
        card = record.row
        grant = queries.requests.look(tx, record.row.reserved_for)
        if grant is None or grant.state != "approved" or not _is_after(grant.valid_until, now):
            _unreserve(tx, card, now, "the grant is over")
        elif why := why_void(grant, card):
            _unreserve(tx, card, now, why)
        elif queries.leases.select(tx, card_uuid=card.uuid):
            if card.reserved_until is not None:
                queries.cards.update(tx, card.uuid, reserved_until=None)
        elif card.reserved_until is None:
            # For a grant that begins later, from its beginning on.
            kept = max(now, grant.valid_from or now) + KEPT
            queries.cards.update(tx, card.uuid, reserved_until=kept)
            queries.events.append(
                tx,
                now,
                BROKER,
                "card.emptied",
                user=grant.user,
                card_uuid=card.uuid,
                request_id=grant.id,
                kept_until=kept.isoformat(),
            )
        elif not _is_after(card.reserved_until, now):
            _unreserve(tx, card, now, "the empty card was not used in time")


def _is_after(moment: datetime | None, now: datetime | None) -> bool:
    return moment is not None and now is not None and moment > now


def _unreserve(tx: Transaction, card: CardRow, now: datetime, why: str) -> None:
    queries.cards.lock(tx, card.uuid)
    record = queries.cards.by_uuid(tx, card.uuid)
    if record is None or record.row.reserved_for != card.reserved_for:
        return
    queries.cards.update(tx, card.uuid, reserved_for=None, reserved_until=None)
    queries.events.append(
        tx,
        now,
        BROKER,
        "card.unreserved",
        card_uuid=card.uuid,
        request_id=card.reserved_for,
        why=why,
    )


def _sentence(card: BusyCard, grant: RequestRow) -> str:
    people = "1 person is" if len(card.people) == 1 else f"{len(card.people)} people are"
    end = card.empty_at
    until = f", until {moment(end)} at the latest" if end is not None else ""
    return (
        f"Card {card.index} of node {card.node} is being emptied for your grant {grant.id}: "
        f"{people} still on it{until}. Start again when it is empty: it is kept for you for "
        f"{KEPT // MINUTE} minutes."
    )
