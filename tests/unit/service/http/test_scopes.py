"""What a token may do: every address of the service, tried with tokens of every width.

The table names each address and method once. A new one has to be added to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlencode

import pytest

from jupyterhub_migspawner.hub.scopes import ADMIN_SCOPE, APPROVE_SCOPE, SELF_SCOPE
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.server_names import ServerNames
from jupyterhub_migspawner.policy.tiers import parse_tiers
from jupyterhub_migspawner.service.api.operation import methods_of
from jupyterhub_migspawner.service.clients.hub import HubError
from jupyterhub_migspawner.service.http.scopes import may_start
from tests.unit.service.conftest import NOON, PREFIX, Reply, Site, World, settle
from tests.unit.service.fake_hub import ACCESS, SERVICE_TOKEN, server

#: What an address needs besides the way to the service.
ANYBODY = "anybody"  # also who is not signed in
OWN = "own"  # nothing more: it is about what belongs to the visitor
START = "start"  # the hub's right to start that server of the visitor's
DECIDE = "decide"  # the right to decide, of the person and of the token
ADMIN = "admin"  # an admin's right, of the person and of the token

ASK = {"tier": "card", "hours": 2, "reason": "a run"}
UNTIL = "2026-11-22T18:00:00Z"

#: By method and address, ids as ``*``: what it needs, and what is sent.
API: dict[tuple[str, str], tuple[str, object]] = {
    ("GET", "api/tiers"): (OWN, None),
    ("GET", "api/slices"): (OWN, None),
    ("GET", "api/leases"): (OWN, None),
    ("GET", "api/leases?all=true"): (ADMIN, None),
    ("DELETE", "api/leases/*"): (ADMIN, {}),
    ("GET", "api/sessions"): (OWN, None),
    ("GET", "api/sessions?all=true"): (ADMIN, None),
    ("POST", "api/sessions/*/extend"): (START, {}),
    ("POST", "api/sessions/*/protect"): (ADMIN, {"until": UNTIL, "reason": "a run"}),
    ("POST", "api/sessions/*/unprotect"): (ADMIN, {}),
    ("GET", "api/requests"): (OWN, None),
    ("GET", "api/requests?all=true"): (DECIDE, None),
    ("POST", "api/requests"): (OWN, ASK),
    ("POST", "api/requests/*/approve"): (DECIDE, {}),
    ("POST", "api/requests/*/deny"): (DECIDE, {}),
    ("POST", "api/requests/*/cancel"): (DECIDE, {}),
    ("POST", "api/requests/*/revoke"): (DECIDE, {"reason": "needed"}),
    ("GET", "api/drafts"): (OWN, None),
    ("POST", "api/drafts"): (OWN, {}),
    ("PUT", "api/drafts/*"): (OWN, {}),
    ("DELETE", "api/drafts/*"): (OWN, {}),
    ("POST", "api/drafts/*/file"): (OWN, {}),
    ("GET", "api/queue"): (OWN, None),
    ("GET", "api/queue?all=true"): (ADMIN, None),
    ("POST", "api/queue"): (OWN, {"tier": "small"}),
    ("POST", "api/queue#start"): (START, {"tier": "small", "start": True}),
    ("DELETE", "api/queue/*"): (OWN, {}),
    ("GET", "api/notices"): (OWN, None),
    ("PUT", "api/notices"): (OWN, {}),
    ("GET", "api/quota"): (OWN, None),
    ("GET", "api/exceptions"): (OWN, None),
    ("GET", "api/exceptions?all=true"): (ADMIN, None),
    ("POST", "api/exceptions"): (
        ADMIN,
        {"user": "zed", "field": "live", "limit": 2, "until": UNTIL, "reason": "a course"},
    ),
    ("POST", "api/exceptions/*/end"): (ADMIN, {}),
    ("GET", "api/openapi.json"): (OWN, None),
    ("GET", "api/nothing"): (ANYBODY, None),
}

#: The same for the pages; what is sent is a form.
PAGES: dict[tuple[str, str], tuple[str, dict[str, str]]] = {
    ("GET", ""): (OWN, {}),
    ("GET", "sessions/*/extend"): (OWN, {}),
    ("POST", "sessions/*/extend"): (START, {}),
    ("GET", "requests"): (OWN, {}),
    ("POST", "requests"): (OWN, {"tier": "card", "hours": "2", "reason": "a run"}),
    ("GET", "requests/*/cancel"): (OWN, {}),
    ("POST", "requests/*/cancel"): (OWN, {}),
    ("GET", "drafts"): (OWN, {}),
    ("POST", "drafts"): (OWN, {"reason": "a run"}),
    ("GET", "drafts/*/drop"): (OWN, {}),
    ("POST", "drafts/*/drop"): (OWN, {}),
    ("GET", "decisions"): (DECIDE, {}),
    ("GET", "decisions/*/approve"): (DECIDE, {}),
    ("POST", "decisions/*/approve"): (DECIDE, {"hours": "1"}),
    ("POST", "decisions/*/deny"): (DECIDE, {}),
    ("POST", "decisions/*/cancel"): (DECIDE, {}),
    ("POST", "decisions/*/revoke"): (DECIDE, {"reason": "needed", "minutes": "5"}),
    ("GET", "queue"): (OWN, {}),
    ("POST", "queue"): (OWN, {"tier": "small"}),
    ("POST", "queue#start"): (START, {"tier": "small", "start": "1"}),
    ("GET", "queue/*/leave"): (OWN, {}),
    ("POST", "queue/*/leave"): (OWN, {}),
    ("GET", "notices"): (OWN, {}),
    ("POST", "notices"): (OWN, {}),
    ("GET", "oauth_callback"): (ANYBODY, {}),
    ("GET", "static/migspawner.css"): (ANYBODY, {}),
    ("HEAD", "static/migspawner.css"): (ANYBODY, {}),
}


@dataclass(frozen=True)
class Width:
    """A token of a person, and what it opens besides what is their own."""

    name: str
    scopes: tuple[str, ...] | None = None
    groups: tuple[str, ...] = ()
    admin: bool = False
    opens: frozenset[str] = frozenset()
    enters: bool = True


MINE = ("servers!user=ada", "start:servers!user=ada")
WIDTHS = {
    "full": Width("ada", opens=frozenset({START})),
    "access only": Width("ada", (ACCESS,)),
    "every service": Width("ada", ("access:services",)),
    "another service": Width("ada", ("access:services!service=other",), enters=False),
    "start, JupyterHub 5": Width("ada", (ACCESS, MINE[0]), opens=frozenset({START})),
    "start, JupyterHub 6": Width("ada", (ACCESS, MINE[1]), opens=frozenset({START})),
    "stop only": Width("ada", (ACCESS, "delete:servers!user=ada", "read:servers!user=ada")),
    "another's servers": Width("ada", (ACCESS, "servers!user=bob")),
    "another server": Width("ada", (ACCESS, "servers!server=ada/lab")),
    "that server": Width("ada", (ACCESS, "servers!server=ada/"), opens=frozenset({START})),
    "her group's servers": Width(
        "ada", (ACCESS, "servers!group=vision"), ("vision",), opens=frozenset({START})
    ),
    "another group's servers": Width("ada", (ACCESS, "servers!group=audio"), ("vision",)),
    "a notebook's own": Width(
        "ada", ("access:servers!server=ada/", "users:activity!user=ada"), enters=False
    ),
    "approver, access only": Width("ada", (ACCESS,), ("pi",)),
    "approver, servers": Width("ada", (ACCESS, *MINE), ("pi",), opens=frozenset({START})),
    "approver, self": Width("ada", (ACCESS, SELF_SCOPE), ("pi",), opens=frozenset({DECIDE})),
    "approver by role": Width("ada", (ACCESS, APPROVE_SCOPE), opens=frozenset({DECIDE})),
    "no approver, self": Width("ada", (ACCESS, SELF_SCOPE)),
    "admin, access only": Width("ada", (ACCESS,), admin=True),
    "admin, own servers": Width("ada", (ACCESS, *MINE), admin=True, opens=frozenset({START})),
    "admin, users": Width("ada", (ACCESS, "admin:users"), admin=True),
    "admin, approve": Width("ada", (ACCESS, APPROVE_SCOPE), admin=True, opens=frozenset({DECIDE})),
    "admin by role": Width("ada", (ACCESS, ADMIN_SCOPE), opens=frozenset({ADMIN, "extend"})),
    "admin, all servers": Width(
        "ada",
        (ACCESS, "admin:servers", "servers", "start:servers"),
        admin=True,
        opens=frozenset({START, ADMIN}),
    ),
    "admin, full": Width("ada", admin=True, opens=frozenset({START, ADMIN, DECIDE})),
}


def rules_of(site: Site) -> set[tuple[str, str]]:
    """Every method and address that the service knows, ids as ``*``."""
    found = set()
    for rule in site.application.wildcard_router.rules:
        pattern = rule.matcher.regex.pattern.removesuffix("$")  # type: ignore[attr-defined]
        path = pattern.replace(re.escape(PREFIX), "").replace(PREFIX, "").replace("\\", "")
        for method in methods_of(rule.target):
            found.add((method, path))
    return found


def as_rule(path: str) -> str:
    return path.partition("?")[0].partition("#")[0]


async def test_the_table_has_every_address(site: Site) -> None:
    known = {(method, as_rule(path)) for method, path in [*API, *PAGES]}
    for method, rule in rules_of(site):
        if rule == PREFIX.rstrip("/") or rule.endswith("migspawner"):
            continue  # the way to the slash at the end
        pattern = rule.replace("([^/]+)", r"\*").replace("api(?:/.*)?", "api/nothing")
        if "nothing" in pattern and method != "GET":
            continue  # refused before any method runs
        assert any(
            m == method and re.fullmatch(pattern.replace(".", r"\.").replace(r"\.+", ".+"), p)
            for m, p in known
        ), f"{method} {rule} is new: say in this table which right it needs"


@pytest.fixture
def stocked(world: World) -> World:
    """Something of everybody's to see, to decide, to keep and to end."""
    settle(
        world,
        tiers=parse_tiers(
            [
                {"name": "small", "profile": "1g.5gb", "idle_minutes": 60},
                {"name": "card", "profile": "whole", "approval": True, "max_hours": 48},
            ]
        ),
    )
    return world


