"""The service's rounds when the clock is set: whose server is whose, and which loop goes first."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.loop import Loop
from jupyterhub_migspawner.service.workers.loop import in_time
from jupyterhub_migspawner.service.workers.reconciliation import (
    Reconciler,
    is_server_of,
    may_be_renamed,
)
from tests.broker.clocks import Clocks
from tests.unit.service.conftest import World
from tests.unit.service.fake_hub import server
from tests.unit.service.pages.test_status import LEASE, NOON, SERVER


@pytest.mark.parametrize("step", [timedelta(days=2), timedelta(days=-2)], ids=str)
def test_server_and_lease_know_each_other_whatever_clocks_did(step: timedelta) -> None:
    begun = NOON - timedelta(minutes=1)
    lease = replace(LEASE, since=LEASE.since + step, started=begun)
    theirs = replace(SERVER, started=begun, noted=begun)
    assert is_server_of(lease, theirs)
    assert may_be_renamed(lease, theirs, (), unknown=False)
    # The hub's own clock may have been set, where the lease database has another.
    assert is_server_of(lease, replace(theirs, started=begun - step))
    later = begun + timedelta(minutes=5) + step
    assert not is_server_of(lease, replace(theirs, started=later, noted=later))
    assert not may_be_renamed(lease, replace(theirs, noted=later), (), unknown=True)


def test_a_lease_from_before_is_known_by_the_time_it_was_taken() -> None:
    begun = NOON - timedelta(minutes=1)
    assert is_server_of(LEASE, replace(SERVER, started=begun, noted=begun))
    late = NOON + timedelta(minutes=1)
    assert not is_server_of(LEASE, replace(SERVER, started=late, noted=late))


async def test_a_round_looks_at_the_clock_before_it_ends_anything(world: World) -> None:
    """A session of a day; the clock is set two days ahead. Without the look it ends at once."""
    clocks = Clocks()
    clocks.wall = world.now
    broker = Broker(world.broker.store, world.broker.settings, machine=clocks.machine())
    broker.clock.watch()
    lease = world.acquire("ada")
    world.broker.leases.activate(lease.attempt)
    began = world.now - timedelta(seconds=1)
    world.hub.users["ada"] = {"": server(started=began)}
    parts = replace(world.parts, broker=broker)
    loop = in_time(Loop("comparison", 1.0, Reconciler(parts).round), parts)
    clocks.wall += timedelta(days=2)
    await loop.once()
    assert broker.leases.get(lease.id).state == "active"
    assert not world.hub.stopped
    clocks.pass_time(days=3)
    await loop.once()
    assert broker.leases.get(lease.id).state == "releasing"
