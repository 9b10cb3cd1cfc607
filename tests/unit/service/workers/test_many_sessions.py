"""Rounds over many sessions: who is asked when, and who holds up whom."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from typing import Any

import pytest

from jupyterhub_migspawner.service.clients import notebooks
from jupyterhub_migspawner.service.clients.hub import HubAway
from jupyterhub_migspawner.service.clients.notebooks import read
from jupyterhub_migspawner.service.workers import sessions
from jupyterhub_migspawner.service.workers.sessions import AT_ONCE, Examiner
from tests.unit.service.conftest import World
from tests.unit.service.notebook_servers import Notebook, lend, lend_many, reading, serving


async def test_many_are_asked_a_few_at_a_time_and_none_keeps_the_others_waiting(
    world: World, notebook: Notebook, examiner: Examiner
) -> None:
    few = Examiner(world.parts, in_flight=5)
    leases = lend_many(world, notebook, 60)
    notebook.how = "crowded"
    await few.round()
    few.close()
    assert notebook.most_at_once <= 5
    # Each for its kernels, its terminals, and twice for what the extension has seen.
    assert len(notebook.asked) == 4 * len(leases)
    assert all(reading(world, lease).problem == "" for lease in leases)


async def test_who_did_not_answer_is_asked_after_the_others_and_in_turn(
    world: World, notebook: Notebook, examiner: Examiner
) -> None:
    one = Examiner(world.parts, in_flight=1)
    asked: list[tuple[str, str]] = []
    async with AsyncExitStack() as stack:
        servers = {}
        for user in ("ada", "grace", "linus"):
            servers[user] = made = await stack.enter_async_context(serving())
            made.asked, made.url = asked, made.url.replace("ada", user)
            lend(world, made, user)

        async def order() -> list[str]:
            asked.clear()
            await one.round()
            return [uri.split("/")[2] for uri, _ in asked if "api/kernels" in uri]

        servers["ada"].how = "500"
        assert await order() == ["ada", "grace", "linus"]
        servers["grace"].how = "500"
        assert await order() == ["grace", "linus", "ada"]
        assert await order() == ["linus", "grace", "ada"]
        servers["ada"].how = servers["grace"].how = "well"
        assert await order() == ["linus", "grace", "ada"]
        assert await order() == ["ada", "grace", "linus"]
    one.close()


async def test_servers_that_hang_hold_up_a_round_for_a_while_only(
    world: World, notebook: Notebook, examiner: Examiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "SILENT_SECONDS", 0.2)
    one = Examiner(world.parts, in_flight=1)
    leases = lend_many(world, notebook, 5)
    notebook.how = "500"
    await one.round()
    notebook.how = "hangs"
    async with serving() as well:
        fine = lend(world, well)
        notebook.asked.clear()
        await one.round()  # the new one comes first, and its time does not count
        monkeypatch.setattr(notebooks, "PATIENCE", 0.3)
        notebook.asked.clear()
        await one.round()
        assert len(notebook.asked) <= 1  # and the other four another time
        assert reading(world, fine) is not None
    assert all(reading(world, lease).problem for lease in leases)
    one.close()


async def work_on(world: World, examiner: Examiner, notebook: Notebook, count: int) -> None:
    """As many sessions with a busy kernel, of which it is time to tell the hub."""
    notebook.kernels[0]["execution_state"] = "busy"
    lend_many(world, notebook, count)
    await examiner.round()
    world.pass_by(minutes=6)


async def test_a_slow_hub_holds_up_a_round_for_a_while_only(
    world: World, examiner: Examiner, notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    await work_on(world, examiner, notebook, 20)
    with monkeypatch.context() as patch:
        patch.setattr(type(world.parts.hub), "note_activity", hang)
        patch.setattr(sessions, "HUB_SECONDS", 0.2)
        await asyncio.wait_for(examiner.round(), 60)
    await examiner.round()
    assert len(world.hub.active) == 20


async def test_the_event_loop_goes_on_while_an_answer_is_understood(
    world: World, examiner: Examiner, notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a server does to keep its listener busy, the service's pages are answered."""
    lease = lend(world, notebook)
    begun, go_on = threading.Event(), threading.Event()

    def understand(*lists: Any) -> Any:
        begun.set()
        assert go_on.wait(60), "the event loop stood still"
        return read(*lists)

    monkeypatch.setattr(notebooks, "read", understand)
    under_way = asyncio.ensure_future(examiner.round())
    while not begun.is_set():
        await asyncio.sleep(0.001)
    go_on.set()
    await under_way
    assert reading(world, lease).problem == ""


async def test_who_lets_go_of_an_examiner_ends_its_thread(
    world: World, notebook: Notebook, examiner: Examiner
) -> None:
    before = set(threading.enumerate())
    made = Examiner(world.parts, in_flight=3)
    lend_many(world, notebook, 10)
    notebook.how = "hangs"
    under_way = asyncio.ensure_future(made.round())
    while not notebook.asked:
        await asyncio.sleep(0.001)
    (thread,) = [
        each
        for each in threading.enumerate()
        if each.name == notebooks.THREAD and each not in before
    ]
    made.close()
    made.close()
    assert not thread.is_alive()
    with pytest.raises(asyncio.CancelledError):
        await under_way


async def test_a_hub_that_hangs_is_asked_no_more_in_that_round(
    world: World, examiner: Examiner, notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    async def hang(*_: Any) -> None:
        calls.append(1)
        await asyncio.sleep(0)
        raise HubAway("The hub does not answer.")

    await work_on(world, examiner, notebook, 40)
    with monkeypatch.context() as patch:
        patch.setattr(type(world.parts.hub), "note_activity", hang)
        await examiner.round()
    assert 0 < len(calls) <= AT_ONCE
    assert world.hub.active == []
    # Nobody counts as told who was not: the hub's own culler would end them meanwhile.
    world.pass_by(minutes=1)
    notebook.kernels[0]["execution_state"] = "idle"
    await examiner.round()
    assert len(world.hub.active) == 40
