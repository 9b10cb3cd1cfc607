"""Events as the service passes them on, and old ones as it compacts them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.readings import Answer
from jupyterhub_migspawner.db.queries import events as event_log
from jupyterhub_migspawner.errors import ConfigError, DatabaseError, Refusal
from jupyterhub_migspawner.model.events import FAMILIES, KINDS
from jupyterhub_migspawner.model.inventory import GpuEvent
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.nodes import AgentProcess
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.reclaim import KERNELS, PROCESSES
from jupyterhub_migspawner.service.workers.events import Emitter, emit, event_logger, schema_id
from jupyterhub_migspawner.service.workers.retention import Compactor
from tests.broker.clocks import Clocks
from tests.broker.lab import MIXED, SEVENTHS, TIERS, WHOLE, Lab, card, inventory
from tests.unit.service.conftest import World

ROOT = Person("root", admin=True)


class Sink:
    """Where an admin sends events: a handler that keeps each as the line it is."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.config = Config()
        self.config.EventLogger.handlers = [logging.StreamHandler(self.stream)]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    @property
    def ids(self) -> list[int]:
        return [event["id"] for event in self.events]

    def emitter(self, world: World, reader: str = "n1 /") -> Emitter:
        """As a service that has just started."""
        logger = event_logger(self.config)
        assert logger is not None
        return Emitter(world.parts, logger, reader)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(f"sqlite:///{tmp_path / 'leases.sqlite'}")
    yield lab
    lab.close()


def do_everything(lab: Lab) -> None:
    """Whatever an event can report, once."""
    broker = lab.broker
    broker.nodes.record_inventory("n1", replace(inventory(card(0), card(1)), boot_id="one"))
    broker.nodes.note_boot("n1", "two")
    for host in ("gpu1", "gpu2"):
        agent = AgentProcess(host, f"machine of {host}", "boot", "pid:[1]", 100, 7)
        broker.agents.begin("n1", agent, lambda _: True, cards=lambda: ("GPU-0", "GPU-1"))
    broker.agents.end("n1", agent)
    lab.report()
    lease = lab.start("ada")
    broker.leases.activate(lease.attempt)
    broker.processes.note_foreign(lease.id, {4711: "eve"}, "a process of eve is on its slice")
    broker.leases.release(lease.id, "over", "root")
    broker.leases.note_waiting(lease.id, "a process")
    broker.leases.confirm_empty(lease.id)
    broker.leases.cancel("early", "left")
    small = [lab.start("ada"), lab.start("grace", server="a"), lab.start("grace", server="b")]
    for uuid in {lease.card_uuid for lease in small}:
        broker.cards.record_xid("n1", GpuEvent(uuid, "xid", xid=79))
        broker.cards.record_xid("n1", GpuEvent(uuid, "xid", xid=48, gi_id=1))
        broker.cards.resume(uuid, "root")
    for status in broker.slices.find():
        broker.slices.unquarantine(status.row.id, "root")
    other = next(i for i in (0, 1) if f"GPU-{i}" != small[0].card_uuid)
    broker.cards.drain(f"GPU-{other}", "fan", "root")
    grant = lab.grant("linus")
    with pytest.raises(Refusal, match="is being emptied"):
        lab.start("linus", "card")
    for lease in small:
        lab.stop(lease)
    broker.reservations.look_after()
    broker.requests.cancel(grant.id, ROOT)
    broker.reservations.look_after()
    broker.requests.decide(broker.requests.create(Person("ada"), "card", 1, "x").id, ROOT, False)
    lab.grant("linus", hours=1)
    whole = lab.start("linus", "card")
    index = int(whole.card_uuid.removeprefix("GPU-"))
    broker.layouts.record_step(whole.card_uuid, "n1", "destroy")
    broker.layouts.record_step(whole.card_uuid, "n1", "create", error="busy")
    cards = {0: card(0), 1: card(1), index: card(index, WHOLE)}
    lab.report(*cards.values())
    broker.layouts.finish_target(whole.card_uuid)
    lab.report(*(card(i, each.instances and ()) for i, each in cards.items() if i != index))
    lab.report(*cards.values())
    lab.report(card(0, SEVENTHS, model="another"), card(1))
    broker.layouts.set("GPU-0", (), True, "root")
    broker.layouts.claim_slice("GPU-0", SEVENTHS[0], "n1")
    broker.cards.resume(f"GPU-{other}", "root")
    lab.clock.pass_time(days=1)
    broker.requests.expire()
    broker.hubs.claim("here")
    lab.report()
    lab.start("ada", server="a")
    broker.users.rename_server("ada", "a", "b")
    broker.users.rename("ada", "lovelace")
    broker.requests.create(Person("lovelace"), "card", 1, "x")
    broker.users.forget("lovelace")
    until = lab.clock() + timedelta(days=1)
    lifted = broker.quotas.grant_exception("ada", "live", 3, until, "a deadline", ROOT)
    broker.quotas.end_exception(lifted.id, "met", ROOT)
    wait_for_everything(lab)
    ask_for_everything(lab)
    keep_everything(lab)
    set_the_clock(lab)
    renamed = Lab(lab.url, clock=lab.clock, hub="physics")
    renamed.broker.hubs.claim("here")
    renamed.close()


