"""The schema: migrations and tables agree, and the database itself keeps the rules."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from jupyterhub_migspawner.db import migrations, tables
from jupyterhub_migspawner.errors import DatabaseError
from tests.broker.lab import Lab
from tests.broker.test_store import engine


def test_the_migrations_make_exactly_the_tables_of_the_code(url: str) -> None:
    made = engine(url)
    with made.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"version_table": migrations.VERSION_TABLE, "compare_server_default": True},
        )
        assert compare_metadata(context, tables.metadata) == []
        inspector = sa.inspect(connection)
        for name, table in tables.metadata.tables.items():
            predicates = {
                index["name"]: bool(
                    index["dialect_options"].get("sqlite_where") is not None
                    or index["dialect_options"].get("postgresql_where")
                )
                for index in inspector.get_indexes(name)
            }
            expected = {
                str(index.name): index.dialect_options["sqlite"]["where"] is not None
                for index in table.indexes
            }
            assert predicates == expected
            checks = {check["name"] for check in inspector.get_check_constraints(name)}
            assert checks == {
                str(c.name) for c in table.constraints if isinstance(c, sa.CheckConstraint)
            }
    made.dispose()


def test_the_known_revisions_are_those_that_exist() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    script = ScriptDirectory.from_config(config)
    walked = [step.revision for step in script.walk_revisions()]
    assert tuple(reversed(walked)) == migrations.REVISIONS


def copied(lab: Lab, lease_id: int, **changes: object) -> None:
    """Write a copy of a lease past all code that would refuse it."""
    leases = tables.leases
    with lab.store.transaction() as tx:
        row = dict(tx.first(sa.select(leases).where(leases.c.id == lease_id))._asdict())
        del row["id"]
        tx.change(sa.insert(leases).values(**{**row, **changes}))


@pytest.mark.parametrize("state", ["pending", "active", "releasing"])
def test_the_database_refuses_a_second_live_lease_on_a_slice(lab: Lab, state: str) -> None:
    lease = lab.start("ada")
    with pytest.raises(DatabaseError):
        copied(lab, lease.id, username="grace", attempt="other", state=state)
    assert lab.broker.leases.find(include_past=True) == (lease,)


@pytest.mark.parametrize("state", ["released", "lost"])
def test_past_leases_on_a_slice_do_not_count(lab: Lab, state: str) -> None:
    lease = lab.start("ada")
    copied(lab, lease.id, username="grace", attempt="other", state=state)
    assert len(lab.broker.leases.find(include_past=True)) == 2


@pytest.mark.parametrize("state", ["pending", "active"])
def test_the_database_refuses_a_second_lease_of_one_server(lab: Lab, state: str) -> None:
    lease = lab.start("ada")
    with pytest.raises(DatabaseError):
        copied(lab, lease.id, slice_id=lease.slice_id + 1, attempt="other", state=state)


def test_a_server_may_start_again_while_its_old_lease_is_given_back(lab: Lab) -> None:
    lease = lab.start("ada")
    copied(lab, lease.id, slice_id=lease.slice_id + 1, attempt="other", state="releasing")
    assert len(lab.broker.leases.find()) == 2


@pytest.mark.parametrize(
    "changes", [{"state": "nonsense"}, {"slice_id": 4711}, {"request_id": 4711}, {"attempt": None}]
)
def test_the_database_refuses_rows_that_make_no_sense(lab: Lab, changes: dict[str, object]) -> None:
    lease = lab.stop(lab.start("ada"))
    with pytest.raises(DatabaseError):
        copied(lab, lease.id, **{"attempt": "other", **changes})


def test_times_come_back_as_the_same_moment_in_utc(lab: Lab) -> None:
    tokyo = timezone(timedelta(hours=9))
    lab.clock.now = datetime(2026, 11, 23, 18, 0, 0, 123456, tzinfo=tokyo)
    lab.report()
    lease = lab.start()
    (stored,) = lab.broker.leases.find()
    assert stored == lease
    assert stored.since == lab.clock.now
    assert stored.since.utcoffset() == timedelta(0)
    assert stored.since.microsecond == 123456


def test_a_time_without_a_zone_is_not_stored(lab: Lab) -> None:
    with pytest.raises(DatabaseError), lab.store.transaction() as tx:
        tx.change(
            sa.insert(tables.nodes).values(
                name="n9", heartbeat_at=datetime(2026, 1, 1), driver_version=""
            )
        )
    assert [node.name for node in lab.broker.nodes.find()] == ["n1"]


def test_an_exception_in_a_transaction_undoes_all_of_it(lab: Lab) -> None:
    before = lab.stored()

    def spoil() -> None:
        with lab.store.transaction() as tx:
            tx.change(sa.delete(tables.events))
            tx.change(sa.update(tables.slices).values(held=1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        spoil()
    assert lab.stored() == before
