"""What a lease costs without the broker: its own statements, sent again through the bare driver.

A life of a lease (acquire, release, confirm that it is empty) is recorded as the driver got it:
every statement with its values, every commit. Played back it is the same statements in the same
transactions; what is a lease's own (its attempt, user, ids) is replaced by another one's, as the
answers of the statements before it say. Nothing is decided, and no row is made into an object.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import Lab


@dataclass(frozen=True)
class Step:
    """One statement: its text, its values, which of them are a lease's own, what it answers."""

    sql: str
    values: Any
    own: tuple[tuple[Any, str], ...]
    answers: str


Life = tuple[tuple[Step, ...], ...]
"""The statements of each transaction."""


def live(lab: Lab, user: str, attempt: str) -> LeaseRow:
    """One lease from beginning to end, through the broker."""
    lease = lab.broker.leases.acquire(Person(user), "", "small", attempt)
    assert lease is not None
    lab.broker.leases.release_server(user, "", "stopped", user)
    return lab.broker.leases.confirm_empty(lease.id)


def record(lab: Lab) -> Life:
    """The transactions of one life."""
    live(lab, "warm", "warm")
    first, lease = _seen(lab, "recorded-1")
    # Another slice for the second: numbers that are the same in both are nobody's own.
    blocking = lab.broker.leases.acquire(Person("blocking"), "", "small", "blocking")
    second, other = _seen(lab, "recorded-2")
    assert blocking is not None
    lab.broker.leases.release_server("blocking", "", "stopped", "blocking")
    lab.broker.leases.confirm_empty(blocking.id)
    assert [sql for sql, _ in first] == [sql for sql, _ in second]
    assert lease.slice_id not in (other.slice_id, lease.id)
    transactions: list[tuple[Step, ...]] = []
    steps: list[Step] = []
    for (sql, values), (_, others) in zip(first, second, strict=True):
        if sql == "COMMIT":
            transactions.append(tuple(steps))
            steps = []
            continue
        keys = list(values) if isinstance(values, dict) else range(len(values))
        own = {key: _own(values[key], others[key], lease) for key in keys}
        named = tuple((key, name) for key, name in own.items() if name)
        steps.append(Step(sql, values, named, _answers(sql)))
    return tuple(transactions)


def _seen(lab: Lab, name: str) -> tuple[list[tuple[str, Any]], LeaseRow]:
    seen: list[tuple[str, Any]] = []
    lab.store.watch = lambda sql, values: seen.append((sql, values))
    lease = live(lab, f"user of {name}", f"attempt of {name}")
    lab.store.watch = None
    return seen, lease


def _own(value: Any, other: Any, lease: LeaseRow) -> str:
    """What of a lease's own a value is, or nothing; ``other`` is another lease's."""
    if isinstance(value, list):
        return "cards" if isinstance(value[0], str) else "locks"
    for name, known in (
        ("attempt", lease.attempt),
        ("user", lease.user),
        ("uuid", lease.slice_uuid),
        ("card", lease.card_uuid),
        ("lease", lease.id),
        ("slice", lease.slice_id),
    ):
        if type(value) is type(known) and value == known:
            return name if isinstance(value, str) or value != other else ""
    return ""


def _answers(sql: str) -> str:
    words = sql.split()
    if words[:3] == ["INSERT", "INTO", "leases"] and "RETURNING" in words:
        return "lease"
    if "nextval" in sql and "'leases'" in sql:
        return "lease"
    if "UPDATE slices SET held" in sql and "shared_by" in sql and "RETURNING" in words:
        return "slice"
    return "cards" if "AS free_compute" in sql else ""


def again(
    life: Life,
    cursor: Any,
    name: str,
    begin: str,
    commit: Callable[[], Any],
    roll: Callable[[], Any],
) -> None:
    """Another lease's life, through a driver's cursor; once more when all is busy."""
    own: dict[str, Any] = {"user": f"user of {name}", "attempt": f"attempt of {name}"}
    own["locks"] = [zlib.crc32(own[what].encode()) - 2**31 for what in ("attempt", "user")]
    for steps in life:
        while not _transaction(steps, cursor, own, begin):
            roll()
        commit()


def _transaction(steps: tuple[Step, ...], cursor: Any, own: dict[str, Any], begin: str) -> bool:
    if begin:
        cursor.execute(begin)
    for step in steps:
        values = step.values.copy()
        for key, what in step.own:
            values[key] = own[what]
        cursor.execute(step.sql, values)
        if cursor.description is None:
            continue
        rows = cursor.fetchall()
        if step.answers and not rows:
            return False
        if step.answers == "cards":
            own["cards"] = [row[0] for row in rows]
            own["card"], own["slice"] = rows[0][0], rows[0][2]
        elif step.answers == "slice":
            own["slice"], own["card"], own["uuid"] = rows[0][0], rows[0][1], rows[0][3]
        elif step.answers:
            own[step.answers] = rows[0][0]
    return True
