"""The service under a real hub and proxy: signing in, the page, the API, the loops, the end."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from bs4 import BeautifulSoup

from tests.acceptance.hubs import Hub

INTRUDER = secrets.token_hex(16)

EXTRA = """
c.JupyterHub.load_groups = {"pi": {"users": ["marie"]}}
c.MigBroker.approvers = ["group:pi"]
c.MigBroker.tick_seconds = c.MigBroker.reconcile_seconds = 0.2
c.JupyterHub.load_roles += [
    {
        "name": "gpu-approver",
        "users": ["linus"],
        "scopes": ["custom:migspawner:approve"],
    },
    {
        "name": "gpu-admin",
        "users": ["grace"],
        "scopes": ["custom:migspawner:admin"],
    },
    {
        "name": "intruder",
        "services": ["intruder"],
        "scopes": ["access:services"],
    },
]
c.JupyterHub.services += [{"name": "intruder", "api_token": "{intruder}"}]
c.JupyterHub.allow_named_servers = True
c.MigBroker.tiers += [{"name": "brief", "profile": "1g.5gb", "max_hours": 0.005}]
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(
        tmp_path_factory.mktemp("service"),
        layouts=[["3g.20gb", "1g.5gb", "1g.5gb", "1g.5gb"]],
        extra=EXTRA.replace("{intruder}", INTRUDER),
        base_url="/@/space%20word/",
    )
    try:
        hub.start()
        for name in ("ada", "grace", "linus", "marie", "admin"):
            hub.api("POST", f"users/{name}")
        yield hub
    finally:
        hub.stop()
        hub.end_everything()


class Browser:
    """A user signed in at the hub, as far as cookies and redirects go."""

    def __init__(self, hub: Hub, name: str) -> None:
        self.url = hub.url + "services/migspawner/"
        self.session = requests.Session()
        login = hub.url + "hub/login"
        self.session.get(login, timeout=150)
        cookies = [c for c in self.session.cookies if c.name == "_xsrf"]
        answer = self.session.post(
            login,
            data={"username": name, "password": hub.password, "_xsrf": cookies[0].value},
            timeout=150,
            allow_redirects=False,
        )
        assert answer.status_code == 302, answer.text

    def page(self, path: str = "") -> requests.Response:
        """A page of the service, over whatever redirects lead there."""
        return self.session.get(self.url + path, timeout=150)

    def xsrf(self) -> str:
        """The token that the service's own pages carry."""
        (cookie,) = [c for c in self.session.cookies if c.name == "_xsrf" and "services" in c.path]
        return str(cookie.value)


def text_of(answer: requests.Response) -> str:
    return " ".join(BeautifulSoup(answer.text, "html.parser").get_text().split())


def test_a_person_signs_in_starts_and_sees_their_slice(hub: Hub) -> None:
    ada = Browser(hub, "ada")
    first = ada.page()
    assert first.status_code == 200
    assert first.url == ada.url
    assert "You have no running session" in text_of(first)
    assert "3 of 3 free" in text_of(first)
    status, _ = hub.api("POST", "users/ada/server", {"tier": "small"})
    assert status == 201
    hub.until(lambda: [lease.state for lease in hub.rows()] == ["active"])
    (lease,) = hub.rows()
    shown = ada.page()
    assert lease.slice_uuid
    assert lease.slice_uuid in shown.text
    soup = BeautifulSoup(shown.text, "html.parser")
    assert soup.select_one("section")["data-state"] == "running"  # type: ignore[index]
    assert "card 0 of node" in text_of(shown)
    # Everything the page loads is there, spaces in the address and all.
    for link in [*soup.select("link[href]"), *soup.select("script[src]")]:
        address = str(link.get("href") or link.get("src"))
        assert ada.session.get(hub.url.partition("/@")[0] + address, timeout=150).status_code == 200
    # Nobody else sees it.
    assert lease.slice_uuid not in Browser(hub, "linus").page().text

    hub.api("POST", "users/ada/servers/second", {"tier": "cpu"})
    both = BeautifulSoup(ada.page().text, "html.parser").select("section")
    assert [section["data-server"] for section in both] == ["", "second"]
    assert "cpu" in both[1].get_text()
    hub.api("DELETE", "users/ada/servers/second")

    token = hub.token_of("ada")
    for path in ("tiers", "slices", "leases", "requests", "openapi.json"):
        assert hub.service("GET", path, token=token)[0] == 200
    (mine,) = hub.service("GET", "leases", token=token)[1]
    assert (mine["id"], mine["state"], mine["slice_uuid"]) == (lease.id, "active", lease.slice_uuid)

    hub.api("DELETE", "users/ada/server")
    hub.until(lambda: hub.service("GET", "leases", token=token)[1] == [])
    (past,) = hub.service("GET", "leases?past=true", token=token)[1]
    assert past["state"] == "released"


