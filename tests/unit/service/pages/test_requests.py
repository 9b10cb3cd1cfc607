"""The pages for requests: asked, withdrawn and decided with plain forms, and nothing lost."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

import pytest
from bs4 import BeautifulSoup

from jupyterhub_migspawner.hub.scopes import APPROVE_SCOPE
from jupyterhub_migspawner.policy.approval import parse_approvers
from jupyterhub_migspawner.policy.people import Person
from tests.unit.service.conftest import PREFIX, Reply, Site
from tests.unit.service.fake_hub import ACCESS

ROOT = Person("root", admin=True)
EVIL = '<img src=x onerror="alert(1)">\n& more'


class Visitor:
    """A user's browser, as far as cookies and forms go."""

    def __init__(self, site: Site, name: str, **rights: object) -> None:
        self.site = site
        self.name = name
        self.token = site.world.hub.sign_in(name, **rights)  # type: ignore[arg-type]
        self.cookies = site.cookie(self.token)
        self.xsrf = ""

    async def open(self, path: str) -> Reply:
        reply = await self.site.ask("GET", path, headers={"Cookie": self.cookies})
        for cookie in reply.headers.get_list("Set-Cookie"):
            if cookie.startswith("_xsrf="):
                self.cookies = f"{self.site.cookie(self.token)}; {cookie.split(';')[0]}"
        field = BeautifulSoup(reply.text, "html.parser").select_one("input[name=_xsrf]")
        if field is not None:
            self.xsrf = str(field["value"])
        return reply

    async def send(self, path: str, **fields: str) -> Reply:
        body = urlencode({"_xsrf": self.xsrf, **fields}).encode()
        kind = "application/x-www-form-urlencoded"
        headers = {"Cookie": self.cookies, "Content-Type": kind}
        return await self.site.ask("POST", path, headers=headers, body=body)


def words(reply: Reply, selector: str) -> list[str]:
    soup = BeautifulSoup(reply.text, "html.parser")
    return [" ".join(found.get_text().split()) for found in soup.select(selector)]


def back_to(reply: Reply, path: str) -> None:
    assert reply.status == 303, reply.text
    assert reply.headers["Location"] == PREFIX + path


async def test_a_request_is_filed_shown_and_withdrawn(site: Site) -> None:
    ada = Visitor(site, "ada")
    first = await ada.open("requests?tier=card")
    assert first.status == 200
    assert words(first, "option[selected]")
    back_to(await ada.send("requests", tier="card", hours="2,5", reason=EVIL), "requests?asked=1")
    (request,) = site.world.broker.requests.find()
    assert (request.user, request.hours, request.reason) == ("ada", 2.5, EVIL)
    page = await ada.open("requests?asked=1")
    assert words(page, "[role=status]") == [
        "Request 1 is submitted. An approver will decide on it."
    ]
    assert EVIL not in page.text
    assert "2.5 hours" in words(page, "[data-request] h2")[0]
    back_to(await ada.send("requests/1/cancel"), "requests?cancelled=1")
    assert site.world.broker.requests.get(1).state == "cancelled"
    again = await ada.send("requests/1/cancel")
    assert again.status == 409
    assert words(again, "[role=alert]")


@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({"hours": "many"}, 400, "'many'"),
        ({"hours": ""}, 400, "hours"),
        ({"hours": "-1"}, 400, "above 0"),
        ({"hours": "nan"}, 400, "above 0"),
        ({"hours": "100000"}, 400, "at most"),
        ({"reason": " "}, 400, "reason"),
        ({"tier": "small"}, 400, "needs no approval"),
        ({"tier": "nope"}, 400, "nope"),
        ({"tier": ""}, 400, ""),
    ],
)
async def test_what_cannot_be_comes_back_with_all_that_was_typed(
    site: Site, fields: dict[str, str], status: int, word: str
) -> None:
    ada = Visitor(site, "ada")
    await ada.open("requests")
    typed = {"tier": "card", "hours": "3", "reason": "a <b>long</b> run", **fields}
    reply = await ada.send("requests", **typed)
    assert reply.status == status
    assert word in words(reply, "[role=alert]")[0]
    soup = BeautifulSoup(reply.text, "html.parser")
    assert soup.select_one("#hours")["value"] == typed["hours"]  # type: ignore[index]
    assert soup.select_one("#reason").get_text() == typed["reason"]  # type: ignore[union-attr]
    assert site.world.broker.requests.find() == ()


async def test_an_approver_shortens_approves_and_takes_back(site: Site) -> None:
    broker = site.world.broker
    broker.requests.create(Person("ada"), "card", 10, EVIL)
    root = Visitor(site, "root", admin=True)
    page = await root.open("decisions")
    assert "ada asks for" in words(page, "[data-request] h2")[0]
    assert EVIL not in page.text
    reply = await root.send("decisions/1/approve", hours="4", reason="until the others come")
    back_to(reply, "decisions?approved=1")
    grant = broker.requests.get(1)
    assert (grant.state, grant.hours, grant.decided_by) == ("approved", 4, "root")
    ada = Visitor(site, "ada")
    mine = await ada.open("requests")
    assert "Decided by root: until the others come." in words(mine, "[data-request]")[0]
    assert "Start a server with it" in mine.text
    # Sent again, from a second window or by going back: it is decided already.
    again = await root.send("decisions/1/approve", hours="4", reason="x")
    assert again.status == 409
    back_to(await root.send("decisions/1/cancel"), "decisions?back=1")
    assert broker.requests.get(1).state == "cancelled"


