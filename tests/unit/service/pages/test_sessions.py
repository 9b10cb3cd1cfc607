"""The use of one's sessions on the page and by REST."""

from __future__ import annotations

from datetime import timedelta

from jupyterhub_migspawner.broker.readings import Answer
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.reclaim import KERNELS, PROCESSES
from jupyterhub_migspawner.policy.tiers import parse_tiers
from tests.unit.service.conftest import Site, World
from tests.unit.service.fake_hub import server
from tests.unit.service.pages.test_request_life import settle
from tests.unit.service.pages.test_requests import Visitor, back_to, words


def run(world: World, user: str = "ada", **limits: float) -> LeaseRow:
    tier = {"name": "small", "profile": "1g.5gb", "idle_minutes": 60, "extend_hours": 2, **limits}
    tier["title"] = "A small slice"
    settle(world, tiers=parse_tiers([tier, {"name": "large", "profile": "3g.20gb"}]))
    lease = world.lend(user)
    world.hub.users[user] = {"": server(started=lease.since)}
    quiet(world, lease)
    return lease


def quiet(world: World, lease: LeaseRow) -> None:
    world.broker.readings.note([Answer(lease.id, source, "x") for source in (KERNELS, PROCESSES)])


async def test_an_idle_session_says_when_it_ends_and_is_kept_by_a_button(site: Site) -> None:
    world = site.world
    lease = run(world)
    ada = Visitor(site, "ada")
    world.hub.users["ada"] = {"": server(started=lease.since)}
    assert words(await ada.open(""), "[data-use]") == []
    world.pass_by(minutes=50)
    quiet(world, lease)
    page = await ada.open("")
    (said,) = words(page, "[data-use]")
    assert said.startswith("Not in use for 50 minutes; it ends on Sun 22 Nov 2026 13:05 UTC")
    path = f"sessions/{lease.id}/extend"
    back_to(await ada.send(path), f"?extended={lease.id}")
    assert words(await ada.open(f"?extended={lease.id}"), "[role=status]") == [
        "Your session is extended."
    ]
    refused = await ada.send(path)
    assert refused.status == 409
    assert "cannot be extended beyond" in words(refused, "[role=alert]")[0]
    eve = Visitor(site, "eve")
    await eve.open("notices")
    assert (await eve.send(path)).status == 404
    stranger = Visitor(site, "zed")
    assert (await stranger.send(path)).status == 403


async def test_admins_see_the_sessions_to_look_at_and_nobody_else_does(site: Site) -> None:
    world = site.world
    lease = run(world)
    for _ in range(5):
        world.pass_by(minutes=10)
        world.broker.doubts.note()
    root, ada = Visitor(site, "root", admin=True), Visitor(site, "ada")
    (said,) = words(await root.open(""), f"[data-odd] [data-lease='{lease.id}']")
    assert f"Session {lease.id} of ada" in said
    assert "it is unknown whether it is in use" in said
    assert words(await ada.open(""), "[data-odd]") == []


async def test_what_nobody_can_tell_is_said(site: Site) -> None:
    lease = run(site.world)
    ada = Visitor(site, "ada")
    site.world.hub.users["ada"] = {"": server(started=lease.since)}
    site.world.pass_by(minutes=50)
    page = await ada.open("")
    assert "It is unknown whether it is in use" in words(page, "[data-use]")[0]
    assert "Keep it for longer" not in page.text


async def test_a_protection_is_shown(site: Site) -> None:
    world = site.world
    lease = run(world)
    ada = Visitor(site, "ada")
    world.hub.users["ada"] = {"": server(started=lease.since)}
    root = Person("root", admin=True)
    world.broker.sessions.protect(lease.id, root, world.now + timedelta(days=1), "a deadline")
    assert "An admin has protected it" in (await ada.open("")).text


async def test_a_session_without_a_limit_says_nothing_of_its_use(site: Site) -> None:
    world = site.world
    lease = run(world)
    settle(world, tiers=parse_tiers([{"name": "small", "profile": "1g.5gb"}]))
    ada = Visitor(site, "ada")
    world.hub.users["ada"] = {"": server(started=lease.since)}
    world.pass_by(hours=5)
    page = await ada.open("")
    assert words(page, "[data-use]") == []
    assert "Keep it for longer" not in page.text


async def test_sessions_by_rest(site: Site) -> None:
    world = site.world
    lease = run(world)
    hub = world.hub
    ada, eve, root = hub.sign_in("ada"), hub.sign_in("eve"), hub.sign_in("root", admin=True)
    (mine,) = (await site.ask("GET", "api/sessions", token=ada)).json
    assert (mine["lease"], mine["rule"]) == (lease.id, "idle")
    assert (await site.ask("GET", "api/sessions", token=eve)).json == []
    assert (await site.ask("GET", "api/sessions?all=true", token=eve)).status == 403
    assert len((await site.ask("GET", "api/sessions?all=true", token=root)).json) == 1
    path = f"api/sessions/{lease.id}"
    assert (await site.ask("POST", f"{path}/extend", token=eve, body={})).status == 404
    kept = await site.ask("POST", f"{path}/extend", token=ada, body={"reason": "lunch"})
    assert (kept.status, kept.json["lease"]) == (200, lease.id)
    until = (world.now + timedelta(days=2)).isoformat()
    body = {"until": until, "reason": "a deadline"}
    assert (await site.ask("POST", f"{path}/protect", token=ada, body=body)).status == 403
    assert (await site.ask("POST", f"{path}/protect", token=root, body={})).status == 400
    done = await site.ask("POST", f"{path}/protect", token=root, body=body)
    assert (done.status, done.json["protected_by"]) == (200, "root")
    gone = await site.ask("POST", f"{path}/unprotect", token=root, body={})
    assert (gone.status, gone.json["protected_until"]) == (200, None)
    for forged in ("0", "x", "9" * 30, "-1"):
        assert (await site.ask("POST", f"api/sessions/{forged}/extend", token=ada)).status == 404
    # The token by which the server is asked is nobody's to see.
    world.reach(lease, "http://127.0.0.1:9/", "a-secret")
    (standing,) = world.broker.sessions.standings()
    for token in (ada, root):
        said = (await site.ask("GET", "api/sessions", token=token)).text
        assert "a-secret" not in said
        assert standing.stay.sealed not in said


async def test_why_one_was_stopped_is_on_the_page(site: Site) -> None:
    world = site.world
    lease = run(world)
    ada, eve = Visitor(site, "ada"), Visitor(site, "eve")
    world.pass_by(minutes=46)
    quiet(world, lease)
    world.broker.sessions.warn_idle([lease.id])
    world.pass_by(minutes=15)
    quiet(world, lease)
    assert world.broker.sessions.end_over(lease.id) is not None
    world.broker.leases.confirm_empty(lease.id)
    world.hub.users["ada"] = {}
    (said,) = words(await ada.open(""), "[data-ended]")
    assert (
        "your server on A small slice, nothing has used it since Sun 22 Nov 2026 12:00 UTC" in said
    )
    assert words(await eve.open(""), "[data-ended]") == []
    world.pass_by(days=4)
    assert words(await ada.open(""), "[data-ended]") == []
