"""Leases and the hub's servers: what is ended, and above all what is not."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.errors import DatabaseError, Refusal
from jupyterhub_migspawner.loop import Loop
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.service.clients.hub import HubApi, HubAway, HubError
from jupyterhub_migspawner.service.workers.reconciliation import Reconciler
from tests.broker.lab import inventory
from tests.unit.service.conftest import World
from tests.unit.service.fake_hub import SERVICE_TOKEN, server


@pytest.fixture
def reconciler(world: World) -> Reconciler:
    return Reconciler(world.parts, clock=lambda: world.now)


def running(world: World, **more: Any) -> dict[str, Any]:
    """A server that the hub began to start a moment before the lease was taken."""
    return server(started=world.now - timedelta(seconds=1), **more)


async def rounds(reconciler: Reconciler, number: int) -> None:
    for _ in range(number):
        await reconciler.round()


async def test_a_lease_without_a_server_goes_back_in_the_second_round(
    world: World, reconciler: Reconciler
) -> None:
    world.hub.users["ada"] = {}
    lease = world.lend("ada")
    await reconciler.round()
    assert world.live() == {lease.id: "active"}
    await reconciler.round()
    assert world.live() == {lease.id: "releasing"}
    assert world.broker.leases.get(lease.id).end_reason == "its server is gone"


async def test_a_lease_with_a_server_stays(world: World, reconciler: Reconciler) -> None:
    world.hub.users["ada"] = {"": running(world), "second": running(world, name="second")}
    first, second = world.lend("ada"), world.lend("ada", "second")
    await rounds(reconciler, 4)
    assert world.live() == {first.id: "active", second.id: "active"}


async def test_admins_hear_once_of_a_slice_that_stays_taken(
    world: World, reconciler: Reconciler
) -> None:
    lease = world.lend("ada")
    world.broker.leases.release(lease.id, "over", "root")
    for minutes, told in ((4, 0), (1, 1), (10, 1)):
        world.pass_by(minutes=minutes)
        await reconciler.round()
        assert [event.kind for event in world.broker.events.find()].count("lease.stuck") == told


@pytest.mark.parametrize("after", ["gone", "again"])
async def test_a_server_that_lost_its_card_is_known_until_the_hub_has_ended_it(
    world: World, reconciler: Reconciler, after: str
) -> None:
    world.hub.users["ada"] = {"": running(world)}
    lease = world.lend("ada")
    world.broker.nodes.record_inventory("node1", inventory())
    await rounds(reconciler, 2)
    assert [each.id for each in world.broker.leases.stranded()] == [lease.id]
    assert world.hub.stopped == [], "its person has work to save"
    world.pass_by(minutes=1)
    world.hub.users["ada"] = {} if after == "gone" else {"": server(started=world.now)}
    await rounds(reconciler, 1)
    assert world.broker.leases.stranded() == ()


@pytest.mark.parametrize("pending", ["spawn", "stop", "check"])
async def test_a_server_that_the_hub_is_busy_with_is_a_server(
    world: World, reconciler: Reconciler, pending: str
) -> None:
    world.hub.users["ada"] = {"": running(world, ready=False, pending=pending)}
    lease = world.lend("ada")
    await rounds(reconciler, 3)
    assert world.live() == {lease.id: "active"}


async def test_a_server_that_is_back_in_time_begins_the_count_anew(
    world: World, reconciler: Reconciler
) -> None:
    lease = world.lend("ada")
    world.hub.users["ada"] = {}
    await reconciler.round()
    world.hub.users["ada"] = {"": running(world)}
    await reconciler.round()
    world.hub.users["ada"] = {}
    await reconciler.round()
    assert world.live() == {lease.id: "active"}


async def test_nothing_ends_while_the_hub_does_not_answer_or_not_completely(
    world: World, reconciler: Reconciler
) -> None:
    lease = world.lend("ada")
    world.hub.users["ada"] = {}
    await reconciler.round()
    world.hub.fail_with = 503
    for _ in range(3):
        with pytest.raises(HubError):
            await reconciler.round()
    world.hub.fail_with = 0
    world.hub.scopes = ["list:users", "delete:servers"]
    world.hub.users["grace"] = {"": running(world)}
    for _ in range(3):
        with pytest.raises(HubError):
            await reconciler.round()
    world.hub.hang_up()
    with pytest.raises(HubAway):
        await reconciler.round()
    world.pass_by(days=2)
    with pytest.raises(HubAway):
        await reconciler.round()
    assert world.live() == {lease.id: "active"}
    assert world.hub.stopped == []


async def test_what_the_list_misses_is_asked_for_by_name_before_anything_ends(
    world: World, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Users who come and go while the hub's list is read page by page can slip through it.
    world.hub.users["ada"] = {"": running(world)}
    lease = world.lend("ada")

    async def nothing() -> dict[tuple[str, str], Any]:
        return {}

    monkeypatch.setattr(world.parts.hub, "servers", nothing)
    await rounds(reconciler, 4)
    assert world.live() == {lease.id: "active"}


async def test_a_lease_of_an_earlier_start_goes_back_while_the_server_runs(
    world: World, reconciler: Reconciler
) -> None:
    """An older copy of the lease database still has it, and the hub runs a later start."""
    begun = world.now - timedelta(seconds=1)
    lease = world.broker.leases.acquire(Person("ada"), "", "small", "the-first", started=begun)
    assert lease is not None
    world.broker.leases.activate("the-first")
    world.hub.users["ada"] = {"": server(started=begun + timedelta(minutes=5))}
    await reconciler.round()
    assert world.live() == {lease.id: "active"}
    await reconciler.round()
    assert world.live() == {lease.id: "releasing"}
    await rounds(reconciler, 2)
    assert world.hub.stopped == []


@pytest.mark.parametrize(
    "more", [{}, {"ready": False, "pending": "stop"}, {"ready": False, "pending": "spawn"}]
)
async def test_a_start_that_both_know_keeps_its_lease_whatever_the_hub_is_busy_with(
    world: World, reconciler: Reconciler, more: dict[str, Any]
) -> None:
    begun = world.now - timedelta(seconds=1)
    lease = world.broker.leases.acquire(Person("ada"), "", "small", "the-first", started=begun)
    assert lease is not None
    world.broker.leases.activate("the-first")
    later = timedelta(minutes=5) if more else timedelta(milliseconds=900)
    world.hub.users["ada"] = {"": server(started=begun + later, **more)}
    await rounds(reconciler, 4)
    assert world.live() == {lease.id: "active"}


async def test_a_deleted_user_holds_no_slice(world: World, reconciler: Reconciler) -> None:
    lease = world.lend("ada")
    await rounds(reconciler, 2)
    assert world.live() == {lease.id: "releasing"}


async def test_another_hub_s_leases_are_not_this_one_s(
    world: World, reconciler: Reconciler
) -> None:
    """Neither the hub's servers nor its users say anything about them."""
    world.hub.users["ada"] = {}
    settings = replace(world.broker.settings, hub="physics")
    other = Broker(world.broker.store, settings, clock=world.broker.now)
    theirs = other.leases.acquire(Person("ada"), "", "small", "elsewhere")
    assert theirs is not None
    other.leases.activate(theirs.attempt)
    world.pass_by(days=30)
    await rounds(reconciler, 3)
    assert world.live() == {theirs.id: "active"}
    assert world.hub.stopped == []


