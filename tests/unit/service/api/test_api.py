"""The REST API: who sees and does what, and every refusal as JSON."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.hub.scopes import ADMIN_SCOPE, APPROVE_SCOPE
from jupyterhub_migspawner.policy.quotas import parse_quotas
from jupyterhub_migspawner.service.api import routes
from tests.unit.service.conftest import NOON, PREFIX, Reply, Site
from tests.unit.service.fake_hub import ACCESS, SERVICE_TOKEN, server

ASK = {"tier": "card", "hours": 4, "reason": "a big <model>"}


def check(reply: Reply, schema: str, status: int = 200) -> Any:
    """The reply's JSON, which is as the description says."""
    assert reply.status == status, reply.text
    described = {"$ref": f"#/components/schemas/{schema}", **routes.description()}
    found = reply.json
    for each in found if isinstance(found, list) else [found]:
        Draft202012Validator(described).validate(each)
    return found


def refused(reply: Reply, status: int, says: str) -> Any:
    """A refusal of the three keys, with this in its sentence."""
    found = check(reply, "Error", status)
    assert found["status"] == status
    assert says in found["message"]
    return found["reason"]


async def test_tiers_are_those_of_the_person(site: Site) -> None:
    ada = site.world.hub.sign_in("ada")
    grace = site.world.hub.sign_in("grace", groups=("vision",))
    mine = check(await site.ask("GET", "api/tiers", token=ada), "Tier")
    assert [tier["name"] for tier in mine] == ["cpu", "small", "card"]
    assert (mine[1]["free"], mine[1]["total"], mine[1]["usable"]) == (3, 3, True)
    assert mine[2]["usable"] is False
    assert "approval" in mine[2]["why"]
    theirs = check(await site.ask("GET", "api/tiers", token=grace), "Tier")
    assert "large" in [tier["name"] for tier in theirs]


async def test_slices_say_whose_only_to_admins(site: Site) -> None:
    lease = site.world.lend("ada")
    tokens = {
        "ada": site.world.hub.sign_in("ada"),
        "grace": site.world.hub.sign_in("grace"),
        "root": site.world.hub.sign_in("root", admin=True),
        "ops": site.world.hub.sign_in("ops", scopes=(ACCESS, ADMIN_SCOPE)),
    }
    seen = {}
    for name, token in tokens.items():
        slices = check(await site.ask("GET", "api/slices", token=token), "Slice")
        assert len(slices) == 4
        (leased,) = [entry for entry in slices if entry["state"] == "leased"]
        assert leased["uuid"] == lease.slice_uuid
        seen[name] = leased["lease"] and leased["lease"]["user"]
    assert seen == {"ada": "ada", "grace": None, "root": "ada", "ops": "ada"}


async def test_leases_are_the_persons_own_unless_an_admin_asks_for_all(site: Site) -> None:
    mine, theirs = site.world.lend("ada"), site.world.lend("grace")
    ada = site.world.hub.sign_in("ada")
    root = site.world.hub.sign_in("root", admin=True)
    found = check(await site.ask("GET", "api/leases", token=ada), "Lease")
    assert [lease["id"] for lease in found] == [mine.id]
    refused(await site.ask("GET", "api/leases?all=true", token=ada), 403, "Only admins")
    found = check(await site.ask("GET", "api/leases?all=true", token=root), "Lease")
    assert [lease["id"] for lease in found] == [mine.id, theirs.id]
    assert check(await site.ask("GET", "api/leases", token=root), "Lease") == []


async def test_an_admins_token_opens_no_more_than_it_was_made_for(site: Site) -> None:
    """A token made for these pages alone must not end people's sessions when it leaks."""
    lease = site.world.lend("ada")
    narrow = site.world.hub.sign_in("root", admin=True, scopes=(ACCESS,))
    refused(await site.ask("GET", "api/leases?all=true", token=narrow), 403, "Only admins")
    refused(await site.ask("DELETE", f"api/leases/{lease.id}", token=narrow), 403, "Only admins")
    asked = {"tier": "card", "hours": 2, "reason": "training"}
    ada = site.world.hub.sign_in("ada")
    request = (await site.ask("POST", "api/requests", body=asked, token=ada)).json
    path = f"api/requests/{request['id']}/approve"
    refused(
        await site.ask("POST", path, body={}, token=narrow),
        403,
        "admins and the approvers can decide",
    )
    full = site.world.hub.sign_in("root", admin=True)
    assert (await site.ask("POST", path, body={}, token=full)).status == 200


