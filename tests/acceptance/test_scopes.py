"""Tokens as people make them on a real hub: each opens what its scopes and its owner open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from tests.acceptance.hubs import Hub
from tests.acceptance.test_service import Browser, text_of

ACCESS = "access:services!service=migspawner"
SELF = "custom:migspawner:self"

EXTRA = """
c.JupyterHub.load_groups = {"pi": {"users": ["marie"]}}
c.MigBroker.approvers = ["group:pi"]
c.MigBroker.tick_seconds = c.MigBroker.reconcile_seconds = 0.2
c.JupyterHub.allow_named_servers = True
c.JupyterHub.load_roles += [
    {"name": "gpu-approver", "users": ["linus"], "scopes": ["custom:migspawner:approve"]},
    {"name": "helper", "users": ["eve"], "scopes": ["servers!user=ada", "read:users!user=ada"]},
]
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(tmp_path_factory.mktemp("scopes"), layouts=[["3g.20gb", "1g.5gb"]], extra=EXTRA)
    try:
        hub.start()
        for name in ("ada", "eve", "marie", "linus", "admin"):
            assert hub.api("POST", f"users/{name}")[0] in (201, 409)
        yield hub
    finally:
        hub.stop()
        hub.end_everything()


def start_scope(hub: Hub, user: str) -> str:
    """The narrowest scope for starting a server that this hub has."""
    version = hub.api("GET", "")[1]["version"]
    return f"{'servers' if version.startswith('5.') else 'start:servers'}!user={user}"


def test_a_narrow_token_has_no_server_started(hub: Hub) -> None:
    assert hub.api("POST", "users/eve/server", {"tier": "small"})[0] == 201
    ask = {"tier": "small", "start": True}
    for scopes in ([ACCESS], [ACCESS, SELF], [ACCESS, "delete:servers!user=ada"]):
        status, answer = hub.service("POST", "queue", ask, hub.token_of("ada", scopes))
        assert (status, answer["reason"]) == (403, "not-allowed"), answer
    assert hub.cli("queue") == []
    with_start = hub.token_of("ada", [ACCESS, start_scope(hub, "ada")])
    status, ticket = hub.service("POST", "queue", ask, with_start)
    assert (status, ticket["start"]) == (201, True), ticket
    assert hub.service("DELETE", f"queue/{ticket['id']}", None, with_start)[0] == 200
    # A page signs in with what it needs.
    ada = Browser(hub, "ada")
    ada.page("queue")
    form = {"tier": "small", "start": "1", "_xsrf": ada.xsrf()}
    shown = ada.session.post(ada.url + "queue", data=form, timeout=150)
    assert "You are on the waiting list" in text_of(shown), text_of(shown)
    (place,) = hub.cli("queue")
    assert place["start"] is True
    hub.run_cli("queue", "leave", str(place["id"]), "--by", "ada")
    hub.api("DELETE", "users/eve/server")
    hub.until(lambda: not hub.rows())


def test_a_narrow_token_decides_and_sees_nothing_as_approver_or_admin(hub: Hub) -> None:
    ask = {"tier": "card", "hours": 1, "reason": "a run"}
    assert hub.api("POST", "users/eve/server", {"tier": "small"})[0] == 201
    admins = [
        ([ACCESS], False),
        ([ACCESS, "read:users"], False),
        ([ACCESS, SELF], True),
        ([ACCESS, "admin:servers"], True),
        (None, True),
    ]
    for scopes, sees in admins:
        token = hub.token_of("admin", scopes)
        held = [each["lease"] for each in hub.service("GET", "slices", token=token)[1]]
        assert any(held) is sees, scopes
        assert hub.service("GET", "leases?all=true", token=token)[0] == (200 if sees else 403)
    hub.api("DELETE", "users/eve/server")
    deciders = [
        ("marie", [ACCESS], False),
        ("marie", [ACCESS, SELF], True),
        ("marie", None, True),
        ("linus", [ACCESS], False),
        ("linus", [ACCESS, "custom:migspawner:approve"], True),
        ("admin", [ACCESS], False),
        ("admin", [ACCESS, "admin:servers"], False),
        ("admin", [ACCESS, SELF], True),
        ("eve", None, False),
        ("eve", [ACCESS, SELF], False),
    ]
    for user, scopes, may in deciders:
        status, request = hub.service("POST", "requests", ask, hub.token_of("ada"))
        assert status == 201
        token = hub.token_of(user, scopes)
        status, answer = hub.service("POST", f"requests/{request['id']}/approve", {}, token)
        assert (status == 200) is may, (user, scopes, answer)
        hub.run_cli("requests", "cancel", str(request["id"]), "--by", "ada")
    # Browsers carry it, too.
    for user, may in (("marie", True), ("linus", True), ("admin", True), ("eve", False)):
        assert (Browser(hub, user).page("decisions").status_code == 200) is may, user


def test_a_notebooks_own_token_and_an_old_one_open_nothing(hub: Hub) -> None:
    notebook = hub.token_of("ada", ["access:servers!server=ada/", "users:activity!user=ada"])
    for path in ("tiers", "leases", "requests", "notices", "openapi.json"):
        assert hub.service("GET", path, token=notebook)[0] == 403
    status, made = hub.api("POST", "users/ada/tokens", {"expires_in": 1})
    assert status == 201
    hub.until(lambda: hub.service("GET", "tiers", token=made["token"])[0] == 401)


def test_only_its_owner_asks_with_the_form_of_a_server(hub: Hub) -> None:
    form = {
        "tier": "card",
        "migspawner-reason-card": "in her name",
        "migspawner-hours-card": "2",
    }

    def send(who: str) -> requests.Response:
        browser = Browser(hub, who)
        url = f"{hub.url}hub/spawn/ada"
        browser.session.get(url, timeout=150)
        (xsrf,) = [c.value for c in browser.session.cookies if c.name == "_xsrf"][:1]
        return browser.session.post(
            url, data={**form, "_xsrf": xsrf}, timeout=150, allow_redirects=False
        )

    before = len(hub.cli("requests"))
    for other in ("eve", "admin"):
        assert "Only &#39;ada&#39; can ask" in send(other).text
    assert len(hub.cli("requests")) == before
    assert send("ada").status_code == 303
    assert len(hub.cli("requests")) == before + 1


def test_names_of_servers_are_the_hubs(hub: Hub) -> None:
    assert hub.api("POST", "users/eve/server", {"tier": "small"})[0] == 201
    token = hub.token_of("ada")
    for name in ("../x", "..", "a/b", "x" * 300, "a\u202eb"):
        status, answer = hub.service("POST", "queue", {"tier": "small", "server": name}, token)
        assert (status, answer["reason"]) == (400, "options"), answer
        told = hub.run_cli("queue", "join", "--user", "ada", "--tier", "small", "--server", name)
        assert told.returncode == 1, told.stdout
        assert told.stderr.rstrip("\n").isprintable()
    # What the hub makes no server of, nobody waits for with it.
    for name in ("Lab", "a_b", "lab", "x" * 31, "a--b", "%2e%2e"):
        status, _ = hub.service("POST", "queue", {"tier": "small", "server": name}, token)
        path = requests.utils.quote(name, safe="")
        made, _ = hub.api("POST", f"users/ada/servers/{path}", {"tier": "cpu"})
        assert (status == 201) is (made in (201, 202)), name
        if made in (201, 202):
            hub.api("DELETE", f"users/ada/servers/{path}")
        for place in hub.cli("queue"):
            hub.run_cli("queue", "leave", str(place["id"]), "--by", "ada")
    hub.api("DELETE", "users/eve/server")
