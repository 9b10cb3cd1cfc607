"""Slices: how each stands, and which of them are given to nobody."""

from __future__ import annotations

from collections.abc import Sequence

from jupyterhub_migspawner.broker import quarantine
from jupyterhub_migspawner.broker.checks import (
    NAME_LIMIT,
    REASON_LIMIT,
    stored,
    text,
    wanted_id,
    wanted_name,
)
from jupyterhub_migspawner.broker.context import BROKER, Context
from jupyterhub_migspawner.broker.quarantine import PASSING, STRAY, stray_reason
from jupyterhub_migspawner.broker.recorder import slice_event
from jupyterhub_migspawner.broker.statuses import (
    DRAINING,
    FREE,
    LEASED,
    MISSING,
    QUARANTINED,
    SliceStatus,
)
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.cards import CardRow
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.nodes import NodeRow
from jupyterhub_migspawner.model.slices import SliceRow
from jupyterhub_migspawner.policy.wording import moment


class Slices:
    """Use cases about slices."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def find(self, node: str | None = None) -> tuple[SliceStatus, ...]:
        """Return slices of a node, or all, that exist or should, with state and live leases."""
        of_node = None if node is None else wanted_name(node)

        def work(tx: Transaction) -> tuple[SliceStatus, ...]:
            silent_before = self._context.silent_before(self._context.now())
            silent = {n.name: n for n in queries.nodes.select(tx) if n.heartbeat_at < silent_before}
            cards = {record.row.uuid: record.row for record in queries.cards.select(tx, of_node)}
            live = queries.leases.select(tx, node=of_node)
            leases: dict[int, list[LeaseRow]] = {}
            for lease in live:
                leases.setdefault(lease.slice_id, []).append(lease)
            whole = {lease.card_uuid for lease in live if lease.whole}
            statuses = []
            for row in queries.slices.select(tx, node=of_node):
                card, on_it = cards.get(row.card_uuid), tuple(leases.get(row.id, ()))
                if card is None:
                    continue  # it was seen for the first time after the cards were read
                wanted = (
                    (row.profile, row.start) in card.layout
                    and card.target is None
                    and card.uuid not in whole
                )
                if row.present or on_it or row.quarantined or wanted:
                    state, why = _state(row, card, on_it, silent.get(card.node))
                    statuses.append(SliceStatus(row, state, on_it, why))
            return tuple(statuses)

        return self._context.read(work)

    def shared(self, node: str) -> frozenset[int]:
        """Return the ids of a node's slices that several live leases may share."""
        return self._context.read(lambda tx: queries.slices.shared(tx, wanted_name(node)))

    def quarantine(self, slice_id: int, why: str, actor: str) -> SliceRow:
        """Quarantine a slice: it is given to nobody from now on, and a lease on it ends as usual.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal`: ``not-found``, ``options``.
        """
        text("reason", why, REASON_LIMIT, empty=False)
        return self._set_quarantine(slice_id, why, actor)

    def unquarantine(self, slice_id: int, actor: str) -> SliceRow:
        """Let a quarantined slice be given out again; no change when it is not quarantined."""
        return self._set_quarantine(slice_id, "", actor)

    def _set_quarantine(self, slice_id: int, why: str, actor: str) -> SliceRow:
        text("actor", actor, NAME_LIMIT)

        def work(tx: Transaction) -> SliceRow:
            row = queries.slices.by_id(tx, wanted_id(slice_id))
            if row is None:
                raise Refusal(f"There is no slice {slice_id}.", reason="not-found")
            queries.cards.lock(tx, row.card_uuid)
            row = queries.slices.by_id(tx, slice_id) or row
            # A server that runs there keeps it shut, whatever other sources say.
            then = why or quarantine.reason_for(tx, row)
            if row.quarantined == then:
                return row
            queries.slices.update(tx, slice_id, quarantined=then)
            kind = "slice.quarantined" if then else "slice.unquarantined"
            slice_event(tx, self._context.now(), actor, kind, row, why=then or row.quarantined)
            return queries.slices.by_id(tx, slice_id) or row

        return self._context.run(work)

    def shut_out(self, slice_id: int, pids: Sequence[int], who: str = "") -> bool:
        """Quarantine a slice that processes use though nobody has it; False when it is leased.

        ``who`` are the processes in words. The slice comes back by :meth:`let_in_again` when they
        are gone, or by hand.
        """
        why = f"{STRAY} {who}." if who else stray_reason(pids)
        return self._set_passing(slice_id, why, leased=False)

    def keep_back(self, slice_id: int, why: str) -> bool:
        """Quarantine a slice that is not empty after a lease on it, until :meth:`let_in_again`.

        ``why`` begins with :data:`.quarantine.LEFTOVER`. Returns False where it is quarantined for
        another reason.
        """
        return self._set_passing(slice_id, stored(why), leased=True)

    def _set_passing(self, slice_id: int, why: str, *, leased: bool) -> bool:
        """Quarantine a slice until a process is gone.

        The event is that of the first reason only: processes that start others again and again fill
        no log.
        """

        def work(tx: Transaction) -> bool:
            row = queries.slices.by_id(tx, wanted_id(slice_id))
            if row is None:
                return False
            queries.cards.lock(tx, row.card_uuid)
            row = queries.slices.by_id(tx, slice_id)
            if row is None or (row.quarantined and not row.quarantined.startswith(PASSING)):
                return False
            live = queries.leases.select(tx, card_uuid=row.card_uuid)
            if not leased and any(lease.slice_id == row.id for lease in live):
                return False
            if row.quarantined != why:
                queries.slices.update(tx, row.id, quarantined=why)
            if not row.quarantined:
                slice_event(tx, self._context.now(), BROKER, "slice.quarantined", row, why=why)
            return True

        return self._context.run(work)

    def let_in_again(self, slice_id: int) -> None:
        """Take back what :meth:`shut_out` or :meth:`keep_back` did; other quarantines stay."""

        def work(tx: Transaction) -> None:
            row = queries.slices.by_id(tx, wanted_id(slice_id))
            if row is None:
                return
            queries.cards.lock(tx, row.card_uuid)
            row = queries.slices.by_id(tx, slice_id)
            if row is None or not row.quarantined.startswith(PASSING):
                return
            queries.slices.update(tx, row.id, quarantined="")
            why = "the processes on it are gone"
            slice_event(tx, self._context.now(), BROKER, "slice.unquarantined", row, why=why)

        self._context.run(work)