async def test_past_leases_are_listed_when_asked_for(site: Site) -> None:
    lease = site.world.lend("ada")
    site.world.broker.leases.release(lease.id, "enough", "ada")
    site.world.broker.leases.confirm_empty(lease.id)
    ada = site.world.hub.sign_in("ada")
    assert check(await site.ask("GET", "api/leases", token=ada), "Lease") == []
    (past,) = check(await site.ask("GET", "api/leases?past=true", token=ada), "Lease")
    assert (past["state"], past["end_reason"]) == ("released", "enough")


async def test_only_admins_take_a_lease_back_and_it_is_not_free_at_once(site: Site) -> None:
    lease = site.world.lend("ada")
    ada = site.world.hub.sign_in("ada")
    ops = site.world.hub.sign_in("ops", scopes=(ACCESS, ADMIN_SCOPE))
    path = f"api/leases/{lease.id}"
    refused(await site.ask("DELETE", path, token=ada), 403, "stop its server")
    assert site.world.live() == {lease.id: "active"}
    site.world.hub.users["ada"] = {"": server(started=NOON), "b": server("b", started=NOON)}
    found = check(
        await site.ask("DELETE", path, token=ops, body={"reason": "needed <now>"}), "Lease", 202
    )
    assert site.world.hub.stopped == [("ada", "")]
    assert (found["state"], found["end_reason"]) == ("releasing", "needed <now>")
    assert refused(await site.ask("DELETE", path, token=ops), 409, "already") == "conflict"
    refused(await site.ask("DELETE", "api/leases/999", token=ops), 404, "no lease 999")
    for forged in ("0x1", "-1", "9" * 40, "1'", "%00", "½"):
        refused(await site.ask("DELETE", f"api/leases/{quoted(forged)}", token=ops), 404, "lease")
    assert [event.actor for event in site.world.broker.events.find()][-1] == "ops"


def quoted(text: str) -> str:
    from urllib.parse import quote

    return text if text.startswith("%") else quote(text)


async def test_a_request_is_made_seen_and_approved(site: Site) -> None:
    ada = site.world.hub.sign_in("ada")
    pi = site.world.hub.sign_in("marie", groups=("pi",))
    asked = check(await site.ask("POST", "api/requests", token=ada, body=ASK), "Request", 201)
    assert (asked["user"], asked["state"], asked["reason"]) == ("ada", "pending", ASK["reason"])
    refused(await site.ask("GET", "api/requests?all=true", token=ada), 403, "Only approvers")
    assert check(await site.ask("GET", "api/requests", token=pi), "Request") == []
    assert check(await site.ask("GET", "api/requests?all=true", token=pi), "Request") == [asked]
    path = f"api/requests/{asked['id']}/approve"
    grant = check(await site.ask("POST", path, token=pi, body={"hours": 2}), "Request")
    assert (grant["state"], grant["decided_by"]) == ("approved", "marie")
    assert refused(await site.ask("POST", path, token=pi), 409, "approved") == "conflict"
    (card,) = [t for t in (await site.ask("GET", "api/tiers", token=ada)).json if t["approval"]]
    assert "approval" not in card["why"]


async def test_who_may_decide_and_that_nobody_decides_about_themselves(site: Site) -> None:
    hub = site.world.hub
    ada = hub.sign_in("ada", scopes=(ACCESS, APPROVE_SCOPE))
    request = check(await site.ask("POST", "api/requests", token=ada, body=ASK), "Request", 201)
    path = f"api/requests/{request['id']}"
    refused(await site.ask("POST", f"{path}/approve", token=ada), 403, "own request")
    grace = hub.sign_in("grace")
    refused(
        await site.ask("POST", f"{path}/approve", token=grace),
        403,
        "admins and the approvers can decide",
    )
    # A scope counts only in the token that carries it.
    refused(
        await site.ask("POST", f"{path}/deny", token=hub.sign_in("linus")),
        403,
        "approvers can decide",
    )
    linus = hub.sign_in("linus", scopes=(ACCESS, APPROVE_SCOPE))
    assert len(check(await site.ask("GET", "api/requests?all=true", token=linus), "Request")) == 1
    denied = check(
        await site.ask("POST", f"{path}/deny", token=linus, body={"reason": "later"}), "Request"
    )
    assert (denied["state"], denied["decided_by"]) == ("denied", "linus")


