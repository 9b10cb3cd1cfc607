"""A clock that is set: nothing ends that was not about to, people are warned first, an event says
so.

The machines here have a wall clock and a count of seconds apart. PostgreSQL's own clock cannot be
set in a test, so there the machine's anchor is what differs from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.readings import Answer
from jupyterhub_migspawner.db import queries, tables
from jupyterhub_migspawner.db.columns import UtcTime
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.events import EventQuery
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.people import Person
from tests.broker.clocks import Clocks, process
from tests.broker.lab import START, Lab, card, inventory

ADA = Person("ada")
GRACE = Person("grace", frozenset({"pi"}))
ROOT = Person("root", admin=True)
STEPS = [
    timedelta(hours=1),
    timedelta(days=1),
    timedelta(days=400),
    timedelta(hours=-1),
    timedelta(days=-1),
    timedelta(days=-400),
]
TIERS = [
    {"name": "small", "profile": "1g.5gb", "default": True, "idle_minutes": 60, "max_hours": 8},
    {"name": "card", "profile": "whole", "approval": True, "max_hours": 48},
]


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def start(
    make_lab: Callable[..., Lab], clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Broker]:
    lab = make_lab(tiers=TIERS)

    def make() -> Broker:
        return process(lab, clocks, monkeypatch)

    return make


@pytest.fixture
def service(start: Callable[[], Broker]) -> Broker:
    """The broker of a service that has looked at the clock, over a node with two cards."""
    broker = start()
    broker.clock.watch()
    broker.nodes.record_inventory("n1", inventory(card(0), card(1, (("7g.40gb", 0),))))
    return broker


@pytest.fixture
def hub(start: Callable[[], Broker]) -> Broker:
    """Another process, which never looks at the clock itself."""
    return start()


def session(broker: Broker, tier: str = "small", person: Person = ADA) -> LeaseRow:
    lease = broker.leases.acquire(person, tier, tier, f"attempt of {person.name} in {tier}")
    assert lease is not None
    active = broker.leases.activate(lease.attempt)
    assert active is not None
    return active


def say(broker: Broker, lease: LeaseRow, fingerprint: str) -> None:
    """Every source says the same of a session."""
    sources = ("kernels", "processes")
    broker.readings.note([Answer(lease.id, source, fingerprint) for source in sources])


def left(broker: Broker) -> dict[str, Any]:
    """How long everything still has, or has been; what must be the same after a step."""
    leases = (
        broker.leases.find()
    )  # first: with that a process knows of a step that another has found
    now = broker.now()
    found: dict[str, Any] = {}
    for lease in leases:
        found[f"lease {lease.id}"] = tuple(
            None if at is None else at - now
            for at in (lease.since, lease.deadline, lease.ends_at, lease.releasing_at)
        )
    for request in broker.requests.find():
        found[f"request {request.id}"] = (
            request.state,
            *(
                None if at is None else at - now
                for at in (request.created_at, request.valid_from, request.valid_until)
            ),
        )
    for ticket in broker.queue.tickets():
        found[f"ticket {ticket.id}"] = ticket.created_at - now
    for node in broker.nodes.find():
        found[f"node {node.name}"] = node.heartbeat_at - now
    for standing in broker.sessions.standings():
        verdict = standing.verdict
        found[f"session {standing.lease.id}"] = (
            verdict.rule,
            verdict.unknown,
            None if verdict.ends_at is None else verdict.ends_at - now,
            None if verdict.idle_since is None else verdict.idle_since - now,
        )
    for exception in broker.quotas.exceptions():
        found[f"exception {exception.id}"] = exception.until - now
    return found


def lab_of_everything(broker: Broker, clocks: Clocks) -> LeaseRow:
    """A session in use, a grant with a session, a request, a place in the list, an exception."""
    asked = broker.requests.create(ADA, "card", 20, "a model")
    broker.requests.decide(asked.id, GRACE, True)
    broker.requests.create(GRACE, "card", 3, "another")
    lease = session(broker)
    session(broker, "card")
    for number in range(6):
        session(broker, "small", Person(f"user{number}"))
    broker.queue.join(Person("late"), "small")
    until = broker.now() + timedelta(days=3)
    broker.quotas.grant_exception("ada", "live", 5, until, "a deadline", ROOT)
    broker.sessions.protect(lease.id, ROOT, broker.now() + timedelta(hours=5), "a long run")
    for number in range(3):
        clocks.pass_time(minutes=1)
        for each in broker.leases.find():
            say(broker, each, f"busy {number}" if each.id == lease.id else "same")
    return lease


def happened(broker: Broker, kind: str) -> list[dict[str, Any]]:
    query = EventQuery(kinds=(kind,))
    return [event.detail for event in broker.events.last(100, query).events]


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_after_a_step_everything_has_as_long_as_it_had(
    service: Broker, hub: Broker, clocks: Clocks, step: timedelta
) -> None:
    lab_of_everything(service, clocks)
    before = left(service)
    assert len(before) > 14
    clocks.wall += step
    # Until the service has looked, the others go on at the old pace.
    assert left(hub) == before
    assert service.clock.watch() == step
    assert service.now() == clocks.wall
    assert left(service) == before
    assert left(hub) == before
    assert hub.now() == clocks.wall
    assert [each["seconds"] for each in happened(hub, "clock.stepped")] == [step.total_seconds()]
    assert not service.requests.expire()
    assert not service.notices.warn_of_ends()
    for each in service.leases.find():
        assert service.sessions.end_over(each.id) is None
    assert service.clock.watch() == timedelta(0)


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_clock_set_wrong_and_back_leaves_nothing_behind(
    service: Broker, clocks: Clocks, step: timedelta
) -> None:
    lab_of_everything(service, clocks)
    before = service.leases.find(include_past=True), service.requests.find(), left(service)
    clocks.wall += step
    service.clock.watch()
    clocks.wall -= step
    service.clock.watch()
    assert (
        service.leases.find(include_past=True),
        service.requests.find(),
        left(service),
    ) == before


@pytest.mark.parametrize("step", [timedelta(days=3), timedelta(days=-3)], ids=str)
def test_a_session_ends_after_a_step_when_it_would_have_without_one(
    service: Broker, hub: Broker, clocks: Clocks, step: timedelta
) -> None:
    idle, busy = session(service), session(service, person=Person("bob"))
    clocks.wall += step
    for minute in range(80):
        clocks.pass_time(minutes=1)
        service.clock.watch()
        say(service, idle, "same")
        say(service, busy, f"minute {minute}")
        service.sessions.warn_idle(
            [each.lease.id for each in service.sessions.standings() if each.verdict.warn]
        )
        for each in service.leases.find(states=("active",)):
            service.sessions.end_over(each.id)
        ended = service.leases.get(idle.id).state == "releasing"
        assert ended == (minute >= 60), minute
        assert service.leases.get(busy.id).state == "active"
    clocks.pass_time(hours=7)
    service.clock.watch()
    over = service.sessions.end_over(busy.id)
    assert over is not None, "a session of eight hours ends after eight hours"
    assert over.end_reason.startswith("its time was over")


def test_people_who_were_told_of_an_end_are_told_the_new_one(
    service: Broker, clocks: Clocks
) -> None:
    lease = session(service)
    clocks.pass_time(hours=7, minutes=50)
    assert [each.id for each in service.notices.warn_of_ends()] == [lease.id]
    assert not service.notices.warn_of_ends()
    clocks.wall += timedelta(days=1)
    service.clock.watch()
    (told,) = service.notices.warn_of_ends()
    assert told.ends_at is not None
    assert told.ends_at - clocks.wall == timedelta(minutes=10)
    ends = [detail["until"] for detail in happened(service, "lease.ending")]
    assert len(set(ends)) == 2


def test_a_step_of_seconds_does_not_tell_people_again(service: Broker, clocks: Clocks) -> None:
    session(service)
    clocks.pass_time(hours=7, minutes=50)
    assert service.notices.warn_of_ends()
    seconds = 20 if service.store.postgres else 3
    clocks.wall += timedelta(seconds=seconds)
    assert service.clock.watch() == timedelta(seconds=seconds)
    assert not service.notices.warn_of_ends()


def test_what_starts_between_a_step_and_the_look_has_its_full_time(
    service: Broker, hub: Broker, clocks: Clocks
) -> None:
    clocks.wall += timedelta(days=2)
    lease = session(hub)
    assert lease.ends_at == START + timedelta(hours=8)
    service.clock.watch()
    after = service.leases.get(lease.id)
    assert after.ends_at == clocks.wall + timedelta(hours=8)


def test_a_step_while_the_service_was_down_is_found_when_it_starts(
    service: Broker, start: Callable[[], Broker], clocks: Clocks
) -> None:
    lab_of_everything(service, clocks)
    before = left(service)
    clocks.wall += timedelta(days=30)
    again = start()
    assert again.clock.watch() == timedelta(days=30)
    assert left(again) == before


def test_steps_are_found_once_by_two_services(
    service: Broker, start: Callable[[], Broker], clocks: Clocks
) -> None:
    other = start()
    other.clock.watch()
    lease = session(service)
    clocks.wall += timedelta(days=1)
    if service.store.postgres:
        clocks.pass_time(seconds=6)
    assert service.clock.watch() == timedelta(days=1)
    assert other.clock.watch() == timedelta(0)
    assert other.now() == clocks.wall
    assert other.leases.get(lease.id).ends_at == service.leases.get(lease.id).ends_at
    assert len(happened(other, "clock.stepped")) == 1


def test_sleep_passes_and_nobody_is_ended_before_they_are_told(
    service: Broker, clocks: Clocks
) -> None:
    soon, later = session(service), session(service, person=Person("bob"))
    asked = service.requests.create(ADA, "card", 4, "a model")
    service.requests.decide(asked.id, GRACE, True)
    clocks.pass_time(minutes=50)
    for lease in (soon, later):
        say(service, lease, "same")
    service.sessions.warn_idle(
        [each.lease.id for each in service.sessions.standings() if each.verdict.warn]
    )
    clocks.sleep(hours=10)
    assert service.clock.watch() == timedelta(0)
    now = clocks.wall
    assert service.now() == now
    for lease in (soon, later):
        assert service.sessions.end_over(lease.id) is None
        ends = service.leases.get(lease.id).ends_at
        assert ends == now + timedelta(minutes=service.settings.warn_minutes)
    assert not service.requests.expire()
    assert {each.id for each in service.notices.warn_of_ends()} == {soon.id, later.id}
    (detail,) = happened(service, "clock.paused")
    assert detail["seconds"] == timedelta(hours=10).total_seconds()
    assert detail["held"] == 3
    clocks.pass_time(minutes=16)
    service.clock.watch()
    assert service.sessions.end_over(soon.id) is not None
    assert service.requests.expire()


def test_what_ends_later_is_not_held_by_sleep(service: Broker, clocks: Clocks) -> None:
    lease = session(service)
    clocks.sleep(hours=2)
    service.clock.watch()
    assert service.leases.get(lease.id).ends_at == lease.ends_at


def test_after_a_reboot_ends_wait_until_people_are_told(
    service: Broker, start: Callable[[], Broker], clocks: Clocks
) -> None:
    asked = service.requests.create(ADA, "card", 4, "a model")
    service.requests.decide(asked.id, GRACE, True)
    clocks.boot_id, clocks.ticks, clocks.awake = "boot-2", 30.0, 30.0
    clocks.wall += timedelta(days=2)
    again = start()
    again.clock.watch()
    assert not again.requests.expire()
    (grant,) = again.requests.find()
    assert grant.valid_until == clocks.wall + timedelta(minutes=again.settings.warn_minutes)


def test_a_reboot_in_the_past_moves_everything_there(
    service: Broker, start: Callable[[], Broker], clocks: Clocks
) -> None:
    asked = service.requests.create(ADA, "card", 4, "a model")
    service.requests.decide(asked.id, GRACE, True)
    clocks.boot_id, clocks.ticks, clocks.awake = "boot-2", 30.0, 30.0
    clocks.wall = datetime(2001, 1, 1, tzinfo=timezone.utc)
    again = start()
    assert again.clock.watch() < timedelta(days=-9000)
    (grant,) = again.requests.find()
    assert grant.valid_until is not None
    assert timedelta(hours=3) < grant.valid_until - clocks.wall <= timedelta(hours=4)
    # Nothing lives forever by it: it ends after its hours.
    clocks.pass_time(hours=4)
    again.clock.watch()
    assert again.requests.expire()


def test_without_a_service_a_machine_goes_by_its_own_clock(hub: Broker, clocks: Clocks) -> None:
    assert hub.now() == clocks.wall
    clocks.wall += timedelta(days=1)
    assert hub.now() == clocks.wall


def test_a_call_that_began_before_a_step_writes_times_after_it(
    service: Broker, hub: Broker, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.leases.find()
    run = hub.store.run

    def late(work: Any) -> Any:
        """Another process notes the step just before this transaction begins."""
        monkeypatch.setattr(hub.store, "run", run)
        clocks.wall += timedelta(days=1)
        service.clock.watch()
        return run(work)

    monkeypatch.setattr(hub.store, "run", late)
    lease = hub.leases.acquire(ADA, "", "small", "a1")
    assert lease is not None
    assert lease.since == clocks.wall
    assert lease.deadline is not None
    assert lease.deadline > clocks.wall


def test_every_column_with_a_time_moves_or_is_left_for_a_reason() -> None:
    named: dict[str, set[str]] = {
        name: set(columns) for name, columns in queries.moves.LEFT.items()
    }
    for times in queries.moves.MOVED:
        named.setdefault(times.table.name, set()).update(times.columns, times.warned)
    for table in tables.metadata.tables.values():
        found = {column.name for column in table.columns if isinstance(column.type, UtcTime)}
        assert found == named.get(table.name, set()), table.name


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)  # SQLite has one machine
def test_the_anchors_of_other_machines_move_too(service: Broker, clocks: Clocks) -> None:
    other = queries.anchors.Anchor("elsewhere", clocks.wall - timedelta(days=2), 5.0, 5.0)
    service.store.run(lambda tx: queries.anchors.keep(tx, other))
    clocks.wall += timedelta(days=1)
    clocks.pass_time(seconds=6)
    service.clock.watch()
    found = {each.boot_id: each for each in service.store.read(queries.anchors.every)}
    assert found["elsewhere"] == replace(other, moment=other.moment + timedelta(days=1))


def test_past_leases_of_last_week_still_count_in_the_quota(service: Broker, clocks: Clocks) -> None:
    lease = session(service)
    clocks.pass_time(hours=2)
    service.leases.release(lease.id, "done", "ada")
    service.leases.confirm_empty(lease.id)

    def hours() -> float:
        with service.store.transaction(write=False) as tx:
            rows = tx.rows(sa.select(tables.leases.c.since, tables.leases.c.ended_at))
        now = service.now()
        return sum(
            (row.ended_at - row.since).total_seconds() / 3600
            for row in rows
            if now - timedelta(days=7) < row.ended_at <= now
        )

    assert hours() == 2
    for step in (timedelta(days=100), timedelta(days=-200)):
        clocks.wall += step
        service.clock.watch()
        assert hours() == 2


def test_two_leases_do_not_become_one_by_a_step(service: Broker, clocks: Clocks) -> None:
    """An attempt that was called off stays so, whatever the clock says."""
    service.leases.cancel("a9", "given up")
    clocks.wall += timedelta(days=5)
    service.clock.watch()
    service.leases.forget_cancelled()
    with pytest.raises(Refusal):
        service.leases.acquire(ADA, "", "small", "a9")
