"""The service's view of the hub: complete, or an error; never a guess."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from jupyterhub_migspawner.service.clients.hub import HubApi, HubAway, HubError
from tests.unit.service.fake_hub import SERVICE_TOKEN, FakeHub, server

NOON = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=timezone.utc)


def client(hub: FakeHub, page_size: int = 2) -> HubApi:
    return HubApi(hub.url, SERVICE_TOKEN, page_size=page_size)


async def test_every_server_is_found_over_all_pages(hub: FakeHub) -> None:
    for number in range(5):
        hub.users[f"user{number}"] = {"": server(started=NOON)}
    hub.users["user4"]["second"] = server("second", started=NOON, ready=False)
    servers = await client(hub).servers()
    assert sorted(servers) == [*((f"user{number}", "") for number in range(5)), ("user4", "second")]
    assert servers["user0", ""].ready
    assert servers["user0", ""].started == NOON
    assert servers["user4", "second"].pending == "spawn"


async def test_a_name_with_odd_characters_is_asked_for_as_it_is(hub: FakeHub) -> None:
    hub.users["a/b c%20@x"] = {"": server(started=NOON, user_options={"tier": "small"})}
    (found,) = await client(hub).servers_of("a/b c%20@x") or ()
    assert (found.user, found.tier) == ("a/b c%20@x", "small")
    await client(hub).stop_server("a/b c%20@x", "")
    assert hub.stopped == [("a/b c%20@x", "")]


async def test_a_user_whom_the_hub_does_not_know_is_told_apart_from_one_without_servers(
    hub: FakeHub,
) -> None:
    hub.users["ada"] = {}
    assert await client(hub).servers_of("ada") == ()
    assert await client(hub).servers_of("nobody") is None


async def test_a_missing_right_is_never_a_missing_server(hub: FakeHub) -> None:
    hub.users["ada"] = {"": server(started=NOON)}
    hub.scopes = ["list:users"]
    with pytest.raises(HubError, match="read:servers"):
        await client(hub).servers()
    with pytest.raises(HubError, match="read:servers"):
        await client(hub).servers_of("ada")
    # 404 is also what the hub says about users whom a restricted token may not see.
    hub.scopes = ["list:users", "read:servers!group=vision", "delete:servers"]
    with pytest.raises(HubError, match="read:servers"):
        await client(hub).servers_of("nobody")
    assert await client(hub).missing_scopes() == {"read:servers"}


@pytest.mark.parametrize("status", [403, 404, 500, 503])
async def test_any_other_answer_is_an_error(hub: FakeHub, status: int) -> None:
    hub.fail_with = status
    with pytest.raises(HubError):
        await client(hub).servers()
    with pytest.raises(HubError):
        await client(hub).servers_of("ada")


async def test_a_hub_that_is_gone_is_away(hub: FakeHub) -> None:
    hub.hang_up()
    with pytest.raises(HubAway, match="does not answer"):
        await client(hub).servers()


@pytest.mark.parametrize(
    "model",
    [
        {"name": 7, "ready": True},
        {"name": "", "ready": "yes"},
        "running",
    ],
)
async def test_a_server_that_cannot_be_read_is_an_error(hub: FakeHub, model: Any) -> None:
    hub.users["ada"] = {"": model}
    with pytest.raises(HubError):
        await client(hub).servers()


async def test_a_refused_stop_says_what_the_hub_says(hub: FakeHub) -> None:
    hub.users["ada"] = {"": server(started=NOON)}
    hub.refuse_to_stop.add("ada")
    with pytest.raises(HubError, match="renamed"):
        await client(hub).stop_server("ada", "")
