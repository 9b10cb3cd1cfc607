"""Statements go to the driver as SQLAlchemy itself would send them, and come back as it says."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.tables import cards, events, leases, nodes
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import DatabaseError
from tests.broker.lab import START, Lab
from tests.broker.test_store import engine

STATEMENTS: list[tuple[sa.Executable, dict[str, Any]]] = [
    (sa.select(cards).where(sa.not_(cards.c.lost), cards.c.mig_enabled).order_by("uuid"), {}),
    (
        sa.select(nodes).where(nodes.c.heartbeat_at >= sa.bindparam("since")),
        {"since": START - timedelta(minutes=1)},
    ),
    (
        sa.select(leases.c.id, leases.c.since, leases.c.share, leases.c.whole, leases.c.ends_at)
        .where(leases.c.username == sa.bindparam("user"))
        .limit(sa.bindparam("most")),
        {"user": "ada", "most": 5},
    ),
    (
        sa.insert(events).inline(),
        {
            "at": START,
            "actor": "ada",
            "kind": "card.seen",
            "username": "",
            "detail": {"why": "it's 100 % \u00e9"},
        },
    ),
    (
        sa.update(cards)
        .where(cards.c.uuid == sa.bindparam("which"))
        .returning(cards.c.target, cards.c.reserved_until),
        {"which": "GPU-1", "target": [["7g.40gb", 0]], "reserved_until": START, "drained": ""},
    ),
    (sa.select(sa.func.count(), sa.func.sum(cards.c.memory_mib)), {}),
    (sa.text("SELECT count(*) AS n FROM leases WHERE tier <> :x OR tier = :x"), {"x": "?"}),
]


@pytest.mark.parametrize(("statement", "values"), STATEMENTS)
def test_text_values_and_rows_are_those_of_sqlalchemy(
    lab: Lab, statement: sa.Executable, values: dict[str, Any]
) -> None:
    lab.start("ada")
    theirs: list[tuple[str, Any]] = []
    made = engine(lab.url)
    with made.connect() as connection:

        @sa.event.listens_for(made, "before_cursor_execute")
        def note(conn: Any, cursor: Any, sql: str, parameters: Any, *_: Any) -> None:
            theirs.append((sql, parameters))

        result = connection.execute(statement, values)
        their_rows = [tuple(row) for row in result] if result.returns_rows else []
        connection.rollback()
    made.dispose()
    ours: list[tuple[str, Any]] = []

    def work(tx: Transaction) -> list[tuple[Any, ...]]:
        if not their_rows:
            tx.change(statement, **values)
            return []
        return [tuple(row) for row in tx.rows(statement, **values)]

    lab.store.watch = lambda sql, parameters: ours.append((sql, parameters))
    assert lab.store.run(work) == their_rows
    (sql, parameters), (end, _) = ours
    assert end == "COMMIT"
    assert sql == theirs[0][0]
    if isinstance(parameters, dict):
        assert {k: repr(v) for k, v in parameters.items()} == {
            k: repr(v) for k, v in theirs[0][1].items()
        }
    else:
        assert tuple(parameters) == theirs[0][1]


def test_a_value_that_nobody_asked_for_or_that_is_missing_is_an_error(lab: Lab) -> None:
    statement = sa.select(cards.c.uuid).where(cards.c.uuid == sa.bindparam("which"))
    for values in ({}, {"which": "GPU-0", "witch": 1}):
        with pytest.raises(DatabaseError, match=r"which|witch"):
            lab.store.run(lambda tx, values=values: tx.rows(statement, **values))


def test_what_the_database_refuses_is_undone_and_the_next_call_works(lab: Lab) -> None:
    lease = lab.start("ada")

    def work(tx: Transaction) -> None:
        queries.leases.release(tx, lease.id, START, "gone")
        tx.change(sa.text("UPDATE leases SET state = 'nonsense'"))

    with pytest.raises(DatabaseError):
        lab.store.run(work)
    assert lab.broker.leases.find() == (lease,)
