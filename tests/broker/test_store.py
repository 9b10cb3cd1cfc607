"""Opening a lease database: what is refused, in which words, and that nothing is left half made."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from jupyterhub_migspawner.db import migrations
from jupyterhub_migspawner.db.engine import WAIT_SECONDS, write_ahead
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import DatabaseError
from tests.broker.lab import Lab, card
from tests.broker.postgres import Cluster


def engine(url: str) -> sa.Engine:
    return sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))


def run(url: str, *statements: str) -> None:
    made = engine(url)
    with made.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    made.dispose()


def tables(url: str) -> set[str]:
    made = engine(url)
    found = set(sa.inspect(made).get_table_names())
    made.dispose()
    return found


def refusal(url: Any, *, create: bool = False) -> str:
    with pytest.raises(DatabaseError) as caught:
        Store.open(url, create=create)
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", ["''", "expected sqlite:///FILE"]),
        ("   ", ["expected sqlite:///FILE"]),
        (None, ["None", "expected"]),
        (3, ["3", "expected"]),
        ("leases.sqlite", ["leases.sqlite", "no URL"]),
        ("mysql://hub:secret@db/leases", ["mysql://hub:***@db/leases", "unknown driver 'mysql'"]),
        ("postgresql+asyncpg://hub:secret@db/leases", ["'postgresql+asyncpg'"]),
        ("sqlite+aiosqlite:///x.sqlite", ["'sqlite+aiosqlite'"]),
        ("postgres://hub:secret@db/leases", ["postgres://hub:***@db/leases", "postgresql://"]),
        ("postgresql://hub:secret@db", ["names no database"]),
        ("sqlite://", ["names no file", "three slashes"]),
        ("sqlite:///", ["names no file"]),
        ("sqlite:///:memory:", ["names no file", "in memory"]),
        ("sqlite://host/file", ["names no file"]),
        ("sqlite:leases.sqlite", ["names no file"]),
        ("sqlite:///x.sqlite?mode=ro", ["names no file"]),
        ("hub:secret@db/leases", ["no URL"]),
        ("postgresql://hub:secret@db:port/leases", ["no URL"]),
        ("postgresql:/hub:secret@db/leases", ["no URL"]),
        ("postgresql://db/leases?password=secret&x=%", []),
        ("postgresql://hub:secret@127.0.0.1:1/leases", ["hub:***@127.0.0.1:1", "reached"]),
        ("postgresql://127.0.0.1:1/leases?user=hub&password=secret", ["127.0.0.1:1/leases"]),
        ("postgresql://hub:secret@127.0.0.1/leases?nonsense=1", ["nonsense"]),
    ],
)
def test_a_wrong_url_is_refused_without_showing_its_password(url: Any, words: list[str]) -> None:
    sentence = refusal(url)
    for word in words:
        assert word in sentence
    assert "secret" not in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_without_psycopg_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DatabaseError) as refused:
        Store.open("postgresql://lab:secret@db/leases")
    assert f"{sys.executable} -m pip install 'psycopg[binary]>=3.2'" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_both_ways_of_naming_postgresql_work(postgres: Cluster, scheme: str) -> None:
    url = postgres.new_database()
    Store.open(url.replace("postgresql", scheme, 1), create=True).close()
    assert migrations.check(url).current


def test_a_missing_file_is_not_made_by_asking_for_it(tmp_path: Path) -> None:
    file = tmp_path / "none.sqlite"
    sentence = refusal(f"sqlite:///{file}")
    assert str(file) in sentence
    assert "`migspawner db upgrade`" in sentence
    assert migrations.check(f"sqlite:///{file}").state == "missing"
    assert not file.exists()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    sentence = refusal(f"sqlite:///{tmp_path}/no/such/leases.sqlite", create=True)
    assert f"the directory '{tmp_path}/no/such' does not exist" in sentence


def test_a_directory_is_no_database(tmp_path: Path) -> None:
    sentence = refusal(f"sqlite:///{tmp_path}", create=True)
    assert str(tmp_path) in sentence
    assert "cannot be opened" in sentence


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    text = "Not a database, but long enough to be taken for one.\n" * 50
    file.write_text(text)
    for create in (False, True):
        sentence = refusal(f"sqlite:///{file}", create=create)
        assert "is not a SQLite database" in sentence
        assert str(file) in sentence
    assert file.read_text() == text


def test_a_missing_postgresql_database_is_named(postgres: Cluster) -> None:
    sentence = refusal(postgres.url("nothing_here"))
    assert "/nothing_here does not exist on its server" in sentence


def test_an_empty_database_is_refused_unless_it_may_be_created(empty_url: str) -> None:
    if empty_url.startswith("sqlite"):
        sqlite3.connect(empty_url.removeprefix("sqlite:///")).close()
    assert "`migspawner db upgrade`" in refusal(empty_url)
    assert tables(empty_url) == set()
    Store.open(empty_url, create=True).close()
    Store.open(empty_url).close()
    assert migrations.check(empty_url).current


def test_a_database_of_another_program_is_refused_and_left_alone(empty_url: str) -> None:
    run(empty_url, "CREATE TABLE users (id INTEGER)", "CREATE TABLE alembic_version (v TEXT)")
    for create in (False, True):
        assert "holds tables of another program" in refusal(empty_url, create=create)
    with pytest.raises(DatabaseError, match="another program"):
        migrations.upgrade(empty_url)
    assert tables(empty_url) == {"users", "alembic_version"}


def test_a_newer_schema_is_refused_naming_both_revisions(url: str) -> None:
    run(url, "UPDATE migspawner_schema SET version_num = '9999'")
    for create in (False, True):
        sentence = refusal(url, create=create)
        assert "9999" in sentence
        assert migrations.HEAD in sentence
        assert "newer" in sentence
    with pytest.raises(DatabaseError, match="9999"):
        migrations.upgrade(url)
    assert migrations.check(url).state == "ahead"


def test_an_older_schema_is_refused_with_the_command_that_helps(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = migrations.HEAD
    monkeypatch.setattr(migrations, "REVISIONS", (*migrations.REVISIONS, "9000"))
    monkeypatch.setattr(migrations, "HEAD", "9000")
    sentence = refusal(url)
    assert found in sentence
    assert "9000" in sentence
    assert "`migspawner db upgrade`" in sentence
    # Only the command upgrades: a hub that starts must not move the schema under another one.
    assert "`migspawner db upgrade`" in refusal(url, create=True)


def test_a_creation_that_fails_leaves_nothing(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import command

    real = command.upgrade

    def fail_at_the_end(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        connection = args[0].attributes["connection"]
        connection.execute(sa.text("INSERT INTO no_such_table VALUES (1)"))

    monkeypatch.setattr(command, "upgrade", fail_at_the_end)
    with pytest.raises(DatabaseError):
        Store.open(empty_url, create=True)
    assert tables(empty_url) == set()
    monkeypatch.undo()
    Store.open(empty_url, create=True).close()


def test_upgrading_a_current_database_changes_nothing(lab: Lab) -> None:
    lab.start()
    before = lab.stored()
    assert migrations.upgrade(lab.url).current
    assert lab.stored() == before


def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "leases.sqlite"
    Store.open(f"sqlite:///{file}", create=True).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_odd_characters_in_the_path_are_no_problem(tmp_path: Path) -> None:
    directory = tmp_path / "a b%20c"
    directory.mkdir()
    url = f"sqlite:///{directory}/leases 1.sqlite"
    Lab(url).close()
    assert (directory / "leases 1.sqlite").exists()


# As root, files cannot be made unwritable for oneself; the child becomes nobody first.
AS_NOBODY = """
import os, sys, tempfile
from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.db.transaction import Transaction
# Once as it is, so that all modules are loaded: nobody may not read where they lie.
with tempfile.TemporaryDirectory() as home:
    Store.open(f"sqlite:///{home}/x", create=True).close()
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    Store.open(sys.argv[1], create=sys.argv[2] == "create").close()
    print("opened")
