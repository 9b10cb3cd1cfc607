"""The pages and the REST API for what is new in the life of a request, and for notices."""

from __future__ import annotations

from datetime import timedelta

import pytest
from bs4 import BeautifulSoup

from jupyterhub_migspawner.policy.approval import parse_approvers
from jupyterhub_migspawner.policy.notices import TOPICS, parse_notices
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.tiers import parse_tiers
from tests.unit.service.conftest import NOON, Site, settle
from tests.unit.service.pages.test_requests import EVIL, Visitor, back_to, words

ROOT = Person("root", admin=True)
ADA = Person("ada", frozenset({"vision"}))


@pytest.fixture
def strict(site: Site) -> Site:
    """Two approvers for a board; grants of it while it is in use."""
    board = {"name": "board", "profile": "3g.20gb", "approval": True, "approvals": 2}
    tiers = parse_tiers([{"name": "cpu", "profile": "none"}, board])
    settle(site.world, tiers=tiers, approvers=parse_approvers(["group:pi"]))
    return site


async def test_a_draft_is_kept_taken_up_and_filed(site: Site) -> None:
    ada = Visitor(site, "ada")
    await ada.open("requests")
    # Whatever is there so far, however wrong it may be.
    typed = {"tier": "card", "hours": "lots", "reason": EVIL, "starts_at": "tomorrow"}
    back_to(await ada.send("drafts", **typed), "requests?kept=1")
    page = await ada.open("requests?kept=1")
    assert EVIL not in page.text
    assert len(words(page, "[data-draft]")) == 1
    page = await ada.open("requests?draft=1")
    soup = BeautifulSoup(page.text, "html.parser")
    assert soup.select_one("#hours")["value"] == "lots"  # type: ignore[index]
    assert soup.select_one("#starts_at")["value"] == "tomorrow"  # type: ignore[index]
    wrong = await ada.send("requests", **typed, draft="1")
    assert wrong.status == 400
    assert site.world.broker.requests.find() == ()
    right = {**typed, "hours": "3", "starts_at": "2026-11-23T09:00"}
    back_to(await ada.send("requests", **right, draft="1"), "requests?asked=1")
    (request,) = site.world.broker.requests.find()
    assert request.starts_at == NOON + timedelta(hours=21)
    assert site.world.broker.drafts.of(ADA) == ()
    # Sent again by going back: the draft is a request already.
    again = await ada.send("requests", **right, draft="1")
    assert again.status == 404
    assert len(site.world.broker.requests.find()) == 1


async def test_what_was_typed_over_a_draft_is_in_the_draft_when_it_is_refused(site: Site) -> None:
    ada = Visitor(site, "ada")
    await ada.open("requests")
    await ada.send("drafts", tier="card", hours="1", reason="x", starts_at="")
    reply = await ada.send(
        "requests", tier="card", hours="-4", reason="better", starts_at="", draft="1"
    )
    assert reply.status == 400
    (draft,) = site.world.broker.drafts.of(ADA)
    assert (draft.hours, draft.reason) == ("-4", "better")


async def test_a_draft_from_beyond_the_calendar_is_shown_as_it_is(site: Site) -> None:
    site.world.broker.drafts.save(ADA, tier="card", starts_at="0001-01-01T00:00+14:00")
    ada = Visitor(site, "ada")
    page = await ada.open("requests?draft=1")
    assert page.status == 200
    field = BeautifulSoup(page.text, "html.parser").select_one("#starts_at")
    assert field is not None
    assert field["value"] == "0001-01-01T00:00+14:00"


async def test_anothers_draft_is_nobodys(site: Site) -> None:
    ada, grace = Visitor(site, "ada"), Visitor(site, "grace")
    await ada.open("requests")
    await ada.send("drafts", tier="card", hours="1", reason="secret plan", starts_at="")
    await grace.open("requests")
    assert (await grace.open("requests?draft=1")).status == 404
    fields = {"tier": "card", "hours": "1", "reason": "mine", "starts_at": "", "draft": "1"}
    assert (await grace.send("requests", **fields)).status == 404
    assert (await grace.send("drafts/1/drop")).status == 404
    assert [draft.reason for draft in site.world.broker.drafts.of(ADA)] == ["secret plan"]
    root = Visitor(site, "root", admin=True)
    assert "secret plan" not in (await root.open("decisions")).text
    back_to(await ada.send("drafts/1/drop"), "requests?dropped=1")
    assert site.world.broker.drafts.of(ADA) == ()


