"""``migspawner nodes``, ``cards`` and ``slices``: what there is, and who holds it."""

from __future__ import annotations

from collections import Counter

from jupyterhub_migspawner.broker.views import card_view, node_view, slice_view
from jupyterhub_migspawner.cli.command import DONE, Command, argument
from jupyterhub_migspawner.cli.leases import operator
from jupyterhub_migspawner.cli.output import Column, cut_into, print_json, print_table

_NODE = argument("--node", metavar="NAME", help="only those of this node")

_CARD = argument("uuid", metavar="UUID", help="the card, as `migspawner cards` shows it")

_NO_CARDS = (
    "No card is known yet: the agent writes them down as soon as the hub's service runs. "
    "`migspawner doctor` says what hinders it."
)


class Nodes(Command):
    """The nodes."""

    name = "migspawner nodes"
    description = "The machines with cards, and when their agent last reported."

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
            Column("last heard of", "heartbeat_at"),
        ]
        print_table(columns, rows, empty=_NO_CARDS)
        return DONE


class Drain(Command):
    """Drain a card."""

    name = "migspawner cards drain"
    description = "Give out nothing new on a card. Leases on it go on until they end."
    arguments = (
        _CARD,
        argument("--reason", metavar="TEXT", help="kept in the event log"),
    )

    def run(self) -> int:
        """Drain it."""
        broker = self.broker()
        reason = self.option("reason", "drained by an administrator")
        card = broker.drain_card(self.given.uuid, reason, operator())
        live = sum(lease.card_uuid == card.uuid for lease in broker.leases(node=card.node))
        left = f"; {live} leases on it go on" if live else ""
        return self.answer(card_view(card), f"Card {card.index} of {card.node} is drained{left}.")


class Resume(Command):
    """Let a card be given out again."""

    name = "migspawner cards resume"
    description = (
        "Give out a drained card again, and those of its slices that were quarantined: somebody\n"
        "has looked at it."
    )
    arguments = (_CARD,)

    def run(self) -> int:
        """Resume it."""
        broker = self.broker()
        card = broker.resume_card(self.given.uuid, operator())
        for status in broker.slices():
            if status.row.card_uuid == card.uuid and status.row.quarantined:
                broker.unquarantine(status.row.id, operator())
        state = "given out again" if card.state == "ok" else card.state
        return self.answer(card_view(card), f"Card {card.index} of {card.node} is {state}.")


class Cards(Command):
    """The cards."""

    name = "migspawner cards"
    description = "The cards, their state and the layout they are cut into."
    arguments = (_NODE,)
    below = {
        "drain": (Drain, "give out nothing new on one"),
        "resume": (Resume, "give one out again"),
    }

    def run(self) -> int:
        """List them."""
        rows = [card_view(card) for card in self.broker().cards(node=self.option("node"))]
        if self.as_json:
            print_json(rows)
            return DONE
        columns = [
            Column("node", "node"),
            Column("card", "index", number=True),
            Column("model", "model"),
            Column("mig", "mig_enabled"),
            Column("state", "state"),
            Column("uuid", "uuid"),
            Column("layout", "cut"),
            Column("problem", "problem"),
        ]
        for row in rows:
            row["cut"] = cut_into(each["profile"] for each in row["target"] or row["layout"])
        print_table(columns, rows, empty=_NO_CARDS)
        return DONE


class Slices(Command):
    """The slices."""

    name = "migspawner slices"
    description = "Every slice, whether it is free, and who holds it."
    arguments = (_NODE,)

    def run(self) -> int:
        """List them."""
        node = self.option("node")
        rows = [
            slice_view(status)
            for status in self.broker().slices()
            if node is None or status.row.node == node
        ]
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
            Column("since", "since"),
            Column("uuid", "uuid"),
        ]
        # A line for each lease, where several share a slice.
        lines = [{**lease, **row} for row in rows for lease in row["leases"] or [{}]]
        print_table(columns, lines, empty=_NO_CARDS)
        return DONE
