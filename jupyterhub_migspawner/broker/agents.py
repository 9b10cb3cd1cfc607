"""Which process may report for a node: one at a time.

Relies on what a process says of itself (:class:`.AgentProcess`). Promises that the second agent of
a name is refused while the first one reports; that one which was taken for dead and comes back
writes nothing any more; and that a machine with other cards does not end the sessions of the one
before it by mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from jupyterhub_migspawner.broker.checks import wanted_name
from jupyterhub_migspawner.broker.context import Context
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import MigspawnerError, Refusal
from jupyterhub_migspawner.model.nodes import AgentProcess, NodeRow
from jupyterhub_migspawner.policy.wording import moment, plural

BEAT = timedelta(seconds=1)
"""How often an agent that writes a lot says that it is there."""


class Superseded(MigspawnerError):
    """Another agent reports for this node by now; this one has to end."""


class Agents:
    """Use cases of the processes that report for nodes."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def begin(
        self,
        node: str,
        me: AgentProcess,
        is_gone: Callable[[AgentProcess], bool],
        *,
        cards: Callable[[], Collection[str] | None],
        replaces: bool = False,
    ) -> None:
        """Begin to report for a node; from now on every change of this broker is this agent's.

        ``is_gone`` says whether the agent before has provably ended; otherwise it has to be
        silent. ``cards`` gives the UUIDs of this machine's cards, None where they cannot be read.
        ``replaces`` says that this machine takes the place of another one of that name, whose cards
        are gone. Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``conflict``).
        """
        name = wanted_name(node)

        def work(tx: Transaction) -> None:
            known = queries.nodes.lock(tx, name)
            if known is None or known.agent == me:
                return
            now = self._context.now()
            if known.agent is not None and known.agent_at is not None:
                self._demand_ended(known, known.agent, now, is_gone)
            if not replaces:
                self._demand_same_cards(tx, known, me, cards)
            if known.agent is not None and known.agent_at is not None:
                queries.events.append(
                    tx, now, name, "node.taken-over", node=name, host=me.host, was=known.agent.host
                )
            queries.nodes.set_agent(tx, name, me, now)

        self._context.guard = None
        self._context.run(work)
        self._context.guard = self._guard(name, me)

    def end(self, node: str, me: AgentProcess) -> None:
        """Record that this agent has ended, so that the next one need not wait."""
        self._context.guard = None
        self._context.run(lambda tx: queries.nodes.end_agent(tx, wanted_name(node), me))

    def _demand_ended(
        self,
        known: NodeRow,
        agent: AgentProcess,
        now: datetime,
        is_gone: Callable[[AgentProcess], bool],
    ) -> None:
        silent_before = self._context.silent_before(now)
        if known.agent_at is None or known.agent_at < silent_before or is_gone(agent):
            return
        raise Refusal(
            f"Another agent reports for node {known.name}: process {agent.pid} on {agent.host}, "
            f"last at {moment(known.agent_at)}. If that is another machine, give each its own "
            "c.MigBroker.node. If it is an earlier agent of this machine, stop it; this one can "
            f"begin when that has been silent for {self._context.settings.heartbeat_seconds} "
            "seconds.",
            reason="conflict",
        )

    def _demand_same_cards(
        self,
        tx: Transaction,
        known: NodeRow,
        me: AgentProcess,
        cards: Callable[[], Collection[str] | None],
    ) -> None:
        """Refuse another machine without any of the cards on which people have sessions."""
        before = known.agent
        if before is None or (before.machine and before.machine == me.machine):
            return
        stored = {each.row.uuid for each in queries.cards.select(tx, known.name) if not each.lost}
        live = [
            lease
            for lease in queries.leases.select(tx, node=known.name)
            if lease.card_uuid in stored
        ]
        if not live:
            return
        found = cards()
        if found is not None and not stored.isdisjoint(found):
            return
        what = "cannot read its cards, and has perhaps none of those"
        if found is not None:
            what = "has none of the cards"
        raise Refusal(
            f"Node {known.name} was another machine ({before.host}), and this one {what} on which "
            f"{plural(len(live), 'session')} may still run. If it takes that machine's place, run "
            "`migspawner agent --replace` once: those sessions are then lost. Otherwise give it "
            "another c.MigBroker.node.",
            reason="conflict",
        )

    def _guard(self, node: str, me: AgentProcess) -> Callable[[Transaction], None]:
        def guard(tx: Transaction) -> None:
            known = queries.nodes.hold(tx, node)
            if known is None:
                return
            now = self._context.now()
            if known.agent == me and known.agent_at is not None:
                if not known.agent_at <= now < known.agent_at + BEAT:
                    queries.nodes.set_agent(tx, node, me, now)
                return
            if known.agent is None or known.agent_at is None:
                queries.nodes.set_agent(tx, node, me, now)
                return
            raise Superseded(
                f"Process {known.agent.pid} on {known.agent.host} reports for node {node} now, "
                "because this agent was silent for too long; it ends."
            )

        return guard
