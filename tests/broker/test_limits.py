"""Limits of what one person may write, and parts of lists that they made long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.parts import Part
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import Lab

ADA = Person("ada")
ROOT = Person("root", admin=True)


def limit(lab: Lab, per_minute: int) -> None:
    lab.broker.context.settings = replace(lab.broker.settings, actions_per_minute=per_minute)


def refused(use: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as told:
        use()
    return told.value


def ask(lab: Lab, person: Person = ADA) -> int:
    return lab.broker.requests.create(person, "card", 2, "a run").id


def test_a_person_who_writes_too_fast_is_told_when_to_go_on(lab: Lab) -> None:
    limit(lab, 4)
    for _ in range(2):
        lab.broker.requests.cancel(ask(lab), ADA)
    told = refused(lambda: ask(lab))
    assert (told.reason, told.status, told.retry_after) == ("too-many", 429, 15)
    assert str(told) == "That is more than 4 changes in a minute. Try again in 15 seconds."
    # Nobody else is held up, and nothing was written.
    number = ask(lab, Person("eve"))
    assert len(lab.broker.requests.find(user="ada")) == 2
    lab.broker.requests.cancel(number, ROOT)
    lab.clock.pass_time(seconds=15)
    assert ask(lab)
    assert refused(lambda: ask(lab)).retry_after == 15


def test_everything_that_writes_counts(lab: Lab) -> None:
    broker = lab.broker
    mine = ask(lab)
    draft = broker.drafts.save(ADA, reason="x").id
    limit(lab, 1)
    broker.notices.choose("ada", {"offers": True})
    for use in (
        lambda: ask(lab),
        lambda: broker.requests.cancel(mine, ADA),
        lambda: broker.drafts.save(ADA, reason="y"),
        lambda: broker.drafts.save(ADA, reason="y", draft_id=draft),
        lambda: broker.drafts.drop(ADA, draft),
        lambda: broker.notices.choose("ada", {"offers": False}),
        lambda: broker.queue.join(ADA, "small"),
        lambda: broker.queue.leave(1, ADA),
        lambda: broker.sessions.extend(1, ADA),
        lambda: broker.requests.decide(mine, ADA, True),
        lambda: broker.requests.revoke(mine, ADA, "x"),
    ):
        assert refused(use).reason in ("too-many", "not-found"), use
    assert refused(lambda: broker.queue.join(ADA, "small")).reason == "too-many"
    assert broker.notices.choices("ada")["offers"] is True


def test_admins_have_no_limit_and_what_is_refused_does_not_count(lab: Lab) -> None:
    limit(lab, 2)
    for _ in range(10):
        assert refused(lambda: lab.broker.requests.create(ADA, "card", 0, "x")).reason == "options"
        assert refused(lambda: lab.broker.drafts.drop(ADA, 99)).reason == "not-found"
    numbers = [ask(lab), ask(lab)]
    assert refused(lambda: ask(lab)).reason == "too-many"
    for number in numbers:
        lab.broker.requests.decide(number, ROOT, False)
    for _ in range(5):
        ask(lab, ROOT)


def test_the_limit_holds_over_a_restart_and_for_all_who_share_the_database(lab: Lab) -> None:
    limit(lab, 2)
    second = Lab(lab.url, clock=lab.clock)
    other = second.broker
    other.context.settings = lab.broker.settings
    ask(lab)
    other.requests.create(ADA, "card", 2, "a run")
    for broker in (lab.broker, other):
        told = refused(lambda broker=broker: broker.requests.create(ADA, "card", 2, "a run"))
        assert told.reason == "too-many"
    second.close()


def test_a_long_list_is_read_in_parts(lab: Lab) -> None:
    numbers = []
    for _ in range(7):
        numbers.append(ask(lab))
        lab.broker.requests.cancel(numbers[-1], ADA)
    ask(lab, Person("eve"))

    def ids(part: Part, **more: object) -> list[int]:
        found = lab.broker.requests.find(user="ada", part=part, **more)  # type: ignore[arg-type]
        return [row.id for row in found]

    assert ids(Part(3)) == numbers[-3:]
    assert ids(Part(3, numbers[-3])) == numbers[-6:-3]
    assert ids(Part(3, numbers[0])) == []
    assert ids(Part(100)) == numbers
    assert ids(Part(0)) == []
    assert ids(Part(3), states=("pending",)) == []
    leases = [lab.start("ada", server=f"s{n}") for n in range(2)]
    found = lab.broker.leases.find(user="ada", part=Part(1), include_past=True)
    assert [row.id for row in found] == [leases[-1].id]
    assert lab.broker.quotas.exceptions("ada", include_past=True, part=Part(1)) == ()
    assert lab.broker.queue.tickets("ada", states=("cancelled",), part=Part(5)) == ()


def test_a_persons_past_is_not_looked_through(lab: Lab) -> None:
    """What a page asks is answered from indexes; the database itself says how."""
    asked: list[tuple[str, object]] = []
    lab.broker.store.watch = lambda sql, values: asked.append((sql, values))
    lab.broker.requests.find(user="ada", part=Part(50))
    lab.broker.requests.find(user="ada", states=("pending", "approved"), part=Part(50))
    lab.broker.leases.find(user="ada", include_past=True, part=Part(50))
    lab.broker.queue.tickets("ada", hub="hub", states=("cancelled",), part=Part(10))
    lab.broker.tiers.of(ADA)
    lab.broker.store.watch = None
    selects = [(sql, values) for sql, values in asked if sql.lstrip().startswith("SELECT")]
    assert selects
    if lab.broker.store.postgres:
        return
    with lab.broker.store.transaction(write=False) as tx:
        for sql, values in selects:
            tx.cursor.execute(f"EXPLAIN QUERY PLAN {sql}", values)
            plan = " ".join(str(row[3]) for row in tx.cursor.fetchall())
            for table in ("requests", "leases", "tickets"):
                assert f"SCAN {table} " not in f"{plan} ", (sql, plan)
            if "LIMIT" in sql:
                assert "TEMP B-TREE" not in plan, (sql, plan)