async def test_a_second_approver_is_asked_for(strict: Site) -> None:
    broker = strict.world.broker
    broker.requests.create(ADA, "board", 10, "x")
    marie = Visitor(strict, "marie", groups=("pi",))
    emmy = Visitor(strict, "emmy", groups=("pi",))
    await marie.open("decisions")
    reply = await marie.send("decisions/1/approve", hours="6", reason="fine")
    back_to(reply, "decisions?seconded=1")
    assert (
        "You have approved it; a second approval is needed."
        in (await marie.open("decisions?seconded=1")).text
    )
    assert (await marie.send("decisions/1/approve", hours="6", reason="")).status == 409
    ada = Visitor(strict, "ada")
    assert (
        "Approved by marie; a second approval is needed."
        in words(await ada.open("requests"), "[data-request]")[0]
    )
    page = await emmy.open("decisions")
    assert "Approved by marie; a second approval is needed." in words(page, "[data-request]")[0]
    back_to(await emmy.send("decisions/1/approve", hours="6", reason=""), "decisions?approved=1")
    assert broker.requests.get(1).hours == 6


async def test_a_grant_for_a_coming_time_says_when_it_begins(site: Site) -> None:
    broker = site.world.broker
    asked = broker.requests.create(ADA, "card", 10, "x", NOON + timedelta(days=2))
    broker.requests.decide(asked.id, ROOT, True, "fine")
    ada, root = Visitor(site, "ada"), Visitor(site, "root", admin=True)
    (said,) = words(await ada.open("requests"), "[data-request]")
    assert "Decided by root: fine. Valid from Tue 24 Nov 2026 12:00 UTC until Tue" in said
    assert "Start a server with it" not in said
    page = await root.open("decisions")
    assert "card from Tue 24 Nov 2026 12:00 UTC until" in words(page, "li[data-request]")[0]
    site.world.pass_by(days=2)
    (said,) = words(await ada.open("requests"), "[data-request]")
    assert "Valid until Tue 24 Nov 2026 22:00 UTC" in said
    assert "Start a server with it" in said


async def test_a_grant_in_use_is_revoked_with_a_warning(site: Site) -> None:
    world = site.world
    world.broker.requests.decide(world.broker.requests.create(ADA, "card", 10, "x").id, ROOT, True)
    root = Visitor(site, "root", admin=True)
    page = await root.open("decisions")
    assert "revoke" not in page.text
    for lease in world.broker.leases.find():
        world.broker.leases.release(lease.id, "x", "y")
    lease = world.lend("ada", tier="card")
    page = await root.open("decisions")
    assert BeautifulSoup(page.text, "html.parser").select_one("#minutes-1") is not None
    for minutes, reason in (("soon", "x"), ("-1", "x"), ("5", " ")):
        reply = await root.send("decisions/1/revoke", minutes=minutes, reason=reason)
        assert reply.status == 400
        soup = BeautifulSoup(reply.text, "html.parser")
        assert soup.select_one("#minutes-1")["value"] == minutes  # type: ignore[index]
    assert world.broker.requests.get(1).state == "approved"
    back_to(
        await root.send("decisions/1/revoke", minutes="5", reason="a fire"), "decisions?revoked=1"
    )
    (after,) = world.broker.leases.find(user="ada")
    assert (after.id, after.ends_at) == (lease.id, world.now + timedelta(minutes=5))
    (said,) = words((await root.open("decisions")), "#granted + ul li > span")
    assert "withdrawn by root: a fire" in said
    ada = Visitor(site, "ada")
    (said,) = words(await ada.open("requests"), "[data-request]")
    assert "Withdrawn by root: a fire. Servers that use it end at" in said
    assert "Valid until" not in said
    world.pass_by(minutes=6)
    (said,) = words(await ada.open("requests"), "[data-request]")
    assert "It ended at" in said
    assert (await root.send("decisions/1/revoke", minutes="5", reason="x")).status == 409
    ada = Visitor(site, "ada")
    assert (await ada.open("decisions/1/revoke")).status == 403


async def test_a_draft_by_rest(site: Site) -> None:
    hub = site.world.hub
    ada, eve = hub.sign_in("ada"), hub.sign_in("eve")
    made = await site.ask("POST", "api/drafts", token=ada, body={"tier": "card", "hours": "?"})
    assert made.status == 201
    assert made.json["hours"] == "?"
    path = f"api/drafts/{made.json['id']}"
    assert (await site.ask("GET", "api/drafts", token=eve)).json == []
    for method, where in (("PUT", path), ("DELETE", path), ("POST", f"{path}/file")):
        refused = await site.ask(method, where, token=eve, body={})
        assert refused.status == 404, method
    assert (await site.ask("POST", f"{path}/file", token=ada, body={})).status == 400
    body = {"tier": "card", "hours": "3", "reason": "x", "starts_at": "2026-11-23T09:00+01:00"}
    assert (await site.ask("PUT", path, token=ada, body=body)).status == 200
    filed = await site.ask("POST", f"{path}/file", token=ada, body={})
    assert filed.status == 201
    assert filed.json["starts_at"] == "2026-11-23T08:00:00Z"
    assert (await site.ask("POST", f"{path}/file", token=ada, body={})).status == 404
    assert (await site.ask("GET", "api/drafts", token=ada)).json == []