def ask_for_everything(lab: Lab) -> None:
    board = {"name": "board", "profile": "3g.20gb", "approval": True, "approvals": 2}
    once = {"name": "once", "profile": "1g.5gb", "approval": True, "grant_starts": 1}
    strict = Lab(lab.url, clock=lab.clock, tiers=[*TIERS, board, once])
    broker, pi = strict.broker, Person("noether", frozenset({"pi"}))
    asked = broker.requests.create(Person("ada"), "board", 2, "x")
    broker.requests.decide(asked.id, pi, True)
    lab.clock.pass_time(days=2)
    broker.requests.remind()
    broker.requests.decide(asked.id, ROOT, True)
    lab.clock.pass_time(minutes=110)
    broker.requests.remind()
    lab.report(card(0), card(1), card(2, MIXED))
    begun = strict.start("ada", "board", "x")
    broker.leases.activate(begun.attempt)
    broker.notices.warn_of_ends()
    broker.requests.revoke(asked.id, ROOT, "an emergency", 5)
    strict.grant("ada", "once", 5)
    lease = strict.start("ada", "once", "y")
    broker.leases.activate(lease.attempt)
    strict.stop(lease)
    strict.close()


def keep_everything(lab: Lab) -> None:
    idle = {"name": "idle", "profile": "1g.5gb", "idle_minutes": 60}
    strict = Lab(lab.url, clock=lab.clock, tiers=[*TIERS, idle])
    strict.report(card(0), card(1), card(2, MIXED))
    strict.broker.notices.note_port_taken(node="n1", why="eve has the port", uid=1007, pids=(4711,))
    lease = strict.broker.leases.activate(strict.start("zoe", "idle").attempt)
    assert lease is not None
    sources = (KERNELS, PROCESSES)
    strict.broker.readings.note([Answer(lease.id, source, "x") for source in sources])
    claim_for_hours(strict, lease)
    strict.broker.sessions.extend(lease.id, Person("zoe"))
    strict.broker.sessions.protect(lease.id, ROOT, lab.clock() + timedelta(days=1), "a deadline")
    lab.clock.pass_time(hours=1)
    strict.broker.doubts.note()
    strict.broker.sessions.protect(lease.id, ROOT, None, "")
    strict.broker.readings.note([Answer(lease.id, source, "x") for source in sources])
    lab.clock.pass_time(hours=2)
    strict.broker.readings.note([Answer(lease.id, source, "x") for source in sources])
    strict.broker.sessions.warn_idle([lease.id])
    lab.clock.pass_time(minutes=15)
    strict.broker.readings.note([Answer(lease.id, source, "x") for source in sources])
    assert strict.broker.sessions.end_over(lease.id) is not None
    lab.clock.pass_time(minutes=5)
    strict.broker.notices.warn_of_stuck()
    strict.close()


def claim_for_hours(lab: Lab, lease: LeaseRow) -> None:
    for _ in range(40):
        lab.clock.pass_time(minutes=10)
        busy = Answer(lease.id, KERNELS, "x", busy=True)
        lab.broker.readings.note([busy, Answer(lease.id, PROCESSES, "x")])
        lab.broker.doubts.note()


def set_the_clock(lab: Lab) -> None:
    clocks = Clocks()
    clocks.wall = lab.clock()
    broker = Broker(lab.store, lab.broker.settings, machine=clocks.machine())
    broker.clock.watch()
    clocks.sleep(hours=1)
    broker.clock.watch()
    clocks.wall += timedelta(hours=1)
    assert broker.clock.watch() == timedelta(hours=1)
    lab.clock.now = clocks.wall


def wait_for_everything(lab: Lab) -> None:
    broker = lab.broker
    first, second = (broker.queue.join(Person(name), "medium") for name in ("ada", "grace"))
    broker.queue.join(Person("ada"), "medium", start=True)
    lab.report(card(0), card(1), card(2, MIXED))
    lease = broker.offers.make(first.id, Person("ada")).lease
    assert lease is not None
    lab.clock.pass_time(minutes=11)
    broker.offers.settle()
    broker.leases.confirm_empty(lease.id)
    lab.report(card(0), card(1), card(2, MIXED))
    broker.hubs.claim("here")
    assert broker.offers.make(second.id, Person("grace")).lease is not None
    lab.start("grace", "medium")
    strict = Lab(lab.url, clock=lab.clock, quotas={"default": {"live": 1}})
    lab.start("eve", "small", "first")
    blocked = strict.broker.queue.join(Person("eve"), "medium", server="second")
    assert "Your quota" in strict.broker.offers.make(blocked.id, Person("eve")).why
    strict.close()
    broker.queue.leave(blocked.id, ROOT)


