"""Old events become counts; a report finds what it needs before and after."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from jupyterhub_migspawner.db import compaction
from jupyterhub_migspawner.db.compaction import EventCount
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import MIXED, Lab, card


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    lab = make_lab()
    lab.report(card(0, MIXED), card(1))
    return lab


def wait(lab: Lab, **units: float) -> None:
    """Time goes by, which the node spends alive."""
    lab.clock.pass_time(**units)
    lab.broker.nodes.note_alive("n1")


def compact(lab: Lab, days: int = 400) -> int:
    """Compact all there is; how many events became counts."""
    so_far = lab.broker.events.begin_compaction(days)
    while not so_far.done:
        after = lab.broker.events.compact(so_far)
        assert after.read_to > so_far.read_to
        so_far = after
    return so_far.number


def by_key(lab: Lab) -> Counter[Any]:
    """Counts as the log itself gives them."""
    found: Counter[Any] = Counter()
    for e in lab.broker.events.find(limit=10_000):
        tier, profile = e.detail.get("tier", ""), e.detail.get("profile", "")
        found[f"{e.at:%Y-%m}", e.kind, e.user, tier, profile, e.card_uuid or ""] += 1
    return found


def counted(lab: Lab) -> Counter[Any]:
    return Counter(
        {
            (c.month, c.kind, c.user, c.tier, c.profile, c.card_uuid): c.number
            for c in lab.broker.events.counts()
        }
    )


def test_events_that_are_young_stay(lab: Lab) -> None:
    lab.stop(lab.start("ada"))
    before = lab.stored()
    wait(lab, days=399)
    assert lab.broker.events.old(400) == (0, 0)
    assert compact(lab) == 0
    assert lab.stored() == before
    assert lab.broker.events.counts() == ()


def test_old_events_become_counts_and_nothing_else_changes(lab: Lab) -> None:
    lab.stop(lab.start("ada"))
    wait(lab, days=20)
    lab.stop(lab.start("ada"))
    lab.stop(lab.start("grace", tier="medium"))
    everything = by_key(lab)
    rows = (
        lab.broker.leases.find(include_past=True),
        lab.broker.slices.find(),
        lab.broker.cards.find(),
    )
    wait(lab, days=401)
    newest = lab.start("linus").id
    old = sum(everything.values())
    assert lab.broker.events.old(400) == (old, 0)
    assert lab.broker.events.counts() == ()
    assert compact(lab) == old
    assert counted(lab) == everything
    assert EventCount("2026-12", "lease.pending", "ada", "small", "1g.5gb", "GPU-0", 1) in (
        lab.broker.events.counts()
    )
    assert [(e.kind, e.lease_id) for e in lab.broker.events.find()] == [("lease.pending", newest)]
    leases = lab.broker.leases.find(include_past=True)
    assert leases[:-1] == rows[0]
    assert lab.broker.cards.find() == rows[2]


def test_counts_grow_by_what_is_compacted_later(lab: Lab) -> None:
    for day in (1, 2, 3):
        lab.stop(lab.start("ada"))
        wait(lab, days=1)
        if day == 2:
            wait(lab, days=399)
            assert compact(lab) > 0
            wait(lab, days=-399)
    everything = by_key(lab) + counted(lab)
    wait(lab, days=500)
    lab.start("linus")
    assert compact(lab) > 0
    assert compact(lab) == 0
    assert sum(counted(lab).values()) == sum(everything.values())


def test_events_of_live_leases_and_open_requests_stay(lab: Lab) -> None:
    lease, request = lab.start("ada"), lab.grant("grace", hours=40)
    over, denied = lab.stop(lab.start("linus")), lab.grant("linus", hours=40)
    wait(lab, hours=39)
    lab.broker.requests.cancel(denied.id, Person("root", admin=True))
    # However old they get: here it is the clock that says so.
    wait(lab, days=401)
    lab.start("eve")
    ready, stay = lab.broker.events.old(400)
    assert stay == 3
    assert compact(lab) == ready
    kept = [(e.lease_id, e.request_id) for e in lab.broker.events.find()]
    assert kept.count((lease.id, None)) == 1
    assert kept.count((None, request.id)) == 2
    assert (over.id, None) not in kept
    assert (None, denied.id) not in kept
    lab.broker.requests.expire()
    lab.stop(lease)
    wait(lab, days=401)
    lab.start("mallory")
    assert compact(lab) > 3
    assert lease.id not in [e.lease_id for e in lab.broker.events.find()]


def test_the_newest_event_stays_so_that_readers_find_the_next_one(lab: Lab) -> None:
    lab.stop(lab.start("ada"))
    read_to = lab.broker.events.last(0).read_to
    wait(lab, days=1_000)
    assert compact(lab) > 0
    (last,) = lab.broker.events.find()
    assert last.id == read_to
    lab.start("grace")
    assert [e.kind for e in lab.broker.events.page(read_to).events] == ["lease.pending"]


def test_no_transaction_takes_out_more_than_a_few_hundred(lab: Lab) -> None:
    for number in range(compaction.BATCH):
        lab.broker.layouts.record_step("GPU-0", "n1", str(number))
    wait(lab, days=401)
    lab.broker.layouts.record_step("GPU-0", "n1", "new")
    begun = lab.broker.events.begin_compaction(400)
    assert (begun.number, begun.done) == (0, False)
    first = lab.broker.events.compact(begun)
    assert (first.number, first.done) == (compaction.BATCH, False)
    second = lab.broker.events.compact(first)
    assert second.done
    assert first.number < second.number < 2 * compaction.BATCH


def test_a_wrong_clock_holds_nothing_up(lab: Lab) -> None:
    wait(lab, days=10_000)
    for number in range(compaction.BATCH):
        lab.broker.layouts.record_step("GPU-0", "n1", f"in years to come {number}")
    wait(lab, days=-10_000)
    lab.stop(lab.start("ada"))
    wait(lab, days=401)
    lab.start("linus")
    ready, _ = lab.broker.events.old(400)
    assert compact(lab) == ready
    left = Counter(e.kind for e in lab.broker.events.find())
    assert left == {"card.step": compaction.BATCH, "lease.pending": 1}


def test_two_who_compact_at_once_count_nothing_twice(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report()
    for number in range(3 * compaction.BATCH):
        lab.broker.layouts.record_step(f"GPU-{number % 2}", "n1", str(number))
    everything = by_key(lab)
    wait(lab, days=401)
    labs = [make_lab() for _ in range(3)]
    lab.broker.layouts.record_step("GPU-0", "n1", "new")
    threads = [threading.Thread(target=compact, args=(each,)) for each in labs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted(lab) == everything


def test_what_somebody_used_is_known_as_before(lab: Lab) -> None:
    for days in range(5):
        lease = lab.start("ada", tier="medium")
        wait(lab, hours=days + 1)
        lab.stop(lease)
    before = [
        (each.user, each.tier, each.profile, (each.ended_at - each.since) * each.share)
        for each in lab.broker.leases.find(include_past=True)
        if each.ended_at is not None
    ]
    assert sum((each[3] for each in before), timedelta()) == timedelta(hours=15) * 2 / 7
    wait(lab, days=1_000)
    assert compact(lab) > 0
    after = [
        (each.user, each.tier, each.profile, (each.ended_at - each.since) * each.share)
        for each in lab.broker.leases.find(include_past=True)
        if each.ended_at is not None
    ]
    assert after == before