async def test_a_revocation_by_rest(site: Site) -> None:
    world = site.world
    world.broker.requests.decide(world.broker.requests.create(ADA, "card", 10, "x").id, ROOT, True)
    lease = world.lend("ada", tier="card")
    ada, root = world.hub.sign_in("ada"), world.hub.sign_in("root", admin=True)
    path = "api/requests/1/revoke"
    for token, body, status in (
        (ada, {"reason": "x"}, 403),
        (root, {}, 400),
        (root, {"reason": "x", "warning_minutes": -1}, 400),
        (root, {"reason": "x", "warning_minutes": 1e9}, 400),
        (root, {"reason": "x", "hours": 1}, 400),
    ):
        assert (await site.ask("POST", path, token=token, body=body)).status == status
    done = await site.ask("POST", path, token=root, body={"reason": "a fire"})
    assert (done.status, done.json["state"]) == (200, "cancelled")
    (after,) = world.broker.leases.find(user="ada")
    assert (after.id, after.ends_at) == (lease.id, world.now + timedelta(minutes=15))
    again = await site.ask("POST", path, token=root, body={"reason": "a fire"})
    assert again.status == 409


async def test_what_one_is_told_by_rest(site: Site) -> None:
    hub = site.world.hub
    ada, eve = hub.sign_in("ada"), hub.sign_in("eve")
    every = dict.fromkeys(TOPICS, True)
    assert (await site.ask("GET", "api/notices", token=ada)).json == every
    changed = await site.ask("PUT", "api/notices", token=ada, body={"offers": False})
    assert (changed.status, changed.json) == (200, {**every, "offers": False})
    assert (await site.ask("GET", "api/notices", token=eve)).json == every
    for body in ({"offers": "no"}, {"weather": True}, [], {"user": "eve"}):
        assert (await site.ask("PUT", "api/notices", token=ada, body=body)).status == 400
    assert (await site.ask("PUT", "api/notices", body={"offers": True})).status == 401
    assert site.world.broker.notices.choices("ada") == {**every, "offers": False}


async def test_what_one_is_told_is_chosen_on_a_page(site: Site) -> None:
    ada = Visitor(site, "ada")
    page = await ada.open("notices")
    soup = BeautifulSoup(page.text, "html.parser")
    assert [box["name"] for box in soup.select("input[type=checkbox][checked]")] == [*TOPICS]
    assert "does not send notices to users yet" in page.text
    back_to(await ada.send("notices", requests="1", sessions="1"), "notices?kept=1")
    settle(site.world, notices=parse_notices({"users": ["json://x/{user}"]}))
    page = await ada.open("notices?kept=1")
    soup = BeautifulSoup(page.text, "html.parser")
    assert [box["name"] for box in soup.select("input[type=checkbox][checked]")] == [
        "requests",
        "sessions",
    ]
    assert words(page, "[role=status]") == ["Your choice is saved."]
    assert "does not send notices" not in page.text
    # Nothing ticked means no notices; without the page's token nothing is done.
    stranger = Visitor(site, "eve")
    assert (await stranger.send("notices")).status == 403
    back_to(await ada.send("notices"), "notices?kept=1")
    assert not any(site.world.broker.notices.choices("ada").values())
    assert all(site.world.broker.notices.choices("eve").values())


@pytest.mark.parametrize(
    "address",
    [
        *(f"requests?{word}=999" for word in ("asked", "cancelled", "kept")),
        *(
            f"decisions?{word}=999"
            for word in ("approved", "denied", "seconded", "back", "revoked")
        ),
        *(f"queue?{word}=999" for word in ("joined", "left")),
    ],
)
async def test_nothing_is_said_of_what_does_not_exist(site: Site, address: str) -> None:
    page = await Visitor(site, "root", admin=True).open(address)
    assert "999" not in BeautifulSoup(page.text, "html.parser").get_text()


async def test_the_request_of_another_is_not_said_to_be_ones_own(site: Site) -> None:
    made = site.world.broker.requests.create(ADA, "card", 2, "x").id
    grace = await Visitor(site, "grace").open(f"requests?asked={made}")
    assert "is submitted" not in grace.text
    assert "is submitted" in (await Visitor(site, "ada").open(f"requests?asked={made}")).text
