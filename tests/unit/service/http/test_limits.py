"""Turns at the lease database: one visitor's many requests hold up nobody else's."""

from __future__ import annotations

import asyncio

import pytest

from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.service.clients.hub import HubServer
from jupyterhub_migspawner.service.http import limits as turns_module
from jupyterhub_migspawner.service.http.limits import MOST_OF_ONE, MOST_REQUESTS, Turns
from tests.unit.service.conftest import Site


async def test_many_calls_of_one_visitor_leave_room_for_others() -> None:
    turns, under_way, go_on = Turns(), [], asyncio.Event()

    async def call(visitor: str) -> None:
        async with turns.of(visitor):
            under_way.append(visitor)
            await go_on.wait()

    calls = [asyncio.ensure_future(call("ada")) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    calls.append(asyncio.ensure_future(call("grace")))
    while "grace" not in under_way:
        await asyncio.sleep(0)
    assert under_way.count("ada") == MOST_OF_ONE
    calls[10].cancel()
    go_on.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert under_way.count("ada") == 49
    # Nothing is kept of those who have gone.
    assert turns._turns == {}


async def test_who_has_too_many_requests_is_refused_and_nobody_else() -> None:
    turns = Turns()
    for _ in range(MOST_REQUESTS):
        turns.begin("ada")
    with pytest.raises(Refusal) as refused:
        turns.begin("ada")
    assert (refused.value.status, refused.value.retry_after) == (429, 5)
    turns.begin("grace")
    turns.end("ada")
    turns.begin("ada")
    for _ in range(MOST_REQUESTS):
        turns.end("ada")
    turns.end("grace")
    assert not turns._requests


async def test_requests_that_wait_for_the_hub_count_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them holds a connection, of which there are only so many."""
    ada, eve = site.world.hub.sign_in("ada"), site.world.hub.sign_in("eve")
    asked, go_on = [], asyncio.Event()
    answer = site.world.parts.hub.servers_of

    async def slow(user: str) -> tuple[HubServer, ...] | None:
        if user == "ada":
            asked.append(user)
            await go_on.wait()
        return await answer(user)

    monkeypatch.setattr(site.world.parts.hub, "servers_of", slow)
    monkeypatch.setattr(turns_module, "MOST_REQUESTS", 5)
    pages = [asyncio.ensure_future(site.ask("GET", "", token=ada)) for _ in range(5)]
    while len(asked) < 5:
        await asyncio.sleep(0)
    assert (await site.ask("GET", "api/tiers", token=ada)).status == 429
    assert (await site.ask("GET", "api/tiers", token=eve)).status == 200
    go_on.set()
    assert {page.status for page in await asyncio.gather(*pages)} == {200}
    assert (await site.ask("GET", "api/tiers", token=ada)).status == 200
    assert not site.application.settings["turns"]._requests
