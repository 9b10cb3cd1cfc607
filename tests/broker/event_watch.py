"""A store that compares, inside each transaction, what changed with the events it wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import sqlalchemy as sa

from jupyterhub_migspawner.db import tables
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.db.transaction import Transaction

T = TypeVar("T")
Rows = dict[Any, dict[str, Any]]

#: What a report of a card may change, in one event for all of it.
REPORTED = (
    *(
        "node",
        "card_index",
        "device_minor",
        "model",
        "memory_mib",
        "mig_enabled",
        "problem",
        "incomplete",
    ),
    *("compute_slices", "whole_profile", "whole_start", "whole_size", "whole_memory_mib"),
)

#: Events of things that are no change of a row.
TOLD = {"card.step", "card.step-failed", "card.xid", "slice.xid", "lease.xid"}


@cache
def _all_of(table: sa.Table) -> sa.Select[Any]:
    # Statements are kept compiled by identity.
    return sa.select(table)


def rows(tx: Transaction, table: sa.Table) -> Rows:
    key = next(iter(table.primary_key.columns)).name
    found = [row._asdict() for row in tx.rows(_all_of(table))]
    return {row[key]: row for row in found}


def changes(before: Rows, after: Rows, *names: str) -> list[tuple[Any, Any, Any]]:
    """(key, old, new) of the rows in which one of these columns differs; old None for a new row."""
    found = []
    for key, row in after.items():
        old = before.get(key)
        if old is None or any(old[name] != row[name] for name in names):
            found.append((key, old, row))
    return found


def lease_events(before: Rows, after: Rows) -> Counter[Any]:
    expected: Counter[Any] = Counter()
    for key, _, row in changes(before, after, "state"):
        offered = row["state"] == "pending" and row["ticket_id"] is not None
        expected["lease.offered" if offered else f"lease.{row['state']}", key] += 1
    for key, old, row in changes(before, after, "ticket_id"):
        if old is not None:  # its person's start has taken the offer over
            expected[f"lease.{row['state']}", key] += 1
    for key, old, row in changes(before, after, "waiting_for"):
        if old is not None and row["state"] == "releasing":
            expected["lease.waiting", key] += 1
    return expected


def request_events(before: Rows, after: Rows) -> Counter[Any]:
    return Counter(
        ("request.created" if row["state"] == "pending" else f"request.{row['state']}", key)
        for key, _, row in changes(before, after, "state")
    )


def ticket_events(before: Rows, after: Rows) -> Counter[Any]:
    expected: Counter[Any] = Counter()
    for key, old, row in changes(before, after, "state"):
        if old is None:
            expected["ticket.joined", key] += 1
        else:
            back = row["state"] == "waiting"
            expected["ticket.changed" if back else f"ticket.{row['state']}", key] += 1
    for key, old, _ in changes(before, after, "server", "tiers", "start"):
        if old is not None:
            expected["ticket.changed", key] += 1
    for key, old, row in changes(before, after, "blocked"):
        if old is not None and row["state"] == "waiting":
            expected["ticket.blocked", key] += 1
    return expected


def slice_events(before: Rows, after: Rows) -> Counter[Any]:
    """A slice is there with a UUID, or not; or it is quarantined, or not."""
    expected: Counter[Any] = Counter()
    for key, old, row in changes(before, after, "present", "uuid", "gi_id", "ci_id", "size"):
        if row["present"]:
            expected["slice.seen", key] += 1
        elif old is not None:
            expected["slice.missing", key] += 1
    for key, old, row in changes(before, after, "quarantined"):
        if old is not None:
            kind = "slice.quarantined" if row["quarantined"] else "slice.unquarantined"
            expected[kind, key] += 1
    return expected


def card_events(before: Rows, after: Rows) -> Counter[Any]:
    expected: Counter[Any] = Counter()
    for key, old, row in changes(before, after, *tables.cards.c.keys()):
        if old is None:
            expected["card.seen", key] += 1
            old = {**row, "lost": False}
            if row["lost"]:
                expected["card.lost", key] += 1
            continue
        if row["lost"] and not old["lost"]:
            expected["card.lost", key] += 1
        layout_set = (old["layout_by"], old["layout"], old["mig_wanted"]) != (
            row["layout_by"],
            row["layout"],
            row["mig_wanted"],
        )
        said = layout_set and row["layout_by"] is not None
        adopted = layout_set and not said
        if old["lost"] and not row["lost"]:
            expected["card.back", key] += 1
        elif adopted or any(old[name] != row[name] for name in REPORTED):
            expected["card.changed", key] += 1
        if said:
            expected["card.layout", key] += 1
        if old["drained"] != row["drained"]:
            expected["card.drained" if row["drained"] else "card.resumed", key] += 1
        if old["target"] != row["target"]:
            if row["target"] is not None:
                expected["card.target", key] += 1
            elif not said:
                expected["card.cut", key] += 1
        if old["reserved_for"] != row["reserved_for"]:
            if old["reserved_for"] is not None:
                expected["card.unreserved", key] += 1
            if row["reserved_for"] is not None:
                expected["card.reserved", key] += 1
        elif row["reserved_until"] is not None and old["reserved_until"] is None:
            expected["card.emptied", key] += 1
    return expected


def written(events: list[dict[str, Any]]) -> Counter[Any]:
    """The same of what the log says; a claimed slice is one that is missing from now on."""
    found: Counter[Any] = Counter()
    keys = {"lease": "lease_id", "request": "request_id", "card": "card_uuid"}
    for event in events:
        kind, family = event["kind"], event["kind"].split(".")[0]
        if kind in TOLD or family not in (*keys, "slice", "ticket"):
            continue
        named = {"slice": "slice_id", "ticket": "ticket"}.get(family)
        key = event["detail"][named] if named else event[keys[family]]
        found["slice.missing" if kind == "slice.claimed" else kind, key] += 1
    return found


class Watched(Store):
    """Every transaction that goes through :meth:`run` is compared before it commits."""

    def run(self, work: Callable[[Transaction], T]) -> T:
        def watched(tx: Transaction) -> T:
            compared = (
                *(tables.leases, tables.requests, tables.slices, tables.cards),
                *(tables.tickets, tables.events),
            )
            before = [rows(tx, table) for table in compared]
            result = work(tx)
            after = [rows(tx, table) for table in compared]
            old, now = before.pop(), after.pop()
            assert {key: now[key] for key in old} == old, "an event was changed or is gone"
            new = [row for key, row in now.items() if key not in old]
            wanted: Counter[Any] = Counter()
            judges = (lease_events, request_events, slice_events, card_events, ticket_events)
            for judge, was, is_ in zip(judges, before, after, strict=True):
                wanted += judge(was, is_)
            assert written(new) == wanted, [row["kind"] for row in new]
            return result

        return super().run(watched)
