"""A lab to test in: a broker with its own clock over cards that exist only as inventories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import Any

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.model.inventory import Card, Instance, Inventory, Placement, Profile
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.policy.approval import parse_approvers
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.quotas import parse_quotas
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.tiers import parse_tiers

START = datetime(2026, 11, 23, 9, 0, tzinfo=timezone.utc)


def profile(
    name: str, number: int, compute: int, memory: int, starts: Sequence[int], size: int, whole: bool
) -> Profile:
    return Profile(
        name=name,
        id=number,
        compute_slices=compute,
        memory_mib=memory,
        multiprocessors=14 * compute,
        max_instances=len(starts),
        placements=tuple(Placement(start, size) for start in starts),
        whole=whole,
    )


A100 = (
    profile("1g.5gb", 19, 1, 4864, range(7), 1, False),
    profile("2g.10gb", 14, 2, 9856, (0, 2, 4), 2, False),
    profile("3g.20gb", 9, 3, 19968, (0, 4), 4, False),
    profile("4g.20gb", 5, 4, 19968, (0,), 4, False),
    profile("7g.40gb", 0, 7, 40192, (0,), 8, True),
)
A30 = (
    profile("1g.6gb", 14, 1, 5952, range(4), 1, False),
    profile("2g.12gb", 5, 2, 11968, (0, 2), 2, False),
    profile("4g.24gb", 0, 4, 24004, (0,), 4, True),
)

SEVENTHS = tuple(("1g.5gb", start) for start in range(7))
MIXED = (("3g.20gb", 0), ("2g.10gb", 4), ("1g.5gb", 6))
WHOLE = (("7g.40gb", 0),)
QUARTERS = tuple(("1g.6gb", start) for start in range(4))


def card(
    index: int,
    layout: Sequence[tuple[str, int]] = SEVENTHS,
    *,
    profiles: tuple[Profile, ...] = A100,
    salt: str = "",
    **changes: Any,
) -> Card:
    """A card cut into a layout; ``salt`` gives its slices other UUIDs."""
    by_name = {profile.name: profile for profile in profiles}
    instances = tuple(
        Instance(
            gi_id=number + 1,
            ci_id=0,
            profile=name,
            profile_id=by_name[name].id,
            start=start,
            size=by_name[name].size,
            compute_slices=by_name[name].compute_slices,
            memory_mib=by_name[name].memory_mib,
            uuid=f"MIG-{index}-{name}-{start}{salt}",
            whole=by_name[name].whole,
        )
        for number, (name, start) in enumerate(layout)
    )
    made = Card(
        index=index,
        uuid=f"GPU-{index}",
        model="NVIDIA A100-SXM4-40GB" if profiles is A100 else "NVIDIA A30",
        minor=index,
        memory_mib=40960 if profiles is A100 else 24576,
        mig_capable=True,
        mig_enabled=True,
        mig_pending=True,
        profiles=profiles,
        instances=instances,
    )
    return replace(made, **changes)


def inventory(*cards: Card) -> Inventory:
    return Inventory(driver_version="535.129.03", nvml_version="12.535.129.03", cards=cards)


TIERS: list[dict[str, Any]] = [
    {"name": "small", "profile": "1g.5gb", "default": True},
    {"name": "medium", "profile": "2g.10gb"},
    {"name": "large", "profile": "3g.20gb", "groups": ["vision"], "max_hours": 12},
    {"name": "card", "profile": "whole", "approval": True, "max_hours": 48},
    {"name": "cpu", "profile": "none"},
]


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def pass_time(self, **units: float) -> datetime:
        self.now += timedelta(**units)
        return self.now


class Lab:
    """One process's broker; people ask it by name."""

    _attempts = count()

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        tiers: list[dict[str, Any]] | None = None,
        quotas: Any = None,
        approvers: Any = ("group:pi",),
        **settings: Any,
    ) -> None:
        self.url = url
        self.clock = clock or Clock()
        self.store = Store.open(url, create=True)
        self.broker = Broker(
            self.store,
            Settings(
                tiers=parse_tiers(tiers or TIERS),
                quotas=parse_quotas(quotas),
                approvers=parse_approvers(approvers),
                **settings,
            ),
            clock=self.clock,
        )

    def close(self) -> None:
        self.store.close()

    def report(self, *cards: Card, node: str = "n1") -> None:
        """An agent's report; two cards in sevenths when none are given."""
        self.broker.nodes.record_inventory(node, inventory(*(cards or (card(0), card(1)))))

    def attempt(self) -> str:
        return f"attempt-{next(self._attempts)}"

    def start(
        self,
        user: str = "ada",
        tier: str = "small",
        server: str = "",
        *,
        groups: Sequence[str] = (),
        attempt: str | None = None,
        node: str | None = None,
    ) -> LeaseRow:
        """A lease for a server that is about to start."""
        person = Person(user, frozenset(groups))
        lease = self.broker.leases.acquire(person, server, tier, attempt or self.attempt(), node)
        assert lease is not None
        return lease

    def stop(self, lease: LeaseRow) -> LeaseRow:
        """The server is gone and its slice proven empty."""
        self.broker.leases.release_server(lease.user, lease.server, "stopped", lease.user)
        return self.broker.leases.confirm_empty(lease.id)

    def grant(self, user: str = "ada", tier: str = "card", hours: float = 10) -> RequestRow:
        request = self.broker.requests.create(Person(user), tier, hours, "a long training run")
        return self.broker.requests.decide(request.id, Person("root", admin=True), True)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.broker.events.find()]

    def states(self) -> dict[tuple[int, str, int], str]:
        """State of each slice by (card index, profile, start)."""
        return {
            (s.row.card_index, s.row.profile, s.row.start): s.state
            for s in self.broker.slices.find()
        }

    def stored(self) -> str:
        """Everything the broker can tell, as text: equal before and after what has no effect."""
        broker = self.broker
        return json.dumps(
            [
                broker.leases.find(include_past=True),
                broker.requests.find(),
                broker.slices.find(),
                broker.cards.find(),
                broker.events.find(limit=10_000),
            ],
            default=repr,
        )