def test_a_request_goes_from_cookie_to_grant(hub: Hub) -> None:
    ada = Browser(hub, "ada")
    ada.page()
    ask = {"tier": "card", "hours": 2, "reason": "<b>big</b>"}
    refused = ada.session.post(ada.url + "api/requests", json=ask, timeout=150)
    assert (refused.status_code, refused.json()["reason"]) == (403, "xsrf")
    made = ada.session.post(
        ada.url + "api/requests", json=ask, headers={"X-XSRFToken": ada.xsrf()}, timeout=150
    )
    assert made.status_code == 201, made.text
    request = made.json()
    assert (request["user"], request["state"]) == ("ada", "pending")
    path = f"requests/{request['id']}/approve"
    # ada is no approver, grace only an admin of leases; linus is one by role, marie by group.
    assert hub.service("POST", path, {}, hub.token_of("ada"))[0] == 403
    assert hub.service("POST", path, {}, hub.token_of("grace"))[0] == 403
    linus = hub.token_of("linus")
    assert [r["id"] for r in hub.service("GET", "requests?all=true", token=linus)[1]]
    status, grant = hub.service("POST", path, {"hours": 1}, linus)
    assert (status, grant["state"], grant["decided_by"]) == (200, "approved", "linus")
    status, again = hub.service("POST", path, {}, hub.token_of("marie"))
    assert (status, again["reason"]) == (409, "conflict")
    # A role's scope reaches the service through a browser's sign-in, too.
    browser = Browser(hub, "linus")
    browser.page()
    seen = browser.session.get(browser.url + "api/requests?all=true", timeout=150)
    assert seen.status_code == 200, seen.text


def test_whoever_has_no_business_here_gets_a_sentence(hub: Hub) -> None:
    def refused(status: int, answer: tuple[int, Any]) -> None:
        assert answer[0] == status, answer
        assert set(answer[1]) == {"status", "reason", "message"}
        assert answer[1]["message"].endswith(".")

    nobody = requests.get(hub.url + "services/migspawner/api/leases", timeout=150)
    refused(401, (nobody.status_code, nobody.json()))
    refused(401, hub.service("GET", "leases", token="made-up"))
    refused(403, hub.service("GET", "leases", token=INTRUDER))
    narrow = hub.token_of("ada", ["access:servers!user=ada"])
    refused(403, hub.service("GET", "leases", token=narrow))
    ada = hub.token_of("ada")
    refused(403, hub.service("GET", "leases?all=true", token=ada))
    refused(403, hub.service("DELETE", "leases/1", token=ada))
    refused(404, hub.service("GET", "nothing", token=ada))
    refused(405, hub.service("PUT", "tiers", {}, ada))
    refused(400, hub.service("POST", "requests", b"{", ada))
    refused(413, hub.service("POST", "requests", b"[" * 128 * 1024, ada))
    # What is far too long is not read at all.
    assert hub.service("POST", "requests", b"[" * 1024 * 1024, ada)[0] == 400
    strange = Browser(hub, "ada").page("nothing")
    assert strange.status_code == 404
    assert "There is no such page" in strange.text


def test_admins_end_a_lease_and_its_server_with_it(hub: Hub) -> None:
    assert hub.api("POST", "users/ada/server", {"tier": "small"})[0] == 201
    (lease,) = hub.rows()
    # grace by role, admin as the hub's admin: both see everybody's.
    for name in ("grace", "admin"):
        seen = hub.service("GET", "leases?all=true", token=hub.token_of(name))[1]
        assert [entry["id"] for entry in seen] == [lease.id]
    status, answer = hub.service(
        "DELETE", f"leases/{lease.id}", {"reason": "needed elsewhere"}, hub.token_of("grace")
    )
    assert (status, answer["state"]) == (202, "releasing")
    hub.until(lambda: not hub.rows())
    (past,) = [row for row in hub.rows(include_past=True) if row.id == lease.id]
    assert past.end_reason == "needed elsewhere"
    hub.until(lambda: not hub.api("GET", "users/ada")[1]["servers"])


def test_a_session_past_its_end_is_stopped_through_the_hub(hub: Hub) -> None:
    assert hub.api("POST", "users/ada/server", {"tier": "brief"})[0] == 201
    hub.until(lambda: not hub.api("GET", "users/ada")[1]["servers"])
    hub.until(lambda: not hub.rows())
    last = hub.rows(include_past=True)[-1]
    assert last.tier == "brief"
    assert last.end_reason.startswith("its time was over at ")


def test_only_the_loopback_address_is_listened_on(hub: Hub) -> None:
    process = Path(f"/proc/{service_pid(hub)}")
    sockets = set()
    for link in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            sockets.add(os.readlink(link))
    # proc(5): the second column is the local address, the fourth the state (0A: listening), the
    # tenth the inode.
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in (process / "net" / table).read_text().splitlines()[1:]
    ]
    listening = [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
    assert [address.partition(":")[0] for address in listening] == ["0100007F"]


def service_pid(hub: Hub) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"jupyterhub_migspawner.service" in line and str(hub.config).encode() in line:
                return int(entry.name)
    raise AssertionError("The hub runs no GPU service.")


def test_a_killed_hub_takes_its_service_along(hub: Hub) -> None:
    pid = service_pid(hub)
    hub.kill()
    hub.until(lambda: has_ended(pid))
    assert "The hub that started this service is gone." in hub.log()
    hub.start()
    assert service_pid(hub) != pid


def has_ended(pid: int) -> bool:
    """Whether the process is gone, or a zombie."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return True
