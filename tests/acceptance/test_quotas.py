"""Quotas in a real hub: servers with and without a GPU, one after the other and at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.hubs import Hub

EXTRA = """
c.JupyterHub.allow_named_servers = True
c.MigBroker.quotas = {"default": {"servers": 3, "live": 1}}
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path, layouts=[["1g.5gb"] * 7], extra=EXTRA)
    try:
        hub.start()
        for user in ("ada", "grace"):
            assert hub.api("POST", f"users/{user}")[0] == 201
        yield hub
    finally:
        hub.stop()
        hub.end_everything()


def test_nobody_gets_more_servers_than_their_quota(hub: Hub) -> None:
    def start(user: str, server: str, tier: str) -> tuple[int, Any]:
        return hub.api("POST", f"users/{user}/servers/{server}", {"tier": tier})

    assert start("ada", "one", "cpu")[0] == 201
    assert start("ada", "two", "small")[0] == 201
    status, answer = start("ada", "three", "small")
    assert status == 403
    assert answer["message"] == (
        "Your quota allows 1 GPU server at a time and you have 1. Stop it to start another."
    )
    assert start("ada", "three", "cpu")[0] == 201
    status, answer = start("ada", "four", "cpu")
    assert status == 403
    assert "3 servers at a time and you have 3" in answer["message"]
    assert hub.api("DELETE", "users/ada/servers/one")[0] in (202, 204)
    assert start("ada", "four", "cpu")[0] == 201
    # All at once: as many as there may be, and not one less because of those that are refused.
    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(lambda n: start("grace", f"s{n}", "cpu")[0], range(6)))
    assert sorted(statuses) == [201] * 3 + [403] * 3
