"""What is noted for notices, on both databases: ends that come, and what users do without."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from jupyterhub_migspawner.policy.notices import TOPICS
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import TIERS, Lab, card
from tests.broker.test_lease_life import refused

SHORT = {"name": "short", "profile": "1g.5gb", "max_hours": 1}
ALL = dict.fromkeys(TOPICS, True)


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    lab = make_lab(tiers=[*TIERS, SHORT])
    lab.report(card(0), card(1))
    return lab


def warnings(lab: Lab) -> list[tuple[str, str]]:
    return [
        (event.user, event.detail["until"])
        for event in lab.broker.events.find()
        if event.kind == "lease.ending"
    ]


def active(lab: Lab, user: str, tier: str = "short", server: str = "") -> int:
    lease = lab.broker.leases.activate(lab.start(user, tier, server=server).attempt)
    assert lease is not None
    return lease.id


def test_an_end_is_told_of_once(lab: Lab) -> None:
    active(lab, "ada")
    active(lab, "grace", "small")
    assert lab.broker.notices.warn_of_ends() == ()
    lab.clock.pass_time(minutes=44)
    assert lab.broker.notices.warn_of_ends() == ()
    lab.clock.pass_time(minutes=1)
    assert [lease.user for lease in lab.broker.notices.warn_of_ends()] == ["ada"]
    assert lab.broker.notices.warn_of_ends() == ()
    assert warnings(lab) == [("ada", "2026-11-23T10:00:00Z")]


def test_two_services_tell_of_an_end_once(lab: Lab, make_lab: Callable[..., Lab]) -> None:
    for number in range(5):
        active(lab, f"u{number}")
    lab.clock.pass_time(minutes=50)
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: lab.broker.notices.warn_of_ends(), range(4)))
    assert sorted(lease.user for each in told for lease in each) == [f"u{n}" for n in range(5)]
    assert len(warnings(lab)) == 5


def test_what_has_not_begun_or_has_ended_is_not_told_of(lab: Lab) -> None:
    lab.start("ada", "short")
    over = active(lab, "grace")
    lab.broker.leases.release(over, "stopped", "grace")
    lab.clock.pass_time(minutes=50)
    assert lab.broker.notices.warn_of_ends() == ()


def test_another_hub_warns_its_own(lab: Lab) -> None:
    active(lab, "ada")
    lab.clock.pass_time(minutes=50)
    other = Lab(lab.url, clock=lab.clock, hub="physics", tiers=[*TIERS, SHORT])
    assert other.broker.notices.warn_of_ends() == ()
    other.close()
    assert len(lab.broker.notices.warn_of_ends()) == 1


def test_being_told_that_a_grant_is_revoked_is_being_told_of_the_end(lab: Lab) -> None:
    grant = lab.grant("linus")
    lease = lab.broker.leases.activate(lab.start("linus", "card").attempt)
    assert lease is not None
    lab.broker.requests.revoke(grant.id, Person("root", admin=True), "needed", 10)
    assert lab.broker.notices.warn_of_ends() == ()
    assert warnings(lab) == []


def test_users_are_told_of_everything_until_they_say_otherwise(lab: Lab) -> None:
    broker = lab.broker
    assert broker.notices.choices("ada") == ALL
    assert broker.notices.choose("ada", {"offers": False}) == {**ALL, "offers": False}
    assert broker.notices.choose("ada", {"sessions": False}) == {
        **ALL,
        "offers": False,
        "sessions": False,
    }
    assert broker.notices.choose("ada", {"offers": True}) == {**ALL, "sessions": False}
    assert broker.notices.choose("ada", {}) == {**ALL, "sessions": False}
    assert broker.notices.choices("grace") == ALL


def test_two_choices_at_once_are_both_kept(lab: Lab) -> None:
    with ThreadPoolExecutor(6) as pool:
        for topic in [*TOPICS] * 2:
            pool.submit(lab.broker.notices.choose, "ada", {topic: False})
    assert lab.broker.notices.choices("ada") == dict.fromkeys(TOPICS, False)


@pytest.mark.parametrize(
    ("user", "choices", "sentence"),
    [
        ("ada", {"offer": False}, r"There is no topic 'offer' \(did you mean 'offers'\?\)"),
        ("ada", {"offers": False, "x\0": True}, "There is no topic"),
        ("ada", {"offers": 0}, "Topic 'offers' is 0; expected true or false"),
        ("ada", {"offers": None}, "Topic 'offers' is None"),
        ("", {"offers": False}, "The user name is empty"),
        ("a" * 256, {"offers": False}, "The user name has 256 characters"),
    ],
)
def test_a_choice_of_nothing_is_refused(
    lab: Lab, user: str, choices: dict[str, bool], sentence: str
) -> None:
    assert re.search(sentence, refused("options", lab.broker.notices.choose, user, choices))
    assert lab.broker.notices.choices("ada") == ALL


def test_a_renamed_users_choices_follow(lab: Lab) -> None:
    broker = lab.broker
    broker.notices.choose("ada", {"offers": False})
    broker.notices.choose("lovelace", {"sessions": False})
    lab.clock.pass_time(minutes=1)
    broker.users.rename("ada", "lovelace")
    assert broker.notices.choices("lovelace") == {**ALL, "offers": False}
    assert broker.notices.choices("ada") == ALL
    broker.users.rename("ada", "lovelace")
    assert broker.notices.choices("lovelace") == {**ALL, "offers": False}


def test_what_was_chosen_since_under_the_new_name_counts(lab: Lab) -> None:
    broker = lab.broker
    broker.notices.choose("ada", {"offers": False, "sessions": False})
    renamed = lab.clock()
    lab.clock.pass_time(minutes=1)
    broker.notices.choose("lovelace", {"offers": True})
    broker.users.rename("ada", "lovelace", renamed)
    assert broker.notices.choices("lovelace") == {**ALL, "sessions": False}
    assert broker.notices.choices("ada") == ALL


def test_whoever_has_a_deleted_users_name_next_is_told(lab: Lab) -> None:
    broker = lab.broker
    broker.notices.choose("ada", {"offers": False})
    deleted = lab.clock()
    broker.users.forget("ada", deleted - timedelta(seconds=1))
    assert not broker.notices.choices("ada")["offers"]
    broker.users.forget("ada", deleted)
    assert broker.notices.choices("ada") == ALL


def test_a_renamed_hubs_users_keep_their_choices(lab: Lab) -> None:
    lab.broker.hubs.claim("here")
    lab.broker.notices.choose("ada", {"offers": False})
    renamed = Lab(lab.url, clock=lab.clock, hub="physics")
    assert renamed.broker.notices.choices("ada") == ALL
    renamed.broker.hubs.claim("here")
    assert renamed.broker.notices.choices("ada") == {**ALL, "offers": False}
    renamed.close()
