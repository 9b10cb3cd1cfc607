"""What ``migspawner doctor`` says about servers that run without a lease.

By what the agents have found, and by a look at this machine's own processes: after a loss of the
database the hub, and with it the agent, may not run yet.
"""

from __future__ import annotations

from collections.abc import Iterator

from jupyterhub_migspawner.agent.orphans import read_marks
from jupyterhub_migspawner.broker.marks import strangeness
from jupyterhub_migspawner.broker.quarantine import orphan_sentence
from jupyterhub_migspawner.cli.doctor.findings import WRONG, Finding
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.model.orphans import OrphanRow
from jupyterhub_migspawner.policy.wording import plural

MOST = 20

MEND = (
    "Start the hub, then run `migspawner leases adopt`. If it is the wrong lease database, stop "
    "the hub and restore a backup first: `migspawner db restore FILE`."
)


def findings(mig: MigBroker, *, known: bool) -> Iterator[Finding]:
    """Find servers without a lease; ``known`` says whether there is a database to ask."""
    try:
        marks = read_marks().found
    except GpuError as error:
        yield Finding("servers", WRONG, str(error), "Run this again as the user that runs the hub.")
        return
    here = [each for each in marks if each.node == mig.node and each.hub == mig.hub]
    if not known:
        listed = _cards_here(mig)
        if listed is not None:
            here = [each for each in here if each.card_uuid in listed]
        if here:
            number = plural(len(here), "server")
            message = f"{number} of this hub run here, and there is no lease database to name them."
            yield Finding("servers", WRONG, message, MEND)
        return
    broker = mig.open_broker()
    cards = {card.uuid for card in broker.cards.find(node=mig.node)}
    if here:
        # A database that is empty, or new, does not know the cards yet.
        cards |= _cards_here(mig) or frozenset()
    found: dict[str, OrphanRow] = {
        each.attempt: each
        for each in here
        if each.card_uuid in cards and broker.leases.of_attempt(each.attempt) is None
    }
    found |= {each.attempt: each for each in broker.orphans.find()}
    for each in list(found.values())[:MOST]:
        yield Finding("servers", WRONG, f"Node {each.node}: {orphan_sentence([each])}", MEND)
    if found:
        why = strangeness(list(found.values()), broker.store.position)
        number = plural(len(found), "server")
        yield Finding("database", WRONG, f"It has no lease for {number} that run. {why}", MEND)


def _cards_here(mig: MigBroker) -> frozenset[str] | None:
    """Return this machine's cards, without the database's help; None if they cannot be read."""
    try:
        return frozenset(card.uuid for card in mig.open_nvml().inventory().cards)
    except GpuError:
        return None