def test_every_kind_that_is_written_fits_its_schema_and_every_kind_is_written(lab: Lab) -> None:
    do_everything(lab)
    sink = Sink()
    logger = event_logger(sink.config)
    assert logger is not None
    events = lab.broker.events.find(limit=10_000)
    for event in events:
        emit(logger, event)
    assert {event.kind for event in events} == set(KINDS)
    for event, told in zip(events, sink.events, strict=True):
        assert told["__schema__"] == schema_id(event.kind.split(".")[0])
        assert told["__timestamp__"] == event.at.isoformat().replace("+00:00", "Z")
        assert (told["kind"], told["id"], told["user"]) == (event.kind, event.id, event.user)
        assert told["detail"] == event.detail


def test_the_schemas_know_the_kinds_of_the_log_and_no_others() -> None:
    logger = event_logger(Sink().config)
    assert logger is not None
    known: list[str] = []
    for family in FAMILIES:
        schema = logger.schemas.get(schema_id(family))._schema
        kinds = schema["properties"]["kind"]["enum"]
        assert {kind.split(".")[0] for kind in kinds} == {family}
        known += kinds
    assert sorted(known) == sorted(KINDS)


def test_an_event_of_no_known_kind_is_not_written(lab: Lab) -> None:
    with pytest.raises(ValueError, match="'lease\\.borrowed'"), lab.store.transaction() as tx:
        event_log.append(tx, lab.clock.now, "ada", "lease.borrowed")
    assert lab.broker.events.find() == ()


def test_without_handlers_nothing_is_passed_on() -> None:
    assert event_logger(Config()) is None
    empty = Config()
    empty.EventLogger.handlers = []
    assert event_logger(empty) is None


def test_handlers_that_are_none_are_named() -> None:
    wrong = Config()
    wrong.EventLogger.handlers = ["events.log"]
    with pytest.raises(ConfigError, match=r"EventLogger\.handlers"):
        event_logger(wrong)


async def test_what_happens_after_the_first_start_is_passed_on(world: World) -> None:
    world.lend("eve")
    sink = Sink()
    emitter = sink.emitter(world)
    await emitter.round()
    assert sink.events == []
    lease = world.lend("ada")
    await emitter.round()
    await emitter.round()
    assert [(event["kind"], event["lease_id"]) for event in sink.events] == [
        ("lease.pending", lease.id),
        ("lease.active", lease.id),
    ]


async def test_what_happens_while_the_service_is_away_is_passed_on_when_it_is_back(
    world: World,
) -> None:
    sink = Sink()
    await sink.emitter(world).round()
    begin = world.broker.events.last(0).read_to
    for number in range(450):
        world.broker.layouts.record_step("GPU", "n1", str(number))
    await sink.emitter(world).round()
    assert sink.ids == [event.id for event in world.broker.events.find(begin)]
    await sink.emitter(world).round()
    assert len(sink.ids) == 450
    await sink.emitter(world, reader="another hub").round()
    assert len(sink.ids) == 450


async def test_a_crash_before_it_is_noted_passes_events_on_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Sink()
    await sink.emitter(world).round()
    world.lend("ada")

    def fail(*_: Any, **__: Any) -> int:
        raise DatabaseError("The lease database is away.")

    with monkeypatch.context() as patch:
        patch.setattr("jupyterhub_migspawner.broker.events.Events.move_reader", fail)
        with pytest.raises(DatabaseError):
            await sink.emitter(world).round()
    twice = sink.ids
    assert len(twice) == 2
    await sink.emitter(world).round()
    assert sink.ids == twice * 2


async def test_an_event_that_cannot_be_passed_on_does_not_hold_up_the_next(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Sink()
    emitter = sink.emitter(world)
    await emitter.round()
    with world.broker.store.transaction() as tx:
        event_log.append(tx, world.now, "ada", "lease.active", unknown="field")
    lease = world.lend("ada")
    await emitter.round()
    assert [event["lease_id"] for event in sink.events] == [lease.id, lease.id]
    assert "(lease.active) could not be passed on" in caplog.text


async def test_old_events_are_compacted_once_a_day(world: World) -> None:
    steps = 11_000
    with world.broker.store.transaction() as tx:
        for number in range(steps):
            event_log.append(tx, world.now, "n1", "card.step", card_uuid="GPU", step=str(number))
    compactor = Compactor(world.parts, 30, clock=lambda: world.now)
    await compactor.round()
    assert world.broker.events.counts() == ()
    world.pass_by(days=31)
    world.broker.layouts.record_step("GPU", "n1", "new")

    def counted() -> int:
        found = (c.number for c in world.broker.events.counts() if c.kind == "card.step")
        return sum(found)

    await compactor.round()
    # So many that the service would end late: the rest is for the next rounds.
    assert 0 < counted() < steps
    await compactor.round()
    assert counted() == steps
    world.pass_by(days=29, hours=12)
    world.broker.layouts.record_step("GPU", "n1", "newest")
    await compactor.round()
    world.pass_by(hours=23)
    await Compactor(world.parts, 0, clock=lambda: world.now).round()
    await compactor.round()
    assert counted() == steps
    world.pass_by(hours=1)
    await compactor.round()
    assert counted() == steps + 1
