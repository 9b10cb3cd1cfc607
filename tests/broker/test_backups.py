"""Copies of the lease database: backup, restore, the move to another kind, and what damage is."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.db import backup_files, backups, migrations, soundness
from jupyterhub_migspawner.db.identity import Position
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.errors import DatabaseError
from tests.broker.lab import Lab
from tests.broker.test_store import engine, run
from tests.broker.test_upgrades import at_first_schema


def position(url: str) -> Position:
    store = Store.open(url)
    try:
        return store.position
    finally:
        store.close()


@pytest.fixture
def used(empty_url: str) -> str:
    """A database that was in use, and is closed."""
    lab = Lab(empty_url)
    lab.report()
    lab.broker.leases.activate(lab.start("ada", attempt="a").attempt)
    lab.stop(lab.start("grace"))
    lab.grant("linus")
    lab.close()
    return empty_url


def stored(url: str) -> str:
    lab = Lab(url)
    try:
        return lab.stored()
    finally:
        lab.close()


def rows(url: str) -> list[object]:
    """As :func:`stored`, but compared as values: the two kinds order the keys of JSON otherwise."""
    lab = Lab(url)
    try:
        broker = lab.broker
        return [
            broker.leases.find(include_past=True),
            broker.requests.find(),
            broker.slices.find(),
            broker.cards.find(),
            broker.events.find(limit=10_000),
        ]
    finally:
        lab.close()


def test_a_backup_and_a_restore_bring_everything_back(used: str, tmp_path: Path) -> None:
    before, was = stored(used), position(used)
    file = tmp_path / "copies" / "today.sqlite"
    file.parent.mkdir()
    backups.back_up(used, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in file.parent.iterdir()] == ["today.sqlite"]
    assert soundness.problems(f"sqlite:///{file}") == ()
    lab = Lab(used)
    lab.stop(lab.broker.leases.find()[0])
    lab.start("another user")
    lab.close()
    kept = backups.restore(used, file)
    assert stored(used) == before
    now = position(used)
    assert (now.identity, now.generation) == (was.identity, was.generation + 1)
    assert (now.lease, now.event) == (was.lease, was.event)
    assert kept
    assert soundness.problems(used) == ()
    # Numbers go on where the restored ones end.
    lab = Lab(used)
    lab.report()
    assert lab.start("grace").id == now.lease + 1
    lab.close()


def test_what_others_put_beside_a_copy_is_not_touched(used: str, tmp_path: Path) -> None:
    """In a folder where others write, as /tmp is: SQLite opens and removes a log by its name."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    for side in ("-journal", "-wal", "-shm"):
        (folder / f".today.sqlite.{os.getpid()}.backup{side}").symlink_to(victim)
        (folder / f".today.sqlite.{os.getpid()}.restore{side}").symlink_to(victim)
    traps = {each.name for each in folder.iterdir()}
    backups.back_up(used, folder / "today.sqlite")
    backups.restore(used, folder / "today.sqlite")
    assert victim.read_text() == "precious"
    assert {each.name for each in folder.iterdir()} == {*traps, "today.sqlite"}
    assert soundness.problems(used) == ()


def test_each_restore_is_a_generation_of_its_own(used: str, tmp_path: Path) -> None:
    backups.back_up(used, tmp_path / "copy")
    kept = set()
    for generation in (2, 3, 4):
        kept.add(backups.restore(used, tmp_path / "copy"))
        assert position(used).generation == generation
    # Within one second, too, nothing takes the place of what was kept before.
    assert len(kept) == 3


def test_what_was_replaced_is_kept(used: str, kind: str, tmp_path: Path) -> None:
    backups.back_up(used, tmp_path / "copy")
    lab = Lab(used)
    lab.start("after the backup")
    lab.close()
    kept = backups.restore(used, tmp_path / "copy")
    if kind == "sqlite":
        assert kept.startswith(used.removeprefix("sqlite:///") + ".replaced-")
        users = {lease.user for lease in Lab(f"sqlite:///{kept}").broker.leases.find()}
    else:
        made = sa.create_engine(used.replace("postgresql:", "postgresql+psycopg:"))
        with made.connect() as connection:
            table = kept.removeprefix("schema ") + ".leases"
            users = set(connection.execute(sa.text(f"SELECT username FROM {table}")).scalars())
        made.dispose()
    assert "after the backup" in users