def _not_empty(row: SliceRow, leases: Sequence[LeaseRow]) -> str:
    """Return the sentence about a leased slice on which a session ended without a proof so far."""
    ended = [lease.releasing_at or lease.since for lease in leases if lease.ending]
    if not ended:
        return ""
    said = f"A session on it ended at {moment(min(ended))}, and the slice is not proven empty yet."
    return f"{said} {row.quarantined}".rstrip()


def _state(
    row: SliceRow, card: CardRow, leases: Sequence[LeaseRow], silent: NodeRow | None
) -> tuple[str, str]:
    if leases:
        if row.wanted or leases[0].whole:
            return LEASED, _not_empty(row, leases)
        last = "the lease ends" if len(leases) == 1 else "its leases end"
        why = f"The card's layout no longer has this slice; it will be destroyed when {last}."
        return DRAINING, why
    if row.quarantined:
        return QUARANTINED, row.quarantined
    if card.state == "lost":
        return MISSING, f"Node {card.node} no longer lists its card."
    if not row.present:
        return MISSING, f"Node {card.node} does not list it."
    if silent is not None:
        return MISSING, f"Node {card.node} has not reported since {moment(silent.heartbeat_at)}."
    if card.state == "draining":
        return DRAINING, "Its card is drained."
    if card.problem:
        return DRAINING, card.problem
    if card.target is not None:
        return DRAINING, "Its card is being re-cut."
    if not row.wanted:
        return DRAINING, "The card's layout no longer has this slice."
    if card.reserved_for is not None:
        return DRAINING, f"Its card is being emptied for grant {card.reserved_for}."
    return FREE, ""
