"""Desired layouts of cards, and each step of a cut.

Used by the process that cuts a card: the node's agent, or the command line. Rule three of the
design is kept here: a slice is claimed for its destruction in the transaction that finds it not
desired and held by nobody, and what is claimed is given to nobody. The claimant holds the node's
cutting lock until the card was read again, so that no older reading brings the slice back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jupyterhub_migspawner.broker.checks import NAME_LIMIT, stored, text, wanted_name
from jupyterhub_migspawner.broker.context import Context
from jupyterhub_migspawner.broker.inventory_changes import plain
from jupyterhub_migspawner.broker.quarantine import reason_for
from jupyterhub_migspawner.broker.recorder import slice_event
from jupyterhub_migspawner.broker.targets import update_desired
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.cards import MIG_OFF, CardRow, Want
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.slices import SliceRow
from jupyterhub_migspawner.policy.layouts import desired, is_reached
from jupyterhub_migspawner.policy.wording import moment, quoted


class Layouts:
    """Use cases about the layouts of cards."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def set(self, card_uuid: str, wants: Sequence[Want], mig_enabled: bool, actor: str) -> CardRow:
        """Set the desired layout of a card as :meth:`choose` does, for places that are known."""
        return self.choose(card_uuid, lambda live: wants, mig_enabled, actor)

    def choose(
        self,
        card_uuid: str,
        choose: Callable[[Sequence[LeaseRow]], Sequence[Want]],
        mig_enabled: bool,
        actor: str,
    ) -> CardRow:
        """Set the desired layout of a card; the process that cuts it brings it there.

        Slices that the layout does not have are given to nobody from this moment, and go when
        nobody holds them. A card that is given out whole takes the layout when that lease ends.
        Whether the card can be cut so is for the caller to know. Calling it again changes nothing.

        ``choose`` gives the places, from the live leases on the card, while nobody can take another
        one of its slices. It may be called again, when the database has to run all of it again.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal`: ``not-found``; ``conflict`` when the
        card is lost; ``options`` for slices with MIG off.
        """
        text("actor", actor, NAME_LIMIT)

        def work(tx: Transaction) -> CardRow:
            record = self._locked(tx, card_uuid)
            card = record.row
            if record.lost:
                raise Refusal(
                    f"Card {card.index} ({card.uuid}) of node {card.node} is lost; restart the "
                    "node, or leave the card out.",
                    reason="conflict",
                )
            chosen = choose(queries.leases.select(tx, card_uuid=card_uuid))
            layout = tuple(sorted(chosen, key=lambda want: want[1]))
            if layout and not mig_enabled:
                raise Refusal("A card with MIG off has no slices.", reason="options")
            if (card.layout, card.mig_wanted) == (layout, mig_enabled) and card.layout_by:
                return card
            changes: dict[str, Any] = {
                "layout": plain(layout),
                "mig_wanted": mig_enabled,
                "layout_by": actor,
            }
            if card.target is not None and not _given_whole(tx, card_uuid):
                # It was on its way back to the layout before; now it goes to this one.
                changes["target"] = None
            queries.cards.update(tx, card_uuid, **changes)
            update_desired(tx, card_uuid)
            queries.events.append(
                tx,
                self._context.now(),
                actor,
                "card.layout",
                card_uuid=card_uuid,
                layout=plain(layout),
                mig=mig_enabled,
                before=plain(card.layout),
            )
            return (queries.cards.by_uuid(tx, card_uuid) or record).row

        return self._context.run(work)

    def claim_slice(self, card_uuid: str, want: Want, actor: str) -> str:
        """Take a slice out of use to destroy it; return ``""``, or a sentence when it must stay.

        For the holder of the node's cutting lock only.
        """

        def work(tx: Transaction) -> str:
            card = self._locked(tx, card_uuid).row
            live = queries.leases.select(tx, card_uuid=card_uuid)
            holder = next((each for each in live if (each.profile, each.start) == want), None)
            if holder is not None:
                return held_by(holder)
            goal = desired(card, given_whole=any(each.whole for each in live))
            if goal is None or want in goal.wants:
                return f"{want[0]} at {want[1]} is desired again; make a new plan."
            rows = [
                row
                for row in queries.slices.select(tx, card_uuid=card_uuid)
                if (row.profile, row.start) == want and row.present
            ]
            for row in rows:
                if why := reason_for(tx, row):
                    return f"{want[0]} at {want[1]}: {why}"
            for row in rows:
                self._claim(tx, row, actor)
            return ""

        return self._context.run(work)

    def claim_mode(self, card_uuid: str, enabled: bool, actor: str) -> str:
        """Take a card out of use to turn MIG on or off; return ``""``, or why the card must stay.

        For the holder of the node's cutting lock only.
        """

        def work(tx: Transaction) -> str:
            card = self._locked(tx, card_uuid).row
            live = queries.leases.select(tx, card_uuid=card_uuid)
            # A lease that waits for this very change has no UUID yet.
            there = [lease for lease in live if lease.slice_uuid is not None]
            if there:
                return held_by(there[0])
            goal = desired(card, given_whole=any(each.whole for each in live))
            if goal is None or goal.mig != enabled:
                return (
                    f"Card {card.index} ({card.uuid}) has a different desired state now; make a "
                    "new plan."
                )
            rows = queries.slices.select(tx, card_uuid=card_uuid)
            for row in rows:
                if why := reason_for(tx, row):
                    return why
            for row in rows:
                if row.present:
                    self._claim(tx, row, actor)
            return ""

        return self._context.run(work)

    def finish_target(self, card_uuid: str) -> bool:
        """Clear a card's target if it is reached, as the last recorded inventory shows it.

        Returns True when the card had a target and the slices that are there are exactly those;
        otherwise nothing changes.
        """

        def work(tx: Transaction) -> bool:
            queries.cards.lock(tx, card_uuid)
            card = queries.cards.by_uuid(tx, card_uuid)
            if card is None or card.row.target is None:
                return False
            present = {
                (row.profile, row.start)
                for row in queries.slices.select(tx, card_uuid=card_uuid)
                if row.present
            }
            if not is_reached(card.row, present):
                return False
            queries.cards.update(tx, card_uuid, target=None)
            update_desired(tx, card_uuid)
            queries.events.append(
                tx,
                self._context.now(),
                card.row.node,
                "card.cut",
                card_uuid=card_uuid,
                layout=plain(card.row.target),
            )
            return True

        return self._context.run(work)

    def record_step(
        self, card_uuid: str, actor: str, step: str, *, error: str = "", **detail: Any
    ) -> None:
        """Record a step of a re-cut that was done, or that failed with ``error``."""

        def work(tx: Transaction) -> None:
            kind = "card.step-failed" if error else "card.step"
            more = {**detail, "error": stored(error)} if error else detail
            queries.events.append(
                tx, self._context.now(), actor, kind, card_uuid=card_uuid, step=step, **more
            )

        self._context.run(work)

    def _claim(self, tx: Transaction, row: SliceRow, actor: str) -> None:
        queries.slices.update(tx, row.id, present=False, uuid=None, gi_id=None, ci_id=None)
        slice_event(tx, self._context.now(), actor, "slice.claimed", row, uuid=row.uuid)

    def _locked(self, tx: Transaction, card_uuid: str) -> queries.cards.CardRecord:
        queries.cards.lock(tx, wanted_name(card_uuid))
        record = queries.cards.by_uuid(tx, wanted_name(card_uuid))
        if record is None:
            raise Refusal(f"There is no card {quoted(card_uuid)}.", reason="not-found")
        return record


def held_by(lease: LeaseRow) -> str:
    """Return the sentence for a slice that must stay because of a lease."""
    what = "The card with MIG off" if lease.profile == MIG_OFF[0] else f"{lease.profile} at"
    where = "" if lease.profile == MIG_OFF[0] else f" {lease.start}"
    server = f", server {quoted(lease.server)}" if lease.server else ""
    until = f" until {moment(lease.ends_at)} at the latest" if lease.ends_at else ""
    return f"{what}{where} is leased by {lease.user} (lease {lease.id}{server}){until}."


def _given_whole(tx: Transaction, card_uuid: str) -> bool:
    return any(lease.whole for lease in queries.leases.select(tx, card_uuid=card_uuid))
