"""The waiting list in the service: its round, its REST API and its page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.tickets import TicketRow
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.service.clients.hub import HubAway
from jupyterhub_migspawner.service.workers.queue import LOOK_AGAIN, REST, Dispatcher
from tests.unit.service.conftest import PREFIX, Site, World
from tests.unit.service.fake_hub import OneServer, server
from tests.unit.service.pages.test_requests import Visitor, back_to, words


class Time:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def elapsed() -> Time:
    return Time()


@pytest.fixture
def round_(world: World, elapsed: Time) -> Any:
    world.broker.hubs.claim("here")
    return Dispatcher(world.parts, elapsed=elapsed).round


def fill(world: World) -> list[LeaseRow]:
    """All three small slices are taken."""
    return [world.lend(f"holder{number}") for number in range(3)]


def free(world: World, lease: LeaseRow) -> None:
    world.broker.leases.release(lease.id, "stopped", "test")
    world.broker.leases.confirm_empty(lease.id)


def wait(world: World, user: str, tier: str = "small", *groups: str, **more: Any) -> TicketRow:
    world.hub.users.setdefault(user, {})
    world.hub.groups[user] = list(groups)
    return world.broker.queue.join(Person(user, frozenset(groups)), tier, **more)


def tickets(world: World) -> dict[str, str]:
    states = ("waiting", "offered", "taken", "lapsed", "cancelled")
    return {ticket.user: ticket.state for ticket in world.broker.queue.tickets(states=states)}


async def test_a_round_with_nothing_to_give_asks_the_hub_nothing(world: World, round_: Any) -> None:
    fill(world)
    wait(world, "ada")
    await round_()
    assert world.hub.asked == []


async def test_what_gets_free_is_offered_and_started_for_who_asked(
    world: World, round_: Any
) -> None:
    first, second, _ = fill(world)
    wait(world, "ada", server="work", start=True)
    wait(world, "grace")
    free(world, first)
    free(world, second)
    await round_()
    assert tickets(world) == {"ada": "offered", "grace": "offered"}
    assert world.hub.started == [("ada", "work", {"tier": "small"})]
    # Only once, however long the hub takes.
    await round_()
    assert len(world.hub.started) == 1


async def test_a_server_that_runs_is_its_persons_to_stop(world: World, round_: Any) -> None:
    first, *_ = fill(world)
    wait(world, "ada", start=True)
    world.hub.users["ada"][""] = server(started=world.now)
    free(world, first)
    await round_()
    assert tickets(world) == {"ada": "offered"}
    assert (world.hub.started, world.hub.stopped) == ([], [])


async def test_who_left_the_group_or_the_hub_gets_nothing(world: World, round_: Any) -> None:
    (large,) = [world.broker.leases.acquire(Person("x", frozenset({"vision"})), "", "large", "x")]
    assert large is not None
    world.broker.leases.activate("x")
    small, *_ = fill(world)
    wait(world, "ada", "large", "vision")
    wait(world, "grace")
    world.hub.groups["ada"] = []
    del world.hub.users["grace"]
    free(world, large)
    free(world, small)
    await round_()
    assert tickets(world) == {"ada": "cancelled", "grace": "cancelled"}
    reasons = {t.user: t.end_reason for t in world.broker.queue.tickets(states=("cancelled",))}
    assert "no longer open to its user" in reasons["ada"]
    assert "the hub no longer has this user" in reasons["grace"]
    assert world.live().keys() == {lease.id for lease in world.broker.leases.find()}
    assert not world.broker.leases.find(user="ada")


async def test_a_hub_that_is_away_costs_nobody_their_place(world: World, round_: Any) -> None:
    first, *_ = fill(world)
    wait(world, "ada")
    free(world, first)
    world.hub.hang_up()
    with pytest.raises(HubAway):
        await round_()
    assert tickets(world) == {"ada": "waiting"}


async def test_a_hub_that_hides_groups_is_not_believed(
    world: World, round_: Any, elapsed: Time, caplog: pytest.LogCaptureFixture
) -> None:
    first, *_ = fill(world)
    wait(world, "ada")
    free(world, first)
    world.hub.scopes.remove("read:users:groups")
    await round_()
    assert tickets(world) == {"ada": "waiting"}
    assert "has not given the service read:users:groups" in caplog.text
    world.hub.scopes.append("read:users:groups")
    await round_()
    assert tickets(world) == {"ada": "waiting"}
    elapsed.seconds += REST
    await round_()
    assert tickets(world) == {"ada": "offered"}


async def test_offers_lapse_and_go_on(
    world: World, round_: Any, elapsed: Time, tmp_path: Path
) -> None:
    first, *_ = fill(world)
    wait(world, "ada")
    free(world, first)
    await round_()
    (lease,) = world.broker.leases.find(user="ada")
    world.pass_by(minutes=10)
    world.broker.hubs.claim("here")
    nvml = Nvml(f"sim:{tmp_path}/cards.json")
    world.broker.nodes.record_inventory("node1", nvml.inventory())
    nvml.close()
    wait(world, "grace")
    await round_()
    assert tickets(world) == {"ada": "lapsed", "grace": "waiting"}
    world.broker.leases.confirm_empty(lease.id)
    elapsed.seconds += LOOK_AGAIN
    await round_()
    assert tickets(world) == {"ada": "lapsed", "grace": "offered"}


# -- REST -----------------------------------------------------------------------------------------


async def test_places_by_rest(site: Site) -> None:
    world = site.world
    world.broker.hubs.claim("here")
    fill(world)
    ada, root = world.hub.sign_in("ada"), world.hub.sign_in("root", admin=True)
    made = await site.ask(
        "POST", "api/queue", token=ada, body={"tier": "small", "server": "w", "start": True}
    )
    assert made.status == 201, made.text
    ticket = made.json
    assert (ticket["place"], ticket["server"], ticket["start"]) == (1, "w", True)
    assert ticket["wait"]["confidence"] == "low"
    assert (await site.ask("GET", "api/queue", token=ada)).json == [ticket]
    assert (await site.ask("GET", "api/queue", token=root)).json == []
    assert (await site.ask("GET", "api/queue?all=true", token=root)).json == [ticket]
    assert (await site.ask("GET", "api/queue?all=true", token=ada)).status == 403
    address = f"api/queue/{ticket['id']}"
    assert (await site.ask("DELETE", address, token=world.hub.sign_in("eve"))).status == 404
    gone = await site.ask("DELETE", address, token=root, body={"reason": "maintenance"})
    assert (gone.status, gone.json["state"], gone.json["end_reason"]) == (
        200,
        "cancelled",
        "maintenance",
    )
    assert (await site.ask("DELETE", address, token=ada)).status == 409


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "'tier' is missing"),
        ({"tier": 3}, "must be text"),
        ({"tier": "smal"}, "There is no tier"),
        ({"tier": "small", "user": "grace"}, "There is no field 'user'"),
        ({"tier": "small", "start": "yes"}, "must be true or false"),
        ({"tier": "small", "server": None}, "must be text"),
        ({"tier": "small", "server": "x" * 300}, "300 characters"),
        ({"tier": "large"}, "not open to you"),
        ({"tier": "cpu"}, "has no GPU"),
        ({"tier": "cpu", "upward": True}, "has no GPU"),
        ({"tier": "small", "upward": True}, "no larger tier is open to you"),
        ({"tier": "small"}, "has 3 free"),
    ],
)
async def test_places_that_make_no_sense_are_refused(
    site: Site, body: dict[str, Any], sentence: str
) -> None:
    token = site.world.hub.sign_in("ada")
    reply = await site.ask("POST", "api/queue", token=token, body=body)
    assert reply.status in (400, 403, 409)
    assert sentence in reply.json["message"]
    assert site.world.broker.queue.tickets() == ()


# -- the page -------------------------------------------------------------------------------------


async def test_a_place_is_taken_shown_and_given_up(site: Site) -> None:
    world = site.world
    world.broker.hubs.claim("here")
    held = fill(world)
    ada = Visitor(site, "ada")
    first = await ada.open("queue?tier=small")
    assert words(first, ".lead") == ["You are not on the waiting list."]
    assert words(first, "option") == ["Small <b>&</b>"]
    reply = await ada.send("queue", tier="small", server="", start="1")
    (ticket,) = world.broker.queue.tickets("ada")
    back_to(reply, f"queue?joined={ticket.id}")
    page = await ada.open(f"queue?joined={ticket.id}")
    assert "You are on the waiting list" in words(page, ".alert-success")[0]
    (shown,) = words(page, "[data-state=waiting]")
    assert "You are next." in shown
    assert "the hub will start your server" in shown

    free(world, held[0])
    await Dispatcher(world.parts).round()
    page = await ada.open("queue")
    (shown,) = words(page, "[data-state=offered]")
    assert "It is your turn: Small <b>&</b> is held for you until" in shown
    assert "/hub/spawn/ada?tier=small" in page.text
    session = await ada.open("")
    assert "You have no running session" in session.text
    assert "One is held for you" in session.text

    back_to(await ada.send(f"queue/{ticket.id}/leave"), f"queue?left={ticket.id}")
    assert words(await ada.open("queue"), "li[data-ticket]")[0].startswith(
        "Small <b>&</b>: cancelled"
    )
    assert (await ada.send(f"queue/{ticket.id}/leave")).status == 409


async def test_a_larger_tier_is_offered_only_to_who_may_use_one(site: Site) -> None:
    fill(site.world)
    ada, grace = Visitor(site, "ada"), Visitor(site, "grace", groups=["vision"])
    assert "arger tier" not in (await ada.open("queue")).text
    assert words(await grace.open("queue"), "label[for=upward]") == ["Also accept any larger tier"]
    reply = await ada.send("queue", tier="small", server="", upward="1")
    assert reply.status == 400
    said = words(reply, ".alert-danger")[0]
    assert "There is no tier larger than 'Small <b>&</b>'" in said
    assert (await grace.send("queue", tier="small", server="", upward="1")).status == 303
    (ticket,) = site.world.broker.queue.tickets()
    assert (ticket.user, ticket.tiers) == ("grace", ("small", "large"))


async def test_a_larger_tier_is_offered_by_name_where_one_of_the_tiers_has_none(
    site: Site,
) -> None:
    fill(site.world)
    boss = Person("boss", frozenset({"vision"}))
    assert site.world.broker.leases.acquire(boss, "", "large", "attempt-of-boss")
    page = await Visitor(site, "grace", groups=["vision"]).open("queue")
    assert words(page, "label[for=upward]") == [
        "Also accept any larger tier; only for Small <b>&</b>"
    ]


async def test_what_is_refused_keeps_what_was_typed(site: Site) -> None:
    fill(site.world)
    ada = Visitor(site, "ada")
    await ada.open("queue")
    reply = await ada.send("queue", tier="small", server="x" * 300, start="1")
    assert reply.status == 400
    assert "300 characters" in words(reply, ".alert-danger")[0]
    assert "x" * 300 in reply.text
    assert site.world.broker.queue.tickets() == ()


async def test_nobody_sees_or_ends_another_persons_place(site: Site) -> None:
    fill(site.world)
    ticket = wait(site.world, "ada")
    eve = Visitor(site, "eve")
    page = await eve.open("queue")
    assert "ada" not in page.text
    assert (await eve.send(f"queue/{ticket.id}/leave")).status == 404
    assert (await eve.send("queue/x/leave")).status == 404
    assert (await site.ask("POST", "queue", body=b"")).status in (401, 403)
    assert (await eve.open(f"queue/{ticket.id}/leave")).headers["Location"] == PREFIX + "queue"
    assert tickets(site.world) == {"ada": "waiting"}


async def test_a_server_in_the_way_is_named(site: Site, world: World) -> None:
    world.broker.hubs.claim("here")
    held = fill(world)
    wait(world, "ada")
    world.hub.users["ada"][""] = server(started=world.now)
    free(world, held[0])
    await Dispatcher(world.parts).round()
    page = await Visitor(site, "ada").open("queue")
    assert "is still running: save your work and stop it" in words(page, "[data-state=offered]")[0]
    assert "Start it now" not in page.text


async def test_a_start_that_the_hub_refuses_for_the_moment_is_asked_for_again(
    world: World, round_: Any, elapsed: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = fill(world)
    wait(world, "ada", start=True)
    free(world, first)
    post, asked = OneServer.post, []

    def busy(self: OneServer, user: str, name: str = "") -> None:
        asked.append(user)
        if len(asked) > 2:
            post(self, user, name)
            return
        self.set_status(429)
        self.finish('{"message": "Too many users trying to log in right now."}')

    monkeypatch.setattr(OneServer, "post", busy)
    for _ in range(10):
        await round_()
        elapsed.seconds += 20
    assert [(user, name) for user, name, _ in world.hub.started] == [("ada", "")]
    assert len(asked) == 3


async def test_a_server_in_the_way_is_waited_for(world: World, round_: Any, elapsed: Time) -> None:
    first, *_ = fill(world)
    wait(world, "ada", start=True)
    world.hub.users["ada"] = {"": server(started=world.now)}
    free(world, first)
    await round_()
    elapsed.seconds += REST
    await round_()
    assert world.hub.started == []
    world.hub.users["ada"] = {}
    elapsed.seconds += REST
    await round_()
    assert [(user, name) for user, name, _ in world.hub.started] == [("ada", "")]


async def test_a_right_that_is_missing_for_good_keeps_nobody_from_working(
    world: World, round_: Any, elapsed: Time, caplog: pytest.LogCaptureFixture
) -> None:
    held = fill(world)
    wait(world, "ada")
    for lease in held:
        free(world, lease)
    world.hub.scopes.remove("read:users:groups")
    for _ in range(4):
        await round_()
        elapsed.seconds += REST
    assert world.acquire("zed").state == "pending"
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    world.hub.scopes.append("read:users:groups")
    elapsed.seconds += LOOK_AGAIN
    await round_()
    assert tickets(world) == {"ada": "offered"}


async def test_the_service_of_a_hub_that_has_moved_serves_nobody(world: World, round_: Any) -> None:
    first, *_ = fill(world)
    wait(world, "ada", start=True)
    free(world, first)
    world.broker.hubs.claim("elsewhere", adopt=True)
    world.hub.users.pop("ada")
    with pytest.raises(Refusal, match="no longer serves anyone"):
        await round_()
    assert tickets(world) == {"ada": "waiting"}


async def test_an_admin_is_known_as_one(world: World) -> None:
    world.hub.sign_in("root", admin=True)
    world.hub.admins.add("root")
    found = await world.parts.hub.account("root")
    assert found is not None
    assert found.person.admin