def ids_of(world: World, need: str, path: str) -> int:
    """The id of what an address is about: the visitor's own, or another's where that is needed."""
    broker, theirs = world.broker, need in (DECIDE, ADMIN)
    person = Person("zed" if theirs else "ada")
    if "sessions" in path or "leases" in path:
        return world.lend(person.name).id
    if "revoke" in path:
        request = broker.requests.create(person, "card", 2, "a run")
        return broker.requests.decide(request.id, Person("root", admin=True), True).id
    if "requests" in path or "decisions" in path:
        return broker.requests.create(person, "card", 2, "a run").id
    if "drafts" in path:
        draft = broker.drafts.save(person, tier="card", hours="2", reason="a run")
        return draft.id
    if "queue" in path:
        fill(world)
        return broker.queue.join(person, "small").id
    if "exceptions" in path:
        until = NOON.replace(hour=18)
        root = Person("root", admin=True)
        return broker.quotas.grant_exception("zed", "live", 2, until, "a course", root).id
    raise AssertionError(path)


def fill(world: World) -> None:
    """Lend everything, so that there is something to wait for."""
    for number in range(3):
        world.lend(f"other{number}")


async def send(site: Site, method: str, path: str, token: str, sent: object, need: str) -> Reply:
    address = as_rule(path) + ("?" + path.partition("?")[2] if "?" in path else "")
    if "*" in address:
        address = address.replace("*", str(ids_of(site.world, need, path)))
    elif "queue" in path and method == "POST":
        fill(site.world)
    if path.startswith("api/"):
        body = sent if method not in ("GET",) else None
        return await site.ask(method, address, token=token, body=body)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode(sent).encode() if method == "POST" else None  # type: ignore[arg-type]
    return await site.ask(method, address, token=token, body=body, headers=headers)