async def test_a_request_is_cancelled_by_whoever_made_it(site: Site) -> None:
    ada = site.world.hub.sign_in("ada")
    grace = site.world.hub.sign_in("grace")
    request = check(await site.ask("POST", "api/requests", token=ada, body=ASK), "Request", 201)
    path = f"api/requests/{request['id']}/cancel"
    assert (await site.ask("POST", path, token=grace)).status in (403, 404)
    assert check(await site.ask("POST", path, token=ada), "Request")["state"] == "cancelled"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"tier": "card", "hours": 4}, "'reason' is missing"),
        ({**ASK, "user": "grace"}, "no field 'user'"),
        ({**ASK, "hours": -3}, "above 0"),
        ({**ASK, "tier": {"name": "card"}}, "must be text"),
        ([ASK], "JSON object"),
        (b"{nonsense", "not JSON"),
    ],
)
async def test_bad_bodies_are_refused_and_change_nothing(site: Site, body: Any, says: str) -> None:
    ada = site.world.hub.sign_in("ada")
    refused(await site.ask("POST", "api/requests", token=ada, body=body), 400, says)
    assert site.world.broker.requests.find() == ()


@pytest.mark.parametrize("tier", ["nonsense", "<script>alert(1)</script>", "large", "small"])
async def test_a_request_for_a_tier_that_cannot_be_asked_for_is_a_sentence(
    site: Site, tier: str
) -> None:
    ada = site.world.hub.sign_in("ada")
    reply = await site.ask("POST", "api/requests", token=ada, body={**ASK, "tier": tier})
    assert reply.status in (400, 403, 409), reply.text
    check(reply, "Error", reply.status)
    assert site.world.broker.requests.find() == ()


@pytest.mark.parametrize("size", [64 * 1024 + 1, 250 * 1000])
async def test_a_body_that_is_too_large_is_told_so(site: Site, size: int) -> None:
    ada = site.world.hub.sign_in("ada")
    body = json.dumps({"reason": "x" * size}).encode()
    refused(await site.ask("POST", "api/requests", token=ada, body=body), 413, "bytes")


async def test_unknown_parameters_are_refused(site: Site) -> None:
    ada = site.world.hub.sign_in("ada")
    refused(await site.ask("GET", "api/leases?user=grace", token=ada), 400, "'user'")
    refused(await site.ask("GET", "api/tiers?all=true", token=ada), 400, "'all'")


async def test_addresses_and_methods_that_do_not_exist_are_told_in_json(site: Site) -> None:
    ada = site.world.hub.sign_in("ada")
    for path in ("api", "api/", "api/nothing", "api/leases/", "api/tiers/1/2"):
        refused(await site.ask("GET", path, token=ada), 404, "openapi.json")
    for method in ("DELETE", "PUT", "PATCH", "HEAD"):
        reply = await site.ask(method, "api/tiers", token=ada)
        assert reply.status == 405
        assert reply.headers["Allow"] == "GET"
    refused(await site.ask("GET", "api/leases/1", token=ada), 405, "method")


@pytest.mark.parametrize("path", [path for path in routes.ROUTES if path != "/leases/{id}"])
async def test_nobody_is_sent_to_a_sign_in_page(site: Site, path: str) -> None:
    method = "POST" if "{id}" in path else "GET"
    reply = await site.ask(method, "api" + path.replace("{id}", "1"))
    assert refused(reply, 401, "You are not signed in") == "not-signed-in"
    reply = await site.ask(method, "api" + path.replace("{id}", "1"), token="stolen")
    refused(reply, 401, "does not know this token")


async def test_services_and_people_without_access_are_refused(site: Site) -> None:
    hub = site.world.hub
    other = hub.sign_in("cull-idle", kind="service", scopes=("access:services",))
    refused(await site.ask("GET", "api/slices", token=other), 403, "'cull-idle'")
    refused(await site.ask("GET", "api/slices", token=SERVICE_TOKEN), 403, "services cannot hold")
    narrow = hub.sign_in("ada", scopes=("access:servers!user=ada",), admin=True)
    refused(await site.ask("GET", "api/slices", token=narrow), 403, "access:services")