except DatabaseError as error:
    print(error)
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody may enter; pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="migspawner-open-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
        path.chmod(0o755)


def as_nobody(url: str, how: str = "open") -> str:
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, url, how], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("mode", [0o444, 0o000])
def test_a_file_that_cannot_be_read_or_written_is_named(open_directory: Path, mode: int) -> None:
    file = open_directory / "leases.sqlite"
    url = f"sqlite:///{file}"
    Store.open(url, create=True).close()
    file.chmod(mode)
    if os.getuid() != 0:
        open_directory.chmod(0o555)
    sentence = as_nobody(url)
    assert str(file) in sentence
    assert "read-only" in sentence if mode else "cannot be opened" in sentence


def test_a_directory_that_cannot_be_written_is_named(open_directory: Path) -> None:
    if os.getuid() != 0:
        open_directory.chmod(0o555)
    sentence = as_nobody(f"sqlite:///{open_directory}/leases.sqlite", "create")
    assert "cannot be created: Permission denied" in sentence
    assert list(open_directory.iterdir()) == []


def test_a_read_only_server_is_named(postgres: Cluster) -> None:
    url = postgres.new_database()
    Store.open(url, create=True).close()
    name = url.rsplit("/", 1)[1]
    postgres.command(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert "is read-only" in refusal(url)


def test_a_server_that_wants_a_password_is_named(postgres: Cluster) -> None:
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres.url("postgres").replace("postgres@", "nobody_known@"))
    url = postgres.url("postgres").replace("postgres@", "nobody_known:secret@")
    sentence = refusal(url)
    assert "refuses this user or password" in sentence
    assert "secret" not in sentence


