"""What the pages say of tiers that changed, and of offers and grants that wait to be used."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bs4 import BeautifulSoup

from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.tiers import parse_tiers
from jupyterhub_migspawner.service.clients.hub import HubError
from jupyterhub_migspawner.service.workers.queue import Dispatcher
from tests.unit.service.conftest import SETTINGS, Site, World
from tests.unit.service.fake_hub import server
from tests.unit.service.pages.test_queue import fill, free, wait
from tests.unit.service.pages.test_requests import ROOT, Visitor, words

ADA = Person("ada")


def restart_with(site: Site, *tiers: dict[str, object]) -> None:
    """The admin has written other tiers, and the hub has started again."""
    settings = replace(SETTINGS, tiers=parse_tiers(tiers))
    site.world.broker.context.settings = settings
    object.__setattr__(site.world.parts, "settings", settings)


def grant(world: World, user: str = "ada") -> int:
    asked = world.broker.requests.create(Person(user), "card", 8, "training")
    return world.broker.requests.decide(asked.id, ROOT, True).id


async def test_grants_requests_and_drafts_of_a_removed_tier_say_so(site: Site) -> None:
    broker = site.world.broker
    grant(site.world)
    broker.requests.create(ADA, "card", 8, "more training")
    draft = broker.drafts.save(ADA, tier="card", hours="3", reason="soon")
    restart_with(site, {"name": "small", "profile": "1g.5gb"})
    ada = Visitor(site, "ada")
    page = await ada.open("requests")
    assert page.status == 200
    assert len(words(page, "[data-request] [data-gone]")) == 2
    assert "Start a server with it" not in page.text
    assert "no longer available" in words(page, "[data-draft]")[0]
    assert (await ada.open(f"requests?draft={draft.id}")).status == 200
    root = await Visitor(site, "root", admin=True).open("decisions")
    soup = BeautifulSoup(root.text, "html.parser")
    assert "can only be denied" in words(root, "[data-gone]")[0]
    assert soup.select("form[action$=deny]")
    assert not soup.select("form[action$=approve]")
    assert (await ada.send("requests/1/cancel")).status == 303


async def test_an_approver_is_offered_what_the_tier_allows_now(site: Site) -> None:
    site.world.broker.requests.create(ADA, "card", 8, "training")
    restart_with(site, {"name": "card", "profile": "whole", "approval": True, "max_hours": 4})
    root = Visitor(site, "root", admin=True)
    page = await root.open("decisions")
    soup = BeautifulSoup(page.text, "html.parser")
    assert soup.select_one("[name=hours]")["value"] == "4"  # type: ignore[index]
    assert "now allows at most 4" in page.text
    refused = await root.send("decisions/1/approve", hours="8", reason="")
    assert refused.status == 400
    assert (await root.send("decisions/1/approve", hours="4", reason="")).status == 303


async def test_a_place_for_a_tier_of_a_group_one_has_left_says_so(site: Site) -> None:
    world = site.world
    world.broker.hubs.claim("here")
    world.broker.leases.acquire(Person("holder", frozenset({"vision"})), "", "large", "held")
    wait(world, "ada", "large", "vision")
    page = await Visitor(site, "ada").open("queue")
    assert "no longer available to you" in words(page, "[data-ticket] [data-gone]")[0]
    assert "You are next" not in page.text
    assert "no longer" not in (await Visitor(site, "ada", groups=("vision",)).open("queue")).text


@pytest.mark.parametrize("path", ["queue", "requests"])
async def test_a_link_to_a_removed_tier_picks_no_other_one(site: Site, path: str) -> None:
    fill(site.world)
    page = await Visitor(site, "ada").open(f"{path}?tier=gone")
    soup = BeautifulSoup(page.text, "html.parser")
    assert [option["value"] for option in soup.select("option[selected]")] == [""]


async def test_a_held_slice_is_not_denied_on_the_same_page(site: Site) -> None:
    world = site.world
    world.broker.hubs.claim("here")
    held = fill(world)
    wait(world, "ada")
    assert "no GPU slice is held for you" in (await Visitor(site, "ada").open("")).text
    free(world, held[0])
    await Dispatcher(world.parts).round()
    page = await Visitor(site, "ada").open("")
    assert "no GPU slice is held for you" not in page.text
    (lead,) = words(page, ".lead")
    assert lead.startswith("You have no running session. Small <b>&</b> is held for you until ")
    assert len(BeautifulSoup(page.text, "html.parser").select(".lead time")) == 1
    assert "One is held for you until" in " ".join(words(page, "[data-tier=small]"))


async def test_a_grant_says_what_has_to_stop_first(site: Site) -> None:
    world = site.world
    grant(world)
    ada = Visitor(site, "ada")
    assert "Start a server with it" in (await ada.open("requests")).text
    world.hub.users["ada"][""] = server(started=world.now)
    page = await ada.open("requests")
    assert "Start a server with it" not in page.text
    assert "Your default server is already running. Stop it on the home page first" in " ".join(
        words(page, "[data-in-the-way]")
    )
    # Another one of theirs is not in the way of the default one.
    world.hub.users["ada"] = {"notes": server("notes", started=world.now)}
    assert "Start a server with it" in (await ada.open("requests")).text


async def test_a_grant_in_use_names_the_server_that_uses_it(site: Site) -> None:
    world = site.world
    grant(world)
    world.lend("ada", "train", "card")
    page = await Visitor(site, "ada").open("requests")
    assert "Start a server with it" not in page.text
    assert "Your server train uses this grant." in " ".join(words(page, "[data-request]"))
    world.broker.leases.release_server("ada", "train", "stopped", "ada")
    page = await Visitor(site, "ada").open("requests")
    assert "Start a server with it" not in page.text
    assert "still being released" in page.text


async def test_a_grant_whose_card_is_held_leads_to_the_waiting_list(site: Site) -> None:
    world = site.world
    world.broker.hubs.claim("here")
    in_use = world.lend("holder")
    grant(world)
    ticket = world.broker.queue.join(ADA, "card")
    free(world, in_use)
    assert world.broker.offers.make(ticket.id, ADA).lease is not None
    page = await Visitor(site, "ada").open("requests")
    assert "held for your turn in the waiting list" in page.text
    assert "Start a server with it" not in page.text


async def test_a_hub_that_says_nothing_of_servers_leaves_the_way_to_start(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether something runs is unknown then; the hub itself will say."""
    grant(site.world)

    async def silent(user: str) -> None:
        raise HubError("it does not say which servers run")

    monkeypatch.setattr(site.world.parts.hub, "servers_of", silent)
    page = await Visitor(site, "ada").open("requests")
    assert page.status == 200
    assert "Start a server with it" in page.text
