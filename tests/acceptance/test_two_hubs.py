"""Two real hubs that share one lease database and one machine's cards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyterhub_migspawner.model.leases import LeaseRow
from tests.acceptance.hubs import END_LIMIT, Hub

LAYOUTS = [["1g.5gb"] * 7]

EXTRA = """
c.MigBroker.tick_seconds = c.MigBroker.reconcile_seconds = 0.2
c.MigBroker.database_url = "sqlite:///{shared}/leases.sqlite"
c.MigBroker.nvml = "sim:{shared}/cards.json"
c.MigBroker.hub = {name!r}
c.JupyterHub.allow_named_servers = True
c.JupyterHub.cleanup_servers = False
"""


def made(folder: Path, shared: Path, name: str) -> Hub:
    folder.mkdir(exist_ok=True)
    return Hub(folder, layouts=LAYOUTS, extra=EXTRA.format(shared=shared, name=name))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Hub]]:
    folder = tmp_path_factory.mktemp("hubs")
    shared = folder / "here"
    pair = made(shared, shared, "biology"), made(folder / "there", shared, "physics")
    try:
        for hub in pair:
            hub.start()
        yield pair
    finally:
        for hub in pair:
            if hub.process is not None:
                hub.stop()
        pair[0].end_everything()


@pytest.fixture
def hubs(pair: tuple[Hub, Hub]) -> Iterator[tuple[Hub, Hub]]:
    """Both hubs with their users, of whom the next test finds nothing."""
    for hub in pair:
        for user in ("ada", "grace"):
            assert hub.api("POST", f"users/{user}")[0] == 201
    yield pair
    for hub in pair:
        for user in hub.api("GET", "users")[1]:
            if not user["admin"]:
                assert hub.api("DELETE", f"users/{user['name']}")[0] == 204
    pair[0].until(lambda: not pair[0].rows())


def lease_of(hub: Hub, name: str, user: str = "ada") -> LeaseRow | None:
    """What a hub of that name has lent to a user, if anything."""
    found = [each for each in hub.rows() if (each.hub, each.user) == (name, user)]
    assert len(found) <= 1
    return found[0] if found else None


def started(hub: Hub, name: str) -> LeaseRow:
    assert hub.api("POST", "users/ada/server")[0] == 201
    lease = lease_of(hub, name)
    assert lease is not None
    assert lease.state == "active"
    return lease


def answers(hub: Hub, user: str) -> bool:
    return bool(hub.api("GET", f"users/{user}")[1]["servers"][""]["ready"])


def rounds(hub: Hub, name: str, number: int) -> None:
    """Wait until a hub's service has gone so often through its leases."""
    for _ in range(number + 1):
        before = {each.name: each.seen_at for each in hub.broker().hubs.find()}[name]
        hub.until(
            lambda before=before: (
                {e.name: e.seen_at for e in hub.broker().hubs.find()}[name] != before
            )
        )


def test_what_one_hub_does_and_suffers_is_nothing_to_the_other(hubs: tuple[Hub, Hub]) -> None:
    here, there = hubs
    mine, theirs = started(here, "biology"), started(there, "physics")
    assert mine.slice_uuid != theirs.slice_uuid

    # A hub that is gone loses nothing to the other, however often that one looks.
    there.kill()
    rounds(here, "biology", 3)
    assert here.broker().leases.get(theirs.id).state == "active"
    there.until(lambda: not there.service_pids())
    there.start()
    assert answers(there, "ada")
    rounds(there, "physics", 3)
    assert {each.id: each.state for each in here.rows()} == {mine.id: "active", theirs.id: "active"}

    # A server that is stopped at one goes on at the other.
    assert there.api("DELETE", "users/ada/server")[0] in (202, 204)
    here.until(lambda: lease_of(here, "physics") is None)
    assert answers(here, "ada")
    assert here.broker().leases.get(mine.id).state == "active"

    # A third one with a name that is taken does not start, and says why.
    shared = here.directory
    third = made(shared.parent / "third", shared, "biology")
    assert third.launch().wait(END_LIMIT) == 1
    assert "db adopt" in third.log()
    assert answers(here, "ada")
    assert "biology" in here.run_cli("leases", "--all").stdout


def test_a_renamed_user_goes_on_working_and_a_deleted_one_leaves_nothing(
    hubs: tuple[Hub, Hub],
) -> None:
    here, there = hubs
    mine, theirs = started(here, "biology"), started(there, "physics")
    for _ in range(2):
        here.cli("requests", "create", "--user", "ada", "--tier", "card", "--hours", "1",
                 "--reason", "x")  # fmt: skip
    assert here.api("PATCH", "users/ada", {"name": "lovelace"})[0] == 200
    here.until(lambda: lease_of(here, "biology", "lovelace") is not None)
    # The name is another user's before the service looks again.
    assert here.api("POST", "users/ada")[0] == 201
    rounds(here, "biology", 3)
    lease = lease_of(here, "biology", "lovelace")
    assert lease is not None
    assert (lease.id, lease.state) == (mine.id, "active")
    assert answers(here, "lovelace")
    assert here.broker().leases.get(theirs.id).user == "ada"
    assert {each["user"] for each in here.cli("requests")} == {"lovelace"}

    assert here.api("DELETE", "users/lovelace")[0] == 204
    here.until(lambda: lease_of(here, "biology", "lovelace") is None)
    here.until(lambda: {each.state for each in here.broker().requests.find()} == {"cancelled"})
    assert {each["state"] for each in here.cli("requests")} == {"cancelled"}
    assert answers(there, "ada")
    assert here.broker().leases.get(theirs.id).state == "active"


def test_a_rename_that_a_killed_hub_did_not_pass_on_ends_no_server(hubs: tuple[Hub, Hub]) -> None:
    here, _ = hubs
    mine = started(here, "biology")
    broker = here.broker()
    with broker.store.transaction():
        # Nobody else can write now: the hub cannot pass on what it hears before it dies.
        assert here.api("PATCH", "users/ada", {"name": "lovelace"})[0] == 200
        here.kill()
    here.until(lambda: not here.service_pids())
    here.start()
    assert here.api("POST", "users/ada")[0] == 201
    rounds(here, "biology", 4)
    assert broker.leases.get(mine.id).state == "active"
    assert answers(here, "lovelace")
    assert here.api("DELETE", "users/lovelace/server")[0] in (202, 204)
    here.until(lambda: broker.leases.get(mine.id).state == "released")


# The last one: the hub has another configuration file from then on.
def test_a_hub_that_moved_goes_on_once_somebody_says_so(hubs: tuple[Hub, Hub]) -> None:
    here, there = hubs
    mine = started(here, "biology")
    here.stop()
    moved = here.config.with_name("moved_config.py")
    here.config.rename(moved)
    here.config = moved
    assert here.launch().wait(END_LIMIT) == 1
    assert "db adopt" in here.log()
    found = {each["check"]: each for each in _findings(here)}
    assert found["hub"]["state"] == "wrong"
    assert here.run_cli("db", "adopt").returncode == 0
    here.start()
    rounds(here, "biology", 2)
    assert here.broker().leases.get(mine.id).state == "active"
    assert answers(here, "ada")
    assert there.process is not None
    assert there.process.poll() is None


def _findings(hub: Hub) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(hub.run_cli("doctor", "--json").stdout)
    return found
