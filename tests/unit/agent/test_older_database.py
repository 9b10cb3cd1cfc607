"""An older copy of the database still has the lease of the user who had a slice before: the server
that runs there now is not ended with it. All processes are real."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from jupyterhub_migspawner.agent.vacancy import KILL_AFTER, STUCK_SECONDS
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.marks import environment_of
from jupyterhub_migspawner.db.identity import Position
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.orphans import OrphanRow
from tests.unit.agent.conftest import NodeMaker
from tests.unit.agent.sessions import Session, signal


@pytest.fixture
def session(make_node: NodeMaker) -> Iterator[Session]:
    """Ada's, which the database believes to run; it ended long ago."""
    node = make_node(("1g.5gb",), real_processes=True)
    node.tick()
    made = Session(node)
    first = made.process()
    node.tick()
    made.end(first)
    yield made
    made.close()


def later(session: Session, hub: str = "hub") -> tuple[LeaseRow, int]:
    """The lease that grace has had on the slice since, which nobody knows, and her process."""
    lease = replace(session.lease, attempt="of-grace", user="grace", hub=hub, id=99)
    environ = environment_of(lease, Position("this", 1))
    environ |= {
        "MIGSPAWNER_SLICE_UUID": session.slice_uuid,
        "MIGSPAWNER_PROFILE": lease.profile,
        "MIGSPAWNER_TIER": lease.tier,
        "JUPYTERHUB_USER": "grace",
    }
    return lease, session.process(attempt="of-grace", environ=environ, on_slice=True)


def vouch(broker: Broker, lease: LeaseRow) -> None:
    row = OrphanRow(
        attempt=lease.attempt,
        node=lease.node,
        card_uuid=lease.card_uuid,
        profile=lease.profile,
        start=lease.start,
        hub=lease.hub,
        user=lease.user,
        tier=lease.tier,
        since=lease.since,
        vouched=True,
    )
    assert broker.orphans.vouch([row]) == (row,)


def wait_long(session: Session) -> None:
    session.node.tick(3)
    session.node.seconds += KILL_AFTER + STUCK_SECONDS
    session.node.tick(3)


def test_a_server_that_its_hub_runs_is_not_ended_and_can_be_adopted(session: Session) -> None:
    lease, pid = later(session)
    session.node.tick()
    vouch(session.node.broker, lease)
    session.stop()
    session.prove()
    assert session.lives(pid)
    assert session.quarantined.startswith("In use by a server that has no lease here:")
    (done,) = session.node.broker.orphans.adopt("root")
    assert done.lease is not None
    assert (done.lease.user, done.lease.slice_id) == ("grace", session.lease.slice_id)
    wait_long(session)
    assert session.lives(pid)
    assert session.quarantined == ""


def test_what_such_a_server_started_is_not_ended_either(session: Session) -> None:
    """Nobody can say whose a process is that has dropped its environment on that slice."""
    lease, _ = later(session)
    pid = session.process(marked=False, on_slice=True)
    session.node.tick()
    vouch(session.node.broker, lease)
    session.stop()
    wait_long(session)
    assert session.lives(pid)
    assert session.state == "releasing"


def test_a_server_of_a_hub_that_has_not_started_since_is_left_alone(session: Session) -> None:
    broker = session.node.broker
    broker.hubs.claim("here")
    teaching = Broker(broker.store, replace(broker.settings, hub="teaching"), clock=broker.now)
    teaching.hubs.claim("there")
    session.node.tick()
    _, pid = later(session, "teaching")
    session.node.tick()
    session.stop()
    wait_long(session)
    assert session.lives(pid)
    assert session.state == "releasing"
    assert session.quarantined.startswith("In use by a server that has no lease here:")

    # Its hub is there and does not name it: then it is what is left on the slice, as any other.
    teaching.hubs.claim("there")
    wait_long(session)
    assert session.ended_by(pid) in (signal.SIGTERM, signal.SIGKILL)
    session.prove()


def test_a_mark_alone_saves_no_process(session: Session) -> None:
    _, pid = later(session)
    session.node.tick()
    session.stop()
    wait_long(session)
    assert session.ended_by(pid) in (signal.SIGTERM, signal.SIGKILL)


def test_a_mark_that_names_a_hub_that_never_was_saves_no_process(session: Session) -> None:
    _, pid = later(session, "of-fools")
    session.node.tick()
    session.stop()
    wait_long(session)
    assert session.ended_by(pid) in (signal.SIGTERM, signal.SIGKILL)