def sign_in(site: Site, width: Width) -> str:
    return site.world.hub.sign_in(
        width.name, groups=width.groups, admin=width.admin, scopes=width.scopes
    )


@pytest.mark.parametrize("width", WIDTHS)
async def test_a_token_opens_what_its_scopes_and_its_person_open(
    site: Site, stocked: World, width: str
) -> None:
    given = WIDTHS[width]
    wrong = []
    for (method, path), (need, sent) in [*API.items(), *PAGES.items()]:
        # Each address on its own, with nothing left of the last one.
        world = site.world
        for lease in world.broker.leases.find():
            if lease.state != "releasing":
                world.broker.leases.release(lease.id, "", "test")
            world.broker.leases.confirm_empty(lease.id)
        for ticket in world.broker.queue.tickets():
            world.broker.queue.leave(ticket.id, Person("root", admin=True))
        for request in world.broker.requests.find(states=("pending", "approved")):
            world.broker.requests.cancel(request.id, Person("root", admin=True))
        for draft in world.broker.drafts.of(Person("ada")):
            world.broker.drafts.drop(Person("ada"), draft.id)
        reply = await send(site, method, path, sign_in(site, given), sent, need)
        extends = "extend" in path and "extend" in given.opens
        expected = need == ANYBODY or (
            given.enters and (need == OWN or need in given.opens or extends)
        )
        opened = reply.status not in (401, 403)
        if opened != expected and need != ANYBODY:
            wrong.append((method, path, reply.status, reply.text[:300]))
        if expected and need != ANYBODY:
            assert reply.status < 400, (method, path, reply.status, reply.text)
    assert wrong == []


