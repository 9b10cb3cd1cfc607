"""Rounds over sessions that may lie idle, against servers that answer in every way there is."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from jupyterhub_migspawner.broker.readings import Answer
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.notebook import KERNELS_PATH
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.reclaim import PROCESSES
from jupyterhub_migspawner.service.clients import notebooks
from jupyterhub_migspawner.service.clients.notebooks import NotSaid, read
from jupyterhub_migspawner.service.workers.sessions import Examiner
from tests.unit.service.conftest import World
from tests.unit.service.notebook_servers import (
    KERNEL,
    TERMINAL,
    TOKEN,
    Notebook,
    lend,
    pass_by,
    quiet,
    reading,
)


async def test_an_idle_session_is_told_of_and_ended_through_the_hub(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = lend(world, notebook)
    await examiner.round()
    await pass_by(world, examiner, lease, 44)
    assert "lease.ending" not in [event.kind for event in world.broker.events.find()]
    await pass_by(world, examiner, lease, 2)
    assert "lease.ending" in [event.kind for event in world.broker.events.find()]
    await pass_by(world, examiner, lease, 14.9)
    assert world.live() == {lease.id: "active"}
    await pass_by(world, examiner, lease, 0.2)
    assert world.live() == {lease.id: "releasing"}
    assert world.hub.stopped == [("ada", "")]
    ended = world.broker.leases.get(lease.id)
    assert "kernels and terminals: 1 kernel, 0 busy; processes: quiet" in ended.end_reason
    # Only the server's own token was sent there, and asking it is no activity.
    assert {token for _, token in notebook.asked} == {f"token {TOKEN}"}
    assert all(uri.endswith("?no_track_activity=1") for uri, _ in notebook.asked)


@pytest.mark.parametrize("state", ["busy", "something new"])
async def test_a_busy_kernel_is_never_idle(
    world: World, examiner: Examiner, notebook: Notebook, state: str
) -> None:
    lease = lend(world, notebook)
    notebook.kernels = [dict(KERNEL), {**KERNEL, "id": "k2", "execution_state": state}]
    for _ in range(30):
        await pass_by(world, examiner, lease, 10)
    assert world.live() == {lease.id: "active"}
    assert world.hub.stopped == []
    assert "lease.ending" not in [event.kind for event in world.broker.events.find()]


@pytest.mark.parametrize("what", ["kernel", "terminal", "new kernel", "gone kernel"])
async def test_whatever_is_new_is_use(
    world: World, examiner: Examiner, notebook: Notebook, what: str
) -> None:
    notebook.terminals = [dict(TERMINAL)]
    lease = lend(world, notebook)
    await examiner.round()
    await pass_by(world, examiner, lease, 50)
    if what == "kernel":
        # By a clock of its own, whatever that says.
        notebook.kernels[0]["last_activity"] = "1999-01-01T00:00:00Z"
    elif what == "terminal":
        notebook.terminals[0]["last_activity"] = "2099-01-01T00:00:00Z"
    elif what == "new kernel":
        notebook.kernels.append({**KERNEL, "id": "k2"})
    else:
        notebook.kernels.clear()
    await pass_by(world, examiner, lease, 5)
    assert reading(world, lease).active_at == world.now
    for _ in range(4):
        await pass_by(world, examiner, lease, 10)
    assert world.live() == {lease.id: "active"}


async def test_a_page_that_is_left_open_is_no_use(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = lend(world, notebook)
    await examiner.round()
    for connections in range(8):
        notebook.kernels[0]["connections"] = connections
        await pass_by(world, examiner, lease, 10)
    assert world.live() == {lease.id: "releasing"}


@pytest.mark.parametrize(
    "how",
    [
        *("hangs", "trickles", "floods", "floods without a length", "crowds", "heads", "chunks"),
        *("redirects", "garbage", "500", "403", "401", "204", "404"),
    ],
)
async def test_a_server_that_does_not_say_is_unknown_and_never_ended(
    world: World,
    examiner: Examiner,
    notebook: Notebook,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lease = lend(world, notebook)
    await examiner.round()
    notebook.how = how
    with monkeypatch.context() as patch:
        if how in ("hangs", "trickles"):  # nobody else's answer may depend on this machine's speed
            patch.setattr(notebooks, "PATIENCE", 0.3)
        for _ in range(3):
            await pass_by(world, examiner, lease, 60)
    assert world.live() == {lease.id: "active"}
    assert reading(world, lease).problem
    assert how != "chunks" or "in chunks" in reading(world, lease).problem
    assert [event.kind for event in world.broker.events.find()].count("lease.unknown") == 1
    # Well again: it has all its time.
    notebook.how = "well"
    notebook.go_on.set()
    await pass_by(world, examiner, lease, 1)
    assert world.live() == {lease.id: "active"}


@pytest.mark.parametrize(
    "kernels",
    [
        {},
        None,
        "idle",
        [None],
        ["idle"],
        [{}],
        [{**KERNEL, "execution_state": None}],
        [{**KERNEL, "execution_state": 1}],
        [{**KERNEL, "last_activity": 12}],
        [dict(KERNEL)] * 1001,
    ],
)
async def test_lists_that_are_none_are_unknown(
    world: World, examiner: Examiner, notebook: Notebook, kernels: Any
) -> None:
    lease = lend(world, notebook)
    notebook.kernels = kernels
    await examiner.round()
    assert "cannot be read" in reading(world, lease).problem


@pytest.mark.parametrize("how", ["hangs", "floods", "crowds", "chunks", "garbage", "500", "403"])
async def test_nor_one_whose_extension_does_not_say(
    world: World, examiner: Examiner, notebook: Notebook, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = lend(world, notebook)
    notebook.watched = [{"id": "k1", "running": 0, "heard": 1}]
    await examiner.round()
    assert reading(world, lease).problem == ""
    notebook.how, notebook.where = how, KERNELS_PATH
    with monkeypatch.context() as patch:
        if how == "hangs":
            patch.setattr(notebooks, "PATIENCE", 0.3)
        for _ in range(3):
            await pass_by(world, examiner, lease, 60)
    assert world.live() == {lease.id: "active"}
    assert reading(world, lease).problem


@pytest.mark.parametrize(
    "watched",
    [
        {},
        [None],
        [{"id": "k1"}],
        [{"id": "k1", "running": -1, "heard": 0}],
        [{"id": "k1", "running": 1, "heard": "0"}],
        [{"id": "k1", "running": 0, "heard": 0}] * 1001,
    ],
)
async def test_what_an_extension_says_is_not_taken_for_granted(
    world: World, examiner: Examiner, notebook: Notebook, watched: Any
) -> None:
    lease = lend(world, notebook)
    notebook.watched = watched
    await examiner.round()
    assert "cannot be read" in reading(world, lease).problem


async def test_who_writes_without_a_kernel_is_there(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = lend(world, notebook)
    notebook.kernels, notebook.acts = [], 5
    await examiner.round()
    begun = reading(world, lease)
    assert begun.said == "0 kernels, 0 busy; 5 actions in the browser"
    await pass_by(world, examiner, lease, 600)
    assert reading(world, lease).active_at == begun.active_at, "a tab that is only open"
    notebook.acts += 1
    await examiner.round()
    assert reading(world, lease).active_at > begun.active_at


@pytest.mark.parametrize("acts", [-1, "5", True, [1]])
async def test_acts_that_are_no_number_are_unknown(
    world: World, examiner: Examiner, notebook: Notebook, acts: Any
) -> None:
    lease = lend(world, notebook)
    notebook.acts = acts
    await examiner.round()
    assert "cannot be read" in reading(world, lease).problem


async def test_a_server_without_terminals_is_no_problem(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = lend(world, notebook)
    notebook.how = "no terminals"
    await examiner.round()
    assert (reading(world, lease).problem, reading(world, lease).said) == ("", "1 kernel, 0 busy")


async def test_a_server_that_nobody_knows_how_to_ask_is_unknown(
    world: World, examiner: Examiner
) -> None:
    lease = world.lend("ada")
    quiet(world, lease)
    for _ in range(3):
        await pass_by(world, examiner, lease, 60)
    assert world.live() == {lease.id: "active"}
    assert "the address of its server is unknown" in reading(world, lease).problem


async def test_sessions_without_a_limit_are_not_asked(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lend(world, notebook, tier="large")
    await examiner.round()
    assert notebook.asked == []


async def test_right_before_the_end_the_server_is_asked_again(
    world: World, examiner: Examiner, notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = lend(world, notebook)
    await examiner.round()
    await pass_by(world, examiner, lease, 46)
    world.pass_by(minutes=20)
    quiet(world, lease)
    hear = examiner._hear
    rounds: list[int] = []

    async def then_it_is_used(standings: Any) -> None:
        rounds.append(len(standings))
        if len(rounds) == 2:
            notebook.kernels[0]["execution_state"] = "busy"
        await hear(standings)

    monkeypatch.setattr(examiner, "_hear", then_it_is_used)
    await examiner.round()
    assert rounds == [1, 1]
    assert world.live() == {lease.id: "active"}


async def test_a_hub_that_is_away_ends_what_it_can_and_the_rest_follows(
    world: World, examiner: Examiner, notebook: Notebook, caplog: pytest.LogCaptureFixture
) -> None:
    lease = lend(world, notebook)
    await examiner.round()
    await pass_by(world, examiner, lease, 46)
    world.hub.fail_with = 500
    await pass_by(world, examiner, lease, 15)
    assert world.live() == {lease.id: "releasing"}
    assert "is not stopped yet" in caplog.text
    # The comparison of leases with servers stops what is left.
    world.hub.fail_with = 0
    assert world.hub.users["ada"]


async def test_the_hub_is_told_of_use_that_it_cannot_see(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = lend(world, notebook)
    notebook.kernels[0]["execution_state"] = "busy"
    for _ in range(12):
        await pass_by(world, examiner, lease, 1)
    assert [(user, token) for user, token, _ in world.hub.active] == [("ada", TOKEN)] * 2
    sent = world.hub.active[-1][2]
    assert sent["last_activity"] == sent["servers"][""]["last_activity"]
    notebook.kernels[0]["execution_state"] = "idle"
    await pass_by(world, examiner, lease, 1)
    told = len(world.hub.active)
    for _ in range(20):
        await pass_by(world, examiner, lease, 1)
    assert len(world.hub.active) <= told + 1


def test_what_a_server_says_in_short() -> None:
    said = read([dict(KERNEL), {**KERNEL, "execution_state": "busy"}], [dict(TERMINAL)])
    assert (said.busy, said.words) == (True, "2 kernels, 1 busy; 1 terminal")
    # The order of a list says nothing, nor does what is not looked at.
    other = read([{**KERNEL, "execution_state": "busy", "x": 1}, dict(KERNEL)], [dict(TERMINAL)])
    assert other == said
    with pytest.raises(NotSaid):
        read([], [{"name": 1}])
    assert read([], [{"name": "1"}]).words == "0 kernels, 0 busy; 1 terminal"


async def test_one_strange_server_keeps_nobody_from_being_looked_at(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    """A header without an end is an error of another kind than all the rest."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n")
        writer.close()

    strange = await asyncio.start_server(answer, "127.0.0.1", 0)
    idle, odd = lend(world, notebook), lend(world, notebook, "mallory")
    port = strange.sockets[0].getsockname()[1]
    world.reach(odd, f"http://127.0.0.1:{port}/", TOKEN)
    await examiner.round()
    for minutes in (46, 16):
        world.pass_by(minutes=minutes)
        quiet(world, idle)
        quiet(world, odd)
        await examiner.round()
    strange.close()
    assert world.live() == {idle.id: "releasing", odd.id: "active"}
    assert reading(world, odd).problem


