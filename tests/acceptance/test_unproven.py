"""A session that has ended but keeps its slice, in a real hub: what its person and admins meet."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyterhub_migspawner.gpu import simulator
from tests.acceptance.hubs import Hub

EXTRA = """
c.JupyterHub.allow_named_servers = True
c.MigBroker.quotas = {"default": {"live": 1}}
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path, layouts=[["1g.5gb"] * 7], extra=EXTRA)
    try:
        hub.start()
        assert hub.api("POST", "users/ada")[0] == 201
        yield hub
    finally:
        hub.stop()
        hub.end_everything()


@pytest.fixture
def program() -> Iterator[subprocess.Popen[bytes]]:
    """A program of another user, outside of any server, which no agent may end."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a program as another user")
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "600"]
    with subprocess.Popen(command, env={"PATH": os.environ["PATH"]}) as found:
        try:
            yield found
        finally:
            found.kill()


def test_stopping_and_starting_again_is_one_after_the_other(hub: Hub) -> None:
    """With one slice at a time allowed, people restart as they did without a quota."""
    for server in ("", "b", "", ""):
        path = f"users/ada/servers/{server}" if server else "users/ada/server"
        status, answer = hub.api("POST", path, {"tier": "small"})
        assert status == 201, answer
        assert hub.api("DELETE", path)[0] in (202, 204)
        hub.until(lambda: not hub.api("GET", "users/ada")[1]["servers"])


def test_what_is_left_on_a_slice_counts_until_it_is_gone(
    hub: Hub, program: subprocess.Popen[bytes]
) -> None:
    assert hub.api("POST", "users/ada/server", {"tier": "small"})[0] == 201
    (lease,) = hub.rows()
    cards = str(hub.directory / "cards.json")
    simulator.add_process(cards, str(lease.slice_uuid), program.pid, 100)
    assert hub.api("DELETE", "users/ada/server")[0] in (202, 204)
    hub.until(lambda: hub.rows()[0].state == "releasing")
    hub.until(lambda: bool(hub.rows()[0].waiting_for))

    # Neither the same server nor another one gets a second slice.
    for path in ("users/ada/server", "users/ada/servers/other"):
        status, answer = hub.api("POST", path, {"tier": "small"})
        assert status == 403, answer
        said = answer["message"]
        assert "1 GPU server at a time and you have 1" in said
        assert "Your default server (tier small) ended at" in said
        assert "a program is still running on its slice" in said
        assert str(program.pid) not in said
    assert len(hub.rows()) == 1

    ada = hub.token_of("ada")
    tiers = {tier["name"]: tier for tier in hub.service("GET", "tiers", token=ada)[1]}
    assert (tiers["small"]["usable"], tiers["small"]["why"]) == (False, said)
    assert tiers["cpu"]["usable"]
    (limit,) = hub.service("GET", "quota", token=ada)[1]
    assert (limit["field"], limit["used"]) == ("live", 1)
    (mine,) = hub.service("GET", "leases", token=ada)[1]
    assert (mine["state"], mine["mend"]) == ("releasing", "")
    assert str(program.pid) not in json.dumps(mine)

    # Admins see who and what, and a command that ends it.
    def told(*arguments: str) -> str:
        return hub.run_cli(*arguments).stdout

    for listing in ("leases", "slices", "cards"):
        assert f"Lease {lease.id} of ada already ended at" in told(listing)
        assert f"kill -9 {program.pid}" in told(listing)
    (row,) = hub.cli("leases")
    assert row["state"] == "releasing"
    assert row["releasing_at"]
    assert str(program.pid) in row["waiting_for"]
    released = hub.run_cli("leases", "release", str(lease.id))
    assert released.returncode == 1
    assert f"kill -9 {program.pid}" in released.stderr
    (limit,) = hub.cli("quotas", "--user", "ada")
    assert (limit["field"], limit["used"]) == ("live", 1)

    # The way out.
    program.kill()
    program.wait()
    hub.until(lambda: not hub.rows())
    assert hub.api("POST", "users/ada/servers/other", {"tier": "small"})[0] == 201
