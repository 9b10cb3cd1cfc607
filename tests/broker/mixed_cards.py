"""Labs whose machines have cards of several models, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.statuses import Offered, TierStatus
from jupyterhub_migspawner.model.inventory import Card
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.model.tickets import TicketRow
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import A30, QUARTERS, Lab, card, profile

MakeLab = Callable[..., Lab]
HOME = "n1:/etc/jupyterhub"
ROOT = Person("root", admin=True)

# The larger A100's half is called as the smaller one's whole, but for the compute.
A100_80 = (
    profile("1g.10gb", 19, 1, 9856, range(7), 1, False),
    profile("2g.20gb", 14, 2, 19968, (0, 2, 4), 2, False),
    profile("3g.40gb", 9, 3, 40192, (0, 4), 4, False),
    profile("7g.80gb", 0, 7, 80384, (0,), 8, True),
)
TENS = tuple(("1g.10gb", start) for start in range(7))
ONE = TENS[:1]


def a100_80(index: int, layout: Sequence[tuple[str, int]] = TENS, **more: Any) -> Card:
    model = {"model": "NVIDIA A100 80GB PCIe", "memory_mib": 81920}
    return card(index, layout, profiles=A100_80, **{**model, **more})


def h100(index: int, layout: Sequence[tuple[str, int]] = TENS, **more: Any) -> Card:
    return a100_80(index, layout, model="NVIDIA H100 80GB HBM3", memory_mib=81559, **more)


def a30(index: int) -> Card:
    return card(index, QUARTERS, profiles=A30)


def t4(index: int) -> Card:
    return card(
        index,
        (),
        model="Tesla T4",
        memory_mib=15360,
        profiles=(),
        mig_capable=False,
        mig_enabled=False,
        mig_pending=False,
    )


def tier(name: str, profile: str, card: str | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "profile": profile, "card": card, **more}


def lab_of(make_lab: MakeLab, tiers: Sequence[dict[str, Any]], *cards: Card, **more: Any) -> Lab:
    lab = make_lab(tiers=list(tiers), **more)
    lab.broker.hubs.claim(HOME)
    lab.report(*cards)
    return lab


def offers(lab: Lab, user: str = "zoe") -> dict[str, TierStatus]:
    return {offer.tier.name: offer for offer in lab.broker.tiers.of(Person(user))}


def figures(lab: Lab, broker: Broker | None = None) -> dict[str, tuple[int, int]]:
    found = (broker or lab.broker).tiers.of(Person("zoe"))
    return {offer.tier.name: (offer.free, offer.total) for offer in found}


def cold(lab: Lab) -> Broker:
    """A broker of another process, that has yet to count."""
    return Broker(lab.store, lab.broker.settings, clock=lab.clock)


def join(lab: Lab, user: str, tier: str, **more: Any) -> TicketRow:
    return lab.broker.queue.join(Person(user), tier, **more)


def offer(lab: Lab, ticket: TicketRow) -> Offered:
    return lab.broker.offers.make(ticket.id, Person(ticket.user))


def held(lab: Lab, ticket: TicketRow) -> LeaseRow:
    found = offer(lab, ticket)
    assert found.lease is not None, found.why
    return found.lease


def turns(lab: Lab) -> list[int]:
    return [ticket.id for ticket in lab.broker.offers.turns()]


def places(lab: Lab) -> dict[int, int]:
    return {status.row.id: status.place for status in lab.broker.queue.status()}


def reserved(lab: Lab) -> dict[str, int | None]:
    return {each.uuid: each.reserved_for for each in lab.broker.cards.find()}


def promise(lab: Lab, user: str, tier: str, begin: float, hours: float = 5) -> RequestRow:
    """A grant that begins in so many hours."""
    at = lab.clock() + timedelta(hours=begin)
    asked = lab.broker.requests.create(Person(user), tier, hours, "x", at)
    return lab.broker.requests.decide(asked.id, ROOT, True)


LINES = [
    tier("h", "1g.10gb", "H100*"),
    tier("a", "1g.10gb", "A100*"),
    tier("large", "1g.10gb", "80GB"),
    tier("any", "1g.10gb"),
]

GRANTS = [
    tier("big", "whole", "A100*", approval=True, max_hours=48),
    tier("any", "whole", approval=True, max_hours=48),
    tier("small", "1g.5gb", max_hours=1),
    tier("sixth", "1g.6gb", max_hours=1),
]


def busy(
    make_lab: MakeLab, tiers: Sequence[dict[str, Any]] = LINES
) -> tuple[Lab, LeaseRow, LeaseRow]:
    """One slice on an A100 and one on an H100, both taken."""
    lab = lab_of(make_lab, tiers, a100_80(0, ONE), h100(1, ONE))
    return lab, lab.start("mary", "a"), lab.start("sam", "h")
