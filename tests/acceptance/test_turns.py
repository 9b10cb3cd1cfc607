"""The waiting list in a real hub: started for who asked, kept over a crash, and never overtaken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_migspawner.broker.views import ticket_view
from tests.acceptance.hubs import Hub

EXTRA = """
c.JupyterHub.allow_named_servers = True
c.JupyterHub.load_groups = {"vision": {"users": ["grace", "eve"]}}
c.MigBroker.quotas = {"default": {"live": 1}}
c.MigBroker.tick_seconds = 0.2
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path, layouts=[["3g.20gb"]], extra=EXTRA)
    try:
        hub.start()
        for user in ("ada", "grace", "eve"):
            status, _ = hub.api("POST", f"users/{user}")
            assert status in (201, 409)
        assert hub.api("POST", "groups/vision/users", {"users": ["ada"]})[0] == 200
        yield hub
    finally:
        hub.stop()
        hub.end_everything()


def places(hub: Hub) -> list[tuple[str, str, int | None]]:
    return [place_of(ticket_view(status)) for status in hub.broker().queue.status()]


def places_shown(hub: Hub) -> list[tuple[str, str, int | None]]:
    """The same, as the command line lists them."""
    return [place_of(row) for row in hub.cli("queue")]


def place_of(row: dict[str, Any]) -> tuple[str, str, int | None]:
    return row["user"], row["state"], row["place"]


def holders(hub: Hub) -> list[tuple[str, str]]:
    return [(lease.user, lease.state) for lease in hub.rows()]


def holders_shown(hub: Hub) -> list[tuple[str, str]]:
    """The same, as the command line lists them."""
    return [(lease["user"], lease["state"]) for lease in hub.cli("leases")]


def join(hub: Hub, user: str, **more: Any) -> dict[str, Any]:
    token = hub.token_of(user)
    status, answer = hub.service("POST", "queue", {"tier": "large", **more}, token)
    assert status == 201, answer
    return dict(answer)


def test_whose_turn_it_is_gets_a_server_over_a_crash_of_everything(hub: Hub) -> None:
    assert hub.api("POST", "users/ada/server", {"tier": "large"})[0] == 201
    assert join(hub, "grace", start=True, server="work")["place"] == 1
    assert join(hub, "eve")["place"] == 2
    hub.kill()
    hub.until(lambda: not hub.service_pids())
    hub.start()
    assert places_shown(hub) == [("grace", "waiting", 1), ("eve", "waiting", 2)]
    assert holders_shown(hub) == [("ada", "active")]

    hub.api("DELETE", "users/ada/server")
    hub.until(lambda: holders(hub) == [("grace", "active")])
    status, model = hub.api("GET", "users/grace")
    assert (status, list(model["servers"])) == (200, ["work"])
    assert holders_shown(hub) == [("grace", "active")]
    assert places_shown(hub) == [("eve", "waiting", 1)]

    # One who comes now does not slip in before who waits, and who is offered it has it for sure.
    hub.until(lambda: hub.api("GET", "users/grace")[1]["servers"]["work"]["ready"])
    assert hub.api("DELETE", "users/grace/servers/work")[0] in (202, 204)
    hub.until(lambda: places(hub) == [("eve", "offered", None)])
    assert places_shown(hub) == [("eve", "offered", None)]
    status, answer = hub.api("POST", "users/ada/server", {"tier": "large"})
    assert status == 503, answer
    assert hub.api("POST", "users/eve/server", {"tier": "large"})[0] == 201
    assert holders_shown(hub) == [("eve", "active")]
    assert places_shown(hub) == []


def test_who_leaves_the_group_leaves_the_list(hub: Hub) -> None:
    assert hub.api("POST", "users/ada/server", {"tier": "large"})[0] == 201
    join(hub, "grace", start=True)
    assert hub.api("DELETE", "groups/vision/users", {"users": ["grace"]})[0] == 200
    hub.api("DELETE", "users/ada/server")
    hub.until(lambda: places(hub) == [])
    hub.until(lambda: holders(hub) == [])
    assert (places_shown(hub), holders_shown(hub)) == ([], [])
    (event,) = hub.cli("events", "--kind", "ticket.cancelled")
    assert "no longer open to its user" in event["detail"]["why"]
