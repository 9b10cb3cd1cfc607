"""Cards: drained, resumed, and hit by errors that the driver reports."""

from __future__ import annotations

from jupyterhub_migspawner.broker.checks import NAME_LIMIT, REASON_LIMIT, text, wanted_name
from jupyterhub_migspawner.broker.context import Context
from jupyterhub_migspawner.broker.recorder import lease_event, slice_event
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.gpu.xids import is_uncontained, xid_name
from jupyterhub_migspawner.model.cards import CardRow
from jupyterhub_migspawner.model.inventory import GpuEvent
from jupyterhub_migspawner.policy.wording import quoted


class Cards:
    """Use cases about cards."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def find(self, node: str | None = None) -> tuple[CardRow, ...]:
        """Return the cards of one node or of all."""
        of_node = None if node is None else wanted_name(node)
        records = self._context.read(lambda tx: queries.cards.select(tx, of_node))
        return tuple(record.row for record in records)

    def record_xid(self, node: str, event: GpuEvent) -> None:
        """Record an XID error on the slice or card it hit.

        After one that the hardware did not contain, the slice is quarantined, or the card drained
        when it hit all of it; leases on them go on. Where the driver reports a recovery action, it
        decides for those XIDs that can be serious or harmless.
        """
        if event.xid is None:
            return
        xid = event.xid
        what = f"XID {xid} ({xid_name(xid)})" if xid_name(xid) else f"XID {xid}"
        bad = is_uncontained(xid, event.recovery_action)

        def work(tx: Transaction) -> None:
            queries.cards.lock(tx, event.card_uuid)
            card = queries.cards.by_uuid(tx, event.card_uuid)
            if card is None:
                return
            now = self._context.now()
            row = next(
                (
                    each
                    for each in queries.slices.select(tx, card_uuid=event.card_uuid)
                    if each.present and event.gi_id is not None and each.gi_id == event.gi_id
                ),
                None,
            )
            for lease in queries.leases.select(tx, card_uuid=event.card_uuid):
                if row is None or lease.slice_id == row.id:
                    lease_event(tx, lease, now, node, kind="lease.xid", xid=xid, why=what)
            if row is None:
                queries.events.append(
                    tx, now, node, "card.xid", card_uuid=event.card_uuid, xid=xid, why=what
                )
                if bad and not card.drained:
                    why = f"{what}; reset it or restart its node, then `migspawner cards resume`"
                    queries.cards.update(tx, event.card_uuid, drained=why)
                    queries.events.append(
                        tx, now, node, "card.drained", card_uuid=event.card_uuid, why=why
                    )
                return
            slice_event(tx, now, node, "slice.xid", row, xid=xid, why=what)
            if bad and not row.quarantined:
                why = f"{what}; reset its card, then `migspawner cards resume`"
                queries.slices.update(tx, row.id, quarantined=why)
                slice_event(tx, now, node, "slice.quarantined", row, why=why)

        self._context.run(work)

    def move(self, card_uuid: str, node: str, actor: str) -> CardRow:
        """Let a card belong to another node, with the leases on it.

        For a card that was moved to another machine, or a machine that has a new name, where the
        agents have no rights on each other's cards. Raises
        :class:`~jupyterhub_migspawner.errors.Refusal`: ``not-found``, or ``conflict`` while the
        agent of its node reports the card.
        """
        text("actor", actor, NAME_LIMIT)

        def work(tx: Transaction) -> CardRow:
            queries.cards.lock(tx, wanted_name(card_uuid))
            card = queries.cards.by_uuid(tx, wanted_name(card_uuid))
            if card is None:
                raise Refusal(f"There is no card {quoted(card_uuid)}.", reason="not-found")
            if queries.nodes.by_name(tx, wanted_name(node)) is None:
                raise Refusal(
                    f"There is no node {quoted(node)}; start its agent first.", reason="not-found"
                )
            if card.row.node == node:
                return card.row
            now = self._context.now()
            before = queries.nodes.by_name(tx, card.row.node)
            reports = before is not None and before.heartbeat_at >= self._context.silent_before(now)
            if reports and not card.lost:
                raise Refusal(
                    f"The agent of node {card.row.node} reports card {card_uuid}; stop it, or take "
                    "the card out of that machine.",
                    reason="conflict",
                )
            queries.cards.update(tx, card_uuid, node=node)
            queries.leases.follow_card(tx, card_uuid, node)
            queries.events.append(
                tx,
                now,
                actor,
                "card.changed",
                card_uuid=card_uuid,
                changed={"node": node},
                before=card.row.node,
            )
            return (queries.cards.by_uuid(tx, card_uuid) or card).row

        return self._context.run(work)

    def drain(self, card_uuid: str, why: str, actor: str) -> CardRow:
        """Give out nothing new on a card; leases on it go on.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal`: ``not-found``, ``options``.
        """
        text("reason", why, REASON_LIMIT, empty=False)
        return self._set_drained(card_uuid, why, actor)

    def resume(self, card_uuid: str, actor: str) -> CardRow:
        """Take back a drain; no change when the card is not drained."""
        return self._set_drained(card_uuid, "", actor)

    def _set_drained(self, card_uuid: str, why: str, actor: str) -> CardRow:
        text("actor", actor, NAME_LIMIT)

        def work(tx: Transaction) -> CardRow:
            queries.cards.lock(tx, wanted_name(card_uuid))
            card = queries.cards.by_uuid(tx, wanted_name(card_uuid))
            if card is None:
                raise Refusal(f"There is no card {quoted(card_uuid)}.", reason="not-found")
            if card.drained == why:
                return card.row
            queries.cards.update(tx, card_uuid, drained=why)
            kind = "card.drained" if why else "card.resumed"
            queries.events.append(
                tx, self._context.now(), actor, kind, card_uuid=card_uuid, why=why
            )
            after = queries.cards.by_uuid(tx, card_uuid) or card
            return after.row

        return self._context.run(work)
