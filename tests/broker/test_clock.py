"""The time that leases use: the PostgreSQL server's, whatever the nodes' clocks say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_migspawner.broker import Broker, utc_now
from jupyterhub_migspawner.db.clock import DatabaseClock, LeaseClock, read_clock
from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.policy.clock import TOLERANCE
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import Lab, card, inventory
from tests.broker.postgres import Cluster

#: A node whose clock nobody has ever set.
WRONG = datetime(1999, 12, 31, 23, 59, tzinfo=timezone.utc)


class Machine:
    """A node's two clocks, which move when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.shown = WRONG

    def pass_time(self, seconds: float) -> None:
        self.seconds += seconds
        self.shown += timedelta(seconds=seconds)

    def clock(self, lab: Lab) -> DatabaseClock:
        return DatabaseClock(lab.store, monotonic=lambda: self.seconds, local=lambda: self.shown)


@pytest.fixture
def server_lab(postgres: Cluster) -> Iterator[Lab]:
    lab = Lab(postgres.new_database())
    yield lab
    lab.close()
    postgres.drop(lab.url)


def asked(lab: Lab) -> datetime:
    return lab.store.read(read_clock)


def test_it_is_the_servers_time_and_goes_on_by_itself(server_lab: Lab) -> None:
    machine = Machine()
    clock = machine.clock(server_lab)
    assert clock() == WRONG, "nothing better is known, and nobody waits"
    before = asked(server_lab)
    clock.keep_in_step()
    after = asked(server_lab)
    first = clock()
    assert before <= first <= after
    assert first.utcoffset() == timedelta(0)
    machine.pass_time(30)
    clock.keep_in_step()
    assert clock() == first + timedelta(seconds=30)
    # Once a minute the server is asked again; its clock has hardly moved meanwhile.
    machine.pass_time(31)
    clock.keep_in_step()
    assert after <= clock() <= asked(server_lab)


def test_a_machine_that_slept_or_whose_clock_was_set_asks_at_once(server_lab: Lab) -> None:
    machine = Machine()
    clock = machine.clock(server_lab)
    clock.keep_in_step()
    first = clock()
    # Asleep: the clock on the wall went on, the monotonic one stood still.
    machine.shown += timedelta(hours=3)
    clock.keep_in_step()
    second = clock()
    assert first <= second <= asked(server_lab)
    # Set by hand: the leases' time does not jump with it.
    machine.shown = WRONG
    machine.seconds += 1
    clock.keep_in_step()
    assert second <= clock() <= asked(server_lab)


def test_deadlines_of_two_hubs_with_different_clocks_agree(server_lab: Lab) -> None:
    brokers = []
    for _ in range(2):
        broker = Broker(server_lab.store, server_lab.broker.settings)
        assert isinstance(broker.context.clock, LeaseClock)
        brokers.append(broker)
    machine = Machine()
    brokers[0] = Broker(
        server_lab.store, server_lab.broker.settings, clock=machine.clock(server_lab)
    )
    brokers[0].context.clock.keep_in_step()  # type: ignore[attr-defined]
    earliest = asked(server_lab)
    brokers[1].nodes.record_inventory("n1", inventory(card(0)))
    leases = []
    for number, broker in enumerate(brokers):
        lease = broker.leases.acquire(Person(f"user{number}"), "", "small", f"a{number}")
        assert lease is not None
        leases.append(lease)
    latest = asked(server_lab)
    limit = timedelta(seconds=server_lab.broker.settings.pending_seconds)
    slack = timedelta(seconds=1)  # what one machine's stopped clocks can be behind
    for lease in leases:
        assert earliest - slack <= lease.since <= latest
        assert lease.deadline == lease.since + limit


def test_while_the_server_is_away_the_time_goes_on(postgres: Cluster, server_lab: Lab) -> None:
    machine = Machine()
    clock = machine.clock(server_lab)
    clock.keep_in_step()
    first = clock()
    postgres.stop()
    try:
        machine.pass_time(120)
        with pytest.raises(DatabaseError):
            clock.keep_in_step()
        assert clock() == first + timedelta(seconds=120)
    finally:
        postgres.start()
    clock.keep_in_step()
    assert clock() < first + timedelta(seconds=120)


def test_one_machine_with_sqlite_goes_by_its_own_clock(tmp_path: Path) -> None:
    lab = Lab(f"sqlite:///{tmp_path / 'leases.sqlite'}")
    broker = Broker(lab.store, lab.broker.settings)
    broker.leases.find()
    before = utc_now()
    assert before <= broker.now() <= utc_now()
    lab.close()


def test_all_processes_of_a_machine_count_on_from_one_anchor(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    service, hub = (Broker(lab.store, lab.broker.settings) for _ in range(2))
    service.clock.watch()
    hub.leases.find()
    ends = []
    for broker in (service, hub):
        assert isinstance(broker.context.clock, LeaseClock)
        assert broker.context.clock.anchor is not None
        ends.append(broker.context.clock.anchor)
    assert ends[0] == ends[1]
    assert abs(service.now() - utc_now()) < TOLERANCE
    earlier = service.now()
    assert earlier <= hub.now() <= service.now()


def test_nobody_waits_for_a_server_that_another_thread_is_asking(
    server_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()
    clock = machine.clock(server_lab)
    calls: list[str] = []
    read = server_lab.store.read

    def slow(work: Any) -> Any:
        calls.append("asked")
        clock.keep_in_step()  # as another thread would, in the middle of it
        return read(work)

    monkeypatch.setattr(server_lab.store, "read", slow)
    clock.keep_in_step()
    assert calls == ["asked"]