@pytest.mark.parametrize("source", ["kernels", "processes"])
async def test_a_last_question_without_an_answer_ends_nothing(
    world: World,
    examiner: Examiner,
    notebook: Notebook,
    source: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lease = lend(world, notebook)
    await examiner.round()
    await pass_by(world, examiner, lease, 46)
    world.pass_by(minutes=20)
    quiet(world, lease)
    hear, heard = examiner._hear, []

    async def hear_and_lose(standings: Any) -> None:
        if heard:
            if source == "kernels":
                notebook.how = "500"
            else:
                world.broker.readings.note([Answer(lease.id, PROCESSES, problem="NVML fails")])
        heard.append(standings)
        await hear(standings)

    monkeypatch.setattr(examiner, "_hear", hear_and_lose)
    await examiner.round()
    assert len(heard) == 2
    assert world.live() == {lease.id: "active"}


async def test_processes_seen_a_minute_ago_prove_nothing_at_the_end(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = lend(world, notebook)
    await examiner.round()
    await pass_by(world, examiner, lease, 46)
    await pass_by(world, examiner, lease, 14.5)
    world.pass_by(minutes=1)
    await examiner.round()  # the agent is busy cutting a card
    assert world.live() == {lease.id: "active"}
    quiet(world, lease)
    await examiner.round()
    assert world.live() == {lease.id: "releasing"}


async def test_the_hub_is_told_of_a_busy_kernel_while_the_agent_is_silent(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    """Else the hub's own culler would end what works."""
    lend(world, notebook)
    notebook.kernels[0]["execution_state"] = "busy"
    for _ in range(40):
        world.pass_by(minutes=1)
        await examiner.round()
    assert len(world.hub.active) >= 6


async def test_who_is_not_protected_any_more_is_told_anew(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease, root = lend(world, notebook), Person("root", admin=True)
    await examiner.round()
    await pass_by(world, examiner, lease, 46)
    world.broker.sessions.protect(lease.id, root, world.now + timedelta(days=2), "a deadline")
    await pass_by(world, examiner, lease, 600)
    world.broker.sessions.protect(lease.id, root, None, "")
    await pass_by(world, examiner, lease, 0.1)
    assert world.live() == {lease.id: "active"}
    await pass_by(world, examiner, lease, 15)
    assert world.live() == {lease.id: "releasing"}


async def test_what_was_unknown_meanwhile_is_told_of_anew(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    """The page has said that it is not ended while nobody can tell."""
    lease = lend(world, notebook)
    await examiner.round()
    await pass_by(world, examiner, lease, 46)
    notebook.how = "500"
    await pass_by(world, examiner, lease, 5)
    await pass_by(world, examiner, lease, 300)
    notebook.how = "well"
    await pass_by(world, examiner, lease, 1)
    await pass_by(world, examiner, lease, 1)  # who was silent is asked last, and judged by it now
    assert world.live() == {lease.id: "active"}
    await pass_by(world, examiner, lease, 15.1)
    assert world.live() == {lease.id: "releasing"}


async def test_a_silent_server_lifts_no_ceiling(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = lend(world, notebook)
    await examiner.round()
    used = world.now
    for _ in range(20):
        notebook.how = "500"
        await pass_by(world, examiner, lease, 55)
        with suppress(Refusal):
            world.broker.sessions.extend(lease.id, Person("ada"))
        notebook.how = "well"
        await pass_by(world, examiner, lease, 1)
    for standing in world.broker.sessions.standings():
        until = standing.stay.extended_until
        assert until is None or until <= used + timedelta(hours=8)


def test_what_kernels_say_themselves_goes_before_what_their_server_says_of_them() -> None:
    busy = {**KERNEL, "execution_state": "busy"}
    assert read([dict(KERNEL)], [], [{"id": "k1", "running": 1, "heard": 3}]).busy
    assert not read([busy], [], [{"id": "k1", "running": 0, "heard": 3}]).busy
    assert not read([{**KERNEL, "execution_state": "dead"}], [], [WATCHED]).busy
    assert read([busy], [], [{**WATCHED, "id": "another"}]).busy
    # What a page asks changes the server's times, and nothing that a person did.
    later = {**KERNEL, "last_activity": "2026-11-23T11:00:00Z"}
    assert read([dict(KERNEL)], [], [WATCHED]) == read([later], [], [WATCHED])
    assert read([dict(KERNEL)], [], [WATCHED]) != read([later], [], [{**WATCHED, "heard": 4}])


WATCHED = {"id": "k1", "running": 1, "heard": 3}


@pytest.mark.parametrize(
    "watched",
    [
        [None],
        ["k1"],
        [{}],
        [{**WATCHED, "running": -1}],
        [{**WATCHED, "running": True}],
        [{**WATCHED, "heard": "3"}],
        [{**WATCHED, "heard": 3.5}],
    ],
)
def test_what_cannot_be_read_of_it_is_unknown(watched: list[Any]) -> None:
    with pytest.raises(NotSaid):
        read([dict(KERNEL)], [], watched)
