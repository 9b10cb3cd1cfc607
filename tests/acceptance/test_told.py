"""Notices of a real hub: who asks, decides, waits and is about to end hears of it, over a crash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyterhub_migspawner.gpu.simulator import card_uuids, lose_card
from jupyterhub_migspawner.model.events import EventQuery
from tests.acceptance.hubs import Hub
from tests.ports import free_ports
from tests.sinks import Hook, Mailbox, hook, mailbox, silent

EXTRA = """
c.JupyterHub.public_url = "https://hub.example.org/"
c.JupyterHub.load_groups = {{"vision": {{"users": ["ada", "grace"]}}}}
c.MigBroker.approvers = ["user:grace"]
c.MigBroker.tiers.append({{"name": "brief", "profile": "1g.5gb", "max_hours": 0.2}})
c.MigBroker.tick_seconds = c.MigBroker.reconcile_seconds = 0.2
c.MigBroker.notices = {{
    "admins": ["{web}/admins"],
    "approvers": [
        "json://127.0.0.1:{silent}/x?rto=2&cto=2",
        "{web}/approvers",
        "json://127.0.0.1:{refused}/hunter2",
    ],
    "group:vision": ["{web}/vision"],
    "users": ["{web}/users/{{user}}", "mailto://127.0.0.1:{mail}?from=h@x.org&to={{address}}"],
    "addresses": {{"ada": "ada@example.org"}},
}}
"""


@pytest.fixture(scope="module")
def web() -> Iterator[Hook]:
    with hook() as made:
        yield made


@pytest.fixture(scope="module")
def post() -> Iterator[Mailbox]:
    with mailbox() as made:
        yield made


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, web: Hook, post: Mailbox) -> Iterator[Hub]:
    with silent() as port:
        # Nobody else gets that port for as long as the tests of this process run.
        (refused,) = free_ports(1)
        extra = EXTRA.format(web=web.url, silent=port, refused=refused, mail=post.port)
        made = Hub(tmp_path_factory.mktemp("told"), layouts=[["1g.5gb"]], extra=extra)
        try:
            made.start()
            yield made
        finally:
            made.stop()
            made.end_everything()


def run_briefly(hub: Hub, user: str) -> None:
    """A server whose end is near as soon as it runs."""
    server = f"users/{user}/server"
    hub.until(lambda: hub.api("POST", server, {"tier": "brief"})[0] == 201)
    query = EventQuery(user=user, kinds=("lease.ending",))
    hub.until(lambda: bool(hub.broker().events.find(query=query)))
    assert hub.cli("events", "--kind", "lease.ending", "--user", user)
    hub.api("DELETE", server)
    hub.until(lambda: not hub.rows())
    assert hub.cli("leases") == []


def test_people_are_told_also_of_what_happens_while_the_service_is_away(
    hub: Hub, web: Hook, post: Mailbox
) -> None:
    ask = {"tier": "card", "hours": 2, "reason": "a run"}
    status, request = hub.service("POST", "requests", ask, hub.token_of("ada"))
    assert status == 201, request
    hub.until(lambda: ("/approvers", "ada asks for card for 2 hours") in web.titles)
    hub.until(lambda: ("/vision", "ada asks for card for 2 hours") in web.titles)
    bodies = [body["message"] for path, body in web.heard if path == "/approvers"]
    assert bodies[0].endswith("\n\nhttps://hub.example.org/services/migspawner/decisions")
    assert "Reason: a run" in bodies[0]

    # Decided by command line while nothing of the hub runs.
    hub.kill()
    hub.until(lambda: not hub.service_pids())
    hub.cli("requests", "deny", str(request["id"]), "--by", "grace", "--reason", "no room")
    assert not any(path == "/users/ada" for path, _ in web.heard)
    hub.start()
    title = f"Your request {request['id']} is denied"
    hub.until(lambda: ("/users/ada", title) in web.titles)
    hub.until(lambda: bool(post.mails))
    receivers, mail = post.mails[0]
    assert receivers == ["ada@example.org"]
    assert mail["Subject"] == title

    # Its hour is nearly over when it begins: announced once, and not to users who turned it off.
    for user in ("ada", "grace"):
        hub.api("POST", f"users/{user}")
    hub.cli("notices", "choose", "--user", "grace", "--off", "sessions")
    for user in ("grace", "ada"):
        run_briefly(hub, user)
    hub.until(lambda: ("/users/ada", "Your GPU session ends soon") in web.titles)
    assert len([title for title in web.titles if title[1] == "Your GPU session ends soon"]) == 1
    assert [path for path, _ in web.heard if path == "/users/grace"] == []

    for channel in ("approvers[0]", "approvers[2]"):
        said = f"could not be sent to {channel} (json)"
        hub.until(lambda said=said: said in hub.log())  # type: ignore[misc]
    assert "hunter2" not in hub.log()


def test_a_lost_card_is_told_to_admins_and_to_who_was_on_it(hub: Hub, web: Hook) -> None:
    hub.until(lambda: hub.api("POST", "users/ada/server", {"tier": "brief"})[0] == 201)
    (card,) = card_uuids(hub.directory / "cards.json")
    lose_card(hub.directory / "cards.json", card)
    hub.until(lambda: any(path == "/admins" and "is lost" in title for path, title in web.titles))
    hub.until(lambda: ("/users/ada", "Your server has lost its GPU") in web.titles)


def test_a_test_says_which_channels_work(hub: Hub) -> None:
    done = hub.run_cli("notices", "test", "--json")
    assert done.returncode == 1, done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_a_channel_that_apprise_does_not_know_stops_the_hub_in_a_sentence(tmp_path: Path) -> None:
    wrong = Hub(
        tmp_path,
        layouts=[["1g.5gb"]],
        extra='c.MigBroker.notices = {"admins": ["mailtos://hunter2"]}\n',
    )
    try:
        with pytest.raises(AssertionError):
            wrong.start()
        assert (
            "MigBroker.notices: admins[0] (mailtos) is not a URL that Apprise can use"
            in wrong.log()
        )
        assert "hunter2" not in wrong.log()
    finally:
        wrong.stop()
        wrong.end_everything()
