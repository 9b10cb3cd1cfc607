"""Sessions that are not in use, on both databases: warned, kept, ended, and never by guessing."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from jupyterhub_migspawner.broker.readings import Answer
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.doubts import UNKNOWN, UNPROVEN
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.reclaim import IDLE, KERNELS, PROCESSES, TIME, USE
from tests.broker.lab import START, TIERS, Lab, card
from tests.broker.test_lease_life import refused

IDLING = {
    "name": "idling",
    "profile": "1g.5gb",
    "idle_minutes": 60,
    "idle_minutes_when_wanted": 20,
    "extend_hours": 3,
    "max_hours": 24,
}
COURSE = {"name": "course", "profile": "1g.5gb", "seats": 2}
ROOT = Person("root", admin=True)
ADA = Person("ada")


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    lab = make_lab(tiers=[*TIERS, IDLING, COURSE])
    lab.report(card(0, (("1g.5gb", 0), ("1g.5gb", 1))))
    lab.broker.hubs.claim("here")
    return lab


def run(lab: Lab, user: str = "ada", tier: str = "idling", server: str = "") -> LeaseRow:
    lease = lab.broker.leases.activate(lab.start(user, tier, server).attempt)
    assert lease is not None
    hear(lab, lease)
    return lease


def hear(lab: Lab, lease: LeaseRow, **said: Any) -> None:
    """Both sources answer, ``quiet`` unless told otherwise."""
    for source in (KERNELS, PROCESSES):
        lab.broker.readings.note([Answer(lease.id, source, **{"fingerprint": "quiet", **said})])


def later(lab: Lab, lease: LeaseRow, minutes: float, **said: Any) -> None:
    lab.clock.pass_time(minutes=minutes)
    lab.broker.hubs.claim("here")
    lab.report(card(0, (("1g.5gb", 0), ("1g.5gb", 1))))
    hear(lab, lease, **said)


def kept(lab: Lab) -> tuple[int, int]:
    """How many sessions something is kept of, and how many readings."""
    with lab.broker.store.transaction(write=False) as tx:
        return len(queries.sessions.stays_of_all(tx)), sum(
            map(len, queries.sessions.of_all(tx).values())
        )


def state(lab: Lab, lease: LeaseRow) -> str:
    return lab.broker.leases.get(lease.id).state


def test_an_idle_session_is_told_of_then_ended_and_why_is_kept(lab: Lab) -> None:
    lease = run(lab)
    later(lab, lease, 44)
    assert lab.broker.sessions.warn_idle([lease.id]) == ()
    later(lab, lease, 1)
    assert [each.id for each in lab.broker.sessions.warn_idle([lease.id])] == [lease.id]
    assert lab.broker.sessions.warn_idle([lease.id]) == ()
    assert lab.broker.sessions.end_over(lease.id) is None
    later(lab, lease, 15)
    ended = lab.broker.sessions.end_over(lease.id)
    assert ended is not None
    assert ended.state == "releasing"
    assert lab.broker.sessions.end_over(lease.id) is None
    (event,) = [each for each in lab.broker.events.find() if each.kind == "lease.releasing"]
    assert (event.actor, event.detail["rule"]) == ("migspawner", IDLE)
    assert [each["source"] for each in event.detail["signals"]] == [KERNELS, PROCESSES]
    assert "nothing has used it since Mon 23 Nov 2026 09:00 UTC" in event.detail["why"]
    (told,) = [each for each in lab.broker.events.find() if each.kind == "lease.ending"]
    assert told.detail["until"] == "2026-11-23T10:00:00Z"


@pytest.mark.parametrize("said", [{"busy": True}, {"fingerprint": "another"}])
def test_any_sign_of_use_begins_anew(lab: Lab, said: dict[str, Any]) -> None:
    lease = run(lab)
    later(lab, lease, 59)
    lab.broker.sessions.warn_idle([lease.id])
    lab.broker.readings.note([Answer(lease.id, PROCESSES, **{"fingerprint": "quiet", **said})])
    later(lab, lease, 30)
    if "fingerprint" in said:
        lab.broker.readings.note([Answer(lease.id, PROCESSES, **said)])
    assert lab.broker.sessions.end_over(lease.id) is None
    (standing,) = lab.broker.sessions.standings("ada")
    assert standing.verdict.idle_since is not None
    assert standing.verdict.idle_since >= START + timedelta(minutes=59)


@pytest.mark.parametrize("source", [KERNELS, PROCESSES])
def test_a_source_that_is_silent_ends_nothing_and_is_told_of_once(lab: Lab, source: str) -> None:
    lease = run(lab)
    other = PROCESSES if source == KERNELS else KERNELS
    for _ in range(20):
        lab.clock.pass_time(minutes=10)
        lab.broker.readings.note([Answer(lease.id, other, "quiet")])
        lab.broker.readings.note([Answer(lease.id, source, problem="away")])
        lab.broker.sessions.warn_idle([lease.id])
        assert lab.broker.sessions.end_over(lease.id) is None
        lab.broker.doubts.note()
    assert lab.kinds().count("lease.unknown") == 1
    (event,) = [each for each in lab.broker.events.find() if each.kind == "lease.unknown"]
    assert "away" in event.detail["why"]
    # One answer does not make it known; an answer in each look does, and then there is another
    # warning.
    for number in range(4):
        lab.clock.pass_time(minutes=10)
        hear(lab, lease)
        lab.broker.doubts.note()
        assert (lab.broker.sessions.standings()[0].doubt is None) == (number == 3)
    for _ in range(5):
        lab.clock.pass_time(minutes=10)
        lab.broker.doubts.note()
    assert lab.kinds().count("lease.unknown") == 2


def test_a_server_that_answers_now_and_then_is_noted_and_not_ended(lab: Lab) -> None:
    lease = run(lab)
    for minute in range(1, 121):
        lab.clock.pass_time(minutes=1)
        lab.broker.readings.note([Answer(lease.id, PROCESSES, "quiet")])
        # It answers once in five minutes, so it is never known for as long as it takes.
        answers = minute % 5 == 0
        said = Answer(lease.id, KERNELS, "quiet", problem="" if answers else "no answer")
        lab.broker.readings.note([said])
        lab.broker.doubts.note()
        warned = [each.lease.id for each in lab.broker.sessions.standings() if each.verdict.warn]
        lab.broker.sessions.warn_idle(warned)
        assert lab.broker.sessions.end_over(lease.id) is None or minute % 5 == 0
        if state(lab, lease) != "active":
            break
    (standing,) = lab.broker.sessions.standings()
    assert standing.doubt is not None
    assert standing.doubt.kind == UNKNOWN
    assert standing.doubt.since < START + timedelta(minutes=10)
    assert lab.kinds().count("lease.unknown") == 1


def test_one_that_is_silent_whenever_it_should_end_is_noted(lab: Lab) -> None:
    lease = run(lab)
    for _ in range(120):
        lab.clock.pass_time(minutes=1)
        lab.broker.readings.note([Answer(lease.id, PROCESSES, "quiet")])
        lab.broker.readings.note([Answer(lease.id, KERNELS, "quiet")])
        lab.broker.readings.note([Answer(lease.id, KERNELS, problem="no answer")])
        lab.broker.doubts.note()
        lab.broker.sessions.warn_idle([lease.id])
        assert lab.broker.sessions.end_over(lease.id) is None
    (standing,) = lab.broker.sessions.standings()
    assert standing.doubt is not None
    assert "should have ended at" in standing.doubt.why
    assert lab.kinds().count("lease.unknown") == 1


@pytest.mark.parametrize("busy", [True, False])
def test_one_that_says_busy_for_ever_while_nothing_works_is_noted(lab: Lab, busy: bool) -> None:
    lease = run(lab)
    hours = lab.broker.settings.unproven_hours
    for minute in range(1, hours * 60 + 2):
        # A cell that waits for input, a dead kernel, or an answer that was made up.
        fingerprint = "x" if busy else f"{minute}"
        said = Answer(lease.id, KERNELS, fingerprint, busy=busy, said="1 kernel busy")
        lab.clock.pass_time(minutes=1)
        lab.broker.readings.note([said, Answer(lease.id, PROCESSES, "quiet")])
        assert (lab.broker.sessions.standings()[0].doubt is None) == (minute < hours * 60)
        lab.broker.doubts.note()
    assert state(lab, lease) == "active"
    (standing,) = lab.broker.sessions.standings()
    assert standing.doubt is not None
    assert (standing.doubt.kind, standing.doubt.since) == (UNPROVEN, START)
    assert "1 kernel busy" in standing.doubt.why
    assert lab.kinds().count("lease.unproven") == 1
    # As soon as something works, there is nothing to look at.
    lab.broker.readings.note([Answer(lease.id, PROCESSES, "works", busy=True)])
    lab.broker.doubts.note()
    assert lab.broker.sessions.standings()[0].doubt is None
    assert lab.broker.sessions.standings()[0].stay.alerted_at is None


def test_work_and_pauses_are_no_doubt(lab: Lab) -> None:
    working, pausing = run(lab), run(lab, "grace")
    for minute in range(0, 24 * 60, 10):
        lab.clock.pass_time(minutes=10)
        works = Answer(working.id, PROCESSES, "x", busy=minute % 300 == 0)
        lab.broker.readings.note([Answer(working.id, KERNELS, "x", busy=True), works])
        # A person who types now and then, and sleeps.
        types = minute % (4 * 60) < 150
        said = Answer(pausing.id, KERNELS, f"{minute}" if types else "asleep")
        lab.broker.readings.note([said, Answer(pausing.id, PROCESSES, "quiet")])
        lab.broker.doubts.note()
        assert [each.doubt for each in lab.broker.sessions.standings()] == [None, None]


def test_a_first_look_counts_as_use(lab: Lab) -> None:
    lease = lab.broker.leases.activate(lab.start("ada", "idling").attempt)
    assert lease is not None
    lab.clock.pass_time(hours=5)
    hear(lab, lease)
    (standing,) = lab.broker.sessions.standings()
    assert standing.verdict.idle_since == START + timedelta(hours=5)


@pytest.mark.parametrize("wanted", ["idling", "course"])
def test_while_others_wait_idle_ones_go_sooner_after_a_word(lab: Lab, wanted: str) -> None:
    mine, other = run(lab), run(lab, "grace")
    later(lab, mine, 30)
    hear(lab, other)
    assert not lab.broker.sessions.standings("ada")[0].verdict.warn
    lab.broker.queue.join(Person("linus"), wanted)
    assert lab.broker.sessions.standings("ada")[0].verdict.warn
    assert lab.broker.sessions.warn_idle([mine.id])
    assert lab.broker.sessions.end_over(mine.id) is None
    later(lab, mine, 10)
    ended = lab.broker.sessions.end_over(mine.id)
    assert ended is not None
    assert ended.end_reason.endswith("; others wait")


def test_that_one_waits_oneself_ends_nothing_sooner(lab: Lab) -> None:
    mine = run(lab)
    run(lab, "grace")
    later(lab, mine, 30)
    lab.broker.queue.join(ADA, "idling", server="second")
    assert not lab.broker.sessions.standings("ada")[0].verdict.warn


def test_a_place_that_is_blocked_ends_nothing_sooner(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(tiers=[*TIERS, IDLING, COURSE], quotas={"user:linus": {"live": 1}})
    lab.report(card(0, (("1g.5gb", 0), ("1g.5gb", 1), ("2g.10gb", 2))))
    lab.broker.hubs.claim("here")
    lab.start("linus", "medium")
    mine = run(lab)
    run(lab, "grace")
    later(lab, mine, 30)
    ticket = lab.broker.queue.join(Person("linus"), "idling", server="second")
    assert lab.broker.sessions.standings("ada")[0].verdict.warn
    # Linus cannot have it, no matter who gives it back.
    assert lab.broker.offers.make(ticket.id, Person("linus")).ticket.blocked
    assert not lab.broker.sessions.standings("ada")[0].verdict.warn
    assert lab.broker.sessions.warn_idle([mine.id]) == ()


def test_a_place_for_something_else_ends_nothing_sooner(lab: Lab) -> None:
    mine = run(lab)
    run(lab, "grace")
    later(lab, mine, 30)
    lab.broker.queue.join(Person("linus"), "medium")
    assert not lab.broker.sessions.standings("ada")[0].verdict.warn


def test_where_dcgm_is_set_up_it_has_to_have_answered(lab: Lab) -> None:
    lease = run(lab)
    lab.broker.context.settings = replace(
        lab.broker.settings, dcgm_url="http://localhost:9400/metrics"
    )
    (found,) = lab.broker.sessions.standings()
    assert found.verdict.unknown == (USE,)
    lab.broker.readings.note([Answer(lease.id, USE, said="at rest")])
    (found,) = lab.broker.sessions.standings()
    assert found.verdict.unknown == ()


def test_a_source_that_is_none_any_more_is_not_missed(lab: Lab) -> None:
    lease = run(lab)
    lab.broker.readings.note([Answer(lease.id, USE, said="at rest")])
    later(lab, lease, 50)
    assert lab.broker.sessions.standings()[0].verdict.unknown == (USE,)
    for _ in range(2):
        lab.broker.readings.note([Answer(lease.id, USE, absent=True)])
        (found,) = lab.broker.sessions.standings()
        assert found.verdict.unknown == ()
        assert {row.source for row in found.readings} == {KERNELS, PROCESSES}


@pytest.mark.parametrize("together", [True, False])
def test_what_a_source_saw_stays_known_when_it_is_none_any_more(lab: Lab, together: bool) -> None:
    lease = run(lab)
    lab.broker.readings.note([Answer(lease.id, USE, said="at rest")])
    later(lab, lease, 50)
    lab.broker.readings.note([Answer(lease.id, USE, busy=True)])
    used = lab.clock.now
    lab.clock.pass_time(minutes=1)
    quiet = [Answer(lease.id, source, fingerprint="quiet") for source in (PROCESSES, KERNELS)]
    gone = Answer(lease.id, USE, absent=True)
    if together:
        lab.broker.readings.note([*quiet, gone])
    else:
        lab.broker.readings.note([gone])
        lab.broker.readings.note(quiet)
    (found,) = lab.broker.sessions.standings()
    assert {row.source for row in found.readings} == {KERNELS, PROCESSES}
    assert (found.used, found.verdict.idle_since) == (used, used)


def test_a_hard_end_is_recorded_with_what_was_said_last(lab: Lab) -> None:
    lease = run(lab)
    later(lab, lease, 23 * 60, busy=True)
    assert lab.broker.sessions.end_over(lease.id) is None
    later(lab, lease, 60, busy=True, said="1 kernel, 1 busy")
    ended = lab.broker.sessions.end_over(lease.id)
    assert ended is not None
    assert ended.end_reason == "its time was over at Tue 24 Nov 2026 09:00 UTC"
    (event,) = [each for each in lab.broker.events.find() if each.kind == "lease.releasing"]
    assert event.detail["rule"] == TIME
    assert [each["said"] for each in event.detail["signals"]] == ["1 kernel, 1 busy"] * 2


def test_extending_keeps_it_up_to_the_ceiling(lab: Lab) -> None:
    lease = run(lab)
    later(lab, lease, 44)
    found = lab.broker.sessions.extend(lease.id, ADA)
    assert found.stay.extended_until == START + timedelta(minutes=120)
    assert lab.broker.sessions.extend(lease.id, ADA).stay.extended_until == START + timedelta(
        hours=3
    )
    assert "cannot be extended beyond" in refused(
        "conflict", lab.broker.sessions.extend, lease.id, ADA
    )
    later(lab, lease, 106)
    assert not lab.broker.sessions.standings()[0].verdict.warn
    later(lab, lease, 20)
    assert lab.broker.sessions.warn_idle([lease.id])
    later(lab, lease, 15)
    assert lab.broker.sessions.end_over(lease.id) is not None


def test_use_moves_the_ceiling(lab: Lab) -> None:
    lease = run(lab)
    later(lab, lease, 50)
    lab.broker.sessions.extend(lease.id, ADA)
    lab.broker.sessions.extend(lease.id, ADA)
    later(lab, lease, 60, busy=True)
    lab.broker.sessions.extend(lease.id, ADA)
    until = lab.broker.sessions.extend(lease.id, ADA).stay.extended_until
    assert until is not None
    assert until > START + timedelta(hours=3)


def test_nobody_extends_anothers_nor_what_has_no_limit(lab: Lab) -> None:
    lease = run(lab)
    free = run(lab, "grace", "small")
    assert "There is no lease" in refused(
        "not-found", lab.broker.sessions.extend, lease.id, Person("eve")
    )
    assert "nothing to extend" in refused(
        "conflict", lab.broker.sessions.extend, free.id, Person("grace")
    )
    for number in (0, -1, 99, 2**70):
        refused("not-found", lab.broker.sessions.extend, number, ADA)
    lab.broker.leases.release(lease.id, "x", "root")
    assert "only running sessions" in refused("conflict", lab.broker.sessions.extend, lease.id, ADA)


def test_the_hard_end_stays_whatever_keeps_it(lab: Lab) -> None:
    lease = run(lab)
    later(lab, lease, 23 * 60, busy=True)
    until = lab.broker.sessions.extend(lease.id, ADA).stay.extended_until
    assert until == START + timedelta(hours=24)
    lab.broker.sessions.protect(lease.id, ROOT, START + timedelta(days=9), "a deadline")
    (standing,) = lab.broker.sessions.standings()
    assert (standing.verdict.ends_at, standing.verdict.rule) == (until, TIME)


def test_a_protected_session_is_not_ended_until_then(lab: Lab) -> None:
    lease = run(lab)
    until = START + timedelta(hours=6)
    lab.broker.sessions.protect(lease.id, ROOT, until, "a long look-up")
    for _ in range(5):
        later(lab, lease, 60)
        lab.broker.sessions.warn_idle([lease.id])
        assert lab.broker.sessions.end_over(lease.id) is None
    later(lab, lease, 45)
    assert lab.broker.sessions.warn_idle([lease.id])
    later(lab, lease, 16)
    assert lab.broker.sessions.end_over(lease.id) is not None


def test_an_end_of_a_protection_leaves_time_for_a_word(lab: Lab) -> None:
    lease = run(lab)
    lab.broker.sessions.protect(lease.id, ROOT, START + timedelta(hours=6), "x")
    later(lab, lease, 120)
    lab.broker.sessions.protect(lease.id, ROOT, None, "")
    assert lab.broker.sessions.end_over(lease.id) is None
    assert lab.broker.sessions.warn_idle([lease.id])
    later(lab, lease, 15)
    assert lab.broker.sessions.end_over(lease.id) is not None


@pytest.mark.parametrize(
    ("by", "until", "why", "reason", "sentence"),
    [
        (ADA, START + timedelta(days=1), "x", "not-allowed", "Only admins"),
        (
            Person("ada", admin=True),
            START + timedelta(days=1),
            "x",
            "not-allowed",
            "your own session",
        ),
        (ROOT, START + timedelta(days=91), "x", "options", "the next 90 days"),
        (ROOT, START, "x", "options", "the next 90 days"),
        (ROOT, datetime(2026, 12, 1), "x", "options", "with its zone"),
        (ROOT, datetime.max.replace(tzinfo=timezone(-timedelta(hours=9))), "x", "options", "90"),
        (ROOT, START + timedelta(days=1), " ", "options", "The reason is empty"),
    ],
)
def test_protections_that_make_no_sense_are_refused(
    lab: Lab, by: Person, until: datetime, why: str, reason: str, sentence: str
) -> None:
    lease = run(lab)
    before = lab.stored()
    assert re.search(
        sentence, refused(reason, lab.broker.sessions.protect, lease.id, by, until, why)
    )
    assert lab.stored() == before


def test_who_extends_in_the_last_moment_keeps_it_or_is_told(lab: Lab) -> None:
    for _ in range(8):
        lease = run(lab)
        later(lab, lease, 46)
        lab.broker.sessions.warn_idle([lease.id])
        later(lab, lease, 15)
        with ThreadPoolExecutor(2) as pool:
            end = pool.submit(lab.broker.sessions.end_over, lease.id)
            extension = pool.submit(lab.broker.sessions.extend, lease.id, ADA)
        kept = extension.exception() is None
        assert (end.result() is None) == kept
        assert state(lab, lease) == ("active" if kept else "releasing")
        lab.stop(lease)


def test_what_sessions_that_are_over_said_is_forgotten_and_their_token_with_it(lab: Lab) -> None:
    lease = run(lab)
    lab.broker.readings.reach(lease.attempt, "http://127.0.0.1:9/user/ada/", "v1:sealed")
    (standing,) = lab.broker.sessions.standings()
    assert standing.stay.url == "http://127.0.0.1:9/user/ada/"
    assert "v1:sealed" not in repr(standing)
    assert kept(lab) == (1, 2)
    lab.broker.readings.forget_ended()
    assert lab.broker.sessions.standings() == (standing,)
    lab.stop(lease)
    assert kept(lab) == (1, 2)
    lab.broker.readings.forget_ended()
    assert kept(lab) == (0, 0)


def test_another_hub_examines_its_own(lab: Lab) -> None:
    lease = run(lab)
    other = Lab(lab.url, clock=lab.clock, hub="physics", tiers=[*TIERS, IDLING])
    assert other.broker.sessions.standings() == ()
    later(lab, lease, 90)
    assert other.broker.sessions.warn_idle([lease.id]) == ()
    assert other.broker.sessions.end_over(lease.id) is None
    assert "of this hub" in refused("conflict", other.broker.sessions.extend, lease.id, ROOT)
    other.close()


def test_who_waits_is_told_when_an_idle_one_ends(lab: Lab) -> None:
    mine, other = run(lab), run(lab, "grace")
    later(lab, mine, 30)
    hear(lab, other, busy=True)
    lab.broker.queue.join(Person("linus"), "idling")
    (waits,) = lab.broker.queue.status("linus")
    assert waits.expectation is not None
    # Ended after a word, as others wait now.
    assert waits.expectation.likely == timedelta(minutes=10)
    assert waits.expectation.latest == timedelta(hours=23, minutes=30)