async def test_a_cookie_needs_the_xsrf_token_to_change_anything(site: Site) -> None:
    token = site.world.hub.sign_in("ada")
    cookie = site.cookie(token)
    reply = await site.ask("POST", "api/requests", body=ASK, headers={"Cookie": cookie})
    assert refused(reply, 403, "XSRF") == "xsrf"
    # A token that is not valid is no way around it.
    reply = await site.ask(
        "POST", "api/requests", body=ASK, token="made-up", headers={"Cookie": cookie}
    )
    refused(reply, 403, "XSRF")
    assert site.world.broker.requests.find() == ()
    page = await site.ask("GET", "", headers={"Cookie": cookie})
    xsrf = page.headers["Set-Cookie"].partition("_xsrf=")[2].partition(";")[0]
    headers = {"Cookie": f"{cookie}; _xsrf={xsrf}", "X-XSRFToken": xsrf}
    reply = await site.ask("POST", "api/requests", body=ASK, headers=headers)
    check(reply, "Request", 201)
    # And none of it for a token of the hub.
    check(await site.ask("POST", "api/requests/1/cancel", token=token), "Request")


async def test_what_a_page_of_another_site_fetches_is_not_told(site: Site) -> None:
    cookie = site.cookie(site.world.hub.sign_in("ada"))
    headers = {"Cookie": cookie, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "cross-site"}
    refused(await site.ask("GET", "api/leases", headers=headers), 403, "XSRF")


async def test_a_database_that_is_away_is_a_503(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = site.world.hub.sign_in("ada")

    def away(work: Any) -> Any:
        raise DatabaseError("postgresql://broker:secret@db/leases does not answer")

    monkeypatch.setattr(site.world.broker.store, "read", away)
    reply = await site.ask("GET", "api/tiers", token=ada)
    assert refused(reply, 503, "database") == "database"
    assert "secret" not in reply.text


async def test_a_hub_that_is_away_is_a_503(site: Site) -> None:
    ada = site.world.hub.sign_in("ada")
    site.world.hub.fail_with = 502
    assert refused(await site.ask("GET", "api/tiers", token=ada), 503, "hub") == "hub"


async def test_the_unexpected_does_not_leak(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = site.world.hub.sign_in("ada")

    def broken(work: Any) -> Any:
        raise RuntimeError("the secret of /etc/shadow")

    monkeypatch.setattr(site.world.broker.store, "read", broken)
    reply = await site.ask("GET", "api/tiers", token=ada)
    refused(reply, 500, "log")
    assert "shadow" not in reply.text


async def test_a_lost_group_is_soon_a_lost_right(site: Site) -> None:
    hub = site.world.hub
    token = hub.sign_in("marie", groups=("pi",))
    assert (await site.ask("GET", "api/requests?all=true", token=token)).status == 200
    hub.tokens[token]["groups"] = []
    site.application.settings["hub_auth"].cache.clear()
    refused(await site.ask("GET", "api/requests?all=true", token=token), 403, "Only approvers")


async def test_the_description_says_where_it_is(site: Site) -> None:
    ada = site.world.hub.sign_in("ada")
    found = (await site.ask("GET", "api/openapi.json", token=ada)).json
    assert found["servers"] == [{"url": PREFIX + "api"}]


async def test_answers_are_kept_nowhere_and_never_run(site: Site) -> None:
    reply = await site.ask("GET", "api/tiers", token=site.world.hub.sign_in("ada"))
    assert reply.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_a_person_is_remembered_for_seconds_only() -> None:
    from jupyterhub_migspawner.service.http.auth import REMEMBERED

    assert timedelta(seconds=REMEMBERED) <= timedelta(seconds=30)


async def test_a_lease_is_taken_back_also_when_the_hub_does_not_help(site: Site) -> None:
    lease = site.world.lend("ada")
    ops = site.world.hub.sign_in("ops", scopes=(ACCESS, ADMIN_SCOPE))
    assert (await site.ask("GET", "api/tiers", token=ops)).status == 200
    site.world.hub.fail_with = 500
    check(await site.ask("DELETE", f"api/leases/{lease.id}", token=ops), "Lease", 202)
    assert site.world.live() == {lease.id: "releasing"}


EXCEPTION = {
    "user": "ada",
    "field": "live",
    "limit": 3,
    "until": f"{NOON + timedelta(days=2):%Y-%m-%dT%H:%M:%SZ}",
    "reason": "a deadline",
}


async def test_exceptions_are_made_seen_and_ended(site: Site) -> None:
    hub = site.world.hub
    ada, root = hub.sign_in("ada"), hub.sign_in("root", admin=True)
    reply = await site.ask("POST", "api/exceptions", token=root, body=EXCEPTION)
    made = check(reply, "QuotaException", 201)
    assert (made["user"], made["limit"], made["granted_by"]) == ("ada", 3, "root")
    (mine,) = (await site.ask("GET", "api/exceptions", token=ada)).json
    assert mine == made
    assert (await site.ask("GET", "api/exceptions", token=root)).json == []
    assert (await site.ask("GET", "api/exceptions?all=true", token=root)).json == [made]
    refused(await site.ask("GET", "api/exceptions?all=true", token=ada), 403, "Only admins")
    path = f"api/exceptions/{made['id']}/end"
    refused(await site.ask("POST", path, token=ada, body={}), 403, "Only admins")
    check(await site.ask("POST", path, token=root, body={"reason": "x"}), "QuotaException", 200)
    refused(await site.ask("POST", path, token=root, body={}), 409, "ended at")
    assert (await site.ask("GET", "api/exceptions", token=ada)).json == []
    assert len((await site.ask("GET", "api/exceptions?past=true", token=ada)).json) == 1


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({"limit": "3"}, 400, "'limit' must be a number"),
        ({"limit": -1}, 400, "-1"),
        ({"limit": 1e300}, 400, "'limit'"),
        ({"until": "2027-01-01"}, 400, "time with its zone"),
        ({"until": "2027-01-01T00:00:00"}, 400, "time with its zone"),
        ({"until": 5}, 400, "found 5"),
        ({"until": "2020-01-01T00:00:00Z"}, 400, "in the next 366 days"),
        ({"field": "lives"}, 400, "'live'"),
        ({"user": "root"}, 403, "for yourself"),
        ({"granted_by": "ada"}, 400, "no field"),
        ({"reason": ""}, 400, "reason"),
    ],
)
async def test_exceptions_that_make_no_sense(
    site: Site, change: dict[str, Any], status: int, word: str
) -> None:
    root = site.world.hub.sign_in("root", admin=True)
    body = {**EXCEPTION, **change}
    refused(await site.ask("POST", "api/exceptions", token=root, body=body), status, word)
    assert site.world.broker.quotas.exceptions(include_past=True) == ()


