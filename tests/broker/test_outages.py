"""The database goes away, is full, is held by another process, or dies in the middle."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from jupyterhub_migspawner.cli.events import Follower
from jupyterhub_migspawner.db import engine as engines
from jupyterhub_migspawner.db import store as stores
from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.model.events import EventQuery
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import Lab
from tests.broker.postgres import Cluster

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server_lab(postgres: Cluster) -> Lab:
    lab = Lab(postgres.new_database())
    lab.report()
    return lab


def test_whoever_follows_events_is_told_once_of_an_outage_and_misses_nothing(
    postgres: Cluster, server_lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    broker, shown = server_lab.broker, []

    def go_down() -> None:
        server_lab.start("ada")
        postgres.stop()

    def come_back() -> None:
        postgres.start()
        server_lab.start("grace")

    def nothing() -> None:
        pass

    what_happens = [nothing, go_down, nothing, nothing, come_back, go_down, come_back, nothing]

    def pause(seconds: float) -> None:
        if not what_happens:
            raise KeyboardInterrupt
        what_happens.pop(0)()

    begin = broker.events.last(0).read_to
    try:
        with pytest.raises(KeyboardInterrupt):
            Follower(broker, EventQuery(kinds=("lease",)), begin, shown.append).run(pause)
    finally:
        postgres.stop()
        postgres.start()
    happened = broker.events.find(begin, query=EventQuery(kinds=("lease",)))
    assert [event.user for event in happened if event.kind == "lease.pending"] == [
        *("ada", "grace", "ada", "grace")
    ]
    assert tuple(shown) == happened
    told = capsys.readouterr().err.splitlines()
    assert ["answers again." in line.split("continue")[0] for line in told] == [
        *(False, True, False, True)
    ]
    server_lab.close()


def cut_sessions(postgres: Cluster) -> None:
    postgres.command(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'migspawner'"
    )


def test_a_session_that_was_cut_while_idle_costs_no_call(
    postgres: Cluster, server_lab: Lab
) -> None:
    cut_sessions(postgres)
    assert server_lab.start().state == "pending"
    cut_sessions(postgres)
    assert len(server_lab.broker.tiers.of(Person("ada"))) == 4
    server_lab.close()


def test_while_the_server_is_down_calls_say_so_and_afterwards_they_work(
    postgres: Cluster, server_lab: Lab
) -> None:
    lease = server_lab.start(attempt="a")
    postgres.stop()
    try:
        for call in (
            lambda: server_lab.start("grace"),
            lambda: server_lab.broker.tiers.of(Person("ada")),
            lambda: server_lab.broker.leases.activate("a"),
        ):
            with pytest.raises(DatabaseError, match=r"cannot be reached|was lost") as caught:
                call()
            assert server_lab.url in str(caught.value)
    finally:
        postgres.start()
    assert server_lab.broker.leases.find() == (lease,)
    active = server_lab.broker.leases.activate("a")
    assert active is not None
    assert server_lab.start("grace").slice_id != lease.slice_id
    server_lab.close()


def test_a_session_cut_in_the_middle_of_a_transaction_leaves_nothing_half_done(
    postgres: Cluster, server_lab: Lab
) -> None:
    before = server_lab.stored()
    runs = []

    def work(tx: stores.Transaction) -> str:
        tx.change(sa.text("UPDATE slices SET held = 1"))
        runs.append(1)
        if len(runs) == 1:
            cut_sessions(postgres)
        tx.change(sa.text("UPDATE slices SET held = 0"))
        return "done"

    # Nothing was committed, so it is simply run again.
    assert server_lab.store.run(work) == "done"
    assert len(runs) == 2
    assert server_lab.stored() == before
    server_lab.close()


def test_a_session_cut_again_and_again_becomes_an_error(postgres: Cluster, server_lab: Lab) -> None:
    def work(tx: stores.Transaction) -> None:
        cut_sessions(postgres)
        tx.change(sa.text("UPDATE slices SET held = 0"))

    with pytest.raises(DatabaseError, match="connection to the lease database"):
        server_lab.store.run(work)
    assert server_lab.start().state == "pending"
    server_lab.close()


def test_agents_and_hubs_do_not_wait_for_each_other_in_a_circle(postgres: Cluster) -> None:
    from tests.broker.lab import card
    from tests.broker.test_contention import at_once

    url = postgres.new_database()
    lab = Lab(url)
    lab.report()
    salts = iter(range(1000))

    def report() -> None:
        for _ in range(8):
            salt = f"-{next(salts)}"
            lab.report(card(0, salt=salt), card(1, salt=salt))

    def cycle(user: str) -> None:
        for _ in range(8):
            lab.stop(lab.start(user))

    at_once([report, report, *[lambda user=f"user{n}": cycle(user) for n in range(8)]])
    lab.close()
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row == (0,)


@pytest.fixture
def file_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(engines, "WAIT_SECONDS", 0.2)
    monkeypatch.setattr(stores, "WAIT_SECONDS", 0.2)
    lab = Lab(f"sqlite:///{tmp_path / 'leases.sqlite'}")
    lab.report()
    return lab


def test_a_file_that_another_program_holds_is_named_and_works_afterwards(
    file_lab: Lab,
) -> None:
    other = sqlite3.connect(file_lab.url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseError, match="locked by another process") as caught:
        file_lab.start()
    assert file_lab.url in str(caught.value)
    # A process that only reads is not disturbed.
    assert file_lab.broker.leases.find() == ()
    assert len(file_lab.broker.slices.find()) == 14
    other.execute("ROLLBACK")
    other.close()
    assert file_lab.start().state == "pending"
    file_lab.close()


def test_a_thread_that_never_ends_its_transaction_does_not_block_others_for_ever(
    file_lab: Lab,
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with file_lab.store.transaction():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(30)
    with pytest.raises(DatabaseError, match="busy with other calls of this process"):
        file_lab.start()
    leave.set()
    thread.join()
    assert file_lab.start().state == "pending"
    file_lab.close()


def test_a_full_disk_is_named_and_nothing_is_half_done(file_lab: Lab) -> None:
    lease = file_lab.start(attempt="a")
    file_lab.close()  # what is opened from now on is watched

    @sa.event.listens_for(file_lab.store._engine, "checkout")
    def shrink(connection: sqlite3.Connection, record: object, proxy: object) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        for number in range(200):
            file_lab.broker.leases.cancel(f"{number}", "left")

    with pytest.raises(DatabaseError, match="its disk is full"):
        fill()
    sa.event.remove(file_lab.store._engine, "checkout", shrink)
    file_lab.close()
    assert file_lab.broker.leases.of_attempt("a") == lease
    with file_lab.store.transaction() as tx:
        cancelled = tx.first(sa.text("SELECT count(*) FROM tombstones"))[0]
    assert 0 < cancelled < 200
    assert file_lab.kinds().count("attempt.cancelled") == cancelled
    file_lab.close()


KILLED = """
import os, signal, sys
from tests.broker.lab import Lab
lab = Lab(sys.argv[1])
lab.report()
lab.start("ada", attempt="before")
with lab.store.transaction() as tx:
    import sqlalchemy as sa
    tx.change(sa.text("UPDATE slices SET held = 1"))
    tx.change(sa.text("DELETE FROM events"))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_in_a_transaction_leaves_what_was_before(
    make_lab: Callable[..., Lab], url: str
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, url], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    lab = make_lab()
    (lease,) = lab.broker.leases.find()
    assert lease.attempt == "before"
    assert list(lab.states().values()).count("free") == 13
    assert lab.kinds()[-1] == "lease.pending"
    # Nobody has to clean up before others can work.
    lab.report()
    assert lab.start("grace").slice_id != lease.slice_id


def test_errors_do_not_carry_what_people_wrote(file_lab: Lab) -> None:
    secret = "a very private reason"
    with pytest.raises(DatabaseError) as caught, file_lab.store.transaction() as tx:
        tx.change(sa.text("INSERT INTO nowhere VALUES (:x)"), x=secret)
    assert secret not in str(caught.value)
    assert secret not in str(caught.value.__cause__)
    file_lab.close()