async def test_while_another_hub_has_its_name_a_service_ends_nothing(
    world: World, reconciler: Reconciler
) -> None:
    world.hub.users["ada"] = {}
    lease = world.lend("ada")
    world.broker.hubs.claim("elsewhere")
    for _ in range(3):
        with pytest.raises(Refusal, match="'elsewhere'"):
            await reconciler.round()
    assert world.live() == {lease.id: "active"}


async def test_a_renamed_user_whose_name_is_taken_again_keeps_a_running_server(
    world: World, reconciler: Reconciler
) -> None:
    world.hub.users["lovelace"] = {"": running(world, user_options={"tier": "small"})}
    lease = world.lend("ada")
    world.hub.users["ada"] = {}
    await rounds(reconciler, 4)
    assert world.live() == {lease.id: "active"}
    world.hub.users["lovelace"] = {}
    await rounds(reconciler, 1)
    assert world.live() == {lease.id: "releasing"}


async def test_anybody_s_older_server_without_a_slice_holds_up_nothing(
    world: World, reconciler: Reconciler
) -> None:
    long_ago = world.now - timedelta(hours=3)
    world.hub.users["cpu only"] = {"": server(started=long_ago)}
    world.hub.users["ada"] = {}
    lease = world.lend("ada")
    await rounds(reconciler, 2)
    assert world.live() == {lease.id: "releasing"}