async def test_nobody_else_makes_exceptions(site: Site) -> None:
    hub = site.world.hub
    for token in (hub.sign_in("grace"), hub.sign_in("marie", groups=("pi",))):
        reply = await site.ask("POST", "api/exceptions", token=token, body=EXCEPTION)
        refused(reply, 403, "Only admins")
    ops = hub.sign_in("ops", scopes=(ACCESS, ADMIN_SCOPE))
    check(
        await site.ask("POST", "api/exceptions", token=ops, body=EXCEPTION), "QuotaException", 201
    )


async def test_what_limits_me(site: Site) -> None:
    quotas = parse_quotas({"default": {"live": 2, "servers": 3, "gpu_hours_per_week": 10}})
    site.world.broker.context.settings = replace(site.world.broker.settings, quotas=quotas)
    hub = site.world.hub
    ada = hub.sign_in("ada")
    hub.users["ada"] = {"": server(started=NOON), "b": server("b", started=NOON)}
    site.world.lend("ada")
    found = check(await site.ask("GET", "api/quota", token=ada), "Limit")
    assert [(each["field"], each["limit"], each["used"]) for each in found] == [
        ("servers", 3, 2),
        ("live", 2, 1),
        ("gpu_hours_per_week", 10, 0),
    ]
    hub.fail_with = 500
    found = check(await site.ask("GET", "api/quota", token=ada), "Limit")
    assert found[0]["used"] is None


async def test_a_token_in_an_address_does_not_reach_the_log(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token = site.world.hub.sign_in("ada")

    def fail(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("something unexpected")

    monkeypatch.setattr("jupyterhub_migspawner.service.api.handler.ApiHandler.read", fail)
    with caplog.at_level(logging.DEBUG):
        answer = await site.ask("GET", "api/slices?token=hunter2T0K3N", token=token)
        await site.ask("GET", "api/nothing?token=hunter2T0K3N", token=token)
        await site.ask("PATCH", "api/slices?token=hunter2T0K3N", token=token)
    assert answer.status == 500
    assert "something unexpected" in caplog.text
    assert "GET /@/space%20word/services/migspawner/api/slices" in caplog.text
    assert "hunter2T0K3N" not in caplog.text
