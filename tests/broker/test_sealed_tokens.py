"""Tokens that stood in clear are removed by the upgrade, down to the bytes of the files."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from jupyterhub_migspawner.db import engine as engines
from jupyterhub_migspawner.db import migrations
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.errors import DatabaseError
from tests.broker.test_store import engine
from tests.broker.test_upgrades import at_first_schema

# Long enough to be kept in pages of its own, which a deletion sets free as they are.
TOKENS = [secrets.token_hex(3000) + f"secret-token-{number:04}" for number in range(40)]
SECRET = b"secret-token-"

FIND = Callable[[], dict[str, bytes]]


@pytest.fixture
def raw(kind: str, empty_url: str, request: pytest.FixtureRequest) -> FIND:
    """The files in which the database keeps its tables, as they are on the disk."""
    if kind == "sqlite":
        folder = Path(empty_url.removeprefix("sqlite:///")).parent
        return lambda: {each.name: each.read_bytes() for each in folder.iterdir()}
    cluster = request.getfixturevalue("postgres")

    def tables() -> dict[str, bytes]:
        cluster.command("CHECKPOINT")
        with sa.create_engine(
            empty_url.replace("postgresql:", "postgresql+psycopg:")
        ).connect() as c:
            oid = c.execute(
                sa.text("SELECT oid FROM pg_database WHERE datname = current_database()")
            ).scalar_one()
        folder = cluster._home / "data" / "base" / str(oid)
        return {each.name: each.read_bytes() for each in folder.iterdir()}

    return tables


def with_tokens(url: str) -> None:
    """A database of the schema before, in which tokens of servers come and went."""
    at_first_schema(url)
    made = engine(url)
    with made.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0013")
    with made.begin() as connection:
        lease = connection.execute(sa.text("SELECT min(id) FROM leases")).scalar_one()
        put = sa.text(
            "INSERT INTO stays (lease_id, url, token, protected_by, protected_why) "
            "VALUES (:lease, 'http://127.0.0.1:9/', :token, '', '')"
        )
        if connection.dialect.name == "sqlite":
            # As SQLite is built on some systems; on others it overwrites what it deletes.
            connection.exec_driver_sql("PRAGMA secure_delete = 0")
            for number, token in enumerate(TOKENS):
                connection.execute(put, {"lease": lease + number, "token": token})
            connection.execute(
                sa.text("DELETE FROM stays WHERE lease_id > :lease"), {"lease": lease}
            )
        else:
            for token in TOKENS:
                connection.execute(sa.text("DELETE FROM stays"))
                connection.execute(put, {"lease": lease, "token": token})
    made.dispose()


def holders(files: dict[str, bytes]) -> list[str]:
    return sorted(name for name, content in files.items() if SECRET in content)


def test_an_upgrade_erases_every_token_in_clear(empty_url: str, raw: FIND) -> None:
    with_tokens(empty_url)
    assert holders(raw())
    assert migrations.upgrade(empty_url).current
    assert holders(raw()) == []
    store = Store.open(empty_url)
    with store.transaction(write=False) as tx:
        (row,) = tx.rows(sa.text("SELECT url, sealed FROM stays"))
    store.close()
    assert tuple(row) == ("http://127.0.0.1:9/", "")


def test_an_upgrade_that_was_cut_short_is_finished_by_the_next(
    empty_url: str, raw: FIND, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_tokens(empty_url)
    with monkeypatch.context() as cut:
        cut.setattr(migrations, "erase", lambda url: None)
        migrations.upgrade(empty_url)
    assert holders(raw())
    migrations.erase(empty_url)
    assert holders(raw()) == []


def test_a_database_that_is_in_use_is_said_and_upgraded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/leases.sqlite"
    with_tokens(url)
    monkeypatch.setattr(engines, "WAIT_SECONDS", 0.1)
    reader = sqlite3.connect(tmp_path / "leases.sqlite", isolation_level=None)
    reader.execute("PRAGMA journal_mode=WAL")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM leases").fetchall()
    with pytest.raises(DatabaseError, match="run `migspawner db upgrade` again") as raised:
        migrations.upgrade(url)
    assert "stop everything that uses it" in str(raised.value)
    assert migrations.check(url).current
    reader.close()
    migrations.erase(url)
    assert holders({each.name: each.read_bytes() for each in tmp_path.iterdir()}) == []


def test_an_upgrade_of_a_new_database_has_nothing_to_erase(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(url: Any) -> None:
        raise AssertionError("nothing to erase")

    monkeypatch.setattr(migrations, "erase", fail)
    assert migrations.upgrade(empty_url).current
    assert migrations.upgrade(empty_url).current