@pytest.mark.parametrize("token", ["", "expired-or-made-up", SERVICE_TOKEN])
async def test_without_a_persons_token_nothing_opens(
    site: Site, stocked: World, token: str
) -> None:
    site.world.hub.sign_in("test", kind="service")
    service = next(iter(site.world.hub.tokens))
    for (method, path), (need, sent) in [*API.items(), *PAGES.items()]:
        if need == ANYBODY:
            continue
        used = service if token == SERVICE_TOKEN else token
        address = as_rule(path).replace("*", "1")
        body = None if method == "GET" else sent if path.startswith("api/") else b""
        reply = await site.ask(method, address, token=used, body=body)
        assert reply.status in (302, 401, 403), (method, path, reply.status)
        if reply.status == 302:
            assert "oauth2/authorize" in reply.headers["Location"]


async def test_a_narrow_token_of_an_admin_sees_no_holders(site: Site) -> None:
    site.world.lend("zed")
    narrow = site.world.hub.sign_in("root", admin=True, scopes=(ACCESS,))
    slices = (await site.ask("GET", "api/slices", token=narrow)).json
    assert [entry["lease"] for entry in slices] == [None] * 4
    assert "zed" not in (await site.ask("GET", "", token=narrow)).text


async def test_a_narrow_token_cannot_have_a_ticket_start_a_server(site: Site) -> None:
    fill(site.world)
    full, narrow = site.world.hub.sign_in("ada"), site.world.hub.sign_in("ada", scopes=(ACCESS,))
    ticket = (await site.ask("POST", "api/queue", token=narrow, body={"tier": "small"})).json
    assert ticket["start"] is False
    again = {"tier": "small", "start": True}
    refused = await site.ask("POST", "api/queue", token=narrow, body=again)
    assert (refused.status, refused.json["reason"]) == (403, "not-allowed")
    assert "start:servers" in refused.json["message"]
    assert site.world.broker.queue.status("ada")[0].row.start is False
    assert (await site.ask("POST", "api/queue", token=full, body=again)).json["start"] is True
    one = site.world.hub.sign_in("ada", scopes=(ACCESS, "servers!server=ada/lab"))
    moved = {"tier": "small", "start": True, "server": "lab"}
    assert (await site.ask("POST", "api/queue", token=one, body=moved)).json["server"] == "lab"


