"""Readers of the event log: a reader that goes on misses nothing and repeats nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa

from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.model.events import EventQuery
from tests.broker.lab import START, Lab


def read_on(lab: Lab, read_to: int) -> tuple[list[str], int]:
    """What is new to a reader, by the steps' names, and how far it has read then."""
    page = lab.broker.events.page(read_to)
    return [event.detail["step"] for event in page.events], page.read_to


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize("first_commits", [True, False])
def test_what_commits_late_is_not_missed(make_lab: Callable[..., Lab], first_commits: bool) -> None:
    lab = make_lab()
    lab.report()
    read_to = lab.broker.events.last(0).read_to
    first, second = Store.open(lab.url), Store.open(lab.url)
    try:
        early = first.transaction()
        tx = early.__enter__()
        queries.events.append(tx, START, "n1", "card.step", card_uuid="GPU-0", step="early")
        tx.flush()
        with second.transaction() as other:
            queries.events.append(other, START, "n1", "card.step", card_uuid="GPU-0", step="late")
            queries.events.append(other, START, "n1", "card.step", card_uuid="GPU-0", step="later")
        seen, read_to = read_on(lab, read_to)
        assert seen == []
        assert lab.broker.events.last(1).read_to == read_to
        if first_commits:
            early.__exit__(None, None, None)
        else:
            # It is rolled back; False says that the exception goes on.
            assert not early.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    finally:
        first.close()
        second.close()
    seen, read_to = read_on(lab, read_to)
    assert seen == [*(["early"] if first_commits else []), "late", "later"]
    assert read_on(lab, read_to) == ([], read_to)


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_a_transaction_that_began_later_hides_nothing_from_before_it(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.report()
    read_to = lab.broker.events.last(0).read_to
    lab.broker.layouts.record_step("GPU-0", "n1", "before")
    with lab.store.transaction() as tx:
        queries.events.append(tx, START, "n1", "card.step", card_uuid="GPU-0", step="meanwhile")
        tx.flush()
        seen, read_to = read_on(lab, read_to)
        assert seen == ["before"]
    assert read_on(lab, read_to)[0] == ["meanwhile"]


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_ids_beyond_what_fits_into_a_lock_are_read_alike(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report()
    for turn in (2**31, 2**32, 2**33 + 2**31):
        with lab.store.transaction() as tx:
            tx.rows(sa.text(f"SELECT setval('events_id_seq', {turn - 2})"))
        read_to = lab.broker.events.last(0).read_to
        assert read_to == turn - 2
        for name in ("below", "above"):
            lab.broker.layouts.record_step("GPU-0", "n1", f"before {name}")
            with lab.store.transaction() as tx:
                queries.events.append(tx, START, "n1", "card.step", card_uuid="GPU-0", step=name)
                tx.flush()
                lab.broker.layouts.record_step("GPU-0", "n1", f"beside {name}")
                seen, read_to = read_on(lab, read_to)
                assert seen == [f"before {name}"]
            seen, read_to = read_on(lab, read_to)
            assert seen == [name, f"beside {name}"]


def test_a_reader_gets_every_event_of_many_writers_once_and_in_order(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.report()
    read_to = lab.broker.events.last(0).read_to
    writers = [make_lab() for _ in range(4)]

    def write(lab: Lab, number: int) -> None:
        for turn in range(40):
            lab.broker.layouts.record_step("GPU-0", f"w{number}", str(turn))

    threads = [
        threading.Thread(target=write, args=(each, number)) for number, each in enumerate(writers)
    ]
    for thread in threads:
        thread.start()
    seen = []
    while any(thread.is_alive() for thread in threads):
        page = lab.broker.events.page(read_to, limit=7)
        seen += page.events
        read_to = page.read_to
    for thread in threads:
        thread.join()
    while page := lab.broker.events.page(read_to, limit=7).events:
        seen += page
        read_to = page[-1].id
    assert [event.id for event in seen] == sorted({event.id for event in seen})
    for number in range(4):
        of_one = [event.detail["step"] for event in seen if event.actor == f"w{number}"]
        assert of_one == [str(turn) for turn in range(40)]


def test_events_are_found_by_what_they_are_about(lab: Lab) -> None:
    ada, grace = lab.start("ada"), lab.start("grace")
    lab.clock.pass_time(hours=1)
    lab.stop(ada)
    request = lab.grant("grace")

    def kinds_of(query: EventQuery) -> list[str]:
        found = lab.broker.events.find(query=query)
        assert lab.broker.events.last(query=query).events == found
        return [event.kind for event in found]

    of_ada = ["lease.pending", "lease.releasing", "lease.released"]
    assert kinds_of(EventQuery(user="ada")) == of_ada
    assert kinds_of(EventQuery(lease_id=ada.id)) == of_ada
    assert kinds_of(EventQuery(lease_id=grace.id)) == ["lease.pending"]
    assert kinds_of(EventQuery(request_id=request.id)) == ["request.created", "request.approved"]
    assert kinds_of(EventQuery(user="grace", kinds=("lease",))) == ["lease.pending"]
    assert kinds_of(EventQuery(kinds=("lease.released", "node"))) == ["node.seen", "lease.released"]
    assert kinds_of(EventQuery(kinds=("lease.rele",))) == []
    assert kinds_of(EventQuery(since=START + timedelta(minutes=59))) == [
        *of_ada[1:],
        "request.created",
        "request.approved",
    ]
    assert set(kinds_of(EventQuery(card_uuid="GPU-1"))) == {"card.seen", "slice.seen"}
    assert kinds_of(EventQuery(user="nul\x00")) == []
    assert kinds_of(EventQuery(lease_id=2**70)) == []


def test_a_reader_of_few_of_many_events_does_not_look_at_the_others_again(lab: Lab) -> None:
    lease = lab.start("ada")
    newest = lab.broker.events.last(1).events[0].id
    page = lab.broker.events.page(0, query=EventQuery(user="nobody"))
    assert (page.events, page.read_to) == ((), newest)
    lab.stop(lease)
    page = lab.broker.events.page(0, 1, EventQuery(lease_id=lease.id))
    assert page.read_to == page.events[0].id == newest
    page = lab.broker.events.page(page.read_to, 10, EventQuery(kinds=("lease.releasing",)))
    assert page.read_to == newest + 2
    assert len(page.events) == 1


def test_a_reader_that_passes_events_on_goes_on_where_it_stopped(lab: Lab) -> None:
    newest = lab.broker.events.last(1).events[0].id
    assert lab.broker.events.reader_position("hub a") == newest
    lab.start("ada")
    assert lab.broker.events.reader_position("hub a") == newest
    lab.broker.events.move_reader("hub a", newest + 1)
    lab.broker.events.move_reader("hub a", newest)
    assert lab.broker.events.reader_position("hub a") == newest + 1
