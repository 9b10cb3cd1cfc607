"""The running service against its own description: thousands of requests that it allows or forbids.

Schemathesis makes them up. Nothing may fail in a way that the description does not have, and
whatever it forbids must be refused. Refusals of what it allows are expected: a schema does not know
who may have which tier.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.hubs import Hub

EXTRA = """
c.JupyterHub.load_groups = {"pi": {"users": ["eve"]}}
c.MigBroker.approvers = ["group:pi"]
c.JupyterHub.allow_named_servers = True
c.MigBroker.actions_per_minute = 0
"""

#: Of each address and method, in each of the phases.
EXAMPLES = 30

#: Ids that are worth trying: those of what is there, and a few more.
HIGHEST_ID = 12


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(tmp_path_factory.mktemp("openapi"), layouts=[["3g.20gb", "1g.5gb"]], extra=EXTRA)
    try:
        hub.start()
        for user in ("ada", "eve", "admin"):
            assert hub.api("POST", f"users/{user}")[0] in (201, 409)
        yield hub
    finally:
        hub.stop()
        hub.end_everything()


def fill(hub: Hub) -> None:
    """Something to see, to decide and to end: requests, places, leases, an exception."""
    for _ in range(4):
        asked = {"tier": "card", "hours": 3, "reason": "a run"}
        assert hub.service("POST", "requests", asked, hub.token_of("ada"))[0] == 201
    for user, words in (("ada", "small"), ("eve", "small")):
        hub.api("POST", f"users/{user}/server", {"tier": words})
    hub.service("POST", "queue", {"tier": "small", "server": "b"}, hub.token_of("eve"))


def narrowed(hub: Hub, path: Path) -> Path:
    """The description that the service gives, with names and ids that this hub knows among it."""
    status, found = hub.service("GET", "openapi.json", token=hub.token_of("ada"))
    assert status == 200
    schemas = found["components"]["schemas"]
    for name in ("NewRequest", "NewTicket"):
        tier = schemas[name]["properties"]["tier"]
        schemas[name]["properties"]["tier"] = {
            "anyOf": [{"enum": ["cpu", "small", "large", "card"]}, tier]
        }

    def bound(value: Any, most: int) -> None:
        if isinstance(value, dict):
            if value.get("in") == "path":
                value["schema"]["maximum"] = most
            for each in value.values():
                bound(each, most)
        elif isinstance(value, list):
            for each in value:
                bound(each, most)

    for address, methods in found["paths"].items():
        # Drafts and exceptions are made by the dozen; what is above the bound must not be there.
        many = "draft" in address or "exception" in address
        bound(methods, 10**6 if many else HIGHEST_ID)
    path.write_text(json.dumps(found))
    return path


@pytest.mark.parametrize("user", ["ada", "eve", "admin"])
def test_the_service_does_what_its_description_says(hub: Hub, user: str, tmp_path: Path) -> None:
    fill(hub)
    description = narrowed(hub, tmp_path / "openapi.json")
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", str(description)),
            *("--url", f"{hub.url}services/migspawner/api"),
            *("--header", f"Authorization: token {hub.token_of(user)}"),
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
            *("--max-examples", str(EXAMPLES), "--request-timeout", "150", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert "Failures" not in done.stdout, done.stdout[-20_000:]
    # The service is well, and still says who is who.
    assert hub.service("GET", "tiers", token=hub.token_of(user))[0] == 200
    assert not re.search(r"migspawner\.service\] 5\d\d ", hub.log()), hub.log()[-6000:]
