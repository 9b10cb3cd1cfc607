"""What goes to PostgreSQL and back: how often for a start, and what is sent together."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.pq import Trace

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.db.clock import Machine
from jupyterhub_migspawner.db.tables import events, tombstones
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import DatabaseError
from tests.broker.lab import MIXED, START, TIERS, Lab, card
from tests.broker.postgres import Cluster
from tests.broker.test_replacement import from_older, replaced

SEATS = {"name": "seat", "profile": "2g.10gb", "seats": 4}

_REASON = sa.select(tombstones.c.reason).where(tombstones.c.attempt == sa.bindparam("name"))
_BURY = sa.insert(tombstones)
_COUNT = sa.select(sa.func.count()).select_from(tombstones)


def bury(tx: Transaction, name: str) -> None:
    tx.send(_BURY, attempt=name, reason="cancelled", at=START)


class Trips:
    """Round trips of all PostgreSQL connections of this process, as libpq traces them."""

    def __init__(self) -> None:
        self._files: list[IO[bytes]] = []

    def begin(self, connection: Any, *_: Any) -> None:
        file = tempfile.TemporaryFile()  # noqa: SIM115
        self._files.append(file)
        connection.pgconn.trace(file.fileno())
        connection.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)

    def end(self, connection: Any, *_: Any) -> None:
        if connection is not None:
            connection.pgconn.untrace()

    @property
    def number(self) -> int:
        """Every trip of ours ends with a Sync, or is a Query."""
        number = 0
        for file in self._files:
            file.seek(0)
            number += len(re.findall(rb"^F\t\d+\t(?:Sync|Query)\b", file.read(), re.MULTILINE))
        return number


@contextmanager
def traced() -> Iterator[Trips]:
    trips = Trips()
    sa.event.listen(sa.pool.Pool, "checkout", trips.begin)
    sa.event.listen(sa.pool.Pool, "checkin", trips.end)
    try:
        yield trips
    finally:
        sa.event.remove(sa.pool.Pool, "checkout", trips.begin)
        sa.event.remove(sa.pool.Pool, "checkin", trips.end)


@pytest.fixture(params=["postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """The one database to which anything travels."""
    return str(request.param)


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """Two cards, and a broker that goes by the time of the database as a service's does."""
    lab = make_lab(tiers=[*TIERS, SEATS], quotas={"default": {"gpu_hours_per_week": 100}})
    lab.broker = Broker(lab.store, lab.broker.context.settings, machine=Machine("a boot"))
    lab.broker.clock.watch()
    lab.report(card(0), card(1, MIXED))
    return lab


def trips_of(lab: Lab, tier: str) -> int:
    """Those of a start like others before it, whose statements the driver has prepared."""
    for number in range(7):
        lab.stop(lab.start(f"warm{number}", tier))
    with traced() as trips:
        lease = lab.start("ada", tier)
    assert lease.state == "pending"
    assert lab.broker.leases.find() == (lease,)
    return trips.number


def test_a_start_on_a_slice_takes_five_round_trips(lab: Lab) -> None:
    assert trips_of(lab, "small") == 5


def test_a_start_on_a_seat_takes_five_round_trips(lab: Lab) -> None:
    assert trips_of(lab, "seat") == 5
    with traced() as trips:
        beside = lab.start("grace", "seat")
    assert (beside.seat, trips.number) == (1, 5)


def test_a_start_on_a_whole_card_takes_at_most_eight_round_trips(lab: Lab) -> None:
    for number in range(6):
        lab.stop(lab.start(f"warm{number}"))
    lab.grant("ada")
    with traced() as trips:
        lease = lab.start("ada", "card")
    assert lease.whole
    assert trips.number <= 8


def test_a_refused_start_of_a_person_over_quota_takes_three_round_trips(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(quotas={"default": {"live": 1}})
    lab.report()
    lab.start("ada", server="first")
    with traced() as trips, pytest.raises(Exception, match="quota"):
        lab.start("ada", server="second")
    assert trips.number <= 3


def test_what_is_sent_is_there_for_the_next_statement(lab: Lab) -> None:
    with traced() as trips, lab.store.transaction() as tx:
        bury(tx, "a")
        bury(tx, "b")
        assert tx.first(_COUNT)[0] == 2
        bury(tx, "c")
    assert trips.number == 2
    with lab.store.transaction(write=False) as tx:
        assert tx.first(_COUNT)[0] == 3


def test_a_transaction_that_asks_nothing_travels_nowhere(lab: Lab) -> None:
    with traced() as trips, lab.store.transaction():
        pass
    assert trips.number == 0


def test_answers_are_given_once_and_in_any_order(lab: Lab) -> None:
    with lab.store.transaction() as tx:
        bury(tx, "a")
        with tx.together() as asked:
            assert asked.first(_REASON, name="a") is None
            assert asked.first(_REASON, name="b") is None
        with traced():
            seen: list[str] = []
            tx._watch = lambda sql, _: seen.append(sql)
            assert tx.first(_REASON, name="b") is None
            assert tx.first(_REASON, name="a").reason == "cancelled"
            assert not seen
            assert tx.first(_REASON, name="a").reason == "cancelled"
            assert len(seen) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda tx: bury(tx, "a"),
        lambda tx: tx.change(_BURY, attempt="a", reason="cancelled", at=START),
        lambda tx: tx.rows(
            _BURY.returning(tombstones.c.attempt), attempt="a", reason="cancelled", at=START
        ),
    ],
)
def test_an_answer_from_before_a_change_is_not_given_after_it(
    lab: Lab, change: Callable[[Transaction], object]
) -> None:
    with lab.store.transaction() as tx:
        with tx.together() as asked:
            asked.first(_REASON, name="a")
        change(tx)
        assert tx.first(_REASON, name="a").reason == "cancelled"


