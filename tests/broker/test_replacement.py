"""A database that is deleted, emptied or replaced by an older copy under those who use it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from jupyterhub_migspawner.db import engine, store
from jupyterhub_migspawner.db.database_file import DatabaseFile
from jupyterhub_migspawner.db.identity import Position, Replaced, difference
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.db.tables import metadata
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.model.leases import LeaseRow
from tests.broker.lab import Lab
from tests.broker.postgres import Cluster

SIDES = ("-wal", "-shm")


@pytest.fixture
def file_lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(f"sqlite:///{tmp_path / 'leases.sqlite'}")
    lab.report()
    yield lab
    lab.close()


def file_of(lab: Lab) -> Path:
    return Path(lab.url.removeprefix("sqlite:///"))


def copied(lab: Lab) -> Path:
    """A good copy of the database as it is now."""
    copy = file_of(lab).with_name("copy.sqlite")
    with closing(sqlite3.connect(file_of(lab))) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def delete(file: Path, copy: Path) -> None:
    for side in ("", *SIDES):
        Path(f"{file}{side}").unlink(missing_ok=True)


def delete_the_file_alone(file: Path, copy: Path) -> None:
    file.unlink()


def truncate(file: Path, copy: Path) -> None:
    os.truncate(file, 0)


def truncate_in_part(file: Path, copy: Path) -> None:
    os.truncate(file, 8192)


def overwrite(file: Path, copy: Path) -> None:
    shutil.copyfile(copy, file)


def overwrite_and_delete_the_log(file: Path, copy: Path) -> None:
    shutil.copyfile(copy, file)
    for side in SIDES:
        Path(f"{file}{side}").unlink(missing_ok=True)


def move_over(file: Path, copy: Path) -> None:
    os.replace(copy, file)


def restore(file: Path, copy: Path) -> None:
    delete(file, copy)
    shutil.copyfile(copy, file)


def make_an_empty_one(file: Path, copy: Path) -> None:
    delete(file, copy)
    Store.open(f"sqlite:///{file}", create=True).close()


def knows(lab: Lab, lease: LeaseRow) -> bool:
    try:
        return [each.attempt for each in lab.broker.leases.find()] == [lease.attempt]
    except DatabaseError:
        return False


WAYS = [
    delete,
    delete_the_file_alone,
    truncate,
    truncate_in_part,
    overwrite,
    overwrite_and_delete_the_log,
    move_over,
    restore,
    make_an_empty_one,
]


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_lent_from_a_file_that_was_replaced(
    file_lab: Lab, way: Callable[[Path, Path], None]
) -> None:
    file = file_of(file_lab)
    copy = copied(file_lab)
    lease = file_lab.start("ada", attempt="a")
    file_lab.broker.leases.activate("a")
    # Some of it is in the file itself, as after a day of work.
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    way(file, copy)
    if way in (overwrite, move_over) and knows(file_lab, lease):
        # What the copy lacks still stands in the write-ahead log.
        assert file_lab.start("grace").slice_id != lease.slice_id
        return
    for _ in range(2):
        with pytest.raises(DatabaseError) as caught:
            file_lab.start("grace")
        assert str(file) in str(caught.value)
        assert "migspawner db restore" in str(caught.value)
        with pytest.raises(DatabaseError):
            file_lab.broker.leases.find()
    assert lease.slice_uuid is not None
    if way in (delete, delete_the_file_alone):
        # Asking for it does not make an empty one.
        assert not file.exists()


@pytest.mark.parametrize("way", [delete, restore, make_an_empty_one])
def test_the_file_that_was_moved_away_is_used_again_when_it_is_back(
    file_lab: Lab, way: Callable[[Path, Path], None]
) -> None:
    file, old = file_of(file_lab), file_of(file_lab).with_name("old.sqlite")
    copied(file_lab).rename(old)
    lease = file_lab.start("ada")
    safe = file.with_name("safe")
    safe.mkdir()
    shutil.copyfile(copied(file_lab), safe / "new.sqlite")
    way(file, old)
    with pytest.raises(Replaced):
        file_lab.broker.leases.find()
    delete(file, old)
    shutil.copyfile(safe / "new.sqlite", file)
    assert file_lab.broker.leases.find() == (lease,)
    assert file_lab.start("grace").slice_id != lease.slice_id


@pytest.mark.parametrize("way", [overwrite, overwrite_and_delete_the_log, move_over])
def test_an_older_copy_under_a_newer_log_is_noticed(
    file_lab: Lab, way: Callable[[Path, Path], None]
) -> None:
    file, copy = file_of(file_lab), copied(file_lab)
    leases = [file_lab.start("ada", attempt="a")]
    with closing(sqlite3.connect(file)) as connection:
        # What was written so far is in the file alone, what comes now in the log alone.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    leases.append(file_lab.start("grace", attempt="g"))
    way(file, copy)
    with pytest.raises(DatabaseError, match=r"older copy|damaged|replaced"):
        file_lab.start("linus")


def test_a_write_ahead_log_that_was_deleted_is_noticed(file_lab: Lab) -> None:
    other = Store.open(file_lab.url)
    lease = file_lab.start("ada")
    for side in SIDES:
        Path(f"{file_of(file_lab)}{side}").unlink()
    try:
        taken = file_lab.start("grace").slice_id
    except DatabaseError:
        return
    assert taken != lease.slice_id
    other.close()


def test_a_transaction_that_was_written_to_a_replaced_file_is_no_success(file_lab: Lab) -> None:
    file, old = file_of(file_lab), copied(file_lab)
    with pytest.raises(DatabaseError, match="replaced"), file_lab.store.transaction():
        restore(file, old)


def test_a_file_that_is_replaced_while_a_writer_waits_is_not_written(
    file_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, old = file_of(file_lab), copied(file_lab)
    file_lab.start("ada")
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")

    def pause(seconds: float) -> None:
        holder.execute("COMMIT")
        restore(file, old)

    monkeypatch.setattr(store, "begin_writing", partial(engine.begin_writing, pause=pause))
    begun: list[Transaction] = []
    with pytest.raises(Replaced, match="older copy"):
        file_lab.store.run(begun.append)
    assert begun == []
    holder.close()


def test_checkpoints_by_others_are_no_replacement(file_lab: Lab) -> None:
    other = Lab(file_lab.url, clock=file_lab.clock)
    with closing(sqlite3.connect(file_of(file_lab))) as connection:
        for number in range(6):
            lease = (file_lab, other)[number % 2].start(f"user{number}")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (other, file_lab)[number % 2].stop(lease)
    other.close()
    assert len(file_lab.broker.leases.find(include_past=True)) == 6


def test_a_bare_file_is_not_judged_while_it_is_checkpointed(file_lab: Lab) -> None:
    file = file_of(file_lab)
    file_lab.start("ada")
    watched = DatabaseFile(file, sleep=lambda _: None)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    assert watched.problem(None) == ""
    code = f"""if True:
        import fcntl, sys
        index = open({str(file)!r} + "-shm", "r+b")
        fcntl.lockf(index, fcntl.LOCK_EX, 1, 121)
        print("locked", flush=True)
        sys.stdin.read()
    """
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"locked\n"
    older = file.with_name("older.sqlite")
    Store.open(f"sqlite:///{older}", create=True).close()
    with closing(sqlite3.connect(older)) as connection:
        connection.execute(
            "UPDATE database_identity SET identity = ?", [file_lab.store.position.identity]
        )
        connection.commit()
    shutil.copyfile(older, file)
    assert watched.problem(None) == ""
    other.communicate()
    assert "older copy" in watched.problem(None)


def test_a_bare_file_is_not_judged_while_a_reader_holds_its_checkpoint_up(file_lab: Lab) -> None:
    """Then some of its pages are newer than others, until the reader is done."""
    file = file_of(file_lab)
    watched = DatabaseFile(file, sleep=lambda _: None)
    with (
        closing(sqlite3.connect(file, isolation_level=None)) as writer,
        closing(sqlite3.connect(file, isolation_level=None)) as reader,
    ):
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        file_lab.start("ada")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM leases").fetchone()
        for number in range(50):
            lease = file_lab.start(f"user{number % 3}")
            file_lab.stop(lease)
        assert watched.problem(None) == ""
        _, logged, checkpointed = writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        assert 0 < checkpointed < logged
        # Pages of different times, as if the newest rows had not been written yet.
        older = replace(file_lab.store.position, lease=10**6)
        watched._stamp, watched._position = None, older
        assert watched.problem(None) == ""
        reader.execute("COMMIT")
        writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
        assert "older copy" in watched.problem(None)


def recreated(cluster: Cluster, url: str, old: str) -> None:
    cluster.drop(url)
    cluster.command(f"CREATE DATABASE {name_of(url)}")


def recreated_and_upgraded(cluster: Cluster, url: str, old: str) -> None:
    recreated(cluster, url, old)
    Store.open(url, create=True).close()


def from_older(cluster: Cluster, url: str, old: str) -> None:
    cluster.drop(url)
    cluster.command(f"CREATE DATABASE {name_of(url)} TEMPLATE {name_of(old)}")


def emptied_in_place(cluster: Cluster, url: str, old: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY")


def tables_dropped(cluster: Cluster, url: str, old: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")


def leases_lost(cluster: Cluster, url: str, old: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE leases CASCADE")


def name_of(url: str) -> str:
    return url.rsplit("/", 1)[1]


def replaced(cluster: Cluster, way: Callable[[Cluster, str, str], None]) -> Lab:
    """A lab whose database was replaced in that way after it had lent a slice."""
    url = cluster.new_database()
    lab = Lab(url)
    lab.report()
    lab.close()
    old = cluster.url(f"{name_of(url)}_old")
    cluster.command(f"CREATE DATABASE {name_of(old)} TEMPLATE {name_of(url)}")
    lab = Lab(url)
    lab.start("ada")
    way(cluster, url, old)
    return lab


@pytest.mark.parametrize(
    "way",
    [
        recreated,
        recreated_and_upgraded,
        from_older,
        emptied_in_place,
        tables_dropped,
        leases_lost,
    ],
)
def test_nothing_is_lent_from_a_postgresql_database_that_was_replaced(
    postgres: Cluster, way: Callable[[Cluster, str, str], None]
) -> None:
    lab = replaced(postgres, way)
    for _ in range(2):
        with pytest.raises(DatabaseError, match="is not the one that this process has used"):
            lab.start("grace")
    lab.close()


def test_a_restore_in_another_process_is_noticed(url: str) -> None:
    lab = Lab(url)
    lab.report()
    with lab.store.transaction() as tx:
        tx.change(sa.text("UPDATE database_identity SET generation = generation + 1"))
    with pytest.raises(Replaced, match="restored from a backup"):
        lab.start()
    lab.close()
    again = Lab(url)
    again.report()
    assert again.start().state == "pending"
    again.close()


def test_each_database_has_an_identity_of_its_own_that_stays(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path / name}" for name in "ab"]
    first = {url: Store.open(url, create=True).position for url in urls}
    assert first[urls[0]].identity != first[urls[1]].identity
    assert {url: Store.open(url).position for url in urls} == first


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (Position("a", 2, 5, 9), ""),
        (Position("a", 2, 6, 10), ""),
        (None, "empty"),
        (Position("b", 2, 5, 9), "another"),
        (Position("a", 1, 5, 9), "before the last restore"),
        (Position("a", 3, 5, 9), "restored from a backup"),
        (Position("a", 2, 4, 9), "older copy"),
        (Position("a", 2, 5, 8), "older copy"),
    ],
)
def test_what_tells_a_database_from_an_older_copy(found: Position | None, why: str) -> None:
    found_why = difference(Position("a", 2, 5, 9), found)
    assert why in found_why
    assert bool(found_why) == bool(why)
