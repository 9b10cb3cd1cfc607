"""What one person may send: so much in a minute; and lists that have an end."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

import pytest

from jupyterhub_migspawner.policy.people import Person
from tests.unit.service.conftest import PREFIX, Site, settle

ADA = Person("ada")
ROOT = Person("root", frozenset(), True)
ASK = {"tier": "card", "hours": 2, "reason": "a run"}


def file_and_cancel(site: Site, times: int, user: str = "ada") -> list[int]:
    """Requests that are over."""
    numbers = []
    for _ in range(times):
        request = site.world.broker.requests.create(Person(user), "card", 2, "a run")
        site.world.broker.requests.cancel(request.id, ROOT)
        numbers.append(request.id)
    return numbers


async def test_too_much_in_a_minute_is_refused_with_when_to_try_again(site: Site) -> None:
    ada, eve = site.world.hub.sign_in("ada"), site.world.hub.sign_in("eve")
    settle(site.world, actions_per_minute=2)
    for _ in range(2):
        assert (await site.ask("POST", "api/requests", token=ada, body=ASK)).status == 201
    refused = await site.ask("POST", "api/requests", token=ada, body=ASK)
    assert (refused.status, refused.headers["Retry-After"]) == (429, "30")
    assert refused.json == {
        "status": 429,
        "reason": "too-many",
        "message": "That is more than 2 changes in a minute. Try again in 30 seconds.",
    }
    form = urlencode(ASK).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for path in ("requests", "drafts"):
        page = await site.ask("POST", path, token=ada, body=form, headers=headers)
        assert (page.status, page.headers["Retry-After"]) == (429, "30")
        assert "Try again in 30 seconds" in page.text
    choices = await site.ask("POST", "notices", token=ada, body=b"", headers=headers)
    assert (choices.status, choices.headers["Retry-After"]) == (429, "30")
    assert (await site.ask("POST", "api/requests", token=eve, body=ASK)).status == 201
    assert (await site.ask("GET", "api/requests", token=ada)).status == 200
    site.world.pass_by(seconds=30)
    assert (await site.ask("POST", "api/requests", token=ada, body=ASK)).status == 201


def next_of(headers: Any) -> str:
    """Where ``Link`` leads, below the service's prefix; empty where there is none."""
    link = headers.get("Link", "")
    if not link:
        return ""
    found = re.fullmatch(r'<(.*)>; rel="next"', link)
    assert found is not None
    return found[1].removeprefix(PREFIX)


async def walk(site: Site, path: str, token: str) -> list[int]:
    """The ids of all entries, by following the links from part to part; newest part first."""
    ids: list[int] = []
    while path:
        reply = await site.ask("GET", path, token=token)
        assert reply.status == 200, reply.text
        part = [entry["lease" if "api/sessions" in path else "id"] for entry in reply.json]
        assert part == sorted(part)
        ids = part + ids
        path = next_of(reply.headers)
    return ids


@pytest.mark.parametrize("limit", [1, 3, 4, 100])
async def test_lists_come_in_parts_that_lead_to_each_other(site: Site, limit: int) -> None:
    numbers = file_and_cancel(site, 7)
    file_and_cancel(site, 2, "eve")
    ada = site.world.hub.sign_in("ada")
    root = site.world.hub.sign_in("root", admin=True)
    assert await walk(site, f"api/requests?limit={limit}", ada) == numbers
    every = [row.id for row in site.world.broker.requests.find()]
    assert await walk(site, f"api/requests?all=true&limit={limit}", root) == every
    leases = [site.world.lend("ada", f"s{n}").id for n in range(3)]
    assert await walk(site, f"api/leases?limit={limit}&past=true", ada) == leases
    assert await walk(site, f"api/sessions?limit={limit}", ada) == leases
    assert await walk(site, f"api/sessions?all=true&limit={limit}", root) == leases
    places = [site.world.broker.queue.join(Person(f"u{n}"), "small").id for n in range(4)]
    assert await walk(site, f"api/queue?all=true&limit={limit}", root) == places
    assert await walk(site, f"api/exceptions?all=1&past=1&limit={limit}", root) == []


async def test_a_narrow_approver_finds_all_that_is_theirs(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jupyterhub_migspawner.policy.approval import parse_approvers
    from jupyterhub_migspawner.service.http import approvers

    monkeypatch.setattr(approvers, "MOST_ROWS", 4)
    monkeypatch.setattr(approvers, "MOST_READS", 2)
    rule = {"approvers": ["user:marie"], "for_groups": ["vision"]}
    settle(site.world, approvers=parse_approvers([rule]))
    mine = []
    for number in range(40):
        vision = number % 10 == 0
        person = Person(f"u{number}", frozenset({"vision"} if vision else ()))
        request = site.world.broker.requests.create(person, "card", 2, "a run")
        mine += [request.id] if vision else []
    marie = site.world.hub.sign_in("marie")
    assert await walk(site, "api/requests?all=true&limit=2", marie) == mine


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=501", "limit=x", "limit=-1", "limit=1&limit=2", "limit="),
        *("before=0", "before=1e3", "before=9999999999999999999", "before=%F0%9F%99%82"),
        "after=3",
    ],
)
async def test_a_part_that_makes_no_sense_is_refused(site: Site, query: str) -> None:
    ada = site.world.hub.sign_in("ada")
    reply = await site.ask("GET", f"api/requests?{query}", token=ada)
    assert (reply.status, reply.json["reason"]) == (400, "options")


async def test_the_pages_show_a_part_and_lead_to_the_others(site: Site) -> None:
    kept = site.world.broker.requests.create(ADA, "card", 2, "still open").id
    numbers = file_and_cancel(site, 60)
    ada = site.world.hub.sign_in("ada")

    def shown(text: str) -> list[int]:
        return [int(number) for number in re.findall(r'data-request="(\d+)"', text)]

    first = await site.ask("GET", "requests", token=ada)
    # What is open is there, however much came after it.
    assert shown(first.text) == [*numbers[:-51:-1], kept]
    link = re.search(r'rel="next" href="[^"]*requests\?before=(\d+)"', first.text)
    assert link is not None
    older = await site.ask("GET", f"requests?before={link[1]}", token=ada)
    assert shown(older.text) == [*numbers[:-50][::-1], kept]
    assert 'rel="next"' not in older.text
    assert (await site.ask("GET", "requests?before=x", token=ada)).status == 200


async def test_the_page_of_decisions_has_an_end_too(site: Site) -> None:
    for number in range(130):
        site.world.broker.requests.create(Person(f"u{number}"), "card", 2, "a run")
    root = site.world.hub.sign_in("root", admin=True)
    first = await site.ask("GET", "decisions", token=root)
    assert first.text.count("<section") == 100
    link = re.search(r"decisions\?before=(\d+)", first.text)
    assert link is not None
    second = await site.ask("GET", f"decisions?before={link[1]}", token=root)
    assert second.text.count("<section") == 30
    assert 'rel="next"' not in second.text