def test_a_store_works_after_others_opened_and_closed_the_database(url: str) -> None:
    first, second = Lab(url), Lab(url)
    first.report(card(0))
    second.close()
    assert first.start().profile == "1g.5gb"
    first.close()


def busy_timeout(tx: Transaction) -> int:
    return int(tx.cursor.execute("PRAGMA busy_timeout").fetchone()[0])


def test_whoever_reads_a_file_waits_in_sqlite_and_whoever_writes_it_does_not(
    tmp_path: Path,
) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'leases.sqlite'}", create=True)
    for _ in range(2):
        with store.transaction() as tx:
            # The waiting is that of begin_writing, and it is over.
            assert busy_timeout(tx) == 0
        with store.transaction(write=False) as tx:
            assert busy_timeout(tx) == WAIT_SECONDS * 1000
    store.close()


def test_of_a_transaction_that_failed_nothing_is_in_the_next_one(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'leases.sqlite'}", create=True)

    def work(tx: Transaction) -> None:
        tx.change(sa.text("DELETE FROM database_identity"))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.run(work)
    with store.transaction() as tx:
        assert tx.first(sa.text("SELECT count(*) FROM database_identity"))[0] == 1
    store.close()


def test_a_store_that_is_closed_while_it_writes_leaves_nothing_open(tmp_path: Path) -> None:
    file = tmp_path / "leases.sqlite"
    store = Store.open(f"sqlite:///{file}", create=True)
    with store.transaction() as tx:
        store.close()
        tx.change(sa.text("UPDATE database_identity SET generation = generation"))
    names = [os.path.realpath(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")]
    assert not any(name.startswith(str(file)) for name in names)
    with store.transaction() as tx:  # a later call opens a new one
        assert tx.first(sa.text("SELECT generation FROM database_identity"))[0] == 1
    store.close()


def test_a_new_file_that_another_is_opening_is_waited_for(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "leases.sqlite", isolation_level=None)
    ours = sqlite3.connect(tmp_path / "leases.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            other.execute("COMMIT")

    write_ahead(ours, pause)
    assert len(pauses) == 3
    assert ours.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ours.execute("PRAGMA busy_timeout").fetchone() == (WAIT_SECONDS * 1000,)
    ours.close()
    other.close()


def test_a_new_file_that_another_keeps_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "leases.sqlite", isolation_level=None)
    ours = sqlite3.connect(tmp_path / "leases.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    pauses: list[float] = []
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        write_ahead(ours, pauses.append)
    assert sum(pauses) == pytest.approx(WAIT_SECONDS, rel=0.01)
    other.execute("COMMIT")
    ours.close()
    other.close()
