"""A process of another system user on a leased slice: reported, and no use of the session's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.events import EventRow
from jupyterhub_migspawner.model.sessions import ReadingRow
from jupyterhub_migspawner.policy.reclaim import PROCESSES, USE
from tests.unit.agent.conftest import Node, NodeMaker
from tests.unit.agent.sessions import NOBODY, Session

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="starts processes of another user")

TIERS = [
    {"name": "small", "profile": "1g.10gb", "idle_minutes": 60},
    {"name": "course", "profile": "2g.20gb", "seats": 3, "idle_minutes": 60},
]

Opened = Callable[..., Session]


@pytest.fixture
def open_session(make_node: NodeMaker) -> Iterator[Opened]:
    opened: list[Session] = []
    nodes: list[Node] = []

    def make(tier: str = "small", user: str = "ada") -> Session:
        if not nodes:
            layout = ("1g.10gb", "1g.10gb", "2g.20gb")
            nodes.append(make_node(layout, tiers=TIERS, real_processes=True, model="H100-80GB"))
            nodes[0].tick()
        opened.append(Session(nodes[0], tier, user))
        return opened[-1]

    yield make
    for session in opened:
        session.close()


def reports(session: Session) -> list[EventRow]:
    return [each for each in session.node.broker.events.find() if each.kind == "lease.foreign"]


def readings(session: Session) -> dict[str, ReadingRow]:
    found = next(
        each
        for each in session.node.broker.sessions.standings()
        if each.lease.id == session.lease.id
    )
    return {row.source: row for row in found.readings}


def active_now(session: Session, source: str) -> bool:
    row = readings(session)[source]
    assert row.problem == ""
    return row.active_at == row.seen_at


def use(session: Session, pid: int, percent: float) -> None:
    """How much a process uses the slice, as the driver sees it."""
    simulator.add_process(session.node.path, session.slice_uuid, pid, 300, used=percent)


def test_it_is_reported_once_with_who_and_how_it_is_ended(open_session: Opened) -> None:
    session = open_session()
    session.process(on_slice=True)
    session.node.tick(2)
    assert reports(session) == []
    pid = session.process(marked=False, on_slice=True, uid=NOBODY)
    session.node.tick(3)
    session.node.restart()
    session.node.tick(3)
    (event,) = reports(session)
    assert (event.user, event.lease_id) == ("ada", session.lease.id)
    assert event.detail["users"] == [str(NOBODY)]
    assert f"process {pid} (cat, user {NOBODY}, since " in event.detail["why"]
    assert f"`sudo kill -9 {pid}`" in event.detail["why"]
    assert session.lives(pid)
    # Others of the same user are no news within the hour.
    session.end(pid)
    session.process(marked=False, on_slice=True, uid=NOBODY)
    session.node.tick(2)
    assert len(reports(session)) == 1
    session.process(marked=False, on_slice=True, uid=NOBODY + 1)
    session.node.tick()
    assert [each.detail["users"] for each in reports(session)][1:] == [[str(NOBODY + 1)]]


def test_one_that_comes_back_after_an_hour_is_news(open_session: Opened) -> None:
    session = open_session()
    session.process()
    pid = session.process(marked=False, on_slice=True, uid=NOBODY)
    session.node.tick()
    session.leave(pid)
    session.node.seconds += 4000
    session.node.tick()
    session.put(pid)
    session.node.tick(2)
    assert len(reports(session)) == 2


def test_what_a_session_started_as_another_user_is_its_own(open_session: Opened) -> None:
    """As by ``sudo``, which descends from it."""
    session = open_session()
    session.process()
    session.node.tick()
    lease, families = session.lease, session.node.agent._vacancy._families
    pid = session.process(marked=False, on_slice=True, uid=NOBODY)
    assert families.is_own(pid, [lease]) is False
    # A mark can be set by anybody who knows it.
    marked = session.process(on_slice=True, uid=NOBODY)
    session.node.tick()
    assert families.is_own(marked, [lease]) is False
    owners = {**families.snapshot.owners, os.getpid(): lease.attempt}
    families.snapshot = type(families.snapshot)(families.snapshot.facts, owners, {})
    assert families.is_own(pid, [lease]) is True


def test_where_it_is_not_known_who_a_session_runs_as_nothing_is_said(open_session: Opened) -> None:
    session = open_session()
    session.process(marked=False, on_slice=True, uid=NOBODY)
    session.node.tick(2)
    assert reports(session) == []


def test_the_user_of_a_server_is_known_from_its_start_and_outlives_the_agent(
    open_session: Opened,
) -> None:
    session = open_session()
    first = session.process()
    session.node.tick()
    session.node.restart()
    session.end(first)
    session.process(marked=False, on_slice=True, uid=NOBODY)
    session.node.tick(2)
    assert len(reports(session)) == 1


def test_its_coming_and_going_and_its_use_keep_no_session(open_session: Opened) -> None:
    session = open_session()
    session.process()
    session.node.tick(3)
    assert not active_now(session, PROCESSES)
    pid = session.process(marked=False, on_slice=True, uid=NOBODY)
    use(session, pid, 90)
    session.node.tick()
    assert not active_now(session, PROCESSES)
    assert readings(session)[PROCESSES].said == "0 % of a CPU by 0 on the slice, 0 % by 0 others"
    session.node.tick(2)
    assert not active_now(session, USE)
    assert "does not count while a process of another user" in readings(session)[USE].said
    session.end(pid)
    session.node.tick()
    assert not active_now(session, PROCESSES)


def test_beside_an_idle_process_of_the_session_it_keeps_nothing_either(
    open_session: Opened,
) -> None:
    session = open_session()
    session.process(on_slice=True)
    pid = session.process(marked=False, on_slice=True, uid=NOBODY)
    use(session, pid, 90)
    session.node.tick(4)
    assert not active_now(session, USE)
    assert not active_now(session, PROCESSES)


def test_use_by_a_process_without_a_mark_counts_where_it_is_the_sessions(
    open_session: Opened,
) -> None:
    session = open_session()
    session.process()
    session.node.tick(3)
    pid = session.process(marked=False)
    use(session, pid, 90)
    session.node.tick()
    assert active_now(session, PROCESSES)
    session.node.tick()
    assert active_now(session, USE)
    assert readings(session)[PROCESSES].said.startswith("0 % of a CPU by 1 on the slice")


def test_on_a_shared_slice_the_users_of_all_who_share_it_are_no_strangers(
    open_session: Opened,
) -> None:
    session, neighbour = open_session("course"), open_session("course", "grace")
    session.process(on_slice=True)
    neighbour.process(uid=NOBODY)
    theirs = neighbour.process(on_slice=True, uid=NOBODY)
    session.node.tick(3)
    assert reports(session) == []
    use(session, theirs, 90)
    session.node.tick(2)
    assert active_now(session, USE)
    stranger = session.process(marked=False, on_slice=True, uid=NOBODY + 1)
    session.node.tick()
    (event,) = reports(session)
    assert event.detail["users"] == [str(NOBODY + 1)]
    session.node.tick(2)
    assert not active_now(session, USE)
    assert session.lives(stranger)


def test_it_keeps_the_slice_from_others_after_the_lease(open_session: Opened) -> None:
    session = open_session()
    session.process()
    session.node.tick()
    pid = session.process(marked=False, on_slice=True, uid=NOBODY)
    session.node.tick()
    session.stop()
    session.end(session.started[0].pid)
    session.node.tick()
    assert session.state == "releasing"
    assert f"process {pid} (" in session.quarantined