@pytest.mark.parametrize("options", [{}, {"tier": "cpu"}, {"tier": "large"}])
async def test_anybody_s_server_of_another_tier_holds_up_nothing(
    world: World, reconciler: Reconciler, options: dict[str, str]
) -> None:
    """A class starts together: without a GPU there is never a lease, nor with another tier."""
    world.hub.users["bob"] = {"": running(world, user_options=options)}
    world.hub.users["ada"] = {}
    lease = world.lend("ada")
    await rounds(reconciler, 2)
    assert world.live() == {lease.id: "releasing"}


@pytest.mark.parametrize("ahead", [-60.0, -0.02, 0.1, 2.0, 3600.0])
async def test_a_hub_whose_clock_differs_ends_sessions_in_time_all_the_same(
    world: World, ahead: float
) -> None:
    """Leases go by the database's clock, and the hub notes starts by its own."""
    skew = timedelta(seconds=ahead)
    hub = HubApi(world.hub.url, SERVICE_TOKEN, ahead=lambda: skew)
    reconciler = Reconciler(replace(world.parts, hub=hub), clock=lambda: world.now)
    started = world.now - timedelta(milliseconds=20) + skew
    world.hub.users["ada"] = {"": server(started=started)}
    lease = world.lend("ada")
    await reconciler.round()
    assert world.live() == {lease.id: "active"}
    world.pass_by(hours=9)
    await reconciler.round()
    assert world.hub.stopped == [("ada", "")]
    # The next server of that name began after the lease, which is still ending: it stays.
    again = world.now - timedelta(hours=9) + timedelta(seconds=35) + skew
    world.hub.users["ada"] = {"": server(started=again)}
    await reconciler.round()
    assert world.hub.stopped == [("ada", "")]


async def test_a_renamed_user_keeps_a_running_server(
    world: World, reconciler: Reconciler, caplog: pytest.LogCaptureFixture
) -> None:
    world.hub.users["lovelace"] = {"": running(world, user_options={"tier": "small"})}
    lease = world.lend("ada")
    with caplog.at_level(logging.WARNING):
        await rounds(reconciler, 4)
    assert world.live() == {lease.id: "active"}
    assert caplog.text.count("renamed") == 1
    world.hub.users["lovelace"] = {}
    await rounds(reconciler, 1)
    assert world.live() == {lease.id: "releasing"}


async def test_a_pending_lease_becomes_active_once_its_server_is_ready(
    world: World, reconciler: Reconciler
) -> None:
    world.hub.users["ada"] = {"": running(world, ready=False)}
    lease = world.acquire("ada")
    await reconciler.round()
    assert world.live() == {lease.id: "pending"}
    world.hub.users["ada"] = {"": running(world)}
    await reconciler.round()
    assert world.live() == {lease.id: "active"}


async def test_a_pending_lease_of_an_earlier_start_does_not_become_active(
    world: World, reconciler: Reconciler
) -> None:
    lease = world.acquire("ada")
    later = world.now + timedelta(seconds=30)
    world.hub.users["ada"] = {"": server(started=later)}
    await reconciler.round()
    assert world.live() == {lease.id: "pending"}


async def test_a_start_that_the_hub_never_knew_goes_back_only_after_its_deadline(
    world: World, reconciler: Reconciler
) -> None:
    lease = world.acquire("ada")
    await rounds(reconciler, 3)
    assert world.live() == {lease.id: "pending"}
    world.pass_by(seconds=301)
    await rounds(reconciler, 2)
    assert world.live() == {lease.id: "releasing"}


async def test_a_server_past_the_end_of_its_lease_is_stopped_and_the_record_says_why(
    world: World, reconciler: Reconciler
) -> None:
    world.hub.users["ada"] = {"": running(world)}
    world.hub.users["grace"] = {"gpu": running(world, name="gpu")}
    ada, grace = world.lend("ada"), world.lend("grace", "gpu")
    world.pass_by(hours=7, minutes=59)
    await reconciler.round()
    assert world.hub.stopped == []
    world.pass_by(minutes=1)
    await reconciler.round()
    assert world.hub.stopped == [("ada", ""), ("grace", "gpu")]
    assert world.live() == {ada.id: "releasing", grace.id: "releasing"}
    (end,) = [
        event.detail
        for event in world.broker.events.find()
        if (event.lease_id, event.kind) == (ada.id, "lease.releasing")
    ]
    assert end["why"] == "its time was over at Sun 22 Nov 2026 20:00 UTC"
    assert (end["rule"], end["signals"]) == ("time", [])


