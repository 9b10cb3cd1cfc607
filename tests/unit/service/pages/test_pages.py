"""What a browser is shown, with and without the hub, the database, an admin's own template."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup
from traitlets.config import Config

from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.orphans import OrphanRow
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.quotas import parse_quotas
from jupyterhub_migspawner.policy.tiers import parse_tiers
from jupyterhub_migspawner.service.pages.theme import PageUser, Theme
from tests.unit.service.conftest import HUB_PREFIX, NOON, PREFIX, Reply, Site, settle
from tests.unit.service.fake_hub import server

EVIL = '<script>alert("x")</script>'


async def page(site: Site, token: str, path: str = "") -> Reply:
    return await site.ask("GET", path, headers={"Cookie": site.cookie(token)})


def facts(soup: BeautifulSoup) -> list[dict[str, str]]:
    """The sessions on a page, as their terms and descriptions."""
    found = []
    for section in soup.select("section[data-server]"):
        terms = [dt.get_text(strip=True) for dt in section.select("dt")]
        said = [" ".join(dd.get_text().split()) for dd in section.select("dd")]
        found.append({"state": str(section["data-state"]), **dict(zip(terms, said, strict=True))})
    return found


async def test_a_visitor_who_is_not_signed_in_is_sent_to_the_hub(site: Site) -> None:
    reply = await site.ask("GET", "")
    assert reply.status == 302
    assert reply.headers["Location"].startswith(HUB_PREFIX + "api/oauth2/authorize?")


async def test_a_session_shows_its_slice(site: Site) -> None:
    token = site.world.hub.sign_in("ada")
    lease = site.world.lend("ada")
    site.world.hub.users["ada"] = {"": server(started=NOON)}
    reply = await page(site, token)
    assert reply.status == 200
    soup = BeautifulSoup(reply.text, "html.parser")
    (session,) = facts(soup)
    assert session["state"] == "running"
    assert session["Tier"] == "Small <b>&</b>"
    assert session["Slice"].startswith("1g.5gb with ")
    assert session["Where"] == "card 0 of node node1"
    assert session["Slice UUID"] == lease.slice_uuid
    times = {time["title"]: time["datetime"] for time in soup.select("section time")}
    assert times == {
        "2026-11-22 12:00:00 UTC": "2026-11-22T12:00:00Z",
        "2026-11-22 20:00:00 UTC": "2026-11-22T20:00:00Z",
    }
    assert soup.select_one("section a.btn")["href"] == "/@/space%20word/user/someone/"  # type: ignore[index]


def unknown(lease: LeaseRow, attempt: str, user: str, **more: Any) -> OrphanRow:
    """A server that another database, or a newer copy of this one, had given that slice."""
    found = OrphanRow(
        attempt=attempt,
        node=lease.node,
        card_uuid=lease.card_uuid,
        profile=lease.profile,
        start=lease.start,
        hub=lease.hub,
        user=user,
        tier=lease.tier,
    )
    return replace(found, **more)


async def test_admins_are_warned_of_servers_that_the_database_does_not_know(site: Site) -> None:
    ada, admin = site.world.hub.sign_in("ada"), site.world.hub.sign_in("root", admin=True)
    lease, broker = site.world.lend("grace"), site.world.broker
    assert "data-orphans" not in (await page(site, admin)).text
    broker.orphans.vouch([unknown(lease, "a", "ada", since=NOON, vouched=True)])
    broker.orphans.note_marks("node1", [unknown(lease, "b", EVIL, server="exp", pids=(4711,))])
    (warning,) = BeautifulSoup((await page(site, admin)).text, "html.parser").select(
        "[data-orphans]"
    )
    first, second = (" ".join(each.text.split()) for each in warning.select("li"))
    assert first == "Server exp of " + EVIL + (
        ", 1g.5gb on node node1, process 4711, according to its own process only"
    )
    assert second == "The default server of ada, 1g.5gb on node node1"
    assert [each.text for each in warning.select("code")] == [
        "migspawner leases adopt --dry-run",
        "migspawner leases adopt",
        "migspawner db restore FILE",
    ]
    assert "data-orphans" not in (await page(site, ada)).text


async def test_the_warning_names_some_and_counts_all(site: Site) -> None:
    admin = site.world.hub.sign_in("root", admin=True)
    lease = site.world.lend("grace")
    marks = [unknown(lease, f"attempt {number}", f"user{number}") for number in range(23)]
    site.world.broker.orphans.note_marks("node1", marks)
    warning = BeautifulSoup((await page(site, admin)).text, "html.parser").select_one(
        "[data-orphans]"
    )
    assert warning is not None
    assert warning["data-orphans"] == "23"
    assert len(warning.select("[data-attempt]")) == 20
    assert "and 3 more" in warning.text


async def test_the_holder_of_an_unknown_server_learns_how_it_stands(site: Site) -> None:
    ada = site.world.hub.sign_in("ada")
    lease = site.world.lend("grace")
    site.world.broker.orphans.vouch([unknown(lease, "a", "ada", since=NOON, vouched=True)])
    site.world.hub.users["ada"] = {"": server(started=NOON, user_options={"tier": "small"})}
    soup = BeautifulSoup((await page(site, ada)).text, "html.parser")
    (session,) = facts(soup)
    assert session["state"] == "running"
    assert session["Tier"] == "Small <b>&</b>"
    assert session["Slice"].startswith("1g.5gb with ")
    assert "GPU" not in session
    assert "does not contain this one. Your server keeps running" in soup.text


async def test_admins_see_what_keeps_a_slice_from_being_proven_empty(site: Site) -> None:
    ada, admin = site.world.hub.sign_in("ada"), site.world.hub.sign_in("root", admin=True)
    lease = site.world.lend("ada")
    site.world.broker.leases.release(lease.id, "over", "root")
    site.world.broker.leases.note_waiting(lease.id, "NVML still lists pid 4711 <of> mallory")
    assert "data-unproven" not in (await page(site, admin)).text
    site.world.pass_by(minutes=1)
    (entry,) = BeautifulSoup((await page(site, admin)).text, "html.parser").select(
        "[data-unproven]"
    )
    assert f"Lease {lease.id} of ada already ended at" in entry.text
    assert "pid 4711 <of> mallory" in entry.text
    assert "kill -9 4711" in entry.text
    # Its holder learns that something runs, and nothing of whose it is.
    mine = (await page(site, ada)).text
    assert "a program is still running on its slice" in mine
    assert "4711" not in mine
    assert "data-unproven" not in mine


async def test_a_server_without_a_gpu_shows_its_tier_from_the_hub(site: Site) -> None:
    token = site.world.hub.sign_in("ada")
    site.world.hub.users["ada"] = {
        "": server(started=NOON),
        "b": server("b", started=NOON, user_options={"tier": "cpu"}),
    }
    soup = BeautifulSoup((await page(site, token)).text, "html.parser")
    sessions = facts(soup)
    assert [(s["Tier"], s["GPU"]) for s in sessions] == [("No GPU", "none")] * 2


async def test_without_a_session_there_is_a_way_to_start_one(site: Site) -> None:
    token = site.world.hub.sign_in("ada")
    soup = BeautifulSoup((await page(site, token)).text, "html.parser")
    assert "You have no running session" in soup.get_text()
    assert soup.find("a", string="Start a session")["href"] == HUB_PREFIX + "spawn"  # type: ignore[index]


async def test_tiers_show_what_is_free_and_why_not(site: Site) -> None:
    token = site.world.hub.sign_in("ada")
    site.world.lend("grace")
    soup = BeautifulSoup((await page(site, token)).text, "html.parser")
    tiers = {
        str(item["data-tier"]): " ".join(item.get_text().split())
        for item in soup.select("li[data-tier]")
    }
    assert list(tiers) == ["cpu", "small", "card"]
    assert "2 of 3 free" in tiers["small"]
    assert "for at most 8 hours" in tiers["small"]
    assert "no GPU, always available" in tiers["cpu"]
    assert "only with approval" in tiers["card"]


async def test_tiers_say_which_cards_are_out_of_service_and_to_admins_why(site: Site) -> None:
    (card,) = site.world.broker.cards.find()
    site.world.broker.cards.drain(card.uuid, "the <fan> is broken", "root")
    told = {}
    for name, admin in (("ada", False), ("root", True)):
        token = site.world.hub.sign_in(name, admin=admin)
        soup = BeautifulSoup((await page(site, token)).text, "html.parser")
        (tier,) = soup.select("li[data-tier=small]")
        told[name] = " ".join(tier.get_text().split())
        (row,) = [
            row
            for row in (await site.ask("GET", "api/tiers", token=token)).json
            if row["name"] == "small"
        ]
        assert row["outage"] in row["why"]
        assert row["total"] == 0
        assert told[name].count(row["outage"]) == 1
    assert "0 of 0 free" in told["ada"]
    assert "Its only card is out of service." in told["ada"]
    assert "fan" not in told["ada"]
    assert "Its only card is out of service: the <fan> is broken." in told["root"]


async def test_tiers_say_after_how_long_without_use_they_end(site: Site) -> None:
    settle(
        site.world,
        tiers=parse_tiers(
            [
                {"name": "cpu", "profile": "none", "idle_minutes": 5},
                {
                    "name": "small",
                    "profile": "1g.5gb",
                    "idle_minutes": 90,
                    "idle_minutes_when_wanted": 1,
                },
            ]
        ),
    )
    soup = BeautifulSoup((await page(site, site.world.hub.sign_in("ada"))).text, "html.parser")
    small, cpu = (
        " ".join(soup.select(f"li[data-tier={name}]")[0].get_text().split())
        for name in ("small", "cpu")
    )
    assert ", ends after 90 minutes without use (1 minute while others wait)" in small
    assert "without use" not in cpu


async def test_tiers_say_which_others_count_the_same_slices(site: Site) -> None:
    token = site.world.hub.sign_in("zoe")
    soup = BeautifulSoup((await page(site, token)).text, "html.parser")
    (tier,) = [" ".join(e.get_text().split()) for e in soup.select("li[data-tier=course]")]
    assert "Uses the same slices as Small <b>&</b>, so their numbers overlap." in tier
    (row,) = [
        row
        for row in (await site.ask("GET", "api/tiers", token=token)).json
        if row["name"] == "small"
    ]
    assert row["shares_with"] == ["course"]
    ada = site.world.hub.sign_in("ada")
    assert "Uses the same" not in (await page(site, ada)).text


async def test_a_slice_that_is_shared_is_shown_so(site: Site) -> None:
    token = site.world.hub.sign_in("zoe")
    site.world.lend("zoe", tier="course")
    site.world.hub.users["zoe"] = {"": server(started=NOON)}
    soup = BeautifulSoup((await page(site, token)).text, "html.parser")
    (session,) = facts(soup)
    assert session["Slice"].endswith("GiB of GPU memory, shared by up to 4 people")
    (tier,) = [" ".join(e.get_text().split()) for e in soup.select("li[data-tier=course]")]
    assert "11 of 12 shared seats free" in tier
    assert "a seat on a 1g.5gb slice of a card, shared by up to 4 people" in tier


async def test_every_text_is_escaped(site: Site) -> None:
    token = site.world.hub.sign_in(EVIL)
    site.world.lend(EVIL, EVIL)
    site.world.hub.users[EVIL] = {EVIL: server(EVIL, started=NOON)}
    reply = await page(site, token)
    assert reply.status == 200
    assert EVIL not in reply.text
    assert "Small <b>" not in reply.text
    soup = BeautifulSoup(reply.text, "html.parser")
    assert EVIL in soup.get_text()
    # The hub's page puts the name into a script, where HTML escapes mean nothing.
    assert not any("alert(" in (script.string or "").splitlines() for script in soup("script"))
    assert "</script>" not in PageUser(EVIL, False).json_escaped_name


async def test_the_page_looks_like_the_hub_and_needs_no_javascript(site: Site) -> None:
    token = site.world.hub.sign_in("ada")
    reply = await page(site, token)
    soup = BeautifulSoup(reply.text, "html.parser")
    sheets = [str(link["href"]) for link in soup.select("link[rel=stylesheet]")]
    assert sheets == [
        HUB_PREFIX + "static/css/style.min.css",
        PREFIX + "static/migspawner.css",
    ]
    sheet = await site.ask("GET", "static/migspawner.css")
    assert sheet.status == 200
    assert "#noscript" in sheet.text
    assert soup.select_one("a#logout")["href"] == HUB_PREFIX + "logout"  # type: ignore[index]
    assert len(soup.select("h1")) == 1
    assert (await site.ask("GET", "static/times.js")).status == 200
    assert (await site.ask("GET", "static/../app.py")).status in (403, 404)


async def test_other_sites_cannot_frame_it_and_nothing_keeps_it(site: Site) -> None:
    reply = await page(site, site.world.hub.sign_in("ada"))
    assert "frame-ancestors 'none'" in reply.headers["Content-Security-Policy"]
    assert reply.headers["Cache-Control"] == "no-store"


async def test_a_silent_hub_is_said_and_leases_are_shown_all_the_same(site: Site) -> None:
    token = site.world.hub.sign_in("ada")
    lease = site.world.lend("ada")
    assert (await page(site, token)).status == 200  # The hub's word about ada counts for a moment.
    site.world.hub.fail_with = 503
    reply = await page(site, token)
    assert reply.status == 200
    soup = BeautifulSoup(reply.text, "html.parser")
    assert "hub is not responding" in " ".join(soup.get_text().split())
    (session,) = facts(soup)
    assert (session["state"], session["Slice UUID"]) == ("unknown", lease.slice_uuid)


async def test_a_database_that_is_away_is_a_page_with_a_sentence(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = site.world.hub.sign_in("ada")

    def away(work: Any) -> Any:
        raise DatabaseError("postgresql://broker:secret@db/leases does not answer")

    monkeypatch.setattr(site.world.broker.store, "read", away)
    reply = await page(site, token)
    assert reply.status == 503
    assert "The lease database is not responding" in reply.text
    assert "secret" not in reply.text
    assert "navbar" in reply.text


async def test_whoever_may_not_enter_is_told_so_and_not_sent_round_in_circles(site: Site) -> None:
    token = site.world.hub.sign_in("eve", scopes=())
    reply = await page(site, token)
    assert reply.status == 403
    assert "has no access to the GPU service" in reply.text


async def test_other_addresses_are_a_page_too(site: Site) -> None:
    reply = await site.ask("GET", "nothing/here")
    assert reply.status == 404
    assert "There is no such page" in reply.text


async def test_a_broken_sign_in_is_a_sentence(site: Site) -> None:
    for query in ("", "?code=x", "?code=x&state=forged", "?error=no&error_description=<b>"):
        reply = await site.ask("GET", "oauth_callback" + query.replace("<b>", "%3Cb%3E"))
        assert reply.status in (400, 403), reply.text
        assert "The sign-in was not completed" in reply.text


async def test_an_address_without_the_last_slash_leads_to_the_page(site: Site) -> None:
    from tornado.httpclient import AsyncHTTPClient

    reply = await AsyncHTTPClient().fetch(
        site.origin + PREFIX.rstrip("/"), follow_redirects=False, raise_error=False
    )
    assert (reply.code, reply.headers["Location"]) == (301, PREFIX)


def looks_with(site: Site, folder: Path, text: str) -> Theme:
    (folder / "page.html").write_text(text)
    config = Config()
    config.JupyterHub.template_paths = [str(folder)]
    config.JupyterHub.template_vars = {"motto": "per aspera", "call": lambda user: user.spawner}
    return Theme(site.world.parts, config)


async def test_an_admins_page_template_is_used(site: Site, tmp_path: Path) -> None:
    looks = looks_with(
        site,
        tmp_path,
        '{% extends "templates/page.html" %}{% block announcement %}{{ motto }}{% endblock %}',
    )
    html = looks.render("problem.html", None, "", status_code=404, message="none")
    assert "per aspera" in html


async def test_an_admins_page_template_that_cannot_be_used_costs_only_its_looks(
    site: Site, tmp_path: Path
) -> None:
    looks = looks_with(
        site,
        tmp_path,
        '{% extends "templates/page.html" %}'
        "{% block announcement %}{{ user.spawner.server.port }}{% endblock %}",
    )
    html = looks.render("problem.html", None, "", status_code=404, message="all is well")
    assert "all is well" in html


async def test_a_person_sees_their_limits_and_how_long_they_are_raised(site: Site) -> None:
    world = site.world
    quotas = parse_quotas({"default": {"live": 1, "servers": 4, "gpu_hours_per_week": 0.0}})
    token = world.hub.sign_in("ada")
    world.lend("ada")
    world.broker.context.settings = replace(world.broker.settings, quotas=quotas)
    world.hub.users["ada"] = {"": server(started=NOON)}
    until = world.now + timedelta(days=3)
    world.broker.quotas.grant_exception("ada", "live", 2, until, "x", Person("root", admin=True))
    soup = BeautifulSoup((await page(site, token)).text, "html.parser")
    found = {
        str(item["data-limit"]): " ".join(item.get_text().split())
        for item in soup.select("li[data-limit]")
    }
    assert found["servers"] == "Servers at a time 1 of 4 used"
    assert found["live"].startswith("Servers with a GPU at a time 1 of 2 used Raised for you until")
    assert found["gpu_hours_per_week"] == "GPU-hours in 7 days 0 of 0 used"
    (raised,) = soup.select("li[data-limit=live] time")
    assert raised["datetime"] == f"{until:%Y-%m-%dT%H:%M:%SZ}"
    world.hub.fail_with = 500
    soup = BeautifulSoup((await page(site, token)).text, "html.parser")
    assert "used" not in soup.select_one("li[data-limit=servers]").get_text()  # type: ignore[union-attr]


async def test_without_limits_none_are_spoken_of(site: Site) -> None:
    reply = await page(site, site.world.hub.sign_in("ada"))
    assert "Your limits" not in reply.text