async def test_a_denial_is_told_with_its_reason(site: Site) -> None:
    site.world.broker.requests.create(Person("ada"), "card", 10, "x")
    root = Visitor(site, "root", admin=True)
    await root.open("decisions")
    back_to(await root.send("decisions/1/deny", reason="too long", hours=""), "decisions?denied=1")
    ada = Visitor(site, "ada")
    assert "Decided by root: too long." in words(await ada.open("requests"), "[data-request]")[0]


async def test_an_approver_who_lengthens_is_told_and_keeps_what_they_wrote(site: Site) -> None:
    site.world.broker.requests.create(Person("ada"), "card", 10, "x")
    root = Visitor(site, "root", admin=True)
    await root.open("decisions")
    for hours in ("11", "lots"):
        reply = await root.send("decisions/1/approve", hours=hours, reason="have fun")
        assert reply.status == 400
        soup = BeautifulSoup(reply.text, "html.parser")
        assert soup.select_one("#hours-1")["value"] == hours  # type: ignore[index]
        assert soup.select_one("#reason-1")["value"] == "have fun"  # type: ignore[index]
    assert site.world.broker.requests.get(1).state == "pending"


async def test_nobody_decides_about_their_own(site: Site) -> None:
    site.world.broker.requests.create(Person("root"), "card", 1, "x")
    root = Visitor(site, "root", admin=True)
    page = await root.open("decisions")
    assert "another person has to decide" in page.text
    assert not BeautifulSoup(page.text, "html.parser").select("form")
    await root.open("requests")
    for what in ("approve", "deny"):
        assert (await root.send(f"decisions/1/{what}", hours="1")).status == 403
    assert site.world.broker.requests.get(1).state == "pending"


@pytest.mark.parametrize("what", ["decisions", "decisions/1/approve", "decisions/1/cancel"])
async def test_who_is_no_approver_decides_nothing(site: Site, what: str) -> None:
    site.world.broker.requests.create(Person("ada"), "card", 1, "x")
    grace = Visitor(site, "grace")
    assert "decisions" not in (await grace.open("requests")).text
    assert (await grace.open(what)).status == 403
    if what != "decisions":
        assert (await grace.send(what, hours="1")).status == 403
    assert (await grace.send("requests/1/cancel")).status == 403
    assert site.world.broker.requests.get(1).state == "pending"


async def test_groups_and_scopes_make_approvers(site: Site) -> None:
    settings = replace(site.world.parts.settings, approvers=parse_approvers(["group:pi"]))
    object.__setattr__(site.world.parts, "settings", settings)
    site.world.broker.context.settings = settings
    for name in ("ada", "grace"):
        site.world.broker.requests.create(Person(name), "card", 1, "x")
    marie = Visitor(site, "marie", groups=("pi",))
    linus = Visitor(site, "linus", scopes=(ACCESS, APPROVE_SCOPE))
    for number, visitor in ((1, marie), (2, linus)):
        await visitor.open("decisions")
        reply = await visitor.send(f"decisions/{number}/approve", hours="1", reason="")
        back_to(reply, f"decisions?approved={number}")


async def test_without_the_page_s_token_nothing_is_done(site: Site) -> None:
    site.world.broker.requests.create(Person("ada"), "card", 1, "x")
    root = Visitor(site, "root", admin=True)
    reply = await root.send("decisions/1/approve", hours="1")
    assert reply.status == 403
    assert "XSRF" in reply.text
    assert site.world.broker.requests.get(1).state == "pending"


@pytest.mark.parametrize("raw", ["0", "-1", "x", "1e3", "9" * 30, "%3Cscript%3E"])
async def test_forged_numbers_name_nothing(site: Site, raw: str) -> None:
    root = Visitor(site, "root", admin=True)
    await root.open("requests")
    reply = await root.send(f"decisions/{raw}/approve", hours="1")
    assert reply.status == 404
    assert (await root.open(f"requests?asked={raw}")).status == 200


async def test_a_word_in_the_address_says_nothing_but_numbers(site: Site) -> None:
    ada = Visitor(site, "ada")
    reply = await ada.open("requests?asked=<b>7</b>")
    assert words(reply, "[role=status]") == []


async def test_an_expired_grant_is_shown_as_expired(site: Site) -> None:
    broker = site.world.broker
    broker.requests.decide(broker.requests.create(Person("ada"), "card", 1, "x").id, ROOT, True)
    site.world.pass_by(hours=2)
    ada = Visitor(site, "ada")
    page = await ada.open("requests")
    assert words(page, "[data-state=expired] .badge") == ["expired"]
    assert (await ada.send("requests/1/cancel")).status == 409
