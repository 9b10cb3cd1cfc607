"""What is free is counted from the log of what changes, and is always what a count of all says."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa

from jupyterhub_migspawner.broker import Broker, TierStatus
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import MIXED, START, WHOLE, Lab, card

TIERS = [
    {"name": "small", "profile": "1g.5gb", "default": True},
    {"name": "medium", "profile": "2g.10gb"},
    {"name": "large", "profile": "3g.20gb"},
    {"name": "card", "profile": "whole", "approval": True},
    {"name": "off", "profile": "whole", "mig": "off", "approval": True},
    {"name": "cpu", "profile": "none"},
    {"name": "course", "profile": "1g.5gb", "seats": 3},
]


def offers(lab: Lab, broker: Broker | None = None) -> tuple[TierStatus, ...]:
    return (broker or lab.broker).tiers.of(Person("boss", frozenset({"vision"})))


def cold(lab: Lab) -> Broker:
    """A broker of another process, that has yet to count."""
    return Broker(lab.store, lab.broker.settings, clock=lab.clock)


@pytest.mark.parametrize("most_cards", [queries.capacity.MOST_CARDS, 1])
def test_whatever_happens_the_kept_count_is_that_of_a_new_process(
    make_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch, most_cards: int
) -> None:
    monkeypatch.setattr(queries.capacity, "MOST_CARDS", most_cards)
    lab = make_lab(tiers=TIERS)
    layouts = {0: None, 1: MIXED, 2: None, 3: WHOLE}
    nodes = {0: "n1", 1: "n1", 2: "n2", 3: "n2"}
    lost: set[int] = set()

    def report(node: str) -> None:
        cards = [
            card(i, *([layout] if layout else []))
            for i, layout in layouts.items()
            if nodes[i] == node and i not in lost
        ]
        lab.report(*cards, node=node)

    for node in ("n1", "n2"):
        report(node)
    for user in ("boss", "chief"):
        lab.grant(user)
    chance = random.Random(4)
    broker = lab.broker
    for number in range(150):
        uuid = f"GPU-{chance.randrange(4)}"
        live = [lease.id for lease in broker.leases.find()]
        act = chance.randrange(9)
        try:
            if act <= 2:
                user = chance.choice(["boss", "chief", f"u{number}"])
                lab.start(user, chance.choice(["small", "course", "medium", "card"]), f"s{number}")
            elif act == 3 and live:
                lease = broker.leases.get(chance.choice(live))
                lab.stop(lease)
                broker.layouts.finish_target(lease.card_uuid)
            elif act == 4:
                status = chance.choice(broker.slices.find())
                if chance.random() < 0.5:
                    broker.slices.quarantine(status.row.id, "left over", "agent")
                else:
                    broker.slices.unquarantine(status.row.id, "root")
            elif act == 5:
                if chance.random() < 0.5:
                    broker.cards.drain(uuid, "fan", "root")
                else:
                    broker.cards.resume(uuid, "root")
            elif act == 6:
                lost ^= {chance.randrange(4)}
            elif act == 7:
                lab.clock.pass_time(seconds=50)
                report("n1")
            else:
                broker.layouts.set(uuid, [("3g.20gb", 0)], True, "root")
                broker.layouts.claim_slice(uuid, ("1g.5gb", 6), "n1")
        except Refusal:
            pass
        report(chance.choice(["n1", "n2"]))
        assert offers(lab) == offers(lab, cold(lab)), f"after step {number}, act {act}"
        assert all(offer.free <= offer.total for offer in offers(lab)), f"after step {number}"


# SQLite has one writer at a time: no later one can be first.
@pytest.mark.parametrize("kind", ["postgresql"])
def test_a_change_that_commits_after_a_later_one_is_not_left_out(lab: Lab) -> None:
    lease, other = lab.start("ada"), lab.start("grace")
    assert offers(lab)[0].free == 12
    with lab.store.transaction() as early:
        queries.events.append(early, START, "x", "slice.seen", card_uuid=lease.card_uuid)
        queries.leases.release(early, lease.id, START, "over")
        queries.leases.end(early, lease.id, START)
        queries.slices.untake(early, lease.slice_id)
        # Meanwhile the other one goes, with a later number.
        lab.stop(other)
        assert offers(lab)[0].free == 13
    assert offers(lab)[0].free == 14


def test_what_a_transaction_saw_of_itself_and_undid_is_not_kept(lab: Lab) -> None:
    lab.start("ada")
    assert offers(lab)[0].free == 13
    counter = lab.broker.context._capacity

    class Undone(Exception):
        pass

    try:
        with lab.store.transaction() as tx:
            row = lab.broker.slices.find()[-1].row if tx.postgres else queries.slices.select(tx)[-1]
            queries.slices.update(tx, row.id, quarantined="bad")
            queries.events.append(tx, START, "x", "slice.quarantined", card_uuid=row.card_uuid)
            before = START - timedelta(minutes=1)
            assert counter.count(tx, START, before).of_profile("1g.5gb") == (12, 14)
            raise Undone
    except Undone:
        pass
    assert offers(lab)[0].free == 13
    # On SQLite the next event has the number of the one that was undone.
    lab.start("grace")
    assert offers(lab)[0].free == 12


def test_a_change_without_an_event_is_seen_after_a_while(lab: Lab) -> None:
    assert offers(lab)[0].free == 14
    row = lab.broker.slices.find()[0].row
    lab.store.run(lambda tx: queries.slices.update(tx, row.id, present=False))
    lab.clock.pass_time(seconds=queries.capacity.RELOAD.total_seconds())
    lab.report(card(0, MIXED[:1]), card(1))
    assert offers(lab) == offers(lab, cold(lab))


def test_after_very_many_changes_all_is_counted_again(lab: Lab) -> None:
    assert offers(lab)[0].free == 14
    with lab.store.transaction() as tx:
        for _ in range(queries.capacity.MOST_EVENTS + 5):
            queries.events.append(tx, START, "x", "card.step", card_uuid="GPU-0")
        row = queries.slices.select(tx)[0]
        queries.slices.update(tx, row.id, quarantined="bad")
        queries.events.append(tx, START, "x", "slice.quarantined", card_uuid=row.card_uuid)
    assert offers(lab)[0].free == 13


def test_a_silent_node_offers_nothing_until_it_reports_again(lab: Lab) -> None:
    lab.report(card(5), node="n2")
    assert offers(lab)[0].free == 21
    lab.clock.pass_time(seconds=45)
    lab.report(card(5), node="n2")
    lab.clock.pass_time(seconds=45)
    assert offers(lab)[0].free == 7
    lab.report()
    assert offers(lab)[0].free == 21


@pytest.mark.parametrize("kind", ["postgresql"])
def test_a_long_gap_in_the_log_is_not_carried_along(lab: Lab) -> None:
    """After a compaction the events that are left may lie far apart."""
    lab.start("ada")
    with lab.store.transaction() as tx:
        tx.rows(sa.text("SELECT setval('events_id_seq', 5000000)"))
    lab.start("grace")
    assert offers(lab, cold(lab))[0].free == offers(lab)[0].free == 12
    fresh = cold(lab)
    offers(lab, fresh)
    kept = fresh.context._capacity._count
    assert kept is not None
    assert len(kept.missing) <= queries.capacity.MOST_EVENTS