def test_an_answer_from_before_a_lock_is_not_given_after_it(lab: Lab) -> None:
    seen: list[str] = []
    lab.store.watch = lambda sql, _: seen.append(sql)
    with lab.store.transaction() as tx:
        with tx.together() as asked:
            asked.first(_COUNT)
        tx.rows(sa.select(events.c.id).limit(1).with_for_update())
        tx.first(_COUNT)
    assert sum("count(*)" in sql for sql in seen) == 2


def test_a_failure_of_what_was_sent_undoes_all_of_its_transaction(lab: Lab) -> None:
    def twice(tx: Transaction) -> None:
        bury(tx, "a")
        tries.append(1)
        bury(tx, "a")

    tries: list[int] = []
    with pytest.raises(DatabaseError, match="contended"):
        lab.store.run(twice)
    # The outcome is known, so it was run again like any transaction that met another one.
    assert len(tries) == 4
    with lab.store.transaction(write=False) as tx:
        assert tx.first(_COUNT)[0] == 0


def test_a_failure_in_the_middle_of_what_goes_together_is_the_one_that_is_reported(
    lab: Lab,
) -> None:
    def fail(tx: Transaction) -> None:
        bury(tx, "a")
        with tx.together() as asked:
            asked.rows(sa.text("SELECT 1 / (SELECT count(*) FROM readings)"))
            asked.rows(_COUNT)

    with pytest.raises(DatabaseError, match="division by zero"):
        lab.store.run(fail)
    with lab.store.transaction(write=False) as tx:
        assert tx.first(_COUNT)[0] == 0


def end_other_sessions(lab: Lab) -> None:
    with psycopg.connect(lab.url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.mark.parametrize("last", [False, True])
def test_a_start_whose_connection_is_lost_gets_one_lease(lab: Lab, last: bool) -> None:
    ended = []

    def end(sql: str, _: object) -> None:
        if (sql == "COMMIT" if last else "UPDATE slices" in sql) and not ended:
            ended.append(sql)
            end_other_sessions(lab)

    lab.store.watch = end
    lease = lab.start("ada")
    assert ended
    assert lab.broker.leases.find() == (lease,)
    events = lab.broker.events.find()
    assert sum(event.kind == "lease.pending" for event in events) == 1


def test_what_was_only_sent_over_a_stale_connection_is_sent_again(lab: Lab) -> None:
    end_other_sessions(lab)
    lab.store.run(lambda tx: bury(tx, "a"))
    with lab.store.transaction(write=False) as tx:
        assert tx.first(_COUNT)[0] == 1


def test_a_session_that_ends_in_the_middle_of_a_trip_is_a_lost_one(lab: Lab) -> None:
    tries = []

    def work(tx: Transaction) -> int:
        tries.append(1)
        if len(tries) == 1:
            # Later statements of the trip are refused by a server that ends the session.
            with tx.together() as asked:
                asked.rows(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))
                for _ in range(50):
                    asked.rows(_COUNT)
        return int(tx.first(_COUNT)[0])

    assert lab.store.run(work) == 0
    assert len(tries) == 2


def test_only_queries_go_together(lab: Lab) -> None:
    with lab.store.transaction() as tx, tx.together() as asked:
        for wrong in (asked.change, asked.send, asked.queue_for):
            with pytest.raises(TypeError, match="together"):
                wrong(_BURY)


def test_nothing_that_was_only_sent_reaches_a_database_that_was_replaced(
    postgres: Cluster,
) -> None:
    lab = replaced(postgres, from_older)
    lab.store.close()  # its connections were to the old one
    with pytest.raises(DatabaseError, match="older copy"), lab.store.transaction() as tx:
        bury(tx, "a")
    lab.close()
    other = Lab(lab.url)
    with other.store.transaction(write=False) as tx:
        assert tx.first(_COUNT)[0] == 0
    other.close()
    postgres.drop(lab.url)