def test_a_backup_overwrites_nothing(used: str, tmp_path: Path) -> None:
    file = tmp_path / "precious"
    file.write_text("a thesis")
    with pytest.raises(DatabaseError, match="exists already"):
        backups.back_up(used, file)
    assert file.read_text() == "a thesis"
    with pytest.raises(DatabaseError, match="cannot be written"):
        backups.back_up(used, tmp_path / "no" / "such" / "folder")


def test_a_backup_beside_people_at_work_is_one_moment(lab: Lab, tmp_path: Path) -> None:
    lab.start("ada")
    with lab.store.transaction() as tx:
        tx.change(sa.text("UPDATE slices SET held = held + 5"))
        if lab.store.postgres:
            backups.back_up(lab.url, tmp_path / "copy")
        tx.change(sa.text("UPDATE slices SET held = held - 5"))
    if not lab.store.postgres:
        backups.back_up(lab.url, tmp_path / "copy")
    assert soundness.problems(f"sqlite:///{tmp_path / 'copy'}") == ()


def not_a_database(file: Path) -> None:
    file.write_text("Not a database, but long enough to be taken for one.\n" * 50)


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def foreign(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE users (id INTEGER)")


def newer(file: Path) -> None:
    run(f"sqlite:///{file}", "UPDATE migspawner_schema SET version_num = '9999'")


def unsound(file: Path) -> None:
    run(f"sqlite:///{file}", "UPDATE slices SET held = 7")


@pytest.mark.parametrize("spoil", [not_a_database, truncated, emptied, foreign, newer, unsound])
def test_a_bad_backup_replaces_nothing(
    used: str, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    file = tmp_path / "copy"
    backups.back_up(used, file)
    spoil(file)
    before, there = stored(used), position(used)
    with pytest.raises(DatabaseError):
        backups.restore(used, file)
    assert (stored(used), position(used)) == (before, there)
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(DatabaseError, match="no backup"):
        backups.restore(used, tmp_path / "nothing")


@pytest.mark.parametrize("spoil", [not_a_database, truncated, emptied, Path.unlink])
def test_a_damaged_or_deleted_file_is_restored(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    url = f"sqlite:///{tmp_path / 'leases.sqlite'}"
    lab = Lab(url)
    lab.report()
    lab.start("ada")
    before = lab.stored()
    lab.close()
    backups.back_up(url, tmp_path / "copy")
    spoil(tmp_path / "leases.sqlite")
    kept = backups.restore(url, tmp_path / "copy")
    assert bool(kept) == (spoil is not Path.unlink)
    assert stored(url) == before
    assert stat.S_IMODE((tmp_path / "leases.sqlite").stat().st_mode) == 0o600


def test_a_backup_of_an_older_version_is_brought_up(used: str, tmp_path: Path) -> None:
    old = tmp_path / "old.sqlite"
    at_first_schema(f"sqlite:///{old}")
    backups.restore(used, old)
    assert migrations.check(used).current
    lab = Lab(used)
    assert {lease.user for lease in lab.broker.leases.find()} == {"ada"}
    lab.close()
    # The backup itself is as it was.
    assert migrations.check(f"sqlite:///{old}").state == "behind"


def test_an_older_sqlite_database_can_be_backed_up_before_its_upgrade(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    at_first_schema(url)
    backups.back_up(url, tmp_path / "copy")
    assert migrations.check(f"sqlite:///{tmp_path / 'copy'}").state == "behind"


USER = """
import sys
from jupyterhub_migspawner.db.store import Store
store = Store.open(sys.argv[1])
store.read(lambda tx: None)
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def user(used: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has the database open."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, used], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"open\n"
    yield process
    process.communicate()


def test_a_database_in_use_is_not_replaced(
    used: str, user: subprocess.Popen[bytes], tmp_path: Path, kind: str
) -> None:
    backups.back_up(used, tmp_path / "copy")
    with pytest.raises(DatabaseError, match=r"in use by .*; stop the hub first"):
        backups.restore(used, tmp_path / "copy")
    with pytest.raises(DatabaseError, match="in use"):
        backups.copy(used, f"sqlite:///{tmp_path / 'other'}")
    if kind == "sqlite":
        # Also when its file is gone already.
        Path(used.removeprefix("sqlite:///")).unlink()
        with pytest.raises(DatabaseError, match=f"process {user.pid}"):
            backups.restore(used, tmp_path / "copy")
    user.communicate()
    backups.restore(used, tmp_path / "copy")


def test_a_busy_process_that_closes_files_meanwhile_is_a_user_still(
    used: str, user: subprocess.Popen[bytes], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind != "sqlite":
        return
    real = os.listdir

    def listdir(path: str | Path = ".") -> list[str]:
        # One that was open when the folder was read, and is closed by now.
        return [*(["4242"] if str(path).endswith("/fd") else []), *real(path)]

    monkeypatch.setattr(os, "listdir", listdir)
    assert backups.users_of(used) == [f"process {user.pid}"]


def test_whose_files_cannot_be_seen_is_no_sign_that_none_are_open(
    used: str, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if kind != "sqlite":
        return
    mig = MigBroker(database_url=used)
    backups.back_up(used, tmp_path / "copy")

    def readlink(*_: object) -> str:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "readlink", readlink)
    with pytest.raises(DatabaseError, match="Too many open files"):
        backups.restore(used, tmp_path / "copy")
    assert not backup_files.was_lost(mig.resolved_database_url())
    Path(used.removeprefix("sqlite:///")).unlink()
    assert backup_files.was_lost(mig.resolved_database_url())


def test_a_move_to_the_other_kind_and_back_changes_nothing(
    used: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    before, was = rows(used), position(used)
    if kind == "sqlite":
        other = request.getfixturevalue("postgres").new_database()
    else:
        other = f"sqlite:///{tmp_path / 'other.sqlite'}"
    backups.copy(used, other)
    assert rows(other) == before
    assert position(other).identity == was.identity
    assert position(other).generation == was.generation + 1
    assert soundness.problems(other) == ()
    with pytest.raises(DatabaseError, match="is not empty"):
        backups.copy(used, other)


def test_a_sound_database_has_no_problems(lab: Lab) -> None:
    lab.start("ada")
    lab.grant("grace")
    lab.start("linus")
    assert soundness.problems(lab.url) == ()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE slices SET held = 3 WHERE id = 1", "counts 3 live leases"),
        ("UPDATE slices SET held = 0", "counts 0 live leases, and has 1"),
        ("UPDATE slices SET shared_by = 'course' WHERE held = 0", "nobody on them"),
        ("UPDATE leases SET start = 6", "does not lie where its slice"),
        ("DROP INDEX leases_one_a_seat", "index leases_one_a_seat is missing"),
        ("DROP TABLE readings", "table readings is missing"),
        ("ALTER TABLE tickets DROP COLUMN overtaken", "column tickets.overtaken is missing"),
        ("DELETE FROM database_identity", "0 identities"),
    ],
)
def test_what_is_not_sound_is_named(empty_url: str, statement: str, words: str) -> None:
    lab = Lab(empty_url)
    lab.report()
    lab.start("ada")
    lab.close()
    run(empty_url, statement)
    found = soundness.problems(empty_url)
    assert any(words in each for each in found), found


def test_two_leases_of_one_thing_are_found_without_their_indexes(empty_url: str) -> None:
    lab = Lab(empty_url)
    lab.report()
    lab.start("ada")
    lab.close()
    made = engine(empty_url)
    found_columns = sa.inspect(made).get_columns("leases")
    columns = [column["name"] for column in found_columns if column["name"] != "id"]
    made.dispose()
    listed = ", ".join(f'"{name}"' for name in columns)
    run(
        empty_url,
        *(f"DROP INDEX leases_{name}" for name in ("one_a_seat", "one_a_server", "attempt")),
        f"INSERT INTO leases ({listed}) SELECT {listed} FROM leases",
    )
    found = " ".join(soundness.problems(empty_url))
    for words in ("Seat 0 of slice", "has more than one lease", "The attempt"):
        assert words in found


def test_damage_of_a_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "leases.sqlite"
    lab = Lab(f"sqlite:///{file}")
    lab.report()
    lab.close()
    assert soundness.damage(file) == ()
    copy = tmp_path / "damaged.sqlite"
    shutil.copyfile(file, copy)
    with copy.open("r+b") as opened:
        # The pages after the first.
        opened.seek(4096)
        opened.write(b"\xff" * 4096 * 5)
    assert soundness.damage(copy)
    assert "SQLite" in soundness.damage(copy)[0]
    emptied(copy)
    assert "empty" in soundness.damage(copy)[0]