async def test_a_server_that_the_hub_could_not_stop_is_tried_again(
    world: World, reconciler: Reconciler
) -> None:
    world.hub.users["ada"] = {"": running(world)}
    world.hub.users["grace"] = {"": running(world)}
    world.lend("ada")
    world.lend("grace")
    world.hub.refuse_to_stop.add("ada")
    world.pass_by(hours=9)
    await reconciler.round()
    # Neither does the one that cannot be stopped keep the other one running.
    assert world.hub.stopped == [("grace", "")]
    world.hub.refuse_to_stop.clear()
    await reconciler.round()
    assert world.hub.stopped == [("grace", ""), ("ada", "")]


async def test_the_next_start_of_a_server_is_not_stopped_for_the_last_one(
    world: World, reconciler: Reconciler
) -> None:
    world.lend("ada")
    world.pass_by(hours=9)
    world.broker.leases.release_server("ada", "", "the server stopped", "hub")
    # Started again, without a GPU this time.
    world.hub.users["ada"] = {"": server(started=world.now)}
    await rounds(reconciler, 2)
    assert world.hub.stopped == []


async def test_a_server_without_a_lease_is_left_alone(world: World, reconciler: Reconciler) -> None:
    world.hub.users["ada"] = {"": running(world)}
    world.pass_by(days=30)
    await rounds(reconciler, 3)
    assert world.hub.stopped == []


async def test_old_requests_expire_without_any_lease_or_hub(
    world: World, reconciler: Reconciler
) -> None:
    from jupyterhub_migspawner.policy.people import Person

    request = world.broker.requests.create(Person("ada"), "card", 4, "a big model")
    world.hub.hang_up()
    world.pass_by(days=31)
    await reconciler.round()
    (found,) = world.broker.requests.find()
    assert (found.id, found.state) == (request.id, "expired")


async def test_a_loop_goes_on_after_problems_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    problem: list[Exception | None] = [HubError("no answer"), HubError("no answer"), None, None]
    stop = asyncio.Event()
    under_way = 0
    seconds = 0.0

    async def round_() -> None:
        nonlocal under_way, seconds
        seconds += 30
        under_way += 1
        assert under_way == 1
        await asyncio.sleep(0)
        under_way -= 1
        found = problem.pop(0)
        if not problem:
            stop.set()
        if found is not None:
            raise found

    with caplog.at_level(logging.INFO):
        await Loop("comparison", 0.0, round_, monotonic=lambda: seconds).run(stop)
    assert caplog.text.count("no answer") == 1
    assert caplog.text.count("The comparison works again, after 2 failures.") == 1


async def test_a_full_disk_is_one_outage_though_most_rounds_write_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The agent's rounds write every five seconds; those between them go well."""
    seconds = 0.0
    full = True

    async def round_() -> None:
        if full and seconds % 5 == 0:
            raise DatabaseError(f"The disk is full (try {seconds:.0f}).")

    loop = Loop("look at the cards", 1.0, round_, monotonic=lambda: seconds)
    with caplog.at_level(logging.INFO):
        while seconds < 600:
            await loop.once()
            seconds += 1
        assert len(caplog.records) == 1
        full = False
        while seconds < 700:
            await loop.once()
            seconds += 1
    assert [record.getMessage() for record in caplog.records] == [
        "The look at the cards is skipped for now: The disk is full (try 0).",
        "The look at the cards works again, after 120 failures.",
    ]


async def test_another_error_in_an_outage_is_logged_but_not_without_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = iter(f"error {chr(97 + number)}" for number in range(26))

    async def round_() -> None:
        raise HubError(next(names))

    loop = Loop("comparison", 0.0, round_)
    for _ in range(26):
        await loop.once()
    assert len(caplog.records) == 10


async def test_a_loop_survives_what_it_does_not_know(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    loop = Loop("comparison", 0.0, broken)
    await loop.once()
    await loop.once()
    assert caplog.text.count("Traceback") == 1
