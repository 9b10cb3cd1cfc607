"""``migspawner nodes``, ``cards`` and ``slices``: what there is, and who holds it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.views import card_view, node_view, slice_view
from jupyterhub_migspawner.cli.command import DONE, Command, argument
from jupyterhub_migspawner.cli.known import require_node
from jupyterhub_migspawner.cli.leases import operator
from jupyterhub_migspawner.cli.output import Column, cut_into, print_json, print_table
from jupyterhub_migspawner.cli.unproven import print_unproven
from jupyterhub_migspawner.policy.wording import plural

_NODE = argument("--node", metavar="NAME", help="only those on this node")

_CARD = argument("uuid", metavar="UUID", help="the card's UUID, as shown by `migspawner cards`")

_NO_CARDS = (
    "No card is known yet: the agent writes them down as soon as the hub's service runs. "
    "`migspawner doctor` says what hinders it."
)


def _none(what: str, node: str | None, broker: Broker) -> str:
    """Why a listing of cards or slices is empty."""
    cards = broker.cards()
    if not cards:
        return _NO_CARDS
    if node is not None and not any(card.node == node for card in cards):
        return f"Node {node} has reported no card yet."
    return f"Node {node} has no {what}." if node is not None else f"No card has a {what}."


class Nodes(Command):
    """The nodes."""

    lists = True
    name = "migspawner nodes"
    description = "The machines with cards, and when their agent last reported."
    needs_tiers = False

    def run(self) -> int:
        """List them."""
        broker = self.broker()
        count = Counter(card.node for card in broker.cards())
        rows = [{**node_view(node), "cards": count[node.name]} for node in broker.nodes()]
        if self.as_json:
            print_json(rows)
            return DONE
        columns = [
            Column("node", "name"),
            Column("cards", "cards", number=True),
            Column("driver", "driver_version"),
            Column("last report", "heartbeat_at", time=True, seconds=True),
        ]
        print_table(columns, rows, empty=_NO_CARDS)
        return DONE


class Drain(Command):
    """Drain a card."""

    name = "migspawner cards drain"
    description = "Start no new leases on a card. Existing leases continue until they end."
    arguments = (
        _CARD,
        argument("--reason", metavar="TEXT", help="stored in the event log"),
    )
    needs_tiers = False

    def run(self) -> int:
        """Drain it."""
        broker = self.broker()
        reason = self.option("reason", "drained by an administrator")
        card = broker.drain_card(self.given.uuid, reason, operator())
        live = sum(lease.card_uuid == card.uuid for lease in broker.leases(node=card.node))
        left = f"; {plural(live, 'lease')} on it {'goes' if live == 1 else 'go'} on" if live else ""
        return self.answer(card_view(card), f"Card {card.index} of {card.node} is drained{left}.")


class Resume(Command):
    """Let a card be given out again."""

    name = "migspawner cards resume"
    description = (
        "Use a drained card again, including its quarantined slices, after an admin has checked\n"
        "it."
    )
    arguments = (_CARD,)
    needs_tiers = False

    def run(self) -> int:
        """Resume it."""
        broker = self.broker()
        card = broker.resume_card(self.given.uuid, operator())
        for status in broker.slices():
            if status.row.card_uuid == card.uuid and status.row.quarantined:
                broker.unquarantine(status.row.id, operator())
        state = "given out again" if card.state == "ok" else card.state
        return self.answer(card_view(card), f"Card {card.index} of {card.node} is {state}.")


def _cut(layout: list[dict[str, Any]], mig: bool) -> str:
    return (cut_into(each["profile"] for each in layout) or "no slices") if mig else "MIG off"


def _other_than_present(row: dict[str, Any]) -> str:
    """The desired layout where it differs from the present one, else an empty text."""
    if row["desired"] is None:
        return ""
    places = [
        {(each["profile"], each["start"]) for each in row[name]} for name in ("present", "desired")
    ]
    if (places[0], row["mig_enabled"]) == (places[1], row["desired_mig"]):
        return ""
    desired = _cut(row["desired"], row["desired_mig"])
    # The same profiles at other places look the same otherwise.
    return f"{desired}, at other places" if desired == row["cut"] else desired


class Cards(Command):
    """The cards."""

    lists = True
    name = "migspawner cards"
    description = "The cards, their state and layout; the desired layout if it differs."
    arguments = (_NODE,)
    below = {
        "drain": (Drain, "start no new leases on a card"),
        "resume": (Resume, "use a card again"),
    }
    needs_tiers = False

    def run(self) -> int:
        """List them."""
        broker, node = self.broker(), self.option("node")
        slices = broker.slices(node=node)
        rows: list[dict[str, Any]] = [
            dict(card_view(card, slices)) for card in broker.cards(node=node)
        ]
        if not rows and node is not None:
            require_node(self, broker, node)
        if self.as_json:
            print_json(rows)
            return DONE
        columns = [
            Column("node", "node"),
            Column("card", "index", number=True),
            Column("model", "model"),
            Column("mig", "mig_enabled"),
            Column("state", "state"),
            Column("uuid", "uuid", below=True),
            Column("present layout", "cut"),
            Column("desired layout", "other", below=True),
            Column("drained", "drained", below=True),
            Column("problem", "problem", below=True),
        ]
        for row in rows:
            row["cut"] = _cut(row["present"], row["mig_enabled"])
            row["other"] = _other_than_present(row)
        print_table(columns, rows, empty=_none("card", node, broker))
        print_unproven(slices)
        return DONE


class Slices(Command):
    """The slices."""

    lists = True
    name = "migspawner slices"
    description = "All slices, their state and their leases."
    arguments = (_NODE,)
    needs_tiers = False

    def run(self) -> int:
        """List them."""
        broker, node = self.broker(), self.option("node")
        statuses = broker.slices(node=node)
        rows: list[dict[str, Any]] = [dict(slice_view(status)) for status in statuses]
        if not rows and node is not None:
            require_node(self, broker, node)
        if self.as_json:
            print_json(rows)
            return DONE
        columns = [
            Column("node", "node"),
            Column("card", "card_index", number=True),
            Column("profile", "profile"),
            Column("start", "start", number=True),
            Column("state", "state"),
            Column("user", "user"),
            Column("server", "server"),
            Column("tier", "tier"),
            Column("since", "since", time=True),
            Column("uuid", "uuid", wide=True),
            Column("reason", "why", below=True),
        ]
        # A line for each lease, where several share a slice.
        lines = [{**lease, **row} for row in rows for lease in row["leases"] or [{}]]
        for line in lines:
            if line["unproven"]:
                # Said below the table, with the way out.
                line["why"] = None
        print_table(columns, lines, empty=_none("slice", node, broker))
        print_unproven(statuses)
        return DONE