async def test_names_of_servers_are_checked_at_the_door(site: Site) -> None:
    fill(site.world)
    settle(site.world, server_names=ServerNames(slugs=True))
    hub = site.world.hub
    ada = hub.sign_in("ada")
    hub.users["ada"] = {"Old lab": server("Old lab", started=NOON)}
    for name in ("../x", "..", "Lab", "a_b", "x" * 31):
        told = await site.ask(
            "POST", "api/queue", token=ada, body={"tier": "small", "server": name}
        )
        assert (told.status, told.json["reason"]) == (400, "options")
        assert told.json["message"].startswith("No server can be called")
        form = urlencode({"tier": "small", "server": name}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        page = await site.ask("POST", "queue", token=ada, body=form, headers=headers)
        assert page.status == 400
        assert "No server can be called" in page.text
    # A server that is older than the rule keeps its name.
    kept = {"tier": "small", "server": "Old lab"}
    assert (await site.ask("POST", "api/queue", token=ada, body=kept)).status == 201
    settle(site.world, server_names=ServerNames(named=False))
    none = await site.ask("POST", "api/queue", token=ada, body=kept)
    assert "no named servers" in none.json["message"]


async def test_nobody_waits_for_a_server_that_is_one_too_many(site: Site) -> None:
    fill(site.world)
    settle(site.world, server_names=ServerNames(slugs=True, most=2))
    hub = site.world.hub
    ada = hub.sign_in("ada")
    hub.users["ada"] = {name: server(name, started=NOON) for name in ("", "lab", "Old lab")}
    third = {"tier": "small", "server": "third"}
    told = await site.ask("POST", "api/queue", token=ada, body=third)
    assert (told.status, told.json["reason"]) == (409, "conflict")
    assert told.json["message"].startswith("You have 2 named servers, and this hub allows 2, so")
    form = urlencode(third).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    page = await site.ask("POST", "queue", token=ada, body=form, headers=headers)
    assert page.status == 409
    assert "this hub allows 2" in page.text
    assert 'value="third"' in page.text
    assert site.world.broker.queue.status("ada") == ()
    for name in ("", "lab", "Old lab"):
        mine = {"tier": "small", "server": name}
        assert (await site.ask("POST", "api/queue", token=ada, body=mine)).status == 201
    del hub.users["ada"]["lab"]
    assert (await site.ask("POST", "api/queue", token=ada, body=third)).status == 201


async def test_the_hub_is_never_asked_about_another_address(world: World) -> None:
    for user, name in (("..", ""), ("ada", ".."), ("ada", ".")):
        with pytest.raises(HubError, match="has no address for"):
            await world.parts.hub.start_server(user, name, {})
        with pytest.raises(HubError, match="has no address for"):
            await world.parts.hub.stop_server(user, name)
    world.hub.sign_in("ada")
    await world.parts.hub.start_server("ada", "a?b#c%2f&d", {})
    assert world.hub.started == [("ada", "a?b#c%2f&d", {})]


@pytest.mark.parametrize(
    ("scopes", "groups", "server", "allowed"),
    [
        (["servers"], [], "lab", True),
        (["start:servers"], [], "", True),
        (["admin:servers"], [], "", False),  # the hub lists what it contains as well
        (["servers!user=ada"], [], "lab", True),
        (["servers!user=adam"], [], "lab", False),
        (["servers!server=ada/lab"], [], "lab", True),
        (["servers!server=ada/lab"], [], "", False),
        (["servers!server=ada/"], [], "lab", False),
        (["servers!server=bob/lab"], [], "lab", False),
        (["servers!group=pi"], ["pi", "vision"], "lab", True),
        (["servers!group=pi"], ["vision"], "lab", False),
        (["servers!user", "servers!server"], [], "", False),
        (["access:servers!user=ada", "delete:servers!user=ada"], [], "", False),
        ([], ["pi"], "", False),
    ],
)
def test_a_start_needs_a_scope_for_that_server(
    scopes: list[str], groups: list[str], server: str, allowed: bool
) -> None:
    assert may_start(scopes, "ada", groups, server) is allowed
