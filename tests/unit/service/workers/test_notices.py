"""Notices on their way: from the event log to channels that work, and to such that do not."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from jupyterhub_migspawner import channels
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.events import Events
from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.loop import Loop
from jupyterhub_migspawner.policy.backlog import MOST_SINGLE, MOST_WAITING
from jupyterhub_migspawner.policy.notices import Channel, Notices, parse_notices
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.service.workers.notices import AGAIN, MOST_HUNG, Outbox
from tests.sinks import Hook, hook, refused_port, silent
from tests.unit.service.conftest import World, settle

ADA = Person("ada", frozenset({"vision"}))
PI = Person("noether", frozenset({"pi"}))


@pytest.fixture
def web() -> Iterator[Hook]:
    # Apprise takes long to load, and a round waits only briefly for a sending.
    channels.check([Channel("admins", 0, "json://127.0.0.1")])
    with hook() as made:
        yield made


def outbox(world: World, audience: str, *urls: str, **more: Any) -> Outbox:
    """As a service that has just started."""
    notices: Notices = parse_notices({audience: list(urls)})
    return Outbox(world.parts, notices.channels[0], notices, clock=world.broker.now, **more)


def ask(world: World, person: Person = ADA, reason: str = "a run") -> int:
    return world.broker.requests.create(person, "card", 8, reason).id


async def test_each_audience_hears_what_is_for_it(world: World, web: Hook) -> None:
    boxes = [
        outbox(world, "approvers", f"{web.url}/approvers"),
        outbox(world, "group:vision", f"{web.url}/vision"),
        outbox(world, "group:language", f"{web.url}/language"),
        outbox(world, "users", f"{web.url}/users/{{user}}", link="https://hub.example.org/x/"),
        outbox(world, "admins", f"{web.url}/admins"),
    ]
    ask(world, reason="before anybody listened")
    for box in boxes:
        await box.round()
    assert web.heard == []
    number = ask(world)
    world.broker.requests.decide(number, PI, True, "be quick")
    for box in boxes:
        await box.round()
        await box.round()
    assert web.titles == [
        ("/approvers", "ada asks for card for 8 hours"),
        ("/vision", "ada asks for card for 8 hours"),
        ("/users/ada", f"Your request {number} is approved"),
    ]
    assert web.heard[-1][1]["message"].endswith("\n\nhttps://hub.example.org/x/requests")


async def test_after_a_restart_nothing_is_left_out_or_said_twice(world: World, web: Hook) -> None:
    await outbox(world, "approvers", web.url).round()
    ask(world, reason="first")
    await outbox(world, "approvers", web.url).round()
    ask(world, reason="second")
    await outbox(world, "approvers", web.url).round()
    await outbox(world, "approvers", web.url).round()
    assert [body["message"].split("Reason: ")[1] for _, body in web.heard] == ["first", "second"]


async def test_a_service_that_dies_over_it_says_it_again(world: World, web: Hook) -> None:
    await outbox(world, "approvers", web.url).round()
    ask(world)
    web.status = 500
    await outbox(world, "approvers", web.url).round()
    web.status = 200
    await outbox(world, "approvers", web.url).round()
    assert len(web.heard) == 2


async def test_what_was_refused_is_tried_again_and_given_up_in_the_end(
    world: World, web: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    box = outbox(world, "approvers", f"{web.url}/T0K3Nhunter2")
    await box.round()
    number = ask(world)
    web.status = 500
    for tries, pause in enumerate(AGAIN, start=1):
        await box.round()
        await box.round()
        assert len(web.heard) == tries
        world.pass_by(seconds=pause.total_seconds())
    await box.round()
    assert len(web.heard) == len(AGAIN) + 1
    assert box.given_up == 1
    world.pass_by(hours=1)
    web.status = 200
    await box.round()
    assert len(web.heard) == len(AGAIN) + 1
    [line] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "'ada asks for card for 8 hours') is given up, approvers[0] (json)" in line.getMessage()
    assert "hunter2" not in caplog.text
    # What comes after it is sent as ever.
    world.broker.requests.cancel(number, ADA)
    ask(world, reason="later")
    await box.round()
    assert "later" in web.heard[-1][1]["message"]
    assert box.sent == 1


async def test_one_address_that_fails_keeps_nobody_waiting(world: World) -> None:
    tried: list[str] = []

    def send(_: Any, title: str, body: str, user: str, address: str) -> str:
        tried.append(user)
        return "no such mailbox" if user == "ada" else ""

    box = outbox(world, "users", "json://x/{user}", send=send)
    await box.round()
    for name in ("ada", "grace", "ada", "linus"):
        world.broker.requests.decide(ask(world, Person(name)), PI, False)
    await box.round()
    assert tried == ["ada", "grace", "ada", "linus"]
    assert box.sent == 2
    world.pass_by(seconds=6)
    world.broker.requests.decide(ask(world, Person("zoe")), PI, False)
    await box.round()
    assert tried[4:] == ["zoe", "ada", "ada"]


async def test_a_flood_is_few_messages_and_another_is_told_at_once(world: World, web: Hook) -> None:
    box = outbox(world, "approvers", web.url)
    await box.round()
    for number in range(91):
        filed = ask(world, Person("mallory"))
        if number % 10:
            world.broker.requests.cancel(filed, Person("mallory"))
    ask(world)
    await box.round()
    titles = [title for _, title in web.titles]
    # What was taken back before it was announced is not announced, nor that it was.
    assert len(titles) == MOST_SINGLE + 1
    assert titles.index("ada asks for card for 8 hours") <= MOST_SINGLE
    assert f"{10 - MOST_SINGLE + 1} messages about requests of mallory" in titles
    for _ in range(20):
        await box.round()
    assert len(web.heard) == len(titles)
    # Once announced, a request may be taken back in silence, and there is room for others again.
    world.pass_by(minutes=1)
    ask(world)
    await box.round()
    assert len(web.heard) == len(titles) + 1
    assert box._noted == world.broker.events.last(0).read_to


async def test_who_withdraws_at_once_is_not_announced_after_a_restart_either(
    world: World, web: Hook
) -> None:
    await outbox(world, "approvers", web.url).round()
    number = ask(world)
    world.broker.requests.cancel(number, ADA)
    other = ask(world)
    for _ in range(2):
        await outbox(world, "approvers", web.url).round()
    assert [body["message"].splitlines()[0] for _, body in web.heard] == [
        f"Request {other} is waiting for a decision."
    ]


async def test_a_dead_channel_blocks_nothing(world: World, web: Hook) -> None:
    release = threading.Event()

    def hang(*_: Any) -> str:
        release.wait(60)
        return ""

    dead = outbox(world, "approvers", "json://dead", send=hang)
    alive = outbox(world, "approvers", web.url)
    stop = asyncio.Event()
    boxes = {"dead": dead, "alive": alive}
    tasks = [asyncio.ensure_future(Loop(n, 0.01, b.round).run(stop)) for n, b in boxes.items()]
    try:
        while dead._noted is None or alive._noted is None:
            await asyncio.sleep(0.01)
        for _ in range(5):
            ask(world)
        while len(web.heard) < 5:
            await asyncio.sleep(0.01)
        assert dead.sent == 0
    finally:
        stop.set()
        await asyncio.gather(*tasks)
        release.set()


async def test_a_sending_without_an_end_has_failed_after_a_minute(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("jupyterhub_migspawner.service.workers.notices.PATIENCE", 0.01)
    release = threading.Event()
    begun: list[str] = []

    def hang(_: Any, title: str, *rest: str) -> str:
        begun.append(title)
        release.wait(60)
        return "late"

    box = outbox(world, "approvers", "json://dead", send=hang)
    await box.round()
    ask(world)
    await box.round()
    world.pass_by(seconds=61)
    await box.round()
    assert "it takes longer than a minute" in caplog.text
    # Others are not kept waiting by it, and a few threads are left hanging at the most.
    ask(world, Person("grace"))
    for _ in range(50):
        world.pass_by(minutes=2)
        await box.round()
    assert len(begun) == MOST_HUNG
    assert "grace asks for card for 8 hours" in begun
    release.set()
    while box.given_up < 2:
        world.pass_by(minutes=11)
        await box.round()
    assert box.sent == 0


@pytest.mark.parametrize("kind", ["refused", "silent"])
async def test_a_real_dead_server(world: World, kind: str, caplog: Any) -> None:
    with silent() as port:
        if kind == "refused":
            port = refused_port()
        box = outbox(world, "approvers", f"json://127.0.0.1:{port}?rto=0.2&cto=0.2")
        await box.round()
        ask(world)
        while not caplog.text:
            await box.round()
    assert "could not be sent to approvers[0] (json)" in caplog.text


async def test_what_comes_too_late_is_not_sent(
    world: World, web: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    await outbox(world, "approvers", web.url).round()
    ask(world)
    ask(world)
    world.pass_by(hours=25)
    ask(world, reason="today")
    box = outbox(world, "approvers", web.url)
    await box.round()
    assert [body["message"].split("Reason: ")[1] for _, body in web.heard] == ["today"]
    assert box.given_up == 2
    assert "2 notices were not sent to approvers[0] (json)" in caplog.text


async def test_a_warning_is_not_sent_when_the_session_has_ended(world: World, web: Hook) -> None:
    world.lend("ada")
    box = outbox(world, "users", f"{web.url}/{{user}}")
    await box.round()
    world.pass_by(hours=7.9)
    assert len(world.broker.notices.warn_of_ends()) == 1
    web.status = 500
    await box.round()
    assert web.titles == [("/ada", "Your GPU session ends soon")]
    world.pass_by(hours=0.2)
    web.status = 200
    await box.round()
    assert len(web.heard) == 1
    assert box.given_up == 1


async def test_who_does_without_is_not_told(world: World, web: Hook) -> None:
    box = outbox(world, "users", f"{web.url}/{{user}}")
    await box.round()
    world.broker.notices.choose("ada", {"requests": False})
    for person in (ADA, Person("grace")):
        world.broker.requests.decide(ask(world, person), PI, False)
    await box.round()
    assert [path for path, _ in web.heard] == ["/grace"]
    world.broker.notices.choose("ada", {"requests": True})
    world.broker.requests.decide(ask(world), PI, False)
    await box.round()
    assert [path for path, _ in web.heard] == ["/grace", "/ada"]


async def test_addresses_are_looked_up_and_may_fail(
    world: World, web: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def address(user: str) -> Any:
        if user == "ada":
            raise LookupError("directory away")
        return {"grace": "grace@example.org", "linus": None}[user]

    notices = parse_notices({"users": [f"{web.url}/{{address}}"], "addresses": address})
    box = Outbox(world.parts, notices.channels[0], notices, clock=world.broker.now)
    await box.round()
    for name in ("ada", "grace", "linus"):
        world.broker.requests.decide(ask(world, Person(name)), PI, False)
    await box.round()
    assert [path for path, _ in web.heard] == ["/grace@example.org"]
    assert "LookupError while looking up the address" in caplog.text
    assert "'linus' gets no notice through users[0] (json)" in caplog.text


async def test_another_hubs_people_are_not_told(world: World, web: Hook) -> None:
    box = outbox(world, "users", f"{web.url}/{{user}}")
    await box.round()
    other = Broker(
        world.broker.store, replace(world.broker.settings, hub="other"), clock=world.broker.now
    )
    other.requests.decide(other.requests.create(ADA, "card", 8, "there").id, PI, False)
    world.broker.requests.decide(ask(world, Person("grace")), PI, False)
    await box.round()
    assert [path for path, _ in web.heard] == ["/grace"]


async def test_another_url_is_another_channel(world: World, web: Hook) -> None:
    await outbox(world, "approvers", f"{web.url}/old").round()
    ask(world)
    await outbox(world, "approvers", f"{web.url}/new").round()
    assert web.heard == []


async def test_no_more_is_read_ahead_than_can_be_kept(world: World) -> None:
    def refuse(*_: str) -> str:
        return "no"

    box = outbox(world, "users", "json://x/{user}", send=refuse)
    await box.round()
    for number in range(MOST_WAITING + 150):
        world.broker.requests.decide(ask(world, Person(f"u{number}")), PI, False)
    for _ in range(5):
        await box.round()
    assert MOST_WAITING <= len(box._backlog) <= MOST_WAITING + 200
    noted = box._noted
    while box.given_up < MOST_WAITING + 150:
        world.pass_by(minutes=11)
        for _ in range(20):
            await box.round()
    assert noted is not None
    assert box._noted is not None
    assert box._noted > noted


async def test_a_database_that_is_away_loses_nothing(
    world: World, web: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = outbox(world, "approvers", web.url)
    await box.round()
    ask(world)

    def away(*_: Any, **__: Any) -> Any:
        raise DatabaseError("away")

    with monkeypatch.context() as broken:
        broken.setattr(Events, "page", away)
        with pytest.raises(DatabaseError):
            await box.round()
    with monkeypatch.context() as broken:
        broken.setattr(Events, "move_reader", away)
        with pytest.raises(DatabaseError):
            await box.round()
    await box.round()
    assert len(web.heard) == 1
    await outbox(world, "approvers", web.url).round()
    assert len(web.heard) == 1


def test_pauses_grow_and_end_within_a_quarter_of_an_hour() -> None:
    assert list(AGAIN) == sorted(AGAIN)
    assert sum(AGAIN, timedelta()) < timedelta(minutes=15)


async def test_what_is_sent_names_its_times_in_the_zone_of_the_settings(
    world: World, web: Hook
) -> None:
    zone = ZoneInfo("Europe/Berlin")
    settle(world, zone=zone)
    box = outbox(world, "users", f"{web.url}/users/{{user}}")
    await box.round()
    request = ask(world)
    world.broker.requests.decide(request, PI, True, "run")
    await box.round()
    (said,) = [body["message"] for _, body in web.heard]
    ends = world.broker.now() + timedelta(hours=8)
    assert f"until {ends.astimezone(zone):%a %d %b %Y %H:%M %Z}" in said
    assert "UTC" not in said
